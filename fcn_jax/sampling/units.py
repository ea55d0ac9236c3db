"""What is kept or dropped as a whole: blocks, or single pixels."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fcn_jax import blocks as blocks_lib
from fcn_jax import types
from fcn_jax.sampling import uniform

Unit = Literal["block", "pixel"]


def check(unit: Unit) -> None:
  """Raises a `ValueError` if `unit` is unknown."""
  if unit not in get_args(Unit):
    raise ValueError(
      f'unit is {unit!r}; choose "block", the pixels between four cells, or '
      '"pixel".'
    )


def weights_of_blocks(
  kept: jax.Array, labels: jax.Array, grid: types.Grid
) -> jax.Array:
  """Weight 1 for the valid pixels of kept blocks.

  Args:
    kept: [N, rows, columns] bool.
    labels: [N, H, W].
    grid: where the cells lie.

  Returns:
    [N, H, W] float32.
  """
  kept = blocks_lib.spread(grid, kept, labels.shape[1:])
  return jnp.where(kept, uniform.valid_pixels(labels), 0.0)
