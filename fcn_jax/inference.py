"""Prediction with a trained network."""

import functools

import chex
import jax
import jax.numpy as jnp

from fcn_jax import models
from fcn_jax import upsampling


@functools.partial(jax.jit, static_argnums=0)
def predict(
  model: models.FCN, variables: chex.ArrayTree, images: jax.Array
) -> jax.Array:
  """The likeliest class of every pixel.

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    images: [N, H, W, 3] uint8 or float, RGB in 0..255; any size.

  Returns:
    [N, H, W] int32, classes 0..C-1.
  """
  score_map = model.apply(variables, images, train=False)
  logits = upsampling.to_pixels(score_map)
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)
