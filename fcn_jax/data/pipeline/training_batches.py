"""Batches for training, by Grain: shuffled, augmented, without end."""

import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from fcn_jax import types
from fcn_jax.data.pipeline import augmentation as augmentation_lib
from fcn_jax.data.pipeline import batching
from fcn_jax.data.pipeline import foreground
from fcn_jax.data.pipeline import loading as loading_lib
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import transforms


def train_batches(
  source: Sequence[Any],
  *,
  batch_size: int,
  augmentation: augmentation_lib.Augmentation,
  num_classes: int | Mapping[str, int],
  seed: int,
  resize_factor: float = 1.0,
  num_epochs: int | None = None,
  first_batch: int = 0,
  image_sizes: np.ndarray | None = None,
  holds_class: np.ndarray | None = None,
  loading: loading_lib.Loading = loading_lib.DEFAULT,
) -> grain.DatasetIterator:
  """Makes shuffled, augmented batches.

  Batch k depends only on the source, the options and k, not on `loading`. To
  resume a run, give its next batch as `first_batch`. Each
  process gets its share of each batch, examples that lie side by side.

  Pictures are padded below and to the right. Without crops, each batch is
  padded to one of a few sizes, so that a compiled step compiles only a few
  times, and `valid_sizes` says where the pictures end.

  Args:
    source: the examples, see `pipeline`.
    batch_size: examples in a batch, over all processes.
    augmentation: random changes of the pictures, and the size of crops.
    num_classes: labels must be in 0..num_classes - 1 or void. For L kinds of
      labels: the number of classes of each by the name of its head, in order,
      as for `models.FCN`.
    seed: of the order and of the augmentation.
    resize_factor: resizes pictures and labels, to train at another resolution
      such as 0.5.
    num_epochs: how often each example is used, but where a forced crop takes
      its place; None means endlessly. A batch may span the end of an epoch.
      Examples that do not fill the very last batch are left out.
    first_batch: how many batches to leave out at the beginning, without
      reading them.
    image_sizes: [length, 2], `padding.image_sizes` of the source. Without it,
      all pictures are read once to find their sizes. Not used with crops.
    holds_class: [length, C] bool, `foreground.holds_class` of the source.
      Without it, all labels are read once. Only used with a `foreground_share`
      or `copy_paste`.
    loading: threads and processes. With workers, call `close` on the iterator
      when done.

  Returns:
    An iterator of `types.Batch` with images [N, height, width, 3] uint8 (or the
    channels and dtype of the source) and labels [N, height, width] int32 (or a
    dict of them by head), N = batch_size / process_count. Without crops it also
    has valid_sizes [N, 2] int32. Its `get_state` and `set_state` work only
    between iterators with equal `first_batch` and `num_workers`.

  Raises:
    ValueError: an option is out of range, or the source has fewer examples than
      a batch. While iterating: an image or its labels have the wrong shape,
      dtype or values (see `checks`), a picture does not have the size in
      `image_sizes`, or it has no colours to change.
  """
  batching.check_source(source, num_classes=num_classes)
  augmentation.check()
  loading.check(batch_size)
  batching.check_resize_factor(resize_factor)
  if num_epochs is not None and num_epochs < 1:
    raise ValueError(f"num_epochs must be at least 1, not {num_epochs}")
  if batch_size > len(source):
    raise ValueError(
      f"batch_size {batch_size} is larger than the data set, which has"
      f" {len(source)} examples"
    )
  padded_sizes = ()
  if augmentation.crop_size is None:
    image_sizes = batching.sizes_of(source, image_sizes, loading.num_threads)
    padded_sizes = sizes_of_batches(
      image_sizes,
      batch_size=batch_size,
      augmentation=augmentation,
      resize_factor=resize_factor,
    )
  forced = pasted = None
  if augmentation.needs_classes:
    if holds_class is None:
      holds_class = foreground.holds_class(
        source, num_classes=num_classes, num_threads=loading.num_threads
      )
    if len(holds_class) != len(source):
      raise ValueError(
        f"holds_class has {len(holds_class)} rows, but the data set has"
        f" {len(source)} examples"
      )
    forced = foreground.Forced.of(augmentation, holds_class)
    pasted = foreground.Forced.pasted(augmentation, holds_class)
  maker = _Maker(
    source,
    augmentation,
    num_classes,
    image_sizes,
    padded_sizes,
    share=loading.share(batch_size),
  )
  # Whole batches are made first and then shared out: otherwise one process
  # could have a batch more than another, and wait for it forever.
  dataset = _drawn(
    len(source),
    seed,
    num_epochs,
    batch_size,
    _factors(augmentation, resize_factor),
    forced,
    pasted,
  )
  if not 0 <= first_batch <= len(dataset):
    raise ValueError(
      f"first_batch must be in 0..{len(dataset)}, the number of batches, not"
      f" {first_batch}"
    )
  dataset = dataset[first_batch:].map(maker.make_batch)
  dataset = dataset.to_iter_dataset(loading.read_options())
  if loading.num_workers:
    return _FromWorkers(iter(_in_workers(dataset, loading.num_workers)))
  return iter(dataset)


