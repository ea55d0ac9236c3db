"""Functions of the logits of all pixels, computed strip by strip.

The rows of pixels between two rows of cells depend on these two rows alone; a
strip is one or more of such pieces. The classes of a strip come before its
columns, [N, pieces, rows, C, W]: a sum over classes is then one over whole rows
of numbers.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from fcn_jax import interpolation
from fcn_jax import types
from fcn_jax.losses import gradients


def map_strips(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  arrays: tuple[jax.Array, ...] = (),
) -> jax.Array:
  """Applies a function of the logits to all pixels.

  Args:
    function: from logits [N, ..., C, W] and the part [N, ..., W] of each of
      `arrays` to one value for each pixel, [N, ..., W].
    score_map: scores [N, h, w, C].
    arrays: each [N, H, W].

  Returns:
    [N, H, W].
  """
  cells = _rows_of_cells(score_map)

  def apply(_, strip):
    number, *parts = strip
    rows = jax.lax.dynamic_slice_in_dim(cells, number, 2)
    logits = _strip_logits(score_map, rows, interpolation.interpolate_axis)
    return None, function(logits, *parts)

  # Not `len`, as an exported program does not know its size yet.
  num_pieces = cells.shape[0] - 1
  numbers = jnp.arange(num_pieces, dtype=jnp.int32)
  pieces = _pieces(score_map, arrays, num_pieces)
  parts = (jnp.moveaxis(array, 1, 0)[:, :, None] for array in pieces)
  _, values = jax.lax.scan(apply, None, (numbers, *parts))
  values = jnp.moveaxis(values[:, :, 0], 0, 1)
  values = values.reshape(values.shape[0], -1, values.shape[-1])
  before, _ = _rows_outside(score_map)
  height = score_map.image_size[0]
  return jax.lax.slice_in_dim(values, before, before + height, axis=1)


def value_and_gradient(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  arrays: tuple[jax.Array, ...],
  *,
  strip_bytes: int,
) -> tuple[jax.Array, types.ScoreMap]:
  """Sums a function of the logits over all pixels.

  Args:
    function: as in `map_strips`.
    score_map: scores [N, h, w, C].
    arrays: each [N, H, W].
    strip_bytes: bytes of the logits of a strip; it has one piece at least.

  Returns:
    The sum, in the dtype of the scores, and its gradient.
  """
  cells, from_cells = jax.vjp(
    lambda scores: _rows_of_cells(gradients.with_scores(score_map, scores)),
    score_map.scores,
  )
  num_images, num_classes = cells.shape[1:3]
  width, num_pieces = score_map.image_size[1], len(cells) - 1
  row_bytes = num_images * num_classes * width * cells.dtype.itemsize
  size = strip_bytes // (row_bytes * score_map.stride)
  size = max(1, min(num_pieces, size))
  num_strips = -(-num_pieces // size)
  inside = jnp.ones((1, *score_map.image_size), bool)
  arrays = _pieces(score_map, (inside, *arrays), num_strips * size)
  cells = jnp.pad(cells, [(0, -num_pieces % size)] + [(0, 0)] * 3)

  def add(number, carry):
    totals, gradient = carry
    start = number * size
    is_inside, *parts = (
      jax.lax.dynamic_slice_in_dim(array, start, size, axis=1)
      for array in arrays
    )

    def values(rows):
      # XLA would compute shifted sums again for each use of the logits, and a
      # loss with its gradient has many.
      logits = _strip_logits(score_map, rows, interpolation.multiply_axis)
      return jnp.where(is_inside, function(logits, *parts), 0.0)

    rows = jax.lax.dynamic_slice_in_dim(cells, start, size + 1)
    sums, new = gradients.of_pieces(values, rows)
    new += jax.lax.dynamic_slice_in_dim(gradient, start, size + 1)
    gradient = jax.lax.dynamic_update_slice_in_dim(gradient, new, start, 0)
    return totals + sums, gradient

  totals, gradient = jax.lax.fori_loop(
    0,
    num_strips,
    add,
    (jnp.zeros(num_images, cells.dtype), jnp.zeros_like(cells)),
  )
  (gradient,) = from_cells(gradient[: num_pieces + 1])
  return jnp.sum(totals), gradients.with_scores(score_map, gradient)


def _rows_of_cells(score_map: types.ScoreMap) -> jax.Array:
  """The rows of cells between which the image's rows lie, [h', N, C, w]."""
  first, last = interpolation.covering_cells(
    *score_map.grid, score_map.image_size[0]
  )
  cells = interpolation.take_cells(
    score_map.scores,
    axis=1,
    start=first,
    stop=last + 1,
    edge=score_map.edge,
  )
  return jnp.transpose(cells, (1, 0, 3, 2))


def _strip_logits(
  score_map: types.ScoreMap,
  rows: jax.Array,
  interpolate: Callable[..., jax.Array],
) -> jax.Array:
  """Logits between rows of cells [R + 1, N, C, w]: [N, R, stride, C, W]."""
  fraction = interpolation.fractions_between(
    *score_map.grid, rows.dtype
  ).reshape(1, 1, -1, 1, 1)
  rows = jnp.moveaxis(rows, 0, 1)
  above, below = rows[:, :-1, None], rows[:, 1:, None]
  rows = above * (1 - fraction) + below * fraction
  return interpolate(
    rows,
    axis=4,
    factor=score_map.stride,
    offset=score_map.offset,
    size=score_map.image_size[1],
    edge=score_map.edge,
  )


def _rows_outside(score_map: types.ScoreMap) -> tuple[int, int]:
  """Rows of the first and of the last piece that are not in the image."""
  stride, height = score_map.stride, score_map.image_size[0]
  first, last = interpolation.covering_cells(stride, score_map.offset, height)
  before = -interpolation.first_output(stride, score_map.offset, first)
  return before, (last - first) * stride - before - height


def _pieces(
  score_map: types.ScoreMap, arrays: tuple[jax.Array, ...], number: int
) -> list[jax.Array]:
  """Each array in pieces, [N, number, stride, W]; those beyond all are 0."""
  before, after = _rows_outside(score_map)
  height = score_map.image_size[0]
  num_pieces = (before + height + after) // score_map.stride
  after += (number - num_pieces) * score_map.stride
  pieces = []
  for array in arrays:
    chex.assert_shape(array, (None, *score_map.image_size))
    rows = jnp.pad(array, [(0, 0), (before, after), (0, 0)])
    pieces.append(
      rows.reshape(len(rows), number, score_map.stride, rows.shape[-1])
    )
  return pieces
