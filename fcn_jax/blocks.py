"""Blocks: the pixels between four neighbouring cells of a score map.

A block has stride x stride pixels, and all of them depend on the same four
cells. At the borders of the image, blocks reach beyond it. Grids have numbers
here, not fractions: `score_map.grid`.
"""

import jax
import jax.numpy as jnp

from fcn_jax import interpolation
from fcn_jax import platforms
from fcn_jax import types


def shape(grid: types.Grid, image_size: tuple[int, int]) -> tuple[int, int]:
  """How many rows and columns of blocks cover an image.

  Args:
    grid: where the cells lie.
    image_size: height and width in pixels.
  """
  cells = (interpolation.covering_cells(*grid, size) for size in image_size)
  return tuple(last - first for first, last in cells)


def tile(grid: types.Grid, values: jax.Array, *, fill: float) -> jax.Array:
  """Cuts values of pixels at the borders of the blocks.

  Args:
    grid: where the cells lie.
    values: [N, H, W].
    fill: the value of the pixels of blocks that are outside the image.

  Returns:
    [N, rows, stride, columns, stride].
  """
  stride = grid.stride
  rows, columns = shape(grid, values.shape[1:])
  padding = [(0, 0)]
  for number, size in zip((rows, columns), values.shape[1:], strict=True):
    before = num_outside(grid)
    padding.append((before, number * stride - size - before))
  values = jnp.pad(values, padding, constant_values=fill)
  return values.reshape(len(values), rows, stride, columns, stride)


def split(grid: types.Grid, values: jax.Array, *, fill: float) -> jax.Array:
  """Sorts values of pixels into blocks.

  Args:
    grid: where the cells lie.
    values: [N, H, W].
    fill: see `tile`.

  Returns:
    [N, B, P], blocks row by row and the P = stride^2 pixels of each likewise.
  """
  tiles = tile(grid, values, fill=fill)
  rows, stride, columns = tiles.shape[1:4]
  tiles = tiles.transpose(0, 1, 3, 2, 4)
  return tiles.reshape(len(values), rows * columns, stride**2)


def merge(
  grid: types.Grid, tiles: jax.Array, image_size: tuple[int, int]
) -> jax.Array:
  """The inverse of `tile`.

  Args:
    grid: where the cells lie.
    tiles: [N, rows, stride, columns, stride].
    image_size: height and width in pixels, H and W.

  Returns:
    [N, H, W].
  """
  rows, stride, columns = tiles.shape[1:4]
  values = tiles.reshape(len(tiles), rows * stride, columns * stride)
  for axis, size in zip((1, 2), image_size, strict=True):
    start = num_outside(grid)
    values = jax.lax.slice_in_dim(values, start, start + size, axis=axis)
  return values


def spread(
  grid: types.Grid, values: jax.Array, image_size: tuple[int, int]
) -> jax.Array:
  """Gives every pixel the value of its block.

  Args:
    grid: where the cells lie.
    values: [N, rows, columns] bool.
    image_size: height and width in pixels, H and W.

  Returns:
    [N, H, W] bool.
  """
  num_images, rows, columns = values.shape
  stride = grid.stride

  def by_copying(values):
    shape = num_images, rows, stride, columns, stride
    tiles = jnp.broadcast_to(values[:, :, None, :, None], shape)
    return merge(grid, tiles, image_size)

  def by_product(values):
    # TPUs are slow at splitting the axis of columns.
    start = num_outside(grid)
    pixels = jnp.arange(start, start + image_size[1], dtype=jnp.int32)
    dtype = jnp.bfloat16
    is_in = jax.nn.one_hot(pixels // stride, columns, axis=0, dtype=dtype)
    found = jnp.einsum("nrc,cx->nrx", values.astype(dtype), is_in)
    found = jnp.repeat(found > 0, stride, axis=1)
    return jax.lax.slice_in_dim(found, start, start + image_size[0], axis=1)

  return platforms.dependent(values, tpu=by_product, default=by_copying)


def num_outside(grid: types.Grid) -> int:
  """Rows of the first blocks that lie above the image, or columns before it."""
  first, _ = interpolation.covering_cells(*grid, size=1)
  return -interpolation.first_output(*grid, first)
