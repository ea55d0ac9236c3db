"""Pure functions that change a picture and its labels alike, for one example.

Images are [H, W, 3] uint8 and labels [H, W] of an integer dtype. Sizes are
(height, width). Pixels that a picture lacks are void.
"""

import numpy as np
from PIL import Image

from fcn_jax import types

Pair = tuple[np.ndarray, np.ndarray]

# The colour of pixels outside the picture: the mean of ImageNet, rounded, which
# networks that subtract it see as about zero.
FILL = (124, 116, 104)


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
  rows = _nearest(label.shape[0], height)
  columns = _nearest(label.shape[1], width)
  return np.array(resized_image), label[np.ix_(rows, columns)]


def _nearest(old: int, new: int) -> np.ndarray:
  """Returns the old pixel, [new] int, in which each new pixel's centre lies."""
  # Integers, since Pillow's floats take the wrong side where centres fall on
  # the border of two pixels.
  return (2 * np.arange(new) + 1) * old // (2 * new)


def rescale(image: np.ndarray, label: np.ndarray, *, factor: float) -> Pair:
  """Resizes both sides by a factor, rounded to whole pixels, at least one.

  Args:
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    factor: above 0.

  Raises:
    ValueError: the factor is not above 0, or as for `resize`.
  """
  if not factor > 0:
    raise ValueError(f"the factor of a resize must be above 0, not {factor}")
  height, width = label.shape
  size = (max(1, round(height * factor)), max(1, round(width * factor)))
  return resize(image, label, size=size)


def random_scale(
  generator: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  *,
  scale_range: tuple[float, float],
) -> Pair:
  """Resizes by a factor drawn uniformly from a range.

  Args:
    generator: source of the randomness.
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    scale_range: smallest and largest factor.

  Raises:
    ValueError: the range is not 0 < smallest <= largest, or as for `resize`.
  """
  smallest, largest = scale_range
  if not 0 < smallest <= largest:
    raise ValueError(
      "scale_range must be (smallest, largest) with 0 < smallest <= largest,"
      f" not {scale_range}"
    )
  factor = generator.uniform(smallest, largest)
  return rescale(image, label, factor=factor)


def random_crop(
  generator: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: tuple[int, int],
  fill: tuple[int, int, int] = FILL,
) -> Pair:
  """Cuts out a rectangle, at a place drawn uniformly.

  Where the picture is smaller than the rectangle, it is first padded below and
  to the right, see `pad_to`.

  Args:
    generator: source of the randomness.
    image: [H, W, 3] uint8.
    label: [H, W] integers.
    size: height and width of the rectangle.
    fill: RGB of the padding.

  Returns:
    [height, width, 3] uint8 and [height, width], dtype of `label`.

  Raises:
    ValueError: image and label differ in size, or `size` is below 1.
  """
  _check_pair(image, label)
  _check_size(size)
  larger = tuple(np.maximum(label.shape, size))
  image, label = pad_to(image, label, size=larger, fill=fill)
  height, width = size
  top = generator.integers(label.shape[0] - height + 1)
  left = generator.integers(label.shape[1] - width + 1)
  window = np.s_[top : top + height, left : left + width]
  return image[window], label[window]


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
    return image[:, ::-1], label[:, ::-1]
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
  height, width = label.shape
  if height > size[0] or width > size[1]:
    raise ValueError(
      f"a picture of {height}x{width} pixels (height x width) is larger than"
      f" the size to pad to, {size[0]}x{size[1]}"
    )
  if label.shape == tuple(size):
    return image, label
  padded_image = np.full((*size, 3), fill, image.dtype)
  padded_image[:height, :width] = image
  padded_label = np.full(size, types.IGNORE_LABEL, label.dtype)
  padded_label[:height, :width] = label
  return padded_image, padded_label


def _check_pair(image: np.ndarray, label: np.ndarray) -> None:
  if image.shape != (*label.shape, 3):
    raise ValueError(
      f"an image of shape {image.shape} does not go with a label of shape"
      f" {label.shape}: expected are [H, W, 3] and [H, W]"
    )


def _check_size(size: tuple[int, int]) -> None:
  if min(size) < 1:
    raise ValueError(f"a size must be 1x1 pixels at least, not {size}")
