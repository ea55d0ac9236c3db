"""The threads and processes that read the pictures."""

import dataclasses

import grain
import jax


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
  """Which share of each batch this process loads, from 0; see `shares_of`."""
  process_count: int = 1
  """How many equal shares a batch has; it must divide the batch size."""

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

  def share(self, batch_size: int) -> slice:
    """The examples of a batch that this process loads: side by side.

    Args:
      batch_size: examples in a batch, over all processes.
    """
    size = batch_size // self.process_count
    return slice(size * self.process_index, size * (self.process_index + 1))

  def read_options(self) -> grain.ReadOptions:
    """Grain's options for these threads."""
    # Grain's default buffer holds 500 elements, which are batches here. Threads
    # without a place in the buffer would have nothing to do.
    return grain.ReadOptions(
      num_threads=self.num_threads,
      prefetch_buffer_size=max(self.prefetch_buffer_size, self.num_threads),
    )


DEFAULT = Loading()


def shares_of(sharding: jax.sharding.Sharding) -> dict[str, int]:
  """Which examples of a batch the devices of this process need.

  Args:
    sharding: of batches. It may shard other axes than the first, too: several
      processes then load the same images.

  Returns:
    `process_index` and `process_count` of the `Loading` of this process.

  Raises:
    ValueError: if the examples of this process do not lie side by side.
  """
  size = sharding.num_devices
  # Enough axes for every sharding of images.
  indices = sharding.addressable_devices_indices_map((size,) * 4).values()
  # Devices that share out an image have the same examples.
  spans = {index[0].indices(size)[:2] for index in indices}
  first, stop = min(spans)[0], max(spans)[1]
  own = stop - first
  if own != sum(b - a for a, b in spans) or first % own or size % own:
    raise ValueError(
      "the devices of this process have examples of a batch that do not lie "
      "side by side: order the devices of the mesh by their process_index."
    )
  return {"process_index": first // own, "process_count": size // own}
