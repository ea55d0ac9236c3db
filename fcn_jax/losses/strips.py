"""Functions of the logits of all pixels, computed strip by strip.

The rows of pixels between two rows of cells depend on these two rows alone.
The classes of a strip come before its pixels, [N, C, rows, W]: a sum over
classes is then one over whole rows of numbers, which is faster on a CPU (about
twice with 150 classes).
"""

import functools

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
    function: from logits [N, C, rows, W] and the part [N, rows, W] of each of
      `arrays` to one value for each pixel, [N, rows, W].
    score_map: scores [N, h, w, C].
    arrays: each [N, H, W].

  Returns:
    [N, H, W].
  """
  cells = _rows_of_cells(score_map)

  def apply(_, strip):
    number, *parts = strip
    rows = jax.lax.dynamic_slice_in_dim(cells, number, 2)
    return None, function(_strip_logits(score_map, rows), *parts)

  _, values = jax.lax.scan(apply, None, _strips(score_map, arrays))
  values = jnp.moveaxis(values, 0, 1)
  values = values.reshape(values.shape[0], -1, values.shape[-1])
  before, _ = _rows_outside(score_map)
  height = score_map.image_size[0]
  return jax.lax.slice_in_dim(values, before, before + height, axis=1)


def sum_strips(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  arrays: tuple[jax.Array, ...],
) -> jax.Array:
  """Sums a function of the logits over all pixels.

  The gradient with respect to the scores has no derivative itself, and the
  arrays have no gradient.

  Args:
    function: as in `map_strips`.
    score_map: scores [N, h, w, C].
    arrays: each [N, H, W].

  Returns:
    Scalar, in the dtype of the scores.
  """
  compute = functools.partial(_sum_and_gradient, function)
  return gradients.sum_with_gradient(compute, score_map, arrays)


def _sum_and_gradient(function, score_map, arrays):
  cells, from_cells = jax.vjp(
    lambda scores: _rows_of_cells(gradients.with_scores(score_map, scores)),
    score_map.scores,
  )
  inside = jnp.ones((1, *score_map.image_size), bool)

  def add(totals, strip):
    number, is_inside, *parts = strip

    def sum_of(rows):
      values = function(_strip_logits(score_map, rows), *parts)
      return gradients.sums(jnp.where(is_inside, values, 0.0))

    rows = jax.lax.dynamic_slice_in_dim(cells, number, 2)
    (_, sums), gradient = jax.value_and_grad(sum_of, has_aux=True)(rows)
    return totals + sums, gradient

  totals, pairs = jax.lax.scan(
    add,
    jnp.zeros(len(score_map.scores), cells.dtype),
    _strips(score_map, (inside, *arrays)),
  )
  # A row of cells is the lower one of a strip and the upper one of the next.
  rest = [(0, 0)] * 3
  gradient = jnp.pad(pairs[:, 0], [(0, 1), *rest])
  gradient += jnp.pad(pairs[:, 1], [(1, 0), *rest])
  return jnp.sum(totals), gradients.with_scores(
    score_map, *from_cells(gradient)
  )


def _rows_of_cells(score_map: types.ScoreMap) -> jax.Array:
  """The rows of cells between which the image's rows lie, [h', N, C, w]."""
  first, last = interpolation.covering_cells(
    score_map.stride, score_map.offset, score_map.image_size[0]
  )
  cells = interpolation.take_cells(
    score_map.scores,
    axis=1,
    start=first,
    stop=last + 1,
    edge=score_map.edge,
  )
  return jnp.transpose(cells, (1, 0, 3, 2))


def _strip_logits(score_map: types.ScoreMap, rows: jax.Array) -> jax.Array:
  """Logits between two rows of cells [2, N, C, w]: [N, C, stride, W]."""
  above, below = interpolation.interpolate_axis(
    rows,
    axis=3,
    factor=score_map.stride,
    offset=score_map.offset,
    size=score_map.image_size[1],
    edge=score_map.edge,
  )
  fraction = interpolation.fractions_between(
    score_map.stride, score_map.offset, rows.dtype
  ).reshape(1, 1, -1, 1)
  return above[:, :, None] * (1 - fraction) + below[:, :, None] * fraction


def _rows_outside(score_map: types.ScoreMap) -> tuple[int, int]:
  """Rows of the first and of the last strip that are not in the image."""
  stride, height = score_map.stride, score_map.image_size[0]
  first, last = interpolation.covering_cells(stride, score_map.offset, height)
  before = -interpolation.first_output(stride, score_map.offset, first)
  return before, (last - first) * stride - before - height


def _strips(
  score_map: types.ScoreMap, arrays: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
  """Numbers of the strips [S], and each array in strips [S, N, stride, W]."""
  padding = [(0, 0), _rows_outside(score_map), (0, 0)]
  pieces = []
  for array in arrays:
    chex.assert_shape(array, (None, *score_map.image_size))
    rows = jnp.pad(array, padding)
    rows = rows.reshape(len(rows), -1, score_map.stride, rows.shape[-1])
    pieces.append(jnp.moveaxis(rows, 1, 0))
  first, last = interpolation.covering_cells(
    score_map.stride, score_map.offset, score_map.image_size[0]
  )
  return jnp.arange(last - first, dtype=jnp.int32), *pieces
