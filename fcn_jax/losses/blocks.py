"""Sums of functions of the logits over blocks of pixels, chunk by chunk.

A block is the stride x stride pixels between four neighbouring cells; at the
borders it reaches beyond the image. Its logits are one product of the scores of
these cells with a constant matrix [4, pixels], the same for all blocks. The
scores of a block are read once and its gradient is written once, whereas each
pixel of a list (`listed_pixels`) has four reads and four sums of its own.
"""

import functools

import jax
import jax.numpy as jnp

from fcn_jax import interpolation
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import gradients

# Bytes of the logits of a chunk. On a CPU they should stay in the cache: 2**18
# were slower. Elsewhere a chunk should fill the device, and this is a guess.
_CHUNK_BYTES_CPU = 2**20
_CHUNK_BYTES = 2**28


def split(
  score_map: types.ScoreMap, values: jax.Array, *, fill: float
) -> jax.Array:
  """Sorts values of pixels into blocks.

  Args:
    score_map: scores [N, h, w, C]; where its cells lie decides on the blocks.
    values: [N, H, W].
    fill: the value of the pixels of blocks that are outside the image.

  Returns:
    [N, B, P], blocks row by row and the P = stride^2 pixels of each likewise.
  """
  stride, padding, numbers = score_map.stride, [(0, 0)], []
  for size in score_map.image_size:
    first, last = interpolation.covering_cells(stride, score_map.offset, size)
    before = -interpolation.first_output(stride, score_map.offset, first)
    numbers.append(last - first)
    padding.append((before, numbers[-1] * stride - size - before))
  values = jnp.pad(values, padding, constant_values=fill)
  rows, columns = numbers
  values = values.reshape(len(values), rows, stride, columns, stride)
  values = values.transpose(0, 1, 3, 2, 4)
  return values.reshape(len(values), rows * columns, stride**2)


def sum_listed(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  indices: jax.Array,
  num_used: jax.Array,
  arrays: tuple[jax.Array, ...],
) -> jax.Array:
  """Sums a function of the logits over listed blocks.

  The cost is that of `num_used` blocks in each image and does not depend on K.
  The gradient with respect to the scores has no derivative itself, and the
  arrays have no gradient.

  Args:
    function: from logits [N, blocks, C, P] and the part [N, blocks, P] of each
      of `arrays` to one value for each pixel, [N, blocks, P].
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, blocks, each of them once.
    num_used: [N] int32, how many of the K indices of each image count.
    arrays: each [N, B, P], see `split`.

  Returns:
    Scalar, in the dtype of the scores.
  """

  def compute(score_map, constants):
    return jax.lax.platform_dependent(
      score_map,
      constants,
      cpu=functools.partial(_sum_and_gradient, function, _CHUNK_BYTES_CPU),
      default=functools.partial(_sum_and_gradient, function, _CHUNK_BYTES),
    )

  constants = arrays, indices, num_used
  return gradients.sum_with_gradient(compute, score_map, constants)


def _sum_and_gradient(function, num_bytes, score_map, constants):
  """The sum and its gradient, in chunks of so many bytes of logits."""
  arrays, indices, num_used = constants
  corners, from_corners = jax.vjp(
    lambda scores: _corners(gradients.with_scores(score_map, scores)),
    score_map.scores,
  )
  num_images, num_blocks, _, num_classes = corners.shape
  shares = _shares(score_map)
  block_bytes = shares.shape[1] * num_classes * corners.dtype.itemsize
  size = max(1, min(num_blocks, num_bytes // (num_images * block_bytes)))
  indices = jnp.pad(indices, [(0, 0), (0, -indices.shape[1] % size)])
  position = jnp.arange(indices.shape[1], dtype=jnp.int32)[None]
  used = position < num_used[:, None]
  # Each unused entry has a number of its own beyond the blocks, so that the
  # gradients of a chunk are written to distinct places.
  targets = jnp.where(used, indices, num_blocks + position)

  def add(chunk, carry):
    totals, gradient = carry
    here, target, is_used = (
      jax.lax.dynamic_slice_in_dim(array, chunk * size, size, axis=1)
      for array in (indices, targets, used)
    )
    scores, *parts = (_take(array, here) for array in (corners, *arrays))

    def sum_of(scores):
      logits = jnp.einsum(
        "nkqc,qp->nkcp", scores, shares, precision=jax.lax.Precision.HIGHEST
      )
      values = function(logits, *parts)
      return gradients.sums(jnp.where(is_used[..., None], values, 0.0))

    (_, sums), terms = jax.value_and_grad(sum_of, has_aux=True)(scores)
    return totals + sums, _write(gradient, target, terms)

  totals, gradient = jax.lax.fori_loop(
    0,
    -(-jnp.max(num_used) // size),
    add,
    (jnp.zeros(num_images, corners.dtype), jnp.zeros_like(corners)),
  )
  (gradient,) = from_corners(gradient)
  return jnp.sum(totals), gradients.with_scores(score_map, gradient)


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
    score_map.stride, score_map.offset, score_map.scores.dtype
  )
  shares = jnp.stack([1 - upper, upper])
  shares = shares[:, None, :, None] * shares[None, :, None, :]
  return shares.reshape(4, -1)
