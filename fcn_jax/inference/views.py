"""Copies of a picture, rescaled or mirrored, for averaging over them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fcn_jax.data.pipeline import transforms
from fcn_jax.inference import tiles


@dataclasses.dataclass(frozen=True)
class Copy:
  """What the network sees of a picture.

  Attributes:
    image: [h, w, C], the picture rescaled and, if so, mirrored.
    native_size: height and width of the picture.
    mirrored: whether left and right are exchanged.
  """

  image: np.ndarray
  native_size: tuple[int, int]
  mirrored: bool = False

  @property
  def is_plain(self) -> bool:
    """Whether it is the picture itself."""
    return self.image.shape[:2] == self.native_size and not self.mirrored

  @property
  def sides(self) -> tuple[tiles.Side, tiles.Side]:
    """Rows and columns."""
    height, width = self.image.shape[:2]
    return (
      tiles.Side(self.native_size[0], height),
      tiles.Side(self.native_size[1], width, self.mirrored),
    )


def make(
  image: np.ndarray, *, scales: Sequence[float] = (1.0,), flip: bool = False
) -> list[Copy]:
  """The copies of a picture over which is averaged.

  Args:
    image: [H, W, C]; uint8 or float32 if it is to be rescaled.
    scales: factors by which it is resized, as for training.
    flip: whether each is there mirrored as well.

  Raises:
    ValueError: the image has another shape, or another type where it is to be
      rescaled; there is no scale, or one is not above 0.
  """
  if image.ndim != 3:
    raise ValueError(
      f"image has shape {image.shape}; it must be [H, W, C]: one picture."
    )
  if not scales:
    raise ValueError("scales are empty; (1.0,) is the picture as it is.")
  native_size = image.shape[:2]
  copies = []
  for scale in scales:
    size = transforms.rescaled_size(native_size, factor=scale)
    rescaled = image
    if size != native_size:
      if image.dtype not in (np.uint8, np.float32):
        raise ValueError(
          f"image is {image.dtype}; to be rescaled it must be uint8 or float32."
        )
      # Transforms change a picture with its labels, of which there are none.
      labels = np.broadcast_to(np.uint8(0), native_size)
      rescaled, _ = transforms.resize(np.asarray(image), labels, size=size)
    copies.append(Copy(rescaled, native_size))
    if flip:
      copies.append(Copy(rescaled[:, ::-1], native_size, mirrored=True))
  return copies


class Taps(NamedTuple):
  """Where values for a line of pixels are taken from, [K] each.

  Attributes:
    lower: int32, the place at or before each pixel.
    upper: int32, the place at or behind it.
    fraction: float32, how far the pixel is on the way between them.
  """

  lower: np.ndarray
  upper: np.ndarray
  fraction: np.ndarray


def taps(positions: np.ndarray, begin: int, length: int) -> Taps:
  """Taps for linear interpolation.

  Args:
    positions: [K] float64, of pixels in a copy, see `tiles.Side.positions`.
    begin: the place in the copy that is the first of those at hand.
    length: of the result, K or more; the last one is repeated.
  """
  lower = np.floor(positions)
  found = Taps(
    (lower - begin).astype(np.int32),
    (np.ceil(positions) - begin).astype(np.int32),
    (positions - lower).astype(np.float32),
  )
  missing = length - len(positions)
  return Taps(*(np.pad(array, (0, missing), mode="edge") for array in found))
