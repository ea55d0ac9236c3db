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
# to a value for each pixel, [..., P].
PixelFunction = Callable[..., jax.Array]


def with_scores(score_map: types.ScoreMap, scores: jax.Array) -> types.ScoreMap:
  """The score map with other scores."""
  return dataclasses.replace(score_map, scores=scores)


def of_pieces(
  function: Callable[[jax.Array], jax.Array], scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The sum of values of a piece, with its gradient.

  Loops carry the sums of the images, so that devices with parts of the batch
  need not exchange a sum in every iteration.

  Args:
    function: from scores to the values of pixels, [N, ...].
    scores: an array.

  Returns:
    The sums of the images, [N], and the gradient of their sum with respect to
    the scores.
  """

  def sum_of(scores):
    values = function(scores)
    of_images = jnp.sum(values.reshape(len(values), -1), axis=1)
    return jnp.sum(of_images), of_images

  (_, of_images), gradient = jax.value_and_grad(sum_of, has_aux=True)(scores)
  return of_images, gradient
