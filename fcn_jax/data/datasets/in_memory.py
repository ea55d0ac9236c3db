"""Data sets of pictures and labels that are in memory."""

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from fcn_jax import checks
from fcn_jax import types
from fcn_jax.data import examples
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding

# Modes of Pillow that PNG does not have, and that Pillow converts to RGB.
_COLOR_SPACES = ("CMYK", "YCbCr", "LAB", "HSV")
_LOSSY = ("JPEG", "MPO", "AVIF", "JPEG2000")


def from_arrays(
  images: np.ndarray | Sequence[Any],
  labels: np.ndarray | Sequence[Any],
  *,
  num_classes: int | None = None,
  class_names: Sequence[str] | None = None,
  palette: np.ndarray | None = None,
) -> examples.Dataset:
  """Makes a data set of pictures and labels in memory.

      dataset = data.from_arrays(images, labels, num_classes=3)
      batches = data.train_batches(
        dataset.source, num_classes=dataset.num_classes, ...
      )

  Everything is checked here, at once. Pictures [H, W, 3] uint8 and labels uint8
  are used where they are; others are copied.

  Args:
    images: an array [N, H, W, 3], or N arrays [H, W, 3] of any sizes or PIL
      images, RGB in 0..255: uint8, or float, which is rounded. Grey pictures
      ([H, W] or [H, W, 1]) become RGB, and PIL images are converted and turned
      upright, as in the data set `folder`.
    labels: an array [N, H, W], or N arrays [H, W] or PIL images (grey, or with
      a palette, whose indices are the labels): integers, classes 0..C-1 or
      `IGNORE_LABEL` (255) for void.
    num_classes: C. None for the number of `class_names`, or else one more than
      the largest label here: give it if other labels, such as those for
      validation, may have larger ones.
    class_names: of the classes; "class 0" and so on by default.
    palette: [C, 3] uint8, RGB of each class in figures; None for colours that
      differ.

  Returns:
    The data set. An example is named "images[3]".

  Raises:
    ValueError: with the index of the first item that is wrong, and the remedy.
  """
  pictures, masks = _items(images, "images", 4), _items(labels, "labels", 3)
  if len(pictures) != len(masks):
    raise ValueError(
      f"there are {len(pictures)} images, but {len(masks)} labels: give one "
      "for each."
    )
  if not pictures:
    raise ValueError("there are no images: give at least one.")
  if _rank(pictures[0]) == 2 and _rank(masks[0]) == 3:
    raise ValueError(
      "images and labels are swapped: give from_arrays(images, labels), in "
      "this order."
    )
  pictures = [_picture(one, f"images[{i}]") for i, one in enumerate(pictures)]
  masks = [_mask(one, f"labels[{i}]") for i, one in enumerate(masks)]
  for index, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
    names = f"labels[{index}]", f"images[{index}]"
    checks.same_size(mask, picture, *names)
  pictures = _in_bytes(pictures)
  num_classes = _num_classes(masks, num_classes, class_names)
  for index, mask in enumerate(masks):
    name = f"labels[{index}]"
    checks.classes(mask, num_classes=num_classes, name=name)
  if class_names is None:
    class_names = [f"class {number}" for number in range(num_classes)]
  if palette is None:
    palette = palettes.distinct_palette(num_classes=num_classes)
  return examples.Dataset(
    source=examples.Mapped(
      range(len(pictures)),
      functools.partial(
        _example,
        pictures,
        [mask.astype(np.uint8, copy=False) for mask in masks],
      ),
    ),
    class_names=tuple(class_names),
    palette=_colors(palette, num_classes),
    fingerprint=_fingerprint(pictures, masks, class_names),
  )


def _example(
  pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray], index: int
) -> examples.Example:
  return examples.Example(
    pictures[index], masks[index].astype(np.int32), f"images[{index}]"
  )


def _items(values: Any, name: str, rank: int) -> list[Any]:
  """The items of a sequence, or of an array of `rank` or, if grey, one less."""
  if isinstance(values, (str, bytes, PIL.Image.Image)):
    raise ValueError(
      f"{name} is a {type(values).__name__}: give a list of arrays or of PIL "
      "images."
    )
  shape = getattr(values, "shape", None)
  if shape is not None:
    is_one = len(shape) == rank - 1 and (rank == 3 or shape[-1] == 3)
    if is_one or len(shape) < rank - 1:
      raise ValueError(
        f"{name} have shape {tuple(shape)}: give several of one size, "
        f"{'[N, H, W, 3]' if rank == 4 else '[N, H, W]'}, or a list; for one, "
        f"[{name}]."
      )
    return list(np.asarray(values))
  try:
    return list(values)
  except TypeError:
    raise ValueError(
      f"{name} is a {type(values).__name__}: give an array or a list."
    ) from None


