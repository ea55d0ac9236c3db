"""From examples to batches, by Grain: for training, and for evaluation.

A source is anything with a length and, by number, examples with the attributes
`image` ([H, W, 3] uint8), `label` ([H, W] int32) and `name`: what
`data.load(...).source` is, or a list.
"""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from fcn_jax import types
from fcn_jax.data import transforms

# Batches that wait for the training loop. Grain's default holds 500 examples,
# which are 500 batches here.
_PREFETCH_BUFFER_SIZE = 4

# Examples in an endless sequence. Grain's own number, 2**63 - 1, overflows when
# it is sliced, since slices have their lengths computed in floats.
_ENDLESS = 2**48


def train_batches(
  source: Sequence[Any],
  *,
  batch_size: int,
  crop_size: tuple[int, int],
  scale_range: tuple[float, float] = (1.0, 1.0),
  flip: bool = True,
  resize_factor: float = 1.0,
  seed: int,
  num_classes: int,
  num_epochs: int | None = None,
  num_threads: int = 2,
  prefetch_buffer_size: int = _PREFETCH_BUFFER_SIZE,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Makes shuffled, augmented batches of one size.

  Each example is resized by `resize_factor` times a random scale, cropped at
  random (padded where it is smaller) and flipped at random. All
  follows from the seed and the example's place in the sequence, so that it is
  the same for any number of threads and of processes: process p of P has the
  examples p, p + P, ... of each batch.

  Args:
    source: the examples.
    batch_size: examples in a batch, over all processes.
    crop_size: height and width of the batch.
    scale_range: smallest and largest factor of the random scale.
    flip: whether half of the examples are mirrored.
    resize_factor: for training at another resolution, such as 0.5; losses and
      scores are then those of the resized labels.
    seed: of the order and of the augmentation.
    num_classes: labels outside 0..num_classes - 1 that are not void are an
      error.
    num_epochs: how often each example is used; None is without end. Batches
      run across the end of an epoch. What fills no batch at the very end is
      left out.
    num_threads: threads that read and augment.
    prefetch_buffer_size: batches made ahead.
    process_index: number of this process.
    process_count: number of processes, a divisor of `batch_size`.

  Returns:
    An iterator of `types.Batch` with images [N, height, width, 3] uint8 and
    labels [N, height, width] int32, N = batch_size / process_count. Its
    `get_state` and `set_state` serve to resume.

  Raises:
    ValueError: an option is out of range, or the source has not enough
      examples for a batch; while iterating, a label outside the classes.
  """
  _check_at_least_one(batch_size=batch_size, num_threads=num_threads)
  _check_at_least_one(prefetch_buffer_size=prefetch_buffer_size)
  if min(crop_size) < 1:
    raise ValueError(f"crop_size must be 1x1 at least, not {crop_size}")
  if not 0 < scale_range[0] <= scale_range[1]:
    raise ValueError(
      "scale_range must be (smallest, largest) with 0 < smallest <= largest,"
      f" not {scale_range}"
    )
  _check_resize_factor(resize_factor)
  if num_epochs is not None:
    _check_at_least_one(num_epochs=num_epochs)
  if batch_size > len(source):
    raise ValueError(
      f"batch_size {batch_size} is larger than the data set, which has"
      f" {len(source)} examples"
    )
  if process_count < 1 or batch_size % process_count:
    raise ValueError(
      f"batch_size {batch_size} is not a multiple of the number of processes,"
      f" {process_count}"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index must be in 0..{process_count - 1}, not {process_index}"
    )

  def augment(
    example: Any, generator: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    image, label = example.image, example.label
    _check_labels(example, num_classes)
    # Both factors at once, so that the image is interpolated once.
    image, label = transforms.random_scale(
      generator,
      image,
      label,
      scale_range=(
        scale_range[0] * resize_factor,
        scale_range[1] * resize_factor,
      ),
    )
    image, label = transforms.random_crop(
      generator, image, label, size=crop_size
    )
    if flip:
      image, label = transforms.random_flip(generator, image, label)
    return image, label

  dataset = grain.MapDataset.source(source).seed(seed).shuffle()
  dataset = dataset.repeat(num_epochs).random_map(augment)
  # Whole batches only, before they are shared out: otherwise one process could
  # have a batch more than another, and wait for it forever.
  length = min(len(dataset), _ENDLESS)
  dataset = dataset[: length // batch_size * batch_size]
  # After the random map, whose randomness depends on the place.
  dataset = dataset[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count, batch_fn=_stack)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=prefetch_buffer_size
  )
  return iter(dataset.to_iter_dataset(options))


def eval_batches(
  source: Sequence[Any],
  *,
  batch_size: int,
  size: tuple[int, int] | None = None,
  resize_factor: float = 1.0,
  num_classes: int,
  num_threads: int = 2,
  prefetch_buffer_size: int = _PREFETCH_BUFFER_SIZE,
) -> grain.IterDataset:
  """Makes batches of one size that hold each example once, in order.

  Pictures are padded below and to the right with void. The last batch is filled
  up with examples that are all void, so that scores count no pixel twice.

  Args:
    source: the examples.
    batch_size: examples in a batch.
    size: height and width of the batch; None is the largest height and the
      largest width in the source, for which it is read once.
    resize_factor: for evaluation at another resolution, such as 0.5; scores
      are then those of the resized labels, not of the original ones.
    num_classes: labels outside 0..num_classes - 1 that are not void are an
      error.
    num_threads: threads that read.
    prefetch_buffer_size: batches made ahead.

  Returns:
    An iterable, any number of times, of `types.Batch` with images
    [N, height, width, 3] uint8 and labels [N, height, width] int32.

  Raises:
    ValueError: an option is out of range, or the source is empty; while
      iterating, a picture larger than `size` or a label outside the classes.
  """
  _check_at_least_one(batch_size=batch_size, num_threads=num_threads)
  _check_at_least_one(prefetch_buffer_size=prefetch_buffer_size)
  _check_resize_factor(resize_factor)
  if size is not None and min(size) < 1:
    raise ValueError(f"size must be 1x1 at least, not {size}")
  if not len(source):
    raise ValueError("the data set has no examples")

  def read(index: int) -> tuple[np.ndarray, np.ndarray]:
    example = source[index]
    _check_labels(example, num_classes)
    return transforms.rescale(
      example.image, example.label, factor=resize_factor
    )

  if size is None:
    shapes = [read(index)[1].shape for index in range(len(source))]
    size = tuple(np.max(shapes, axis=0).tolist())

  def read_padded(index: int) -> tuple[np.ndarray, np.ndarray]:
    if index >= len(source):
      nothing = np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.int32)
      return transforms.pad_to(*nothing, size=size)
    image, label = read(index)
    if label.shape[0] > size[0] or label.shape[1] > size[1]:
      raise ValueError(
        f"{source[index].name} has {label.shape[0]}x{label.shape[1]} pixels"
        f" (height x width), more than the size of the batch,"
        f" {size[0]}x{size[1]}; give a larger size, or none"
      )
    return transforms.pad_to(image, label, size=size)

  num_batches = -(-len(source) // batch_size)
  dataset = grain.MapDataset.range(num_batches * batch_size).map(read_padded)
  dataset = dataset.batch(batch_size, batch_fn=_stack)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=prefetch_buffer_size
  )
  return dataset.to_iter_dataset(options)


def _stack(examples: Sequence[tuple[np.ndarray, np.ndarray]]) -> types.Batch:
  images, labels = zip(*examples, strict=True)
  return types.Batch(images=np.stack(images), labels=np.stack(labels))


def _check_labels(example: Any, num_classes: int) -> None:
  label = example.label
  wrong = (label != types.IGNORE_LABEL) & ((label < 0) | (label >= num_classes))
  if wrong.any():
    raise ValueError(
      f"{example.name} has the label {label[wrong][0]}, which is neither a"
      f" class (0..{num_classes - 1}) nor void ({types.IGNORE_LABEL}); correct"
      " its mask or the number of classes"
    )


def _check_at_least_one(**options: int) -> None:
  for name, value in options.items():
    if value < 1:
      raise ValueError(f"{name} must be 1 at least, not {value}")


def _check_resize_factor(resize_factor: float) -> None:
  if not resize_factor > 0:
    raise ValueError(f"resize_factor must be above 0, not {resize_factor}")
