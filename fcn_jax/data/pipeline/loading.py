"""The threads and processes that read the pictures."""

import dataclasses

import grain


@dataclasses.dataclass(frozen=True)
class Loading:
  """Threads and processes that load pictures. They do not change the batches.

  A script that has workers needs `if __name__ == "__main__":`.
  """

  num_threads: int = 2
  """Threads that read and augment pictures, in each worker."""
  num_workers: int = 0
  """Processes that read and augment training pictures; 0 for threads only."""
  prefetch_buffer_size: int = 4
  """Batches that each worker makes ahead, at least one for each thread."""
  process_index: int = 0
  """Index of this process among those that share each batch."""
  process_count: int = 1
  """How many processes share each batch; it must divide the batch size."""

  def check(self, batch_size: int) -> None:
    """Raises a `ValueError` if a value is out of range.

    Args:
      batch_size: examples in a batch, over all processes.
    """
    for name, value in (
      ("batch_size", batch_size),
      ("num_threads", self.num_threads),
      ("prefetch_buffer_size", self.prefetch_buffer_size),
    ):
      if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    if self.num_workers < 0:
      raise ValueError(
        f"num_workers must be at least 0, not {self.num_workers}"
      )
    if self.process_count < 1 or batch_size % self.process_count:
      raise ValueError(
        f"batch_size {batch_size} is not a multiple of the number of"
        f" processes, {self.process_count}"
      )
    if not 0 <= self.process_index < self.process_count:
      raise ValueError(
        f"process_index must be in 0..{self.process_count - 1}, not"
        f" {self.process_index}"
      )

  def read_options(self) -> grain.ReadOptions:
    """Grain's options for these threads."""
    # Grain's default buffer holds 500 elements, which are batches here. Threads
    # without a place in the buffer would have nothing to do.
    return grain.ReadOptions(
      num_threads=self.num_threads,
      prefetch_buffer_size=max(self.prefetch_buffer_size, self.num_threads),
    )


DEFAULT = Loading()
