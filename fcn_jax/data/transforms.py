"""Pure functions that change a picture and its labels alike, for one example.

Images are [H, W, 3] uint8 and labels [H, W] of an integer dtype. Sizes are
(height, width). Pixels that a picture lacks are void.
"""

import math

import numpy as np
from PIL import Image

from fcn_jax import types

Pair = tuple[np.ndarray, np.ndarray]

# The colour of pixels outside the picture: the mean of ImageNet, rounded, which
# networks that subtract it see as about zero.
FILL = (124, 116, 104)

# Windows that are drawn at most to find one with enough labels.
_MAX_WINDOWS = 10


def resize(
  image: np.ndarray, label: np.ndarray, *, size: tuple[int, int]
) -> Pair:
  """Resizes: the image bilinearly, each label to its nearest neighbour.

  Both keep the corners of the picture where they are, that is they map the
  centre of pixel i to (i + 0.5) * scale - 0.5. Where the image shrinks, the
  bilinear kernel widens, so that it averages (Pillow's rule).

  Args:
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    size: new height and width.

  Returns:
    [height, width, 3] uint8 and [height, width], dtype of `label`.

  Raises:
    ValueError: image and label differ in size, or `size` is below 1.
  """
  _check_pair(image, label)
  _check_size(size)
  if label.shape == tuple(size):
    return image, label
  height, width = size
  resized_image = Image.fromarray(image).resize(
    (width, height), Image.Resampling.BILINEAR
  )
  rows = _nearest(label.shape[0], height, slice(height))
  columns = _nearest(label.shape[1], width, slice(width))
  return np.array(resized_image), label[rows][:, columns]


def _nearest(old: int, new: int, window: slice) -> np.ndarray:
  """Returns the old pixels in which the centres of some new ones lie.

  Args:
    old: length of the old side.
    new: length of the new side.
    window: which of the new pixels.
  """
  # Integers, since Pillow's floats take the wrong side where centres fall on
  # the border of two pixels.
  first, last, _ = window.indices(new)
  return (2 * np.arange(first, last) + 1) * old // (2 * new)


def rescale(image: np.ndarray, label: np.ndarray, *, factor: float) -> Pair:
  """Resizes both sides by a factor, rounded to whole pixels, at least one.

  Args:
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    factor: above 0.

  Raises:
    ValueError: the factor is not above 0, or as for `resize`.
  """
  size = rescaled_size(label.shape, factor=factor)
  return resize(image, label, size=size)


