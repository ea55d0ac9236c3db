"""From examples to batches, by Grain: for training, and for evaluation.

A source is anything with a length and, by number, examples with the attributes
`image` ([H, W, 3] uint8), `label` ([H, W] integers) and `name`: what
`data.load(...).source` is, or a list. Images may have other channels, and be
float32; labels may be of several kinds, [H, W, L]: see `combining`.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from fcn_jax import types
from fcn_jax.data.pipeline import batching
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import photometric
from fcn_jax.data.pipeline import transforms

# Batches that wait for the training loop. Grain's default holds 500 examples,
# which are 500 batches here.
_PREFETCH_BUFFER_SIZE = 4


def train_batches(
  source: Sequence[Any],
  *,
  batch_size: int,
  crop_size: tuple[int, int] | None,
  scale_range: tuple[float, float] = (1.0, 1.0),
  min_labelled: float = 0.0,
  flip: bool = True,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
  blur_probability: float = 0.0,
  blur_sigma: tuple[float, float] = (0.1, 2.0),
  resize_factor: float = 1.0,
  num_sizes: int = 4,
  image_sizes: np.ndarray | None = None,
  seed: int,
  num_classes: int | Mapping[str, int],
  num_epochs: int | None = None,
  first_batch: int = 0,
  num_threads: int = 2,
  num_workers: int = 0,
  prefetch_buffer_size: int = _PREFETCH_BUFFER_SIZE,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Makes shuffled, augmented batches.

  Each example is resized by `resize_factor` times a random scale, cropped at
  random, changed in colour, blurred and mirrored at random, and padded below
  and to the right where it is smaller than the batch. Batch k follows from
  the source, the options and k alone: a run is resumed by `first_batch`, with
  any number of threads, workers and processes. Process p of P has the
  examples p, p + P, ... of each batch.

  Without a crop, pictures keep their sizes. Each batch is padded to one of a
  few sizes, so that a compiled step compiles as often and no more, and `sizes`
  says what of it is picture.

  Args:
    source: the examples.
    batch_size: examples in a batch, over all processes.
    crop_size: height and width of the batch; None for whole pictures.
    scale_range: smallest and largest factor of the random scale.
    min_labelled: share of a crop that is to have labels other than void, see
      `transforms.random_crop`.
    flip: whether half of the examples are mirrored.
    brightness: strength of a random change, see `photometric.color_jitter`.
    contrast: the same.
    saturation: the same.
    hue: the same.
    blur_probability: share of the examples that are blurred.
    blur_sigma: see `photometric.random_blur`.
    resize_factor: for training at another resolution, such as 0.5; losses and
      scores are then those of the resized labels.
    num_sizes: sizes of batches at most, without a crop.
    image_sizes: [length, 2], `padding.image_sizes` of the source, which is
      otherwise read once for it. Not used with a crop.
    seed: of the order and of the augmentation.
    num_classes: labels outside 0..num_classes - 1 that are not void are an
      error. For L kinds of labels: the classes of each by the name of the
      network's head for it, in order, as for `models.FCN`.
    num_epochs: how often each example is used; None is without end. Batches
      run across the end of an epoch. What fills no batch at the very end is
      left out.
    first_batch: batches that are left out at the beginning, without reading
      them.
    num_threads: threads that read and augment, in each worker.
    num_workers: processes that read and augment; 0 for threads of this one.
      A script that has some needs `if __name__ == "__main__":`.
    prefetch_buffer_size: batches made ahead, by each worker.
    process_index: number of this process.
    process_count: number of processes, a divisor of `batch_size`.

  Returns:
    An iterator of `types.Batch` with images [N, height, width, 3] uint8 (or the
    channels and dtype of the source) and labels [N, height, width] int32 (or
    those of each head by its name), N = batch_size / process_count, and,
    without a crop, sizes [N, 2] int32. With workers, call its `close` when
    done. Its `get_state` and `set_state` suit iterators with the same
    `first_batch` and `num_workers` only.

  Raises:
    ValueError: an option is out of range, or the source has not enough
      examples for a batch; while iterating, a label outside the classes, a
      picture of another size than `image_sizes` says, or one without colours
      that are to be changed.
  """
  _check_at_least_one(
    batch_size=batch_size,
    num_threads=num_threads,
    prefetch_buffer_size=prefetch_buffer_size,
    num_sizes=num_sizes,
  )
  heads = tuple(num_classes) if isinstance(num_classes, Mapping) else ()
  if crop_size is not None and min(crop_size) < 1:
    raise ValueError(f"crop_size must be 1x1 at least, not {crop_size}")
  if not 0 < scale_range[0] <= scale_range[1]:
    raise ValueError(
      "scale_range must be (smallest, largest) with 0 < smallest <= largest,"
      f" not {scale_range}"
    )
  if not 0 <= min_labelled <= 1:
    raise ValueError(f"min_labelled must be in 0..1, not {min_labelled}")
  if min_labelled and crop_size is None:
    raise ValueError("min_labelled chooses crops; give it with a crop_size")
  _check_resize_factor(resize_factor)
  jitter = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
  }
  photometric.check_jitter(**jitter)
  blur = {"probability": blur_probability, "sigma_range": blur_sigma}
  photometric.check_blur(**blur)
  if num_epochs is not None:
    _check_at_least_one(num_epochs=num_epochs)
  if num_workers < 0:
    raise ValueError(f"num_workers must be 0 at least, not {num_workers}")
  if batch_size > len(source):
    raise ValueError(
      f"batch_size {batch_size} is larger than the data set, which has"
      f" {len(source)} examples"
    )
  _check_processes(batch_size, process_index, process_count)
  # Both factors at once, so that the image is interpolated once.
  factor_range = tuple(factor * resize_factor for factor in scale_range)
  if crop_size is None:
    image_sizes = _image_sizes(source, image_sizes, num_threads)
    padded_sizes = padding.padded_sizes(
      padding.batch_sizes(
        image_sizes, batch_size=batch_size, scale_range=factor_range
      ),
      num_sizes=num_sizes,
    )

  def draw(
    index: int, generator: np.random.Generator
  ) -> tuple[int, np.random.Generator, float]:
    # Grain uses its own generator again for the next example.
    own = np.random.default_rng(generator.integers(2**63))
    return index, own, own.uniform(*factor_range)

  def augment(
    index: int, generator: np.random.Generator, factor: float
  ) -> transforms.Pair:
    example = source[index]
    batching.check_labels(example, num_classes=num_classes)
    pair = example.image, example.label
    if crop_size is None:
      batching.check_size(example, image_sizes[index])
      image, label = transforms.rescale(*pair, factor=factor)
    else:
      image, label = transforms.random_crop(
        generator,
        *pair,
        size=crop_size,
        factor=factor,
        min_labelled=min_labelled,
      )
    image = photometric.color_jitter(generator, image, **jitter)
    image = photometric.random_blur(generator, image, **blur)
    if flip:
      image, label = transforms.random_flip(generator, image, label)
    return image, label

  def make_batch(
    drawn: Sequence[tuple[int, np.random.Generator, float]],
  ) -> types.Batch:
    # All of the batch: its size is the same for all processes.
    size = crop_size or padding.smallest_holding(
      padded_sizes,
      [
        transforms.rescaled_size(image_sizes[index], factor=factor)
        for index, _, factor in drawn
      ],
    )
    pairs = [augment(*one) for one in drawn[process_index::process_count]]
    return batching.stack(
      pairs, size=size, with_valid_sizes=crop_size is None, heads=heads
    )

  dataset = _shuffled(len(source), seed, num_epochs).random_map(draw)
  # Whole batches, which are shared out afterwards: otherwise one process could
  # have a batch more than another, and wait for it forever.
  dataset = dataset.batch(batch_size, drop_remainder=True, batch_fn=list)
  if not 0 <= first_batch <= len(dataset):
    raise ValueError(
      f"first_batch must be in 0..{len(dataset)}, the number of batches, not"
      f" {first_batch}"
    )
  dataset = dataset[first_batch:].map(make_batch)
  dataset = dataset.to_iter_dataset(
    grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=prefetch_buffer_size
    )
  )
  if num_workers:
    # Grain reads absl's flags, which nobody parses in a notebook.
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=1),
      worker_init_fn=_leave_signals_to_parent,
    )
  return iter(dataset)


