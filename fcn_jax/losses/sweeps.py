"""What is computed from logits of pixels without having them all at once.

A score map is small and its logits are many: one for each class at each
pixel. As interpolation is local, a function of the logits can be evaluated
piece by piece, and a loss together with its gradient, in one sweep over the
pieces: nothing is kept for a backward pass, and no [N, H, W, C] array exists.

- Strips, for all pixels: the rows of pixels between two rows of cells depend
  on these two rows alone.
- Chunks, for sampled pixels: a pixel depends on the four cells around it.

In strips the classes come before the pixels, [N, C, rows, W]: what is summed
over classes is then summed over whole rows of numbers, which on a CPU is faster
(about twice with 150 classes).
"""

import dataclasses
import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from fcn_jax import types
from fcn_jax import upsampling

# Scores gathered at once for a chunk of sampled pixels. On a CPU they should
# stay in the cache; elsewhere a chunk should fill the device, and this value is
# a guess.
_CHUNK_BYTES_CPU = 2 * 2**20
_CHUNK_BYTES = 128 * 2**20

# From logits, and for each further array its part, to a value for each pixel.
PixelFunction = Callable[..., jax.Array]


def map_strips(
  function: PixelFunction,
  score_map: types.ScoreMap,
  arrays: tuple[jax.Array, ...] = (),
) -> jax.Array:
  """Applies a function of the logits to all pixels, strip by strip.

  Args:
    function: of logits [N, C, rows, W] and, for each of `arrays`, its part
      [N, rows, W], to one value for each pixel, [N, rows, W].
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_strips(
  function: PixelFunction,
  score_map: types.ScoreMap,
  arrays: tuple[jax.Array, ...],
) -> jax.Array:
  """Sums a function of the logits over all pixels, strip by strip.

  The gradient with respect to the scores is made in the same sweep as the
  value, and has no derivative itself. The arrays are taken as constants.

  Args:
    function: of logits [N, C, rows, W] and, for each of `arrays`, its part
      [N, rows, W], to one value for each pixel, [N, rows, W].
    score_map: scores [N, h, w, C].
    arrays: each [N, H, W].

  Returns:
    Scalar, in the dtype of the scores.
  """
  return _sum_strips(function, score_map, arrays)[0]


def _sum_strips(function, score_map, arrays):
  """The sum, and its gradient as a score map."""
  cells, from_cells = jax.vjp(
    lambda scores: _rows_of_cells(_with_scores(score_map, scores)),
    score_map.scores,
  )
  inside = jnp.ones((1, *score_map.image_size), bool)

  def add(totals, strip):
    number, is_inside, *parts = strip

    def sum_of(rows):
      values = function(_strip_logits(score_map, rows), *parts)
      return _sums(jnp.where(is_inside, values, 0.0))

    rows = jax.lax.dynamic_slice_in_dim(cells, number, 2)
    (_, sums), gradient = jax.value_and_grad(sum_of, has_aux=True)(rows)
    return totals + sums, gradient

  totals, gradients = jax.lax.scan(
    add,
    jnp.zeros(len(score_map.scores), cells.dtype),
    _strips(score_map, (inside, *arrays)),
  )
  # A row of cells is the lower one of a strip and the upper one of the next.
  rest = [(0, 0)] * 3
  gradient = jnp.pad(gradients[:, 0], [(0, 1), *rest])
  gradient += jnp.pad(gradients[:, 1], [(1, 0), *rest])
  return jnp.sum(totals), _with_scores(score_map, *from_cells(gradient))


def sum_samples(
  function: PixelFunction,
  score_map: types.ScoreMap,
  indices: jax.Array,
  num_used: jax.Array,
  arrays: tuple[jax.Array, ...],
) -> jax.Array:
  """Sums a function of the logits over sampled pixels, chunk by chunk.

  The cost is that of `num_used` pixels of each image, whatever K is. The
  gradient with respect to the scores is made in the same sweep as the value,
  and has no derivative itself. The arrays are taken as constants.

  Args:
    function: of logits [N, pixels, C] and, for each of `arrays`, its part
      [N, pixels], to one value for each pixel, [N, pixels].
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, pixels as row * W + column, inside the image.
    num_used: [] int32; only the first `num_used` of the K pixels of each image
      count.
    arrays: each [N, K].

  Returns:
    Scalar, in the dtype of the scores.
  """
  size = _chunk_size(score_map, indices.shape[1])
  return _sum_samples(function, size, score_map, indices, num_used, arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_samples(function, size, score_map, indices, num_used, arrays):
  value, _ = _sum_samples_forward(
    function, size, score_map, indices, num_used, arrays
  )
  return value


def _sum_samples_forward(function, size, score_map, indices, num_used, arrays):
  """The sum, and its gradient as a score map."""
  cells, from_cells = jax.vjp(
    lambda scores: upsampling.covering_map(_with_scores(score_map, scores)),
    score_map.scores,
  )
  num_images, num_rows, num_columns, num_classes = cells.shape
  flat = cells.reshape(num_images, num_rows * num_columns, num_classes)
  position = jnp.arange(indices.shape[1], dtype=jnp.int32)
  used = jnp.broadcast_to(position < num_used, indices.shape)
  pieces = [
    jnp.pad(array, [(0, 0), (0, -array.shape[1] % size)])
    for array in (indices, used, *arrays)
  ]

  def add(chunk, carry):
    totals, gradient = carry
    here, is_used, *parts = (
      jax.lax.dynamic_slice_in_dim(piece, chunk * size, size, axis=1)
      for piece in pieces
    )
    neighbours, fractions = upsampling.neighbours(score_map, here)

    def sum_of(scores):
      logits = upsampling.mix_neighbours(scores, fractions)
      return _sums(jnp.where(is_used, function(logits, *parts), 0.0))

    scores = upsampling.take_neighbours(flat, neighbours)
    (_, sums), scores_gradient = jax.value_and_grad(sum_of, has_aux=True)(
      scores
    )
    gradient = jax.vmap(
      lambda total, where, terms: total.at[where].add(
        terms, mode="promise_in_bounds"
      )
    )(gradient, neighbours, scores_gradient)
    return totals + sums, gradient

  totals, gradient = jax.lax.fori_loop(
    0,
    -(-num_used // size),
    add,
    (jnp.zeros(num_images, flat.dtype), jnp.zeros_like(flat)),
  )
  gradient = from_cells(gradient.reshape(cells.shape))
  return jnp.sum(totals), _with_scores(score_map, *gradient)


def _sums(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The sum of [N, ...], and those of the images, [N].

  The loops carry the latter, so that devices with parts of the batch need not
  agree on a sum in every turn.
  """
  sums = jnp.sum(values.reshape(len(values), -1), axis=1)
  return jnp.sum(sums), sums