def _rank(value: Any) -> int | None:
  """The number of axes of an array; None for a PIL image."""
  return getattr(value, "ndim", None)


def _picture(value: Any, name: str) -> np.ndarray:
  """A picture [H, W, 3] uint8 or float."""
  if isinstance(value, PIL.Image.Image):
    if value.mode in _COLOR_SPACES:
      value = PIL.ImageOps.exif_transpose(value).convert("RGB")
    return _decoded(value, decoding.decode_picture, name)
  if getattr(value, "ndim", 0) == 2:
    value = np.asarray(value)[..., None]
  if getattr(value, "shape", ())[2:] == (1,):
    value = np.repeat(np.asarray(value), 3, axis=-1)
  checks.image(value, name=name, num_channels=3)
  return np.asarray(value)


def _mask(value: Any, name: str) -> np.ndarray:
  """Labels [H, W]."""
  if isinstance(value, PIL.Image.Image):
    if value.format in _LOSSY:
      raise ValueError(
        f"{name} is a mask in the lossy format {value.format}, "
        "which changes class ids at every edge; save masks as PNG in the "
        "program that made them"
      )
    return _decoded(value, decoding.decode_mask, name)
  checks.labels(value, name=name)
  return np.asarray(value)


def _decoded(
  image: PIL.Image.Image, decode: Callable[[bytes], np.ndarray], name: str
) -> np.ndarray:
  """Reads a picture of Pillow as if it came from a file."""
  upright = PIL.ImageOps.exif_transpose(image)
  file = io.BytesIO()
  try:
    upright.save(file, format="PNG", compress_level=1)
  except OSError:
    raise ValueError(
      f"{name} has Pillow's mode {image.mode!r}, which is not read; convert it "
      "to RGB, or for a mask to grey."
    ) from None
  try:
    return decode(file.getvalue())
  except ValueError as error:
    raise ValueError(f"{name} {error}") from None


def _in_bytes(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Pictures as uint8; the values of floats are checked together.

  A dark picture may have no value above 1, but not all of them.
  """
  ranges = []
  for index, picture in enumerate(pictures):
    if picture.dtype == np.uint8:
      continue
    ends = np.array([picture.min(), picture.max()], np.float64)
    if not -0.5 <= ends[0] <= ends[1] <= 255.5:
      # With words for normalized pictures and for NaN.
      checks.pixels(picture, name=f"images[{index}]")
      raise ValueError(
        f"images[{index}] has values from {ends[0]:.4g} to {ends[1]:.4g}; "
        "images are RGB in 0..255: scale them."
      )
    ranges.append(ends)
  if ranges and len(ranges) == len(pictures):
    checks.pixels(np.stack(ranges)[..., None].repeat(3, -1))
  return [
    picture
    if picture.dtype == np.uint8
    else np.round(picture).clip(0, 255).astype(np.uint8)
    for picture in pictures
  ]


def _num_classes(
  masks: Sequence[np.ndarray],
  num_classes: int | None,
  class_names: Sequence[str] | None,
) -> int:
  if class_names is not None:
    if num_classes not in (None, len(class_names)):
      raise ValueError(
        f"num_classes is {num_classes}, but there are {len(class_names)} "
        "class_names: give a name for each class, or leave one of them out."
      )
    num_classes = len(class_names)
  if num_classes is None:
    values = set().union(*(np.unique(mask).tolist() for mask in masks))
    if values == {0, types.IGNORE_LABEL}:
      raise ValueError(
        f"labels are 0 and {types.IGNORE_LABEL} only, and {types.IGNORE_LABEL} "
        "is void. If it marks objects, give 1 for them, (labels == "
        f"{types.IGNORE_LABEL}).astype(np.uint8); if not, give num_classes."
      )
    num_classes = 1 + max(values - {types.IGNORE_LABEL}, default=0)
  checks.num_classes(num_classes)
  return num_classes


def _colors(palette: Any, num_classes: int) -> np.ndarray:
  colors = np.asarray(palette)
  in_range = colors.dtype.kind in "ui" and np.all(
    (colors >= 0) & (colors < 256)
  )
  if colors.shape != (num_classes, 3) or not in_range:
    raise ValueError(
      f"palette has shape {colors.shape} and type {colors.dtype}; give "
      f"[{num_classes}, 3], whole numbers 0..255: the RGB of each class."
    )
  return colors.astype(np.uint8)


def _fingerprint(
  pictures: Sequence[np.ndarray],
  masks: Sequence[np.ndarray],
  class_names: Sequence[str],
) -> str:
  digest = hashlib.sha256(repr(list(class_names)).encode())
  for picture, mask in zip(pictures, masks, strict=True):
    digest.update(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    digest.update(np.ascontiguousarray(mask.astype(np.uint8)).data)
  return digest.hexdigest()