def indices_of_batch(
  num_examples: int, *, batch_size: int, seed: int, number: int
) -> list[int]:
  """Which examples are in a batch of `train_batches`, without reading them.

  Args:
    num_examples: length of the source.
    batch_size: as for `train_batches`.
    seed: as for `train_batches`.
    number: of the batch, from 0.
  """
  dataset = _shuffled(num_examples, seed, None)
  return dataset.batch(batch_size, batch_fn=list)[number]


def eval_batches(
  source: Sequence[Any],
  *,
  batch_size: int,
  size: tuple[int, int] | None = None,
  num_sizes: int = 1,
  image_sizes: np.ndarray | None = None,
  resize_factor: float = 1.0,
  num_classes: int,
  num_threads: int = 2,
  prefetch_buffer_size: int = _PREFETCH_BUFFER_SIZE,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.IterDataset:
  """Makes batches that hold each example once, whole and in order.

  Pictures are padded below and to the right with void. The last batch is filled
  up with examples that are all void, so that scores count no pixel twice.
  Process p of P has the examples p, p + P, ... of each batch; all have as many
  batches, of the same sizes.

  Args:
    source: the examples.
    batch_size: examples in a batch, over all processes.
    size: height and width of the batches; None is the largest height and the
      largest width in the source, or several sizes.
    num_sizes: sizes of batches at most, where `size` is None.
    image_sizes: [length, 2], `padding.image_sizes` of the source, which is
      otherwise read once for it. Not used where `size` is given.
    resize_factor: for evaluation at another resolution, such as 0.5; scores
      are then those of the resized labels, not of the original ones.
    num_classes: labels outside 0..num_classes - 1 that are not void are an
      error.
    num_threads: threads that read.
    prefetch_buffer_size: batches made ahead.
    process_index: number of this process.
    process_count: number of processes, a divisor of `batch_size`; 1 for images
      that are not [H, W, 3] uint8.

  Returns:
    An iterable, any number of times, of `types.Batch` with images
    [N, height, width, 3] uint8 (or the channels and dtype of the source),
    labels [N, height, width] int32 and sizes [N, 2] int32, N = batch_size /
    process_count. Examples that only fill up have the size 1x1.

  Raises:
    ValueError: an option is out of range, or the source is empty; while
      iterating, a label outside the classes, or a picture larger than `size`
      or of another size than `image_sizes` says.
  """
  _check_at_least_one(
    batch_size=batch_size,
    num_threads=num_threads,
    prefetch_buffer_size=prefetch_buffer_size,
    num_sizes=num_sizes,
  )
  _check_resize_factor(resize_factor)
  _check_processes(batch_size, process_index, process_count)
  if size is not None and min(size) < 1:
    raise ValueError(f"size must be 1x1 at least, not {size}")
  if not len(source):
    raise ValueError("the data set has no examples")
  if size is None:
    image_sizes = _image_sizes(source, image_sizes, num_threads)
    rescaled = [
      transforms.rescaled_size(one, factor=resize_factor) for one in image_sizes
    ]
    padded_sizes = padding.padded_sizes(rescaled, num_sizes=num_sizes)

  def read(index: int) -> transforms.Pair:
    example = source[index]
    batching.check_labels(example, num_classes=num_classes)
    if process_count > 1:
      # A process that has no example in a batch knows of no other channels.
      batching.check_plain(example)
    image, label = transforms.rescale(
      example.image, example.label, factor=resize_factor
    )
    if size is None:
      batching.check_size(example, image_sizes[index])
    elif label.shape[0] > size[0] or label.shape[1] > size[1]:
      raise ValueError(
        f"{example.name} has {label.shape[0]}x{label.shape[1]} pixels"
        f" (height x width), more than the size of the batch,"
        f" {size[0]}x{size[1]}; give a larger size, or none"
      )
    return image, label

  def make_batch(indices: Sequence[int]) -> types.Batch:
    own = indices[process_index::process_count]
    # All of the batch: its size is the same for all processes.
    padded_size = size or padding.smallest_holding(
      padded_sizes, rescaled[indices[0] : indices[-1] + 1]
    )
    pairs = [read(index) for index in own if index < len(source)]
    filler = batching.nothing_like(pairs[0][0]) if pairs else batching.NOTHING
    pairs += [filler] * (len(own) - len(pairs))
    return batching.stack(pairs, size=padded_size, with_valid_sizes=True)

  num_batches = -(-len(source) // batch_size)
  dataset = grain.MapDataset.range(num_batches * batch_size)
  dataset = dataset.batch(batch_size, batch_fn=list).map(make_batch)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=prefetch_buffer_size
  )
  return dataset.to_iter_dataset(options)


def _shuffled(
  num_examples: int, seed: int, num_epochs: int | None
) -> grain.MapDataset:
  """The numbers of the examples in the order of training."""
  dataset = grain.MapDataset.range(num_examples).seed(seed).shuffle()
  return dataset.repeat(num_epochs)


def _leave_signals_to_parent(index: int, count: int) -> None:
  """Lets a worker end when its parent does, and not before.

  Grain's wait forever for a parent that was killed. Ctrl-C goes to all
  processes of a terminal, but the parent may want to end in order.
  """
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def _image_sizes(
  source: Sequence[Any], image_sizes: np.ndarray | None, num_threads: int
) -> np.ndarray:
  if image_sizes is None:
    return padding.image_sizes(source, num_threads=num_threads)
  if np.shape(image_sizes) != (len(source), 2):
    raise ValueError(
      f"image_sizes must be [{len(source)}, 2], a height and a width for each"
      f" example, not {list(np.shape(image_sizes))}"
    )
  return image_sizes


def _check_processes(
  batch_size: int, process_index: int, process_count: int
) -> None:
  if process_count < 1 or batch_size % process_count:
    raise ValueError(
      f"batch_size {batch_size} is not a multiple of the number of processes,"
      f" {process_count}"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index must be in 0..{process_count - 1}, not {process_index}"
    )


def _check_at_least_one(**options: int) -> None:
  for name, value in options.items():
    if value < 1:
      raise ValueError(f"{name} must be 1 at least, not {value}")


def _check_resize_factor(resize_factor: float) -> None:
  if not resize_factor > 0:
    raise ValueError(f"resize_factor must be above 0, not {resize_factor}")
