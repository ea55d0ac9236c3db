"""Sums of functions of the logits over a list of blocks, chunk by chunk.

The logits of a block (see `fcn_jax.blocks`) are one product of the scores of
four cells with a constant matrix [4, pixels], the same for all blocks. The
scores of a block are read once and its gradient is written once, whereas each
pixel of a list (`listed_pixels`) has four reads and four sums of its own.
"""

import jax
import jax.numpy as jnp

from fcn_jax import interpolation
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
  by_product: bool,
) -> tuple[types.Tree, types.ScoreMap]:
  """Sums a function of the logits over listed blocks.

  The cost is that of `num_used` blocks in each image and does not depend on K.

  Args:
    function: from logits [N, blocks, C, P] and the part [N, blocks, P] of each
      of `arrays` to K values for each pixel, a tree of arrays [N, blocks, K,
      P].
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, blocks, each of them once.
    num_used: [N] int32, how many of the K indices of each image count.
    arrays: each [N, B, P], see `blocks.split`.
    chunk_bytes: bytes of the logits of a chunk.
    by_product: whether logits are a matrix product, or a sum of four terms.

  Returns:
    The sums of the images, each [N, K], and the gradient of the sum of all.
  """
  corners, from_corners = jax.vjp(
    lambda scores: _corners(gradients.with_scores(score_map, scores)),
    score_map.scores,
  )
  num_images, num_blocks, _, num_classes = corners.shape
  shares = _shares(score_map)
  block_bytes = shares.shape[1] * num_classes * corners.dtype.itemsize
  num_listed = indices.shape[1]
  size = max(1, min(num_listed, chunk_bytes // (num_images * block_bytes)))
  indices = jnp.pad(indices, [(0, 0), (0, -num_listed % size)])
  position = jnp.arange(indices.shape[1], dtype=jnp.int32)[None]
  used = position < num_used[:, None]
  # Each unused entry has a number of its own beyond the blocks, so that the
  # gradients of a chunk are written to distinct places.
  targets = jnp.where(used, indices, num_blocks + position)

  def add(chunk, gradient):
    here, target, is_used = (
      jax.lax.dynamic_slice_in_dim(array, chunk * size, size, axis=1)
      for array in (indices, targets, used)
    )
    scores, *parts = (_take(array, here) for array in (corners, *arrays))

    def values(scores):
      logits = _mix(scores, shares, by_product)
      is_in = is_used[..., None, None]
      return jax.tree.map(
        lambda values: jnp.where(is_in, values, 0.0), function(logits, *parts)
      )

    sums, terms = gradients.of_piece(values, scores)
    return sums, _write(gradient, target, terms)

  sums, gradient = gradients.over_pieces(
    add, -(-jnp.max(num_used) // size), jnp.zeros_like(corners)
  )
  (gradient,) = from_corners(gradient)
  return sums, gradients.with_scores(score_map, gradient)


def _mix(scores: jax.Array, shares: jax.Array, by_product: bool) -> jax.Array:
  """Scores [N, K, 4, C] times shares [4, P], [N, K, C, P] logits."""
  if by_product:
    return jnp.einsum(
      "nkqc,qp->nkcp", scores, shares, precision=jax.lax.Precision.HIGHEST
    )
  terms = [
    scores[:, :, corner, :, None] * shares[None, None, None, corner]
    for corner in range(4)
  ]
  return sum(terms[1:], start=terms[0])


def _take(array: jax.Array, indices: jax.Array) -> jax.Array:
  """[N, K, ...] entries at [N, K] of [N, B, ...]."""
  take = jax.vmap(lambda rows, i: rows.at[i].get(mode="promise_in_bounds"))
  return take(array, indices)


def _write(
  array: jax.Array, indices: jax.Array, values: jax.Array
) -> jax.Array:
  """Writes [N, K, ...] to distinct places [N, K]; nothing beyond the array."""
  write = jax.vmap(
    lambda rows, i, new: rows.at[i].set(new, mode="drop", unique_indices=True)
  )
  return write(array, indices, values)


def _corners(score_map: types.ScoreMap) -> jax.Array:
  """Scores of the four cells around each block, [N, B, 4, C]."""
  cells = upsampling.covering_map(score_map)
  corners = jnp.stack(
    [
      cells[:, :-1, :-1],
      cells[:, :-1, 1:],
      cells[:, 1:, :-1],
      cells[:, 1:, 1:],
    ],
    axis=3,
  )
  return corners.reshape(len(cells), -1, *corners.shape[3:])


def _shares(score_map: types.ScoreMap) -> jax.Array:
  """Share of each of the four cells in each pixel of a block, [4, P]."""
  upper = interpolation.fractions_between(
    *score_map.grid, score_map.scores.dtype
  )
  shares = jnp.stack([1 - upper, upper])
  shares = shares[:, None, :, None] * shares[None, :, None, :]
  return shares.reshape(4, -1)