def rescaled_size(size: tuple[int, int], *, factor: float) -> tuple[int, int]:
  """Returns the size that `rescale` makes of another.

  Args:
    size: height and width.
    factor: above 0.

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
) -> Pair:
  """Resizes and cuts out a window, at a place drawn uniformly.

  The result is that of `rescale` and a crop of it, images to a grey level, but
  no pixel outside of the window is interpolated: the cost is that of the
  window, not of the picture.

  Args:
    generator: source of the randomness.
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    size: height and width of the window.
    factor: by which both sides are resized first, above 0.
    min_labelled: share of `size`, 0 to 1, that is to have a label other than
      void. The window is drawn anew until it has, at most ten times; then the
      best of these is taken.

  Returns:
    [h, w, 3] uint8 and [h, w], dtype of `label`. A side is that of `size`, or
    that of the resized picture where this is shorter; see `pad_to`.

  Raises:
    ValueError: image and label differ in size, `size` is below 1, or an option
      is out of range.
  """
  _check_pair(image, label)
  _check_size(size)
  if not 0 <= min_labelled <= 1:
    raise ValueError(f"min_labelled must be in 0..1, not {min_labelled}")
  whole = rescaled_size(label.shape, factor=factor)
  height, width = np.minimum(whole, size).tolist()
  most = -1
  for _ in range(_MAX_WINDOWS):
    top = int(generator.integers(whole[0] - height + 1))
    left = int(generator.integers(whole[1] - width + 1))
    window = slice(top, top + height), slice(left, left + width)
    rows = _nearest(label.shape[0], whole[0], window[0])
    columns = _nearest(label.shape[1], whole[1], window[1])
    # One after the other: both at once take ten times as long.
    part = label[rows][:, columns]
    count = np.count_nonzero(part != types.IGNORE_LABEL) if min_labelled else 0
    if count > most:
      most, best = count, (window, part)
    if most >= min_labelled * size[0] * size[1]:
      break
  window, part = best
  return _resize_window(image, whole, window), part


def _resize_window(
  image: np.ndarray, size: tuple[int, int], window: tuple[slice, slice]
) -> np.ndarray:
  """Returns the window, [h, w, 3] uint8, of the image as resized to a size."""
  if image.shape[:2] == tuple(size):
    return image[window]
  region, edges = [], []
  for old, new, part in zip(image.shape, size, window, strict=False):
    scale = old / new
    begin, end = part.start * scale, part.stop * scale
    # What the kernel reaches beyond the window, and a pixel for roundings.
    reach = max(scale, 1.0) + 1.0
    first = max(0, math.floor(begin - reach))
    last = min(old, math.ceil(end + reach))
    region.append(slice(first, last))
    edges.append((begin - first, min(end, last) - first))
  (upper, lower), (left, right) = edges
  height, width = (part.stop - part.start for part in window)
  # Pillow's kernels see what lies around the box.
  resized = Image.fromarray(image[tuple(region)]).resize(
    (width, height),
    Image.Resampling.BILINEAR,
    box=(left, upper, right, lower),
  )
  return np.array(resized)


def random_flip(
  generator: np.random.Generator, image: np.ndarray, label: np.ndarray
) -> Pair:
  """Mirrors left and right with probability one half.

  Args:
    generator: source of the randomness.
    image: [H, W, 3] uint8.
    label: [H, W] integers.

  Raises:
    ValueError: image and label differ in size.
  """
  _check_pair(image, label)
  if generator.uniform() < 0.5:
    mirrored = np.empty_like(image)
    # A plane at a time: three bytes at a time take five times as long.
    for channel in range(3):
      mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored, label[:, ::-1]
  return image, label


def pad_to(
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: tuple[int, int],
  fill: tuple[int, int, int] = FILL,
) -> Pair:
  """Pads below and to the right: the image with a colour, the label with void.

  Args:
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    size: new height and width, not below the old.
    fill: RGB of the padding.

  Returns:
    [height, width, 3] uint8 and [height, width], dtype of `label`.

  Raises:
    ValueError: the picture is larger than `size`, or image and label differ in
      size.
  """
  _check_pair(image, label)
  if label.shape == tuple(size):
    return image, label
  padded_image = np.empty((*size, 3), image.dtype)
  padded_label = np.empty(size, label.dtype)
  write_padded(image, label, padded_image, padded_label, fill=fill)
  return padded_image, padded_label


def write_padded(
  image: np.ndarray,
  label: np.ndarray,
  padded_image: np.ndarray,
  padded_label: np.ndarray,
  *,
  fill: tuple[int, int, int] = FILL,
) -> None:
  """Does what `pad_to` does, into arrays that are there, such as a batch's.

  Args:
    image: [h, w, 3] uint8.
    label: [h, w] integers.
    padded_image: [H, W, 3] uint8, written.
    padded_label: [H, W] integers, written.
    fill: RGB of the padding.

  Raises:
    ValueError: the picture is larger than the arrays.
  """
  height, width = label.shape
  size = padded_label.shape
  if height > size[0] or width > size[1]:
    raise ValueError(
      f"a picture of {height}x{width} pixels (height x width) is larger than"
      f" the size to pad to, {size[0]}x{size[1]}"
    )
  # A row at a time: pixel by pixel takes several times as long.
  row = np.tile(np.array(fill, padded_image.dtype), (size[1], 1))
  padded_image[:height, :width] = image
  padded_image[:height, width:] = row[width:]
  padded_image[height:] = row
  padded_label[:height, :width] = label
  padded_label[:height, width:] = types.IGNORE_LABEL
  padded_label[height:] = types.IGNORE_LABEL


def _check_pair(image: np.ndarray, label: np.ndarray) -> None:
  if image.shape != (*label.shape, 3):
    raise ValueError(
      f"an image of shape {image.shape} does not go with a label of shape"
      f" {label.shape}: expected are [H, W, 3] and [H, W]"
    )


def _check_size(size: tuple[int, int]) -> None:
  if min(size) < 1:
    raise ValueError(f"a size must be 1x1 pixels at least, not {size}")
