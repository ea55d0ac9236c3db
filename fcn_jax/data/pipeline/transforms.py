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
from fcn_jax.data.pipeline import warping

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


def rescaled_size(
  size: tuple[int, int], *, factor: float | tuple[float, float]
) -> tuple[int, int]:
  """Multiplies both sides by a factor, rounded to whole pixels, at least one.

  Args:
    size: height and width.
    factor: of both sides, or one for each.

  Raises:
    ValueError: a factor is not above 0.
  """
  factors = factor if isinstance(factor, tuple) else (factor, factor)
  if not min(factors) > 0:
    raise ValueError(f"the factor of a resize must be above 0, not {factor}")
  height, width = (
    max(1, round(side * by)) for side, by in zip(size, factors, strict=True)
  )
  return height, width


def warp_whole(
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: tuple[int, int],
  factor: float | tuple[float, float],
  warp: warping.Warp,
) -> Pair:
  """Resizes, turns and deforms about the centre, and keeps what fits a size.

  Everything is one interpolation. Outside of the picture are `fill_of` the
  image and void.

  Args:
    image: the picture.
    label: its labels.
    size: height and width of the result.
    factor: by which the sides are resized: of both, or one for each.
    warp: the turn and the deformation.
  """
  _check_pair(image, label)
  whole = rescaled_size(label.shape[:2], factor=factor)
  corner = [(old - new) / 2 for old, new in zip(whole, size, strict=True)]
  at = warping.places(
    warp,
    size=size,
    corner=corner,
    anchor=_centre(size),
    old=label.shape[:2],
    new=whole,
  )
  return _warped_image(image, at, whole), warping.sample_label(label, at)


def _centre(size: tuple[int, int]) -> tuple[float, float]:
  return (size[0] - 1) / 2, (size[1] - 1) / 2


def _warped_image(
  image: np.ndarray, at: np.ndarray, whole: tuple[int, int]
) -> np.ndarray:
  """The image at places; `whole` is the size to which it is resized."""
  shrinking = np.divide(image.shape[:2], whole)
  fill = fill_of(image)
  return warping.sample_image(image, at, shrinking=shrinking, fill=fill)


