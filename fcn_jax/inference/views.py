"""Views of a picture, rescaled, mirrored or turned, to average over them."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fcn_jax.data.pipeline import transforms
from fcn_jax.inference import tiles


@dataclasses.dataclass(frozen=True)
class View:
  """What the network sees of a picture.

  Attributes:
    image: [h, w, C], the picture rescaled and maybe mirrored.
    native_size: height and width of the picture.
    mirrored: the axes whose ends are exchanged.
    exchanged: whether the network sees rows as columns, and columns as rows.
      They are exchanged in its kernels instead of here, see `Plan.prepared`,
      so that all views of a scale have the same size.
  """

  image: np.ndarray
  native_size: tuple[int, int]
  mirrored: tuple[int, ...] = ()
  exchanged: bool = False

  @property
  def is_plain(self) -> bool:
    """Whether it is the picture itself."""
    is_native = self.image.shape[:2] == self.native_size
    return is_native and not self.mirrored and not self.exchanged

  @property
  def sides(self) -> tuple[tiles.Side, tiles.Side]:
    """Rows and columns."""
    rows, columns = (
      tiles.Side(native, view, axis in self.mirrored)
      for axis, (native, view) in enumerate(
        zip(self.native_size, self.image.shape[:2], strict=True)
      )
    )
    return rows, columns

  @property
  def sideways(self) -> "View":
    """The view with rows and columns exchanged."""
    return View(
      np.swapaxes(self.image, 0, 1),
      self.native_size[::-1],
      tuple(1 - axis for axis in self.mirrored),
      self.exchanged,
    )


def make(
  image: np.ndarray,
  *,
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
) -> list[View]:
  """The views of a picture that are averaged.

  Args:
    image: [H, W, C]; uint8 or float32 if it is to be rescaled.
    scales: factors by which it is resized, as for training.
    flip: whether there is also a mirrored view of each scale.
    quarter_turns: whether there are also views turned by 90, 180 and 270
      degrees; with `flip` mirrored ones, too: eight in all.

  Raises:
    ValueError: if the image has another shape, or another type and is to be
      rescaled; or if there is no scale, or one is not above 0.
  """
  if image.ndim != 3:
    raise ValueError(
      f"image has shape {image.shape}; it must be [H, W, C]: one picture."
    )
  if not scales:
    raise ValueError("scales are empty; (1.0,) is the picture as it is.")
  native_size = image.shape[:2]
  views = []
  for scale in scales:
    size = transforms.rescaled_size(native_size, factor=scale)
    rescaled = image
    if size != native_size:
      if image.dtype not in (np.uint8, np.float32):
        raise ValueError(
          f"image is {image.dtype}; to be rescaled it must be uint8 or float32."
        )
      # Transforms change a picture with its labels; there are none here.
      labels = np.broadcast_to(np.uint8(0), native_size)
      rescaled, _ = transforms.resize(np.asarray(image), labels, size=size)
    views += [
      View(np.flip(rescaled, mirrored), native_size, mirrored, exchanged)
      for mirrored, exchanged in _ways(flip, quarter_turns)
    ]
  return views


def _ways(flip, quarter_turns):
  """Which axes are mirrored, and whether they are exchanged afterwards."""
  if not quarter_turns:
    return [((), False), ((1,), False)][: 1 + flip]
  # All symmetries of a square. A turn takes an even number of the three steps:
  # mirroring each axis, and exchanging them.
  every = itertools.product(((), (1,), (0,), (0, 1)), (False, True))
  return [way for way in every if flip or (len(way[0]) + way[1]) % 2 == 0]


def sides(
  size: tuple[int, int],
  *,
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
) -> list[tuple[tiles.Side, tiles.Side]]:
  """Rows and columns of the views that `make` returns for a picture of a size.

  Raises:
    ValueError: if there is no scale, or one is not above 0.
  """
  if not scales:
    raise ValueError("scales are empty; (1.0,) is the picture as it is.")
  found = []
  for scale in scales:
    height, width = transforms.rescaled_size(size, factor=scale)
    found += [
      (
        tiles.Side(size[0], height, 0 in mirrored),
        tiles.Side(size[1], width, 1 in mirrored),
      )
      for mirrored, _ in _ways(flip, quarter_turns)
    ]
  return found


class Taps(NamedTuple):
  """Where to take values for K rows or columns of pixels, [K] each.

  Attributes:
    lower: int32, index at or before each pixel.
    upper: int32, index at or after it.
    fraction: float32, position of the pixel between them, in 0..1.
  """

  lower: np.ndarray
  upper: np.ndarray
  fraction: np.ndarray


def taps(positions: np.ndarray, begin: int, length: int) -> Taps:
  """Taps for linear interpolation.

  Args:
    positions: [K] float64, of pixels in a view, see `tiles.Side.positions`.
    begin: index in the view of the first value in the array.
    length: of the result, K or more; the last entry is repeated.
  """
  lower = np.floor(positions)
  found = Taps(
    (lower - begin).astype(np.int32),
    (np.ceil(positions) - begin).astype(np.int32),
    (positions - lower).astype(np.float32),
  )
  missing = length - len(positions)
  return Taps(*(np.pad(array, (0, missing), mode="edge") for array in found))
