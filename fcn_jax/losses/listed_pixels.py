"""Sums of functions of the logits over a list of pixels, chunk by chunk.

A pixel depends on the four cells around it.
"""

import functools

import jax
import jax.numpy as jnp

from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import gradients

# Bytes of the scores gathered at once for a chunk. On a CPU they should stay in
# the cache; elsewhere a chunk should fill the device, and this value is a
# guess.
_CHUNK_BYTES_CPU = 2 * 2**20
_CHUNK_BYTES = 128 * 2**20


def sum_listed(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  indices: jax.Array,
  num_used: jax.Array,
  arrays: tuple[jax.Array, ...],
) -> jax.Array:
  """Sums a function of the logits over listed pixels.

  The cost is that of `num_used` pixels in each image and does not depend on K.
  The gradient with respect to the scores has no derivative itself, and the
  arrays have no gradient.

  Args:
    function: from logits [N, pixels, C] and the part [N, pixels] of each of
      `arrays` to one value for each pixel, [N, pixels].
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, pixels as row * W + column, inside the image.
    num_used: [] int32; only the first `num_used` of the K pixels of each image
      count.
    arrays: each [N, K].

  Returns:
    Scalar, in the dtype of the scores.
  """
  size = _chunk_size(score_map, indices.shape[1])
  compute = functools.partial(_sum_and_gradient, function, size)
  constants = indices, num_used, arrays
  return gradients.sum_with_gradient(compute, score_map, constants)


def _sum_and_gradient(function, size, score_map, constants):
  indices, num_used, arrays = constants
  cells, from_cells = jax.vjp(
    lambda scores: upsampling.covering_map(
      gradients.with_scores(score_map, scores)
    ),
    score_map.scores,
  )
  num_images, num_rows, num_columns, num_classes = cells.shape
  flat = cells.reshape(num_images, num_rows * num_columns, num_classes)
  position = jnp.arange(indices.shape[1], dtype=jnp.int32)
  used = jnp.broadcast_to(position < num_used, indices.shape)
  padded = [
    jnp.pad(array, [(0, 0), (0, -array.shape[1] % size)])
    for array in (indices, used, *arrays)
  ]

  def add(chunk, carry):
    totals, gradient = carry
    here, is_used, *parts = (
      jax.lax.dynamic_slice_in_dim(array, chunk * size, size, axis=1)
      for array in padded
    )
    neighbours, fractions = upsampling.neighbours(score_map, here)

    def sum_of(scores):
      logits = upsampling.mix_neighbours(scores, fractions)
      return gradients.sums(jnp.where(is_used, function(logits, *parts), 0.0))

    scores = upsampling.take_neighbours(flat, neighbours)
    (_, sums), terms = jax.value_and_grad(sum_of, has_aux=True)(scores)
    return totals + sums, _add_at(gradient, neighbours, terms)

  totals, gradient = jax.lax.fori_loop(
    0,
    -(-num_used // size),
    add,
    (jnp.zeros(num_images, flat.dtype), jnp.zeros_like(flat)),
  )
  gradient = from_cells(gradient.reshape(cells.shape))
  return jnp.sum(totals), gradients.with_scores(score_map, *gradient)


def _add_at(totals, cells, terms):
  """Adds [N, K, 4, C] terms to [N, M, C] totals at [N, K, 4] cells."""
  add = jax.vmap(
    lambda total, where, values: total.at[where].add(
      values, mode="promise_in_bounds"
    )
  )
  return add(totals, cells, terms)


def _chunk_size(score_map: types.ScoreMap, num_pixels: int) -> int:
  """Pixels of each image in a chunk."""
  num_images, *_, num_classes = score_map.scores.shape
  cpu = jax.default_backend() == "cpu"
  num_bytes = _CHUNK_BYTES_CPU if cpu else _CHUNK_BYTES
  # Four neighbours of each pixel.
  pixel_bytes = 4 * num_classes * score_map.scores.dtype.itemsize
  return max(1, min(num_pixels, num_bytes // (num_images * pixel_bytes)))
