"""Batches for evaluation, by Grain: each example once, whole and in order."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from fcn_jax import checks
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.data.pipeline import batching
from fcn_jax.data.pipeline import loading as loading_lib
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import transforms


def eval_batches(
  source: Sequence[Any],
  *,
  batch_size: int,
  num_classes: int,
  size: tuple[int, int] | int | None = None,
  num_sizes: int = 1,
  image_sizes: np.ndarray | None = None,
  resize_factor: float = 1.0,
  loading: loading_lib.Loading = loading_lib.DEFAULT,
) -> grain.IterDataset:
  """Makes batches that hold each example once, whole and in order.

  Pictures are padded below and to the right with void. All-void examples fill
  up the last batch, so that scores count no pixel twice. Each process
  gets its share of each batch, examples that lie side by side; all have the
  same number of batches, of the same sizes.

  Args:
    source: the examples, see `pipeline`.
    batch_size: examples in a batch, over all processes.
    num_classes: labels must be in 0..num_classes - 1 or void.
    size: height and width of the batches, or one number for a square. None for
      the largest height and width in the source, or for `num_sizes` sizes.
    num_sizes: without `size`, batches are padded to at most this many sizes.
    image_sizes: [length, 2], `padding.image_sizes` of the source. Without it,
      all pictures are read once to find their sizes. Not used with `size`.
    resize_factor: resizes pictures and labels, to evaluate at another
      resolution such as 0.5. Scores are then those of the resized labels.
    loading: threads and processes; `num_workers` is not used.

  Returns:
    An iterable, which can be used any number of times, of `types.Batch` with
    images [N, height, width, 3] uint8 (or the channels and dtype of the
    source), labels [N, height, width] int32 and valid_sizes [N, 2] int32, N =
    batch_size / process_count. Examples that only fill up have the size 1x1.

  Raises:
    ValueError: an option is out of range, or the source is empty. While
      iterating: an image or its labels have the wrong shape, dtype or values
      (see `checks`), or a picture is larger than `size` or does not have the
      size in `image_sizes`.
  """
  batching.check_source(source, num_classes=num_classes)
  loading.check(batch_size)
  batching.check_resize_factor(resize_factor)
  if num_sizes < 1:
    raise ValueError(f"num_sizes must be at least 1, not {num_sizes}")
  if size is not None:
    size = checks.size(size, "size")
  if not len(source):
    raise ValueError("the data set has no examples")
  rescaled, padded_sizes = (), ()
  if size is None:
    image_sizes = batching.sizes_of(source, image_sizes, loading.num_threads)
    rescaled = [
      transforms.rescaled_size(one, factor=resize_factor) for one in image_sizes
    ]
    padded_sizes = padding.padded_sizes(rescaled, num_sizes=num_sizes)
  maker = _Maker(
    source,
    num_classes,
    size,
    image_sizes,
    rescaled,
    padded_sizes,
    resize_factor,
    loading,
  )
  num_batches = -(-len(source) // batch_size)
  dataset = grain.MapDataset.range(num_batches * batch_size)
  dataset = dataset.batch(batch_size, batch_fn=list).map(maker.make_batch)
  return dataset.to_iter_dataset(loading.read_options())


@dataclasses.dataclass(frozen=True)
class _Maker:
  """Makes batches from the numbers of their examples."""

  source: Sequence[Any]
  num_classes: int
  size: tuple[int, int] | None
  image_sizes: np.ndarray | None
  rescaled: Sequence[padding.Size]
  padded_sizes: Sequence[padding.Size]
  resize_factor: float
  loading: loading_lib.Loading

  def make_batch(self, indices: Sequence[int]) -> types.Batch:
    own = indices[self.loading.share(len(indices))]
    # Of the whole batch, so that it is the same for all processes.
    size = self.size or padding.smallest_holding(
      self.padded_sizes, self.rescaled[indices[0] : indices[-1] + 1]
    )
    pairs = [self._read(index) for index in own if index < len(self.source)]
    # A process without an example in the last batch needs the channels of one.
    image = pairs[0][0] if pairs else self.source[indices[0]].image
    pairs += [batching.nothing_like(image)] * (len(own) - len(pairs))
    return batching.stack(pairs, size=size, with_valid_sizes=True)

  def _read(self, index: int) -> transforms.Pair:
    example = self.source[index]
    batching.check_example(example, num_classes=self.num_classes)
    image, label = transforms.rescale(
      example.image, example.label, factor=self.resize_factor
    )
    if self.size is None:
      batching.check_size(example, self.image_sizes[index])
    elif (np.array(label.shape[:2]) > self.size).any():
      raise ValueError(
        f"{reprs.shown(example.name)} has {label.shape[0]}x{label.shape[1]}"
        f" pixels (height x width), more than the size of the batch,"
        f" {self.size[0]}x{self.size[1]}; give a larger size, or none"
      )
    return image, label
