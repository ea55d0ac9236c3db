"""Where the tiles of a picture lie, and what the network must see of each.

A tile is the part of a picture whose classes are found at once. The network is
given more than that: all pixels on which the logits in the tile depend, as far
as the picture has them. At the border of the picture it meets what it meets
there in the whole picture; elsewhere the border of what it is given is too far
away to be seen in the tile. What it is given begins at a multiple of its
coarsest stride, so that its cells are those of the whole picture. Hence the
logits are those of the whole picture, up to rounding.

All of this is arithmetic on sizes, along one axis at a time.
"""

import dataclasses
import functools
import math

import numpy as np

from fcn_jax import geometry
from fcn_jax import models

# Sides of arrays for whole pictures are multiples of this, so that pictures of
# many sizes have arrays of few shapes, each of which is compiled.
SIDE_MULTIPLE = 64


def padded_side(size: int) -> int:
  """The side of the array in which a whole picture is put."""
  return -(-size // SIDE_MULTIPLE) * SIDE_MULTIPLE


@dataclasses.dataclass(frozen=True)
class Surroundings:
  """What a network must be given for the logits of some pixels.

  Attributes:
    chain: the network's layer lists.
    margin: pixels around them; None for all on which the logits depend.
  """

  chain: geometry.Chain
  margin: int | None = None

  @classmethod
  def of(cls, model: models.Network, margin: int | None) -> "Surroundings":
    """Those of a network.

    Raises:
      ValueError: the margin is negative.
    """
    if margin is not None and margin < 0:
      raise ValueError(f"margin is {margin} pixels; it must be >= 0.")
    return cls(model.chain(), margin)

  @functools.cached_property
  def beyond(self) -> int:
    """Pixels more to give before others, a multiple of the coarsest stride.

    Where layers round down, the last pixels of a picture lie beyond the last
    cell by more than a stride: they have its scores, and it sees pixels that
    begin earlier than those of the cells between which they would lie.
    """
    layers = self.chain.score
    cells = geometry.grid(layers)
    field = geometry.receptive_field(layers)
    gap = max(
      side - 1 - cells.offset - (count - 1) * cells.stride
      for side in range(field, field + self.stride)
      if (count := geometry.output_size(layers, side))
    )
    return max(0, math.ceil(gap / cells.stride) - 1) * self.stride

  @property
  def stride(self) -> int:
    """The coarsest stride of the network."""
    return int(geometry.grid(self.chain.score).stride)

  def around(self, first: int, last: int) -> tuple[int, int]:
    """Which pixels to give for pixels `first` to `last`: begin and end.

    The begin is a multiple of the coarsest stride. Both may lie outside the
    picture.
    """
    if self.margin is None:
      begin, end = geometry.pixels_seen(self.chain, first, last)
      begin -= self.beyond
    else:
      begin, end = first - self.margin, last + self.margin
    return begin // self.stride * self.stride, end + 1

  def inside(self, first: int, last: int, size: int) -> tuple[int, int]:
    """As `around`, as far as a picture of a size has the pixels."""
    begin, end = self.around(first, last)
    return max(0, begin), min(size, end)

  def largest(self, length: int) -> int:
    """Most pixels to give for `length` neighbouring pixels, wherever."""
    ranges = (
      self.around(first, first + length - 1) for first in range(self.stride)
    )
    return max(end - begin for begin, end in ranges)


@dataclasses.dataclass(frozen=True)
class Side:
  """One axis of a picture, and of a copy of it that the network sees.

  Attributes:
    native: side of the picture.
    copy: side of the copy, which may be rescaled.
    mirrored: whether the copy runs the other way.
  """

  native: int
  copy: int
  mirrored: bool = False

  def positions(self, pixels: slice) -> np.ndarray:
    """Where pixels of the picture lie in the copy, [K] float64.

    Pixels are squares, and the copy covers what the picture covers. Centres
    beyond those of the copy's outermost pixels are moved there.
    """
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float64)
    if self.mirrored:
      centres = self.native - 1 - centres
    found = (centres + 0.5) * self.copy / self.native - 0.5
    return found.clip(0, self.copy - 1)

  def ends(self, pixels: slice) -> tuple[int, int]:
    """The first and the last pixel of the copy between which pixels lie."""
    found = self.positions(pixels)
    return math.floor(found.min()), math.ceil(found.max())

  def array_side(
    self, tile: int, tile_size: int, surroundings: Surroundings
  ) -> int:
    """Side of the array in which the network is given what it must see.

    Args:
      tile: side of the tiles in the picture.
      tile_size: side that the array should not exceed, if it can.
      surroundings: of the network.
    """
    # A picture need not be padded beyond the largest array.
    whole = max(self.copy, min(padded_side(self.copy), tile_size))
    if tile >= self.native:
      return whole
    if self.native == self.copy and not self.mirrored:
      begin, end = surroundings.around(0, tile - 1)
      needed = end - begin
    else:
      # The copy's pixels between which the centres of a tile's may lie.
      length = math.ceil(tile * self.copy / self.native) + 2
      needed = surroundings.largest(length)
    return min(whole, needed)


def choose_tile(
  sides: list[Side], tile_size: int, surroundings: Surroundings
) -> int:
  """The side of the tiles: as large as the arrays allow.

  Args:
    sides: the same axis for each copy of the picture.
    tile_size: largest side of an array that the network is given.
    surroundings: of the network.

  Returns:
    The side of the picture, or a multiple of the network's coarsest stride.

  Raises:
    ValueError: not even the smallest tile has an array that is small enough.
  """
  native = sides[0].native
  if all(side.copy <= tile_size for side in sides):
    return native
  stride = surroundings.stride

  def needed(tile):
    return max(side.array_side(tile, tile_size, surroundings) for side in sides)

  for tile in range(tile_size // stride * stride, 0, -stride):
    if tile < native and needed(tile) <= tile_size:
      return tile
  raise ValueError(
    f"tile_size is {tile_size} pixels, which leaves no room for a tile and "
    f"what the network must see around it: {needed(stride)} is the least, and "
    "much more is better; or give a smaller margin, which is not exact."
  )


def cut(start: int, stop: int, tile: int) -> list[slice]:
  """Cuts a range of pixels into tiles; the last one may be smaller."""
  return [
    slice(begin, min(begin + tile, stop)) for begin in range(start, stop, tile)
  ]
