"""Checks examples, and stacks them into batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fcn_jax import checks
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import transforms


def nothing_like(image: np.ndarray) -> transforms.Pair:
  """Fills up a batch, with the channels and the dtype of an image.

  It has one pixel, since a picture cannot have none.
  """
  return (
    np.full((1, 1, image.shape[-1]), transforms.fill_of(image), image.dtype),
    np.full((1, 1), types.IGNORE_LABEL, np.int32),
  )


def stack(
  pairs: Sequence[transforms.Pair],
  *,
  size: padding.Size,
  with_valid_sizes: bool,
  heads: Sequence[str] = (),
) -> types.Batch:
  """Pads pictures and their labels to one size and makes a batch of them.

  Args:
    pairs: N images [h, w, C] uint8 or float32, and labels [h, w] integers.
    size: height and width of the batch.
    with_valid_sizes: whether the batch says how large its pictures are.
    heads: names of the kinds of labels, if these are [h, w, L].

  Returns:
    Images [N, H, W, C], labels [N, H, W] int32 or those of each head by its
    name, and sizes [N, 2] int32 or None.

  Raises:
    ValueError: a picture is larger than `size`.
  """
  image, label = pairs[0]
  batch = types.Batch(
    images=np.empty((len(pairs), *size, image.shape[-1]), image.dtype),
    # Sources may have bytes; a crop has fewer of them to make larger.
    labels=np.empty((len(pairs), *size, *label.shape[2:]), np.int32),
    valid_sizes=np.array([label.shape[:2] for _, label in pairs], np.int32),
  )
  for number, pair in enumerate(pairs):
    transforms.write_padded(*pair, batch.images[number], batch.labels[number])
  if heads:
    kinds = np.moveaxis(batch.labels, -1, 0).copy()
    batch = batch._replace(labels=dict(zip(heads, kinds, strict=True)))
  return batch if with_valid_sizes else batch._replace(valid_sizes=None)


def sizes_of(
  source: Sequence[Any], image_sizes: np.ndarray | None, num_threads: int
) -> np.ndarray:
  """Returns `image_sizes`, or reads them from the source if they are None.

  Raises:
    ValueError: there is not one size for each example.
  """
  if image_sizes is None:
    return padding.image_sizes(source, num_threads=num_threads)
  if np.shape(image_sizes) != (len(source), 2):
    raise ValueError(
      f"image_sizes must be [{len(source)}, 2], a height and a width for each"
      f" example, not {list(np.shape(image_sizes))}"
    )
  return image_sizes


def check_resize_factor(resize_factor: float) -> None:
  """Raises a `ValueError` unless the factor is above 0."""
  if not resize_factor > 0:
    raise ValueError(f"resize_factor must be above 0, not {resize_factor}")


def check_example(
  example: Any, *, num_classes: int | Mapping[str, int]
) -> None:
  """Raises a `ValueError` unless an example can be trained on.

  Args:
    example: with `name`, `image` [H, W, C] and `label`, [H, W] integers, or
      [H, W, L] of several kinds.
    num_classes: number of classes; or that of each kind, by its name.
  """
  if not all(hasattr(example, name) for name in ("image", "label", "name")):
    raise ValueError(
      f"the source has a {type(example).__name__}, not an Example: make it by "
      "fcn.data.from_arrays(images, labels).source"
    )
  label, image = example.label, example.image
  shown = reprs.shown(example.name)
  name = f"the image of {shown}"
  checks.image(image, name=name)
  checks.pixels(image, name=name)
  if not isinstance(num_classes, Mapping):
    checks.labels(label, name=f"the labels of {shown}")
    checks.same_size(label, image, f"the labels of {shown}", name)
    checks.classes(label, num_classes=num_classes, name=shown)
    return
  if label.shape[2:] != (len(num_classes),):
    raise ValueError(
      f"{shown} has labels of shape {list(label.shape)}; those of"
      f" {', '.join(num_classes)} side by side are [H, W, {len(num_classes)}]"
    )
  for kind, (head, count) in enumerate(num_classes.items()):
    name = f"{shown} ({head})"
    checks.classes(label[..., kind], num_classes=count, name=name)


def check_source(
  source: Sequence[Any], *, num_classes: int | Mapping[str, int]
) -> None:
  """Raises a `ValueError` unless these can be a source and its classes."""
  if hasattr(source, "source"):
    raise ValueError(
      f"source is a {type(source).__name__}: give dataset.source"
    )
  if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
    raise ValueError(
      f"source is a {type(source).__name__}, not a sequence of examples: give"
      " the source of fcn.data.load or fcn.data.from_arrays"
    )
  if not isinstance(num_classes, Mapping):
    checks.num_classes(num_classes)


def check_size(example: Any, size: np.ndarray) -> None:
  """Raises a `ValueError` unless an example has the size in `image_sizes`."""
  height, width = example.label.shape[:2]
  if (height, width) != tuple(size):
    raise ValueError(
      f"{reprs.shown(example.name)} has {height}x{width} pixels (height x"
      f" width), but image_sizes says {size[0]}x{size[1]}: these are the sizes"
      " of another data set"
    )
