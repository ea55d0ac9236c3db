"""Linear interpolation along one axis, from coarse cells to a finer grid.

Cell i lies at position offset + i * factor, counted in outputs; output j lies
at position j.
"""

import math

import jax
import jax.numpy as jnp

from fcn_jax import types


def interpolate_axis(
  values: jax.Array,
  *,
  axis: int,
  factor: int,
  offset: float,
  size: int,
  edge: types.EdgeRule,
) -> jax.Array:
  """Interpolates linearly along one axis onto a grid `factor` times as fine.

  Between two neighbouring cells lie `factor` outputs, at the same fractions
  everywhere. So the result is the sum of two scaled inputs, one shifted by a
  cell: no gather in the forward pass, no scatter in the backward pass.

  Args:
    values: array with coarse cells along `axis`.
    axis: the axis to interpolate.
    factor: outputs a cell.
    offset: position of cell 0.
    size: number of outputs.
    edge: what lies beyond the outermost cells, "zero" or "clamp".

  Returns:
    `values` with `size` entries along `axis`.
  """
  first, last = covering_cells(factor, offset, size)
  values = take_cells(values, axis=axis, start=first, stop=last + 1, edge=edge)
  low = jax.lax.slice_in_dim(values, 0, last - first, axis=axis)
  high = jax.lax.slice_in_dim(values, 1, last - first + 1, axis=axis)

  lead = first_output(factor, offset, first)
  shape = [1] * (values.ndim + 1)
  shape[axis + 1] = factor
  fraction = fractions_between(factor, offset, values.dtype).reshape(shape)
  low = jnp.expand_dims(low, axis + 1)
  high = jnp.expand_dims(high, axis + 1)
  fine = low * (1 - fraction) + high * fraction

  fine = fine.reshape(
    *values.shape[:axis], (last - first) * factor, *values.shape[axis + 1 :]
  )
  return jax.lax.slice_in_dim(fine, -lead, size - lead, axis=axis)


def multiply_axis(
  cells: jax.Array, shares: jax.Array, *, axis: int, factor: int
) -> jax.Array:
  """`interpolate_axis` as a matrix product.

  A value that is not finite reaches all outputs.

  Args:
    cells: array with cells along `axis`.
    shares: [cells, size], from `shares_of_cells`.
    axis: the axis to interpolate.
    factor: outputs a cell.

  Returns:
    `cells` with `size` entries along `axis`.
  """
  # Shares are multiples of 1 / (2 factor). Where bfloat16 holds them exactly,
  # only the cells need more than one pass of a TPU.
  highest, default = jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT
  is_exact = 256 % (2 * factor) == 0
  outputs = jnp.tensordot(
    cells,
    shares,
    (axis, 0),
    precision=(highest, default if is_exact else highest),
  )
  return jnp.moveaxis(outputs, -1, axis)


def shares_of_cells(
  num_cells: int,
  *,
  factor: int,
  offset: float,
  size: int,
  edge: types.EdgeRule,
  dtype: jax.typing.DTypeLike,
) -> jax.Array:
  """How much of each cell is in each output of `interpolate_axis`.

  Returns:
    [cells, size], of the given dtype.
  """
  # Offsets are multiples of one half, so twice of all distances are integers.
  outputs = 2 * jnp.arange(size, dtype=jnp.int32) - round(2 * offset)
  positions = 2 * factor * jnp.arange(num_cells, dtype=jnp.int32)
  if edge == "clamp":
    outputs = jnp.clip(outputs, 0, 2 * factor * (num_cells - 1))
  distances = jnp.abs(outputs[None] - positions[:, None])
  return jnp.maximum(0, 1 - distances.astype(dtype) / (2 * factor))


def covering_cells(factor: int, offset: float, size: int) -> tuple[int, int]:
  """The first and the last cell that outputs 0..size-1 lie between."""
  first = math.floor(-offset / factor)
  # In integers, as an exported program does not know its size yet.
  return first, (size - 1 - math.ceil(offset)) // factor + 1


def first_output(factor: int, offset: float, cell: int) -> int:
  """The first output that does not lie before a cell."""
  return math.ceil(offset + cell * factor)


def fractions_between(factor: int, offset: float, dtype) -> jax.Array:
  """Fractions [factor] in [0, 1) of outputs between a cell and the next."""
  start = math.ceil(offset) - offset
  return (jnp.arange(factor, dtype=dtype) + start) / factor


def take_cells(
  values: jax.Array,
  *,
  axis: int,
  start: int,
  stop: int,
  edge: types.EdgeRule,
) -> jax.Array:
  """Cells start..stop-1 along an axis; those outside by the edge rule."""
  before, after = max(0, -start), max(0, stop - values.shape[axis])
  if edge == "zero":
    padding = [(0, 0)] * values.ndim
    padding[axis] = (before, after)
    values = jnp.pad(values, padding)
  else:
    # The gradient of `jnp.pad(mode="edge")` would exchange zeros between
    # devices.
    first = _repeat(values, 0, before, axis)
    last = _repeat(values, values.shape[axis] - 1, after, axis)
    values = jnp.concatenate([first, values, last], axis)
  return jax.lax.slice_in_dim(values, start + before, stop + before, axis=axis)


def _repeat(values: jax.Array, index: int, number: int, axis: int) -> jax.Array:
  """One cell along an axis, several times."""
  cell = jax.lax.slice_in_dim(values, index, index + 1, axis=axis)
  shape = [*cell.shape]
  shape[axis] = number
  return jnp.broadcast_to(cell, shape)
