"""Sums over pixels whose gradient is computed together with their value.

A score map is small and its logits are many: one for each class at each
pixel. Interpolation is local, so a sum over pixels and its gradient can be
computed piece by piece, in one pass: nothing is kept for a backward pass, and
no [N, H, W, C] array exists. The pieces are strips of all pixels (`strips`) or
chunks of a list of pixels (`listed_pixels`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fcn_jax import types

# From logits, and the matching part of each further array, to a value for each
# pixel.
PixelFunction = Callable[..., jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_with_gradient(
  compute: Callable[[types.ScoreMap, Any], tuple[jax.Array, types.ScoreMap]],
  score_map: types.ScoreMap,
  constants: Any,
) -> jax.Array:
  """The sum that `compute` returns, differentiable once by the scores.

  Args:
    compute: returns the sum and its gradient, for a score map.
    score_map: scores [N, h, w, C].
    constants: arrays without a gradient.

  Returns:
    Scalar.
  """
  return compute(score_map, constants)[0]


sum_with_gradient.defvjp(
  lambda compute, score_map, constants: compute(score_map, constants),
  lambda compute, gradient, cotangent: (
    jax.tree.map(lambda scores: cotangent * scores, gradient),
    None,
  ),
)


def with_scores(score_map: types.ScoreMap, scores: jax.Array) -> types.ScoreMap:
  """The score map with other scores."""
  return dataclasses.replace(score_map, scores=scores)


def sums(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The sum of [N, ...], and that of each image, [N].

  Loops carry the sums of the images, so that devices with parts of the batch
  need not exchange a sum in every iteration.
  """
  of_images = jnp.sum(values.reshape(len(values), -1), axis=1)
  return jnp.sum(of_images), of_images
