"""Prediction for a batch of whole images."""

import functools

import chex
import jax
import jax.numpy as jnp

from fcn_jax import models
from fcn_jax import types
from fcn_jax import valid_region
from fcn_jax.losses import strips


@functools.partial(jax.jit, static_argnums=0, static_argnames="head")
def predict(
  model: models.Network,
  variables: chex.ArrayTree,
  images: jax.Array,
  valid_sizes: jax.Array | None = None,
  *,
  head: str | None = None,
) -> jax.Array:
  """The likeliest class of every pixel.

  It is computed strip by strip, without an array of all logits.

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    images: [N, H, W, 3] uint8 or float, RGB in 0..255; any size. Other
      channels if the network has others.
    valid_sizes: [N, 2] int32, height and width of each image inside its array,
      as in `Batch`; None if the images fill their arrays.
    head: which head of a network with several; None for the main one.

  Returns:
    [N, H, W] int32, classes 0..C-1; the lowest one if several are equally
    likely; `IGNORE_LABEL` outside the images.

  Raises:
    ValueError: if the network has no such head.
  """
  score_map = models.heads.predicted_scores(
    model, variables, images, valid_sizes, head=head
  )
  classes = strips.map_strips(
    lambda logits: jnp.argmax(logits, axis=-2).astype(jnp.int32), score_map
  )
  if valid_sizes is None:
    return classes
  is_inside = valid_region.inside(valid_sizes, classes.shape[1:])
  return jnp.where(is_inside, classes, types.IGNORE_LABEL)
