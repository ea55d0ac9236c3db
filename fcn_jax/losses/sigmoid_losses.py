"""Pixel losses for classes that do not exclude each other.

A pixel has any number of the classes. Its label is a bit mask, which
`bit_masks` makes of arrays [N, H, W, C]. Samplers that do not look at classes,
and all forms of the loss, take it as any other label; void stays
`types.IGNORE_LABEL`.
"""

import chex
import jax
import jax.numpy as jnp

from fcn_jax import types

# The bits of the classes stand above those of `types.IGNORE_LABEL`.
_SHIFT = 8
MAX_CLASSES = 31 - _SHIFT


def bit_masks(
  classes: jax.Array, *, is_void: jax.Array | None = None
) -> jax.Array:
  """Labels of pixels that have several classes, or none.

  Args:
    classes: [..., C] bool or 0 and 1, the classes that each pixel has.
    is_void: [...] bool, pixels that do not count; None for no such pixel.

  Returns:
    [...] uint32, `IGNORE_LABEL` where void. `make` needs this dtype to tell
    them from numbers of classes.

  Raises:
    ValueError: if there are more than `MAX_CLASSES` classes.
  """
  num_classes = classes.shape[-1]
  if num_classes > MAX_CLASSES:
    raise ValueError(
      f"classes of shape {classes.shape} are {num_classes} classes; a bit mask "
      f"has room for {MAX_CLASSES}."
    )
  bits = jnp.arange(num_classes, dtype=jnp.int32) + _SHIFT
  bits = bits.reshape((1,) * (classes.ndim - 1) + (-1,))
  masks = jnp.sum(classes.astype(bool).astype(jnp.int32) << bits, axis=-1)
  # Labels of this dtype are not taken for numbers of classes.
  masks = masks.astype(jnp.uint32)
  if is_void is None:
    return masks
  chex.assert_equal_shape((masks, is_void))
  return jnp.where(is_void, types.IGNORE_LABEL, masks)


def sigmoid_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Binary cross-entropy of each class, summed over the classes, in nats.

  Args:
    logits: [..., C, P].
    labels: [..., P] from `bit_masks`, cast to int32 as `make` does.

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
  shape = [1] * (logits.ndim - 2) + [num_classes, 1]
  bits = jnp.arange(num_classes, dtype=jnp.int32).reshape(shape) + _SHIFT
  is_there = ((labels[..., None, :] >> bits) & 1) == 1
  is_mask = (labels >= 0) & (labels & ((1 << _SHIFT) - 1) == 0)
  return is_there, is_mask & (labels >> (_SHIFT + num_classes) == 0)