def sizes_of_batches(
  image_sizes: np.ndarray,
  *,
  batch_size: int,
  augmentation: augmentation_lib.Augmentation,
  resize_factor: float = 1.0,
) -> tuple[padding.Size, ...]:
  """Returns the sizes that batches of `train_batches` have without crops.

  Args:
    image_sizes: [length, 2], `padding.image_sizes` of the source.
    batch_size: as for `train_batches`.
    augmentation: as for `train_batches`.
    resize_factor: as for `train_batches`.
  """
  needed = padding.batch_sizes(
    image_sizes,
    batch_size=batch_size,
    scale_range=_factors(augmentation, resize_factor),
  )
  return padding.padded_sizes(needed, num_sizes=augmentation.num_sizes)


def _factors(
  augmentation: augmentation_lib.Augmentation, resize_factor: float
) -> tuple[float, float]:
  """The range of factors on the size of a picture."""
  # Both are applied at once, so that the image is interpolated only once.
  smallest, largest = augmentation.scale_range
  return smallest * resize_factor, largest * resize_factor


def indices_of_batch(
  num_examples: int,
  *,
  batch_size: int,
  seed: int,
  number: int,
  augmentation: augmentation_lib.Augmentation | None = None,
  holds_class: np.ndarray | None = None,
) -> list[int]:
  """Returns which examples a batch of `train_batches` has, without reading.

  Those from which a class is pasted into another one are left out.

  Args:
    num_examples: length of the source.
    batch_size: as for `train_batches`.
    seed: as for `train_batches`.
    number: of the batch, from 0.
    augmentation: as for `train_batches`; only a `foreground_share` matters.
    holds_class: as for `train_batches`, if there is such a share.
  """
  forced = None
  if augmentation is not None and augmentation.foreground_share:
    if holds_class is None:
      raise ValueError(
        "with a foreground_share, the examples of a batch depend on their "
        "labels: give holds_class, from foreground.holds_class"
      )
    forced = foreground.Forced.of(augmentation, holds_class)
  dataset = _drawn(num_examples, seed, None, batch_size, (1.0, 1.0), forced)
  return [one.index for one in dataset[number]]


def _drawn(
  num_examples: int,
  seed: int,
  num_epochs: int | None,
  batch_size: int,
  factor_range: tuple[float, float],
  forced: foreground.Forced | None,
  pasted: foreground.Forced | None = None,
) -> grain.MapDataset:
  """The examples of each batch, in the order of training."""

  def draw(index: int, generator: np.random.Generator) -> _Drawn:
    # Grain reuses its generator for the next example.
    own = np.random.default_rng(generator.integers(2**63))
    return _Drawn(index, own, own.uniform(*factor_range))

  def force(drawn: list[_Drawn]) -> list[_Drawn]:
    first = len(drawn) - forced.number(len(drawn))
    result = drawn[:first]
    for one in drawn[first:]:
      index, of_class = forced.draw(one.generator)
      result.append(one._replace(index=index, foreground=of_class))
    return result

  def paste(drawn: list[_Drawn]) -> list[_Drawn]:
    return [
      one._replace(pasted=paste_into(one.generator))
      if one.generator.uniform() < pasted.share
      else one
      for one in drawn
    ]

  def paste_into(generator: np.random.Generator) -> _Drawn:
    index, of_class = pasted.draw(generator)
    factor = generator.uniform(*factor_range)
    return _Drawn(index, generator, factor, of_class)

  dataset = grain.MapDataset.range(num_examples).seed(seed).shuffle()
  dataset = dataset.repeat(num_epochs).random_map(draw)
  dataset = dataset.batch(batch_size, drop_remainder=True, batch_fn=list)
  if forced is not None:
    dataset = dataset.map(force)
  return dataset if pasted is None else dataset.map(paste)


