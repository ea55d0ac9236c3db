"""Lists of the sampled pixels, from weights of all pixels."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class PixelSample(NamedTuple):
  """The sampled pixels of a batch, in lists of fixed length.

  Attributes:
    indices: [N, K] int32, pixels as row * W + column, in rising order; the
      rest of the list is 0.
    weights: [N, K] float32, 0 in the rest of the list.
    num_used: [N] int32, how many pixels of each image are in the list.
    num_dropped: [] int32, how many pixels of the batch had no room.
  """

  indices: jax.Array
  weights: jax.Array
  num_used: jax.Array
  num_dropped: jax.Array


def compact(weights: jax.Array, *, capacity: int) -> PixelSample:
  """Lists the pixels with a weight other than zero.

  Args:
    weights: [N, H, W] float32 from a sampler.
    capacity: length of the lists, K. If an image has more sampled pixels, the
      last ones (at its bottom) are dropped, and `num_dropped` counts them;
      `capacity.of_sampler` gives a length that avoids this.

  Returns:
    The sample; a capacity above H * W is H * W.

  Raises:
    ValueError: if the capacity is less than 1.
  """
  chex.assert_rank(weights, 3)
  if capacity < 1:
    raise ValueError(
      f"capacity is {capacity}; the list of sampled pixels needs room for at "
      "least 1 pixel an image."
    )
  num_images = len(weights)
  flat = weights.reshape(num_images, -1)
  capacity = min(capacity, flat.shape[1])

  # A word of 32 bits marks the sampled ones of 32 neighbouring pixels, so all
  # but the last step works on a 32nd of the data.
  words = _pack(flat != 0)
  counts = jax.lax.population_count(words).astype(jnp.int32)
  ends = jnp.cumsum(counts, axis=1)
  begins = ends - counts
  word_of = _spread(jnp.where(counts > 0, begins, capacity), capacity)

  position = jnp.broadcast_to(
    jnp.arange(capacity, dtype=jnp.int32), (num_images, capacity)
  )
  rank = position - jnp.take_along_axis(begins, word_of, axis=1)
  bit = _select_bit(jnp.take_along_axis(words, word_of, axis=1), rank)
  num_sampled = ends[:, -1]
  used = position < num_sampled[:, None]
  indices = jnp.where(used, 32 * word_of + bit, 0)
  return PixelSample(
    indices=indices,
    weights=jnp.where(used, jnp.take_along_axis(flat, indices, axis=1), 0),
    num_used=jnp.minimum(num_sampled, capacity),
    num_dropped=jnp.sum(
      jnp.maximum(num_sampled - capacity, 0), dtype=jnp.int32
    ),
  )


def _pack(bits: jax.Array) -> jax.Array:
  """Packs [N, M] bool into [N, ceil(M / 32)] uint32, lowest bit first."""
  bits = jnp.pad(bits, [(0, 0), (0, -bits.shape[1] % 32)])
  bits = bits.reshape(len(bits), -1, 32).astype(jnp.uint32)
  shifts = jnp.arange(32, dtype=jnp.uint32)[None, None]
  return jnp.sum(bits << shifts, axis=-1, dtype=jnp.uint32)


def _spread(begins: jax.Array, size: int) -> jax.Array:
  """For each of `size` list entries [N, size], the word that it comes from.

  Args:
    begins: [N, words] int32, first list entry of each word; `size` or more for
      words to leave out.
    size: length of the list.
  """
  words = jnp.arange(begins.shape[1], dtype=jnp.int32)
  mark = jax.vmap(
    lambda begin: jnp.zeros(size, jnp.int32).at[begin].max(words, mode="drop")
  )
  return jax.lax.cummax(mark(begins), axis=1)


def _select_bit(words: jax.Array, rank: jax.Array) -> jax.Array:
  """Position, 0..31 int32, of the set bit with `rank` set bits below it."""
  position = jnp.zeros_like(rank)
  for width in (16, 8, 4, 2, 1):
    low = words & jnp.uint32((1 << width) - 1)
    num_low = jax.lax.population_count(low).astype(jnp.int32)
    is_above = rank >= num_low
    rank = jnp.where(is_above, rank - num_low, rank)
    words = jnp.where(is_above, words >> width, words)
    position = jnp.where(is_above, position + width, position)
  return position
