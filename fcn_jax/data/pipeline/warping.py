"""Windows of pictures that are turned and deformed, interpolated once.

Each pixel of a window gets its place in the picture, by one map of all
geometric changes; the picture is then sampled at these places.

A place is a row and a column, where pixel (i, j) of the picture covers
[i, i + 1) x [j, j + 1). Images and labels are as in `transforms`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fcn_jax import types


class Warp(NamedTuple):
  """How a window is turned and deformed.

  Attributes:
    angle: of a counter-clockwise turn of the picture, in degrees.
    displacement: [2, H, W], of the rows and columns at which the pixels of the
      window look, in pixels; it may be larger than the window. None for none.
  """

  angle: float = 0.0
  displacement: np.ndarray | None = None


def draw(
  generator: np.random.Generator,
  size: tuple[int, int],
  *,
  rotation: float,
  elastic_amplitude: float,
  elastic_spacing: float,
) -> Warp | None:
  """Draws a warp for windows of a size; None if nothing is to change.

  The angle is uniform in -rotation..rotation degrees. The displacements are
  those of U-Net (Ronneberger et al. 2015, section 3.1): normal random vectors
  on a coarse grid, with bicubic interpolation in between.

  Args:
    generator: source of the randomness.
    size: height and width.
    rotation: in degrees.
    elastic_amplitude: standard deviation of each coordinate of the vectors, in
      pixels.
    elastic_spacing: pixels between the vectors.
  """
  if not rotation and not elastic_amplitude:
    return None
  angle = generator.uniform(-rotation, rotation)
  if not elastic_amplitude:
    return Warp(angle)
  steps = np.divide(size, elastic_spacing)
  # A vector more on each side, since bicubic kernels reach there.
  rows, columns = np.ceil(steps).astype(int) + 3
  vectors = generator.standard_normal((2, rows, columns), np.float32)
  box = (1.0, 1.0, 1.0 + steps[1], 1.0 + steps[0])
  displacement = [
    Image.fromarray(part).resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    for part in vectors * np.float32(elastic_amplitude)
  ]
  return Warp(angle, np.array(displacement))


def places(
  warp: Warp,
  *,
  size: tuple[int, int],
  corner: Sequence[float],
  anchor: Sequence[float],
  old: Sequence[int],
  new: Sequence[int],
) -> np.ndarray:
  """Places of the pixels of a window in the picture.

  The picture is resized, turned about the anchor, and deformed around it.

  Args:
    warp: the turn and the deformation.
    size: height and width of the window.
    corner: row and column of the window's first pixel in the resized picture,
      if it were not warped.
    anchor: row and column of the pixel of the window that stays where it is;
      it may lie between pixels.
    old: height and width of the picture.
    new: height and width of the resized picture.

  Returns:
    [2, height, width] float64.
  """
  height, width = size
  angle = math.radians(warp.angle)
  cosine, sine = math.cos(angle), math.sin(angle)
  down = np.arange(height)[:, None] - anchor[0]
  right = np.arange(width) - anchor[1]
  result = np.stack(
    [cosine * down + sine * right, cosine * right - sine * down]
  )
  if warp.displacement is not None:
    row, column = (int(side) for side in anchor)
    result += warp.displacement[:, :height, :width]
    result -= warp.displacement[:, row, column, None, None]
  for axis, part in enumerate(result):
    part += corner[axis] + anchor[axis] + 0.5
    # In this order whole places stay exact.
    part *= old[axis]
    part /= new[axis]
  return result


def sample_label(label: np.ndarray, at: np.ndarray) -> np.ndarray:
  """Labels of the pixels in which places [2, h, w] lie; void outside."""
  indices = np.floor(at).astype(np.intp)
  outside = np.zeros(at.shape[1:], bool)
  for index, length in zip(indices, label.shape, strict=False):
    outside |= (index < 0) | (index >= length)
    np.clip(index, 0, length - 1, out=index)
  result = label[indices[0], indices[1]]
  result[outside] = types.IGNORE_LABEL
  return result


def sample_image(
  image: np.ndarray,
  at: np.ndarray,
  *,
  shrinking: Sequence[float],
  fill: Sequence[float],
) -> np.ndarray:
  """The image, interpolated bilinearly at places [2, h, w].

  Args:
    image: [H, W, C] uint8 or float32.
    at: the places.
    shrinking: pixels of the picture for one of the window, along rows and
      columns. Above 1 the picture is smoothed first, by the kernel of `resize`
      at the centres of its pixels: a triangle of twice this width.
    fill: [C] values outside of the picture.
  """
  kernels = [_triangle(factor) for factor in shrinking]
  region = []
  outside = np.zeros(at.shape[1:], bool)
  for axis, length in enumerate(image.shape[:2]):
    outside |= (at[axis] < 0) | (at[axis] >= length)
    reach = len(kernels[axis]) // 2 + 2
    low, high = np.clip((at[axis].min(), at[axis].max()), 0, length - 1)
    region.append(
      slice(max(0, int(low) - reach), min(length, int(high) + reach))
    )
  # The centre of pixel 0 is at place 0.5, but has the coordinate 0 in SciPy.
  coordinates = [
    part - (window.start + 0.5) for part, window in zip(at, region, strict=True)
  ]
  result = np.empty((*outside.shape, image.shape[-1]), image.dtype)
  for channel in range(image.shape[-1]):
    # A plane that lies together: strides of three bytes take longer.
    plane = np.ascontiguousarray(image[(*region, channel)])
    for axis, kernel in enumerate(kernels):
      if len(kernel) > 1:
        plane = ndimage.correlate1d(
          plane, kernel, axis, output=np.float32, mode="nearest"
        )
    result[..., channel] = ndimage.map_coordinates(
      plane, coordinates, output=image.dtype, order=1, mode="nearest"
    )
  result[outside] = fill
  return result


def _triangle(half_width: float) -> np.ndarray:
  """A triangle at whole pixels, of sum one; just 1 up to a half width of 1."""
  reach = max(1, math.ceil(half_width)) - 1
  distances = np.abs(np.arange(-reach, reach + 1))
  weights = 1.0 - distances / max(1.0, half_width)
  return weights / weights.sum()