class _Drawn(NamedTuple):
  """An example of a batch, its randomness, its scale and the class to show.

  `pasted` is an example whose class is pasted into this one.
  """

  index: int
  generator: np.random.Generator
  factor: float
  foreground: int | None = None
  pasted: "_Drawn | None" = None


@dataclasses.dataclass(frozen=True)
class _Maker:
  """Makes batches from the numbers of their examples."""

  source: Sequence[Any]
  augmentation: augmentation_lib.Augmentation
  num_classes: int | Mapping[str, int]
  image_sizes: np.ndarray | None
  padded_sizes: Sequence[padding.Size]
  share: slice

  def make_batch(self, drawn: Sequence[_Drawn]) -> types.Batch:
    whole = self.augmentation.crop_size is None
    several = isinstance(self.num_classes, Mapping)
    return batching.stack(
      [self._read(one) for one in drawn[self.share]],
      # Of the whole batch, so that it is the same for all processes.
      size=self._padded_size(drawn) if whole else self.augmentation.crop_size,
      with_valid_sizes=whole,
      heads=tuple(self.num_classes) if several else (),
    )

  def _padded_size(self, drawn: Sequence[_Drawn]) -> padding.Size:
    sizes = [
      transforms.rescaled_size(self.image_sizes[one.index], factor=one.factor)
      for one in drawn
    ]
    return padding.smallest_holding(self.padded_sizes, sizes)

  def _read(self, drawn: _Drawn) -> transforms.Pair:
    example, pasted = self._example(drawn.index), None
    if drawn.pasted is not None:
      other = self._example(drawn.pasted.index)
      pasted = augmentation_lib.Pasted(
        other.image, other.label, drawn.pasted.factor, drawn.pasted.foreground
      )
    return self.augmentation.apply(
      drawn.generator,
      example.image,
      example.label,
      factor=drawn.factor,
      foreground=drawn.foreground,
      pasted=pasted,
    )

  def _example(self, index: int) -> Any:
    example = self.source[index]
    batching.check_example(example, num_classes=self.num_classes)
    if self.augmentation.crop_size is None:
      batching.check_size(example, self.image_sizes[index])
    return example


def _in_workers(
  dataset: grain.IterDataset, num_workers: int
) -> grain.IterDataset:
  # Grain reads absl's flags, which nobody parses in a notebook.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  return dataset.mp_prefetch(
    grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=1),
    worker_init_fn=_leave_signals_to_parent,
  )


class _FromWorkers(grain.DatasetIterator):
  """The batches of an iterator whose workers start at its first batch.

  Ctrl-C goes to all processes of a terminal. It would end a worker that has
  just begun and cannot ignore it yet, and with it the run.
  """

  def __init__(self, batches: grain.DatasetIterator):
    super().__init__()
    self._batches, self._has_begun = batches, False

  def __next__(self) -> types.Batch:
    if self._has_begun:
      return next(self._batches)
    self._has_begun = True
    # It would let signals through again when it starts.
    resource_tracker.ensure_running()
    # Processes and threads inherit what is blocked. Other threads of this
    # process get the signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
      return next(self._batches)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)

  def get_state(self) -> dict[str, Any]:
    return self._batches.get_state()

  def set_state(self, state: dict[str, Any]) -> None:
    self._batches.set_state(state)

  def close(self) -> None:
    self._batches.close()
    # On a CPU, batches on the device may lie in the memory that workers share.
    # JAX lets go of it when Python collects garbage, and not at the exit.
    gc.collect()


def _leave_signals_to_parent(index: int, count: int) -> None:
  """Lets a worker end when its parent does, and not before.

  Grain's workers wait forever for a parent that was killed. Ctrl-C goes to all
  processes of a terminal, but the parent may need to finish its work first.
  """
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
