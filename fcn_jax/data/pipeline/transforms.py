"""Pure functions that change a picture and its labels together.

Everywhere here an image is [H, W, C] uint8 or float32, mostly [H, W, 3] uint8,
and a label is [H, W] of an integer dtype, or [H, W, L] for L kinds of labels.
Results have the same dtypes. Sizes are (height, width). Padding is void.
Functions raise a `ValueError` if image and label differ in size.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fcn_jax import types

Pair = tuple[np.ndarray, np.ndarray]

# The colour of padding: the mean of ImageNet, rounded, so that networks that
# subtract it see about zero.
FILL = (124, 116, 104)

# Largest number of windows drawn to find one with enough labels.
_MAX_WINDOWS = 10


def resize(
  image: np.ndarray, label: np.ndarray, *, size: tuple[int, int]
) -> Pair:
  """Resizes to a size of 1x1 or more.

  The image is interpolated bilinearly; labels take their nearest neighbour.
  Both keep the corners of the picture where they are: the centre of pixel i
  goes to (i + 0.5) * scale - 0.5. Where the image shrinks, the bilinear kernel
  widens, so that it averages (Pillow's rule).
  """
  _check_pair(image, label)
  _check_size(size)
  if label.shape[:2] == tuple(size):
    return image, label
  height, width = size
  resized_image = _interpolate(image, (width, height))
  rows = _nearest(label.shape[0], height, slice(height))
  columns = _nearest(label.shape[1], width, slice(width))
  return resized_image, label[rows][:, columns]


def _interpolate(
  image: np.ndarray,
  size: tuple[int, int],
  box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
  """Resizes all channels, or a box of them, to a width and a height."""

  def resized(part: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(part)
    return np.array(picture.resize(size, Image.Resampling.BILINEAR, box=box))

  if image.shape[-1] == 3 and image.dtype == np.uint8:
    return resized(image)
  # Pillow cannot hold such channels together, but each one by itself.
  channels = [resized(image[..., i]) for i in range(image.shape[-1])]
  return np.stack(channels, axis=-1)


def _nearest(old: int, new: int, window: slice) -> np.ndarray:
  """Returns which of the `old` pixels have the centres of the new ones in them.

  `window` selects some of the `new` pixels along the side.
  """
  # Integers, since Pillow's floats take the wrong side where centres fall on
  # the border of two pixels.
  first, last, _ = window.indices(new)
  return (2 * np.arange(first, last) + 1) * old // (2 * new)


def rescale(image: np.ndarray, label: np.ndarray, *, factor: float) -> Pair:
  """Resizes to `rescaled_size`, see `resize`."""
  size = rescaled_size(label.shape[:2], factor=factor)
  return resize(image, label, size=size)


def rescaled_size(size: tuple[int, int], *, factor: float) -> tuple[int, int]:
  """Multiplies both sides by a factor, rounded to whole pixels, at least one.

  Raises:
    ValueError: the factor is not above 0.
  """
  if not factor > 0:
    raise ValueError(f"the factor of a resize must be above 0, not {factor}")
  height, width = size
  return max(1, round(height * factor)), max(1, round(width * factor))


def random_crop(
  generator: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: tuple[int, int],
  factor: float = 1.0,
  min_labelled: float = 0.0,
  foreground: int | None = None,
) -> Pair:
  """Resizes, and cuts out a window at a place drawn uniformly.

  The result equals `rescale` followed by a crop (images up to one grey level),
  but only the pixels of the window are interpolated, so the cost is that of the
  window.

  Args:
    generator: source of the randomness.
    image: the picture.
    label: its labels.
    size: height and width of the window, at least 1x1.
    factor: by which both sides are resized first, above 0.
    min_labelled: share of `size`, 0..1, that should have a label other than
      void; the first kind of labels counts. The window is drawn up to ten times
      to reach it; the best one is taken.
    foreground: a label that the window is to hold: one of its pixels is drawn
      uniformly from the resized picture, then a window uniformly among those
      inside the picture that hold this pixel, at its border as elsewhere. If
      there is no such pixel, the window lies anywhere; None for that.

  Returns:
    Image and label of `size`, or shorter where the resized picture is shorter;
    see `pad_to`.

  Raises:
    ValueError: an option is out of range.
  """
  _check_pair(image, label)
  _check_size(size)
  if not 0 <= min_labelled <= 1:
    raise ValueError(f"min_labelled must be in 0..1, not {min_labelled}")
  whole = rescaled_size(label.shape[:2], factor=factor)
  height, width = np.minimum(whole, size).tolist()
  most = -1
  for _ in range(_MAX_WINDOWS):
    top, left = _draw_corner(
      generator, label, whole, (height, width), foreground
    )
    window = slice(top, top + height), slice(left, left + width)
    rows = _nearest(label.shape[0], whole[0], window[0])
    columns = _nearest(label.shape[1], whole[1], window[1])
    # One axis after the other: both at once take ten times as long.
    part = label[rows][:, columns]
    count = _num_labelled(part) if min_labelled else 0
    if count > most:
      most, best = count, (window, part)
    if most >= min_labelled * size[0] * size[1]:
      break
  window, part = best
  return _resize_window(image, whole, window), part


def _draw_corner(
  generator: np.random.Generator,
  label: np.ndarray,
  whole: tuple[int, int],
  size: tuple[int, int],
  foreground: int | None,
) -> tuple[int, int]:
  """Top and left of a window, see `random_crop`."""
  ranges = [
    (0, side - length) for side, length in zip(whole, size, strict=True)
  ]
  pixels = np.empty(0, np.int64)
  if foreground is not None:
    main = label if label.ndim == 2 else label[..., 0]
    # What is left of the label in the resized picture.
    rows, columns = (
      _nearest(old, new, slice(new))
      for old, new in zip(main.shape, whole, strict=True)
    )
    pixels = np.flatnonzero(main[rows][:, columns] == foreground)
  if pixels.size:
    places = map(int, np.unravel_index(generator.choice(pixels), whole))
    ranges = [
      (max(first, place - length + 1), min(last, place))
      for (first, last), place, length in zip(ranges, places, size, strict=True)
    ]
  top, left = (int(generator.integers(a, b + 1)) for a, b in ranges)
  return top, left


def _num_labelled(label: np.ndarray) -> int:
  """Pixels whose label, of the first kind if there are several, is not void."""
  main = label if label.ndim == 2 else label[..., 0]
  return np.count_nonzero(main != types.IGNORE_LABEL)


def _resize_window(
  image: np.ndarray, size: tuple[int, int], window: tuple[slice, slice]
) -> np.ndarray:
  """Returns the window, [h, w, C], of the image as resized to a size."""
  if image.shape[:2] == tuple(size):
    return image[window]
  region, edges = [], []
  for old, new, part in zip(image.shape, size, window, strict=False):
    scale = old / new
    begin, end = part.start * scale, part.stop * scale
    # How far the kernel reaches beyond the window, plus a pixel for rounding.
    reach = max(scale, 1.0) + 1.0
    first = max(0, math.floor(begin - reach))
    last = min(old, math.ceil(end + reach))
    region.append(slice(first, last))
    edges.append((begin - first, min(end, last) - first))
  (upper, lower), (left, right) = edges
  height, width = (part.stop - part.start for part in window)
  # Pillow's kernels see what lies around the box.
  return _interpolate(
    image[tuple(region)], (width, height), box=(left, upper, right, lower)
  )


def random_flip(
  generator: np.random.Generator, image: np.ndarray, label: np.ndarray
) -> Pair:
  """Mirrors left and right with probability one half."""
  _check_pair(image, label)
  if generator.uniform() < 0.5:
    mirrored = np.empty_like(image)
    # A plane at a time: three bytes at a time take five times as long.
    for channel in range(image.shape[-1]):
      mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored, label[:, ::-1]
  return image, label


def pad_to(
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: tuple[int, int],
  fill: Sequence[float] | None = None,
) -> Pair:
  """Pads below and to the right: the image with a colour, the label with void.

  Args:
    image: the picture.
    label: its labels.
    size: new height and width.
    fill: [C] values of the padding; None for `fill_of` the image.

  Raises:
    ValueError: the picture is larger than `size`.
  """
  _check_pair(image, label)
  if label.shape[:2] == tuple(size):
    return image, label
  padded_image = np.empty((*size, image.shape[-1]), image.dtype)
  padded_label = np.empty((*size, *label.shape[2:]), label.dtype)
  write_padded(image, label, padded_image, padded_label, fill=fill)
  return padded_image, padded_label


def write_padded(
  image: np.ndarray,
  label: np.ndarray,
  padded_image: np.ndarray,
  padded_label: np.ndarray,
  *,
  fill: Sequence[float] | None = None,
) -> None:
  """Does what `pad_to` does, but writes into given arrays of the new size."""
  height, width = label.shape[:2]
  size = padded_label.shape[:2]
  if height > size[0] or width > size[1]:
    raise ValueError(
      f"a picture of {height}x{width} pixels (height x width) is larger than"
      f" the size to pad to, {size[0]}x{size[1]}"
    )
  if fill is None:
    fill = fill_of(image)
  # A row at a time: pixel by pixel takes several times as long.
  row = np.tile(np.array(fill, padded_image.dtype), (size[1], 1))
  padded_image[:height, :width] = image
  padded_image[:height, width:] = row[width:]
  padded_image[height:] = row
  padded_label[:height, :width] = label
  padded_label[:height, width:] = types.IGNORE_LABEL
  padded_label[height:] = types.IGNORE_LABEL


def fill_of(image: np.ndarray) -> Sequence[float]:
  """Values of the padding, [C]: `FILL` for three channels, else their means."""
  return FILL if image.shape[-1] == 3 else image.mean(axis=(0, 1))


def _check_pair(image: np.ndarray, label: np.ndarray) -> None:
  if (
    image.ndim != 3
    or label.ndim not in (2, 3)
    or image.shape[:2] != label.shape[:2]
  ):
    raise ValueError(
      f"an image of shape {image.shape} does not go with a label of shape"
      f" {label.shape}: they must be [H, W, C] and [H, W] or [H, W, L]"
    )


def _check_size(size: tuple[int, int]) -> None:
  if min(size) < 1:
    raise ValueError(f"a size must be at least 1x1 pixels, not {size}")
