"""Sums over pixels whose gradient is computed together with their value.

A score map is small and its logits are many: one for each class at each
pixel. Interpolation is local, so a sum over pixels and its gradient can be
computed piece by piece, in one pass: nothing is kept for a backward pass, and
no [N, H, W, C] array exists. The pieces are strips of all pixels (`strips`),
the same places in all blocks (`places`), or chunks of a list of blocks
(`listed_blocks`) or of pixels (`listed_pixels`).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fcn_jax import types

# From logits [..., C, P], and the matching part [..., P] of each further array,
# to K values for each pixel: a tree of arrays [..., K, P].
PixelFunction = Callable[..., types.Tree]


def with_scores(score_map: types.ScoreMap, scores: jax.Array) -> types.ScoreMap:
  """The score map with other scores."""
  return dataclasses.replace(score_map, scores=scores)


def of_piece(
  function: Callable[[jax.Array], types.Tree], scores: jax.Array
) -> tuple[types.Tree, jax.Array]:
  """The sums of values of a piece, with their gradient.

  Args:
    function: from scores to a tree of values of pixels, [N, ..., K, P].
    scores: an array.

  Returns:
    The sums of the images, each [N, K], and the gradient of the sum of all with
    respect to the scores.
  """

  def sum_of(scores):
    of_images = jax.tree.map(sum_over_pixels, function(scores))
    total = jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, of_images))
    return total, of_images

  (_, of_images), gradient = jax.value_and_grad(sum_of, has_aux=True)(scores)
  return of_images, gradient


def sum_over_pixels(values: jax.Array) -> jax.Array:
  """[N, ..., K, P] to [N, K]."""
  values = jnp.moveaxis(values, -2, 1)
  return jnp.sum(values.reshape(*values.shape[:2], -1), axis=2)


def over_pieces(
  add: Callable[[jax.Array, jax.Array], tuple[types.Tree, jax.Array]],
  num_pieces: int | jax.Array,
  gradient: jax.Array,
) -> tuple[types.Tree, jax.Array]:
  """The sums of all pieces, with their gradient.

  The loop carries the sums of the images, so that devices with parts of the
  batch need not exchange a sum in every iteration.

  Args:
    add: from the number of a piece and the gradient of those before to the sums
      of this piece and the gradient with it.
    num_pieces: how many there are.
    gradient: the gradient of no piece.

  Returns:
    The sums and the gradient.
  """
  shapes, _ = jax.eval_shape(add, jnp.zeros((), jnp.int32), gradient)
  nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def add_piece(number, carry):
    totals, gradient = carry
    sums, gradient = add(number, gradient)
    return jax.tree.map(jnp.add, totals, sums), gradient

  return jax.lax.fori_loop(0, num_pieces, add_piece, (nothing, gradient))
