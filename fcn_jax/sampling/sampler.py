"""What a sampler is: functions and facts."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax

from fcn_jax import reprs
from fcn_jax import types

# What the functions of a sampler can ask for beside their arguments.
Need = Literal["grid", "pixel_losses", "score_map"]


class Sampler(NamedTuple):
  """Which pixels enter the loss, and with what weight.

  Write your own with `draw` alone; what you do not state is not used.

  Attributes:
    draw: (key, labels [N, H, W]) -> weights [N, H, W] float32, 0 where void.
    max_count: from the shape (N, H, W) of the labels to how many pixels of an
      image have a weight other than 0 at most; None if not known. Use
      `capacity.tail_bound` where the number is random. With `blocks`, count
      those that are cut off as whole ones.
    expected_sum: from labels [N, H, W] to the expected sum of the weights, []
      float32; None if not known.
    needs: what the functions take by keyword. "grid": those above take `grid`,
      a `types.Grid`: where the cells of the score map lie. "pixel_losses":
      `draw` takes the losses of the pixels, [N, H, W]. "score_map": `draw` and
      `blocks` take the score map, to be used without gradient.
    blocks: if whole blocks are kept with weight 1, (key, (N, rows, columns)) ->
      [N, rows, columns] bool: what `draw` keeps, see `fcn_jax.blocks`.
    places: if the same places are kept in all blocks, with weight 1, (key, N,
      stride) -> [N, m] int32 or, if they are the same in all images, [1, m]:
      what `draw` keeps, as numbers row * stride + column in a block. None
      instead of an array if `draw` does not repeat with this stride.
    description: what `repr` shows.
  """

  draw: Callable[..., jax.Array]
  max_count: Callable[..., int] | None = None
  expected_sum: Callable[..., jax.Array] | None = None
  needs: tuple[Need, ...] = ()
  blocks: Callable[..., jax.Array] | None = None
  places: Callable[[jax.Array, int, int], jax.Array | None] | None = None
  description: str = ""

  def __repr__(self) -> str:
    return self.description or f"Sampler(draw={reprs.value(self.draw)})"


class Probabilities(NamedTuple):
  """Probabilities of keeping pixels.

  Attributes:
    of: labels [N, H, W] -> [N, H, W] float32 in 0..1, 0 where void.
    max_count: of the pixels that are drawn with them, see `Sampler`.
    description: what `repr` shows.
  """

  of: Callable[[jax.Array], jax.Array]
  max_count: Callable[[tuple[int, int, int]], int] | None = None
  description: str = ""

  def __repr__(self) -> str:
    return self.description or f"Probabilities(of={reprs.value(self.of)})"


def check_grid(grid: types.Grid | None) -> types.Grid:
  """The grid in plain numbers; raises a `ValueError` if there is none."""
  if grid is None:
    raise ValueError(
      "this sampler keeps pixels by their place between the cells of a score "
      "map: give grid=score_map.grid, or a types.Grid(stride, offset)."
    )
  return types.Grid(int(grid.stride), float(grid.offset))