def _scaled(gradient, cotangent):
  return jax.tree.map(lambda scores: cotangent * scores, gradient)


sum_strips.defvjp(
  _sum_strips,
  lambda function, gradient, cotangent: (_scaled(gradient, cotangent), None),
)
_sum_samples.defvjp(
  _sum_samples_forward,
  lambda function, size, gradient, cotangent: (
    _scaled(gradient, cotangent),
    None,
    None,
    None,
  ),
)


def _with_scores(score_map: types.ScoreMap, scores: jax.Array):
  return dataclasses.replace(score_map, scores=scores)


def _rows_of_cells(score_map: types.ScoreMap) -> jax.Array:
  """The rows of cells between which the image's rows lie, [h', N, C, w]."""
  first, last = upsampling.covering_cells(
    score_map.stride, score_map.offset, score_map.image_size[0]
  )
  cells = upsampling.take_cells(
    score_map.scores,
    axis=1,
    start=first,
    stop=last + 1,
    edge=score_map.edge,
  )
  return jnp.transpose(cells, (1, 0, 3, 2))


def _strip_logits(score_map: types.ScoreMap, rows: jax.Array) -> jax.Array:
  """Logits between two rows of cells [2, N, C, w]: [N, C, stride, W]."""
  above, below = upsampling.interpolate_axis(
    rows,
    axis=3,
    factor=score_map.stride,
    offset=score_map.offset,
    size=score_map.image_size[1],
    edge=score_map.edge,
  )
  fraction = upsampling.fractions_between(
    score_map.stride, score_map.offset, rows.dtype
  ).reshape(1, 1, -1, 1)
  return above[:, :, None] * (1 - fraction) + below[:, :, None] * fraction


def _rows_outside(score_map: types.ScoreMap) -> tuple[int, int]:
  """Rows of the first and of the last strip that are not in the image."""
  stride, height = score_map.stride, score_map.image_size[0]
  first, last = upsampling.covering_cells(stride, score_map.offset, height)
  before = -upsampling.first_output(stride, score_map.offset, first)
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
  first, last = upsampling.covering_cells(
    score_map.stride, score_map.offset, score_map.image_size[0]
  )
  return jnp.arange(last - first, dtype=jnp.int32), *pieces


def _chunk_size(score_map: types.ScoreMap, num_pixels: int) -> int:
  """Pixels of each image in a chunk."""
  num_images, *_, num_classes = score_map.scores.shape
  cpu = jax.default_backend() == "cpu"
  num_bytes = _CHUNK_BYTES_CPU if cpu else _CHUNK_BYTES
  # Four neighbours of each pixel.
  pixel_bytes = 4 * num_classes * score_map.scores.dtype.itemsize
  return max(1, min(num_pixels, num_bytes // (num_images * pixel_bytes)))