def random_crop(
  generator: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: tuple[int, int],
  factor: float | tuple[float, float] = 1.0,
  min_labelled: float = 0.0,
  foreground: int | None = None,
  warp: warping.Warp | None = None,
) -> Pair:
  """Resizes, and cuts out a window at a place drawn uniformly.

  The result equals `rescale` followed by a crop (images up to one grey level),
  but only the pixels of the window are interpolated, so the cost is that of the
  window. With a warp, the window is then turned and deformed about its centre;
  all of this is one interpolation. Where it leaves the picture are `fill_of`
  the image and void.

  Args:
    generator: source of the randomness.
    image: the picture.
    label: its labels.
    size: height and width of the window, at least 1x1.
    factor: by which the sides are resized first, above 0: of both, or one for
      each.
    min_labelled: share of `size`, 0..1, that should have a label other than
      void; the first kind of labels counts. The window is drawn up to ten times
      to reach it; the best one is taken.
    foreground: a label that the window is to hold: one of its pixels is drawn
      uniformly from the resized picture, then a window uniformly among those
      inside the picture that hold this pixel, at its border as elsewhere. It is
      then turned and deformed about this pixel. If there is no such pixel, the
      window lies anywhere; None for that.
    warp: the turn and the deformation, with displacements for `size`; None for
      neither.

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
    corner, anchor = _draw_corner(
      generator, label, whole, (height, width), foreground
    )
    if warp is None:
      at = (
        slice(corner[0], corner[0] + height),
        slice(corner[1], corner[1] + width),
      )
      rows = _nearest(label.shape[0], whole[0], at[0])
      columns = _nearest(label.shape[1], whole[1], at[1])
      # One axis after the other: both at once take ten times as long.
      part = label[rows][:, columns]
    else:
      at = warping.places(
        warp,
        size=(height, width),
        corner=corner,
        anchor=anchor,
        old=label.shape[:2],
        new=whole,
      )
      part = warping.sample_label(label, at)
    count = _num_labelled(part) if min_labelled else 0
    if count > most:
      most, best = count, (at, part)
    if most >= min_labelled * size[0] * size[1]:
      break
  at, part = best
  if warp is None:
    return _resize_window(image, whole, at), part
  return _warped_image(image, at, whole), part


def _draw_corner(
  generator: np.random.Generator,
  label: np.ndarray,
  whole: tuple[int, int],
  size: tuple[int, int],
  foreground: int | None,
) -> tuple[tuple[int, int], tuple[float, float]]:
  """Draws a window, see `random_crop`.

  Returns:
    Top and left; and the row and column, in the window, of the pixel that it is
    to hold, or of its centre if there is none.
  """
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
  anchor = _centre(size)
  if pixels.size:
    pixel = np.unravel_index(generator.choice(pixels), whole)
    ranges = [
      (max(first, int(place) - length + 1), min(last, int(place)))
      for (first, last), place, length in zip(ranges, pixel, size, strict=True)
    ]
  top, left = (int(generator.integers(a, b + 1)) for a, b in ranges)
  if pixels.size:
    anchor = int(pixel[0]) - top, int(pixel[1]) - left
  return (top, left), anchor


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


def random_quarter_turn(
  generator: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  *,
  keep_size: bool = False,
) -> Pair:
  """Turns by 0, 90, 180 or 270 degrees, each as likely; exactly, as a view.

  Args:
    generator: source of the randomness.
    image: the picture.
    label: its labels.
    keep_size: whether pictures that are not square turn by 0 or 180 degrees
      only, so that height and width stay.
  """
  _check_pair(image, label)
  turns = int(generator.integers(4))
  if keep_size and label.shape[0] != label.shape[1]:
    turns = 2 * (turns // 2)
  return np.rot90(image, turns), np.rot90(label, turns)


def cutout(
  generator: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  *,
  count: int,
  size: int,
  keep: int | None = None,
) -> Pair:
  """Hides squares (Cutout, DeVries and Taylor 2017), with `fill_of` the image.

  Their centres are uniform over the picture, so they may overlap and reach
  beyond its border, as in the paper. The paper keeps the label of the picture;
  here the labels of hidden pixels become void, since a network cannot know
  them.

  Args:
    generator: source of the randomness.
    image: the picture.
    label: its labels.
    count: number of the squares.
    size: their side in pixels.
    keep: a class whose pixels are not hidden; None for none.
  """
  _check_pair(image, label)
  hidden = np.zeros(label.shape[:2], bool)
  for _ in range(count):
    first = [
      int(generator.integers(side)) - size // 2 for side in label.shape[:2]
    ]
    window = tuple(slice(max(0, start), start + size) for start in first)
    hidden[window] = True
  if keep is not None:
    hidden &= _main(label) != keep
  fill = fill_of(image)
  image, label = image.copy(), label.copy()
  image[hidden] = fill
  label[hidden] = types.IGNORE_LABEL
  return image, label


def paste(
  below: Pair, above: Pair, *, of_class: int, keep: int | None = None
) -> Pair:
  """Pastes the pixels of a class of one picture into another of the same size.

  Simplified from Ghiasi et al. 2021 (Simple Copy-Paste): all pixels of the
  class are pasted, with all kinds of their labels, and edges are not blended.

  Args:
    below: image and label of the picture that is pasted into.
    above: those of the picture whose pixels are pasted.
    of_class: a label; the first kind of labels counts.
    keep: a class below whose pixels stay; None for none.

  Raises:
    ValueError: the pictures differ in size.
  """
  for pair in (below, above):
    _check_pair(*pair)
  if below[1].shape != above[1].shape:
    raise ValueError(
      f"labels of shape {above[1].shape} cannot be pasted into those of shape"
      f" {below[1].shape}: they must have one shape"
    )
  image, label = below[0].copy(), below[1].copy()
  pasted = _main(above[1]) == of_class
  if keep is not None:
    pasted &= _main(label) != keep
  image[pasted], label[pasted] = above[0][pasted], above[1][pasted]
  return image, label


def _main(label: np.ndarray) -> np.ndarray:
  """The first kind of labels."""
  return label if label.ndim == 2 else label[..., 0]


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
