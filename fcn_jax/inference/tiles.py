"""Where the tiles of a picture lie, and what the network must see for each.

A tile is a part of a picture whose classes are predicted at once. The network
gets more than the tile as input: all pixels on which the logits in the tile
depend. At the border of the picture it sees the same border as in the whole
picture. Elsewhere the border of its input is too far away to matter. The input
begins at a multiple of the coarsest stride, so its cells coincide with those of
the whole picture. Hence the logits equal those of the whole picture, up to
rounding.

All of this is arithmetic on sizes, along one axis at a time.
"""

import dataclasses
import functools
import math

import numpy as np

from fcn_jax import geometry
from fcn_jax import models

# The arrays of whole pictures have sides that are multiples of this. The
# network is compiled for each shape, and few shapes then serve many sizes.
SIDE_MULTIPLE = 64


def padded_side(size: int) -> int:
  """The side of the array in which a whole picture is put."""
  return -(-size // SIDE_MULTIPLE) * SIDE_MULTIPLE


@dataclasses.dataclass(frozen=True)
class Surroundings:
  """The pixels that a network needs for the logits of some pixels.

  Attributes:
    chain: the network's layer lists.
    margin: how many pixels around them; None for all on which the logits
      depend.
    alignment: the input begins at a multiple of this, and so do tiles.
  """

  chain: geometry.Chain
  margin: int | None
  alignment: int

  @classmethod
  def of(cls, model: models.Network, margin: int | None) -> "Surroundings":
    """Those of a network, whose cells are to lie as in the whole picture.

    Raises:
      ValueError: if the margin is negative.
    """
    if margin is not None and margin < 0:
      raise ValueError(f"margin is {margin} pixels; it must be >= 0.")
    chain = model.chain()
    stride = int(geometry.grid(chain.score).stride)
    return cls(chain, margin, alignment=stride)

  @classmethod
  def none(cls, model: models.Network) -> "Surroundings":
    """For tiles that a network sees alone, wherever they begin."""
    return cls(model.chain(), 0, alignment=1)

  @functools.cached_property
  def beyond(self) -> int:
    """Pixels to add before others, a multiple of the coarsest stride.

    Where layers round down, the last pixels of a picture may lie more than a
    stride beyond the last cell. They take the scores of that cell, which sees
    pixels further back than the cells that would otherwise surround them.
    """
    layers = self.chain.score
    cells = geometry.grid(layers)
    stride = int(cells.stride)
    field = geometry.receptive_field(layers)
    gap = max(
      side - 1 - cells.offset - (count - 1) * stride
      for side in range(field, field + stride)
      if (count := geometry.output_size(layers, side))
    )
    return max(0, math.ceil(gap / stride) - 1) * stride

  @functools.cached_property
  def _pixels_seen(self):
    """`geometry.pixels_seen`, which takes time and is asked the same again."""
    return functools.lru_cache(maxsize=10_000)(
      functools.partial(geometry.pixels_seen, self.chain)
    )

  def around(self, first: int, last: int) -> tuple[int, int]:
    """Begin and end of the input that pixels `first` to `last` need.

    The begin is a multiple of the alignment. Both may lie outside the picture.
    """
    if self.margin is None:
      begin, end = self._pixels_seen(first, last)
      begin -= self.beyond
    else:
      begin, end = first - self.margin, last + self.margin
    return begin // self.alignment * self.alignment, end + 1

  def inside(self, first: int, last: int, size: int) -> tuple[int, int]:
    """As `around`, clipped to a picture of a size."""
    begin, end = self.around(first, last)
    return max(0, begin), min(size, end)

  def largest(self, length: int) -> int:
    """Largest input that any `length` neighbouring pixels need."""
    ranges = (
      self.around(first, first + length - 1) for first in range(self.alignment)
    )
    return max(end - begin for begin, end in ranges)


@dataclasses.dataclass(frozen=True)
class Side:
  """One axis of a picture, and of a view of it.

  Attributes:
    native: side of the picture.
    view: side of the view, which may be rescaled.
    mirrored: whether the view runs the other way.
  """

  native: int
  view: int
  mirrored: bool = False

  def positions(self, pixels: slice) -> np.ndarray:
    """Where pixels of the picture lie in the view, [K] float64.

    Pixels are squares, and the view covers what the picture covers. Centres are
    clipped to those of the view's outermost pixels.
    """
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float64)
    if self.mirrored:
      centres = self.native - 1 - centres
    found = (centres + 0.5) * self.view / self.native - 0.5
    return found.clip(0, self.view - 1)

  def ends(self, pixels: slice) -> tuple[int, int]:
    """The first and the last pixel of the view around some pixels."""
    found = self.positions(pixels)
    return math.floor(found.min()), math.ceil(found.max())

  def array_side(
    self, tile: int, tile_size: int, surroundings: Surroundings
  ) -> int:
    """Side of the array that holds what the network must see.

    Args:
      tile: side of the tiles in the picture.
      tile_size: side that the array should not exceed, if it can.
      surroundings: of the network.
    """
    # There is no need to pad a picture beyond the largest array.
    whole = max(self.view, min(padded_side(self.view), tile_size))
    if tile >= self.native:
      return whole
    return min(whole, self._around_tile(tile, surroundings))

  def least_side(self, tile: int, surroundings: Surroundings) -> int:
    """Side of the smallest array that holds what the network must see."""
    if tile >= self.native:
      return self.view
    return min(self.view, self._around_tile(tile, surroundings))

  def _around_tile(self, tile: int, surroundings: Surroundings) -> int:
    """The most pixels of the view that a tile needs."""
    if self.native == self.view and not self.mirrored:
      begin, end = surroundings.around(0, tile - 1)
      return end - begin
    # The view's pixels around the centres of a tile's pixels.
    length = math.ceil(tile * self.view / self.native) + 2
    return surroundings.largest(length)


def choose_tile(
  sides: list[Side], tile_size: int, surroundings: Surroundings
) -> int:
  """The side of the tiles: as large as the arrays allow.

  Args:
    sides: the same axis of each view of the picture.
    tile_size: largest side of an array that the network is given.
    surroundings: of the network.

  Returns:
    The side of the picture, or a multiple of the alignment.

  Raises:
    ValueError: if not even the smallest tile has a small enough array.
  """
  native = sides[0].native
  if all(side.view <= tile_size for side in sides):
    return native
  step = surroundings.alignment

  def needed(tile):
    return max(side.array_side(tile, tile_size, surroundings) for side in sides)

  for tile in range(tile_size // step * step, 0, -step):
    if tile < native and needed(tile) <= tile_size:
      return tile
  raise ValueError(
    f"tile_size is {tile_size} pixels, which leaves no room for a tile and "
    f"what the network must see around it: give at least {needed(step)}, "
    "better much more; or give a smaller margin or blending gaussian, which "
    "are not exact."
  )


def overlapping(start: int, stop: int, tile: int) -> list[slice]:
  """Cuts a range of pixels into tiles that overlap by half.

  All have the same length, `tile` or that of the range. The last one is moved
  inwards to end with the range.
  """
  tile = min(tile, stop - start)
  begins = [*range(start, stop - tile, max(1, tile // 2)), stop - tile]
  return [slice(begin, begin + tile) for begin in begins]


def cut(start: int, stop: int, tile: int) -> list[slice]:
  """Cuts a range of pixels into tiles; the last one may be smaller."""
  return [
    slice(begin, min(begin + tile, stop)) for begin in range(start, stop, tile)
  ]
