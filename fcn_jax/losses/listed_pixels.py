"""Sums of functions of the logits over a list of pixels, chunk by chunk.

A pixel depends on the four cells around it.
"""

import jax
import jax.numpy as jnp

from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import gradients


def value_and_gradient(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  indices: jax.Array,
  num_used: jax.Array,
  arrays: tuple[jax.Array, ...],
  *,
  chunk_bytes: int,
) -> tuple[types.Tree, types.ScoreMap]:
  """Sums a function of the logits over listed pixels.

  The cost is that of `num_used` pixels in each image and does not depend on K.

  Args:
    function: from logits [N, C, pixels] and the part [N, pixels] of each of
      `arrays` to K values for each pixel, a tree of arrays [N, K, pixels].
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, pixels as row * W + column, inside the image.
    num_used: [] int32; only the first `num_used` of the K pixels of each image
      count.
    arrays: each [N, K].
    chunk_bytes: bytes of the scores gathered at once.

  Returns:
    The sums of the images, each [N, K], and the gradient of the sum of all.
  """
  cells, from_cells = jax.vjp(
    lambda scores: upsampling.covering_map(
      gradients.with_scores(score_map, scores)
    ),
    score_map.scores,
  )
  num_images, num_rows, num_columns, num_classes = cells.shape
  flat = cells.reshape(num_images, num_rows * num_columns, num_classes)
  # Four neighbours of each pixel.
  pixel_bytes = 4 * num_classes * cells.dtype.itemsize
  size = chunk_bytes // (num_images * pixel_bytes)
  size = max(1, min(indices.shape[1], size))
  position = jnp.arange(indices.shape[1], dtype=jnp.int32)
  used = jnp.broadcast_to(position < num_used, indices.shape)
  padded = [
    jnp.pad(array, [(0, 0), (0, -array.shape[1] % size)])
    for array in (indices, used, *arrays)
  ]

  def add(chunk, gradient):
    here, is_used, *parts = (
      jax.lax.dynamic_slice_in_dim(array, chunk * size, size, axis=1)
      for array in padded
    )
    neighbours, fractions = upsampling.neighbours(score_map, here)

    def values(scores):
      logits = upsampling.mix_neighbours(scores, fractions)
      values = function(jnp.swapaxes(logits, 1, 2), *parts)
      is_in = is_used[:, None]
      return jax.tree.map(lambda v: jnp.where(is_in, v, 0.0), values)

    scores = upsampling.take_neighbours(flat, neighbours)
    sums, terms = gradients.of_piece(values, scores)
    return sums, _add_at(gradient, neighbours, terms)

  sums, gradient = gradients.over_pieces(
    add, -(-num_used // size), jnp.zeros_like(flat)
  )
  (gradient,) = from_cells(gradient.reshape(cells.shape))
  return sums, gradients.with_scores(score_map, gradient)


def _add_at(totals, cells, terms):
  """Adds [N, K, 4, C] terms to [N, M, C] totals at [N, K, 4] cells."""
  add = jax.vmap(
    lambda total, where, values: total.at[where].add(
      values, mode="promise_in_bounds"
    )
  )
  return add(totals, cells, terms)
