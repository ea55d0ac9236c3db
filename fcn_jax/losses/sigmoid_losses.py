"""Pixel losses for classes that do not exclude each other.

A pixel has any number of the classes. Its label is a bit mask, which
`bit_masks` makes of arrays [N, H, W, C]. Samplers that do not look at classes,
and all forms of the loss, take it as any other label; void stays
`types.IGNORE_LABEL`. With one class, labels may also be 0 and 1.
"""

import jax
import jax.numpy as jnp

from fcn_jax import label_bits


def sigmoid_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross-entropy of each class, summed over the classes, in nats.

  Args:
    logits: [..., C, P].
    labels: [..., P] from `bit_masks`, cast to int32 as `make` does. If C is 1,
      they may be 0 and 1 instead.

  Returns:
    [..., P] losses; NaN where a label is no bit mask of these classes, such as
    the number of a class.
  """
  is_there, is_mask = truth(logits, labels)
  # log(1 + exp(x)) - x where the class is there.
  losses = jax.nn.softplus(jnp.where(is_there, -logits, logits))
  return jnp.where(is_mask, jnp.sum(losses, axis=-2), jnp.nan)


def truth(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Marks each pixel's classes, [..., C, P], and labels that are bit masks."""
  num_classes = logits.shape[-2]
  if num_classes == 1:
    labels = jnp.where(labels == 1, 1 << label_bits.SHIFT, labels)
  shape = [1] * (logits.ndim - 2) + [num_classes, 1]
  bits = (
    jnp.arange(num_classes, dtype=jnp.int32).reshape(shape) + label_bits.SHIFT
  )
  is_there = ((labels[..., None, :] >> bits) & 1) == 1
  is_mask = (labels >= 0) & (labels & ((1 << label_bits.SHIFT) - 1) == 0)
  return is_there, is_mask & (labels >> (label_bits.SHIFT + num_classes) == 0)
