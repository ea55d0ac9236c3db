"""Labels of pixels that have several classes, or none: bit masks.

Bit 8 + c is set if the pixel has class c. The lower bits are only used by
`types.IGNORE_LABEL`, so void is the same number as elsewhere.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import types

# The bits of the classes stand above those of `types.IGNORE_LABEL`.
SHIFT = 8
MAX_CLASSES = 31 - SHIFT


def bit_masks(
  classes: jax.Array, *, is_void: jax.Array | None = None
) -> jax.Array:
  """Labels of pixels that have several classes, or none.

  Args:
    classes: [..., C] bool or 0 and 1, the classes that each pixel has; an array
      of NumPy or JAX.
    is_void: [...] bool, pixels that do not count; None for no such pixel.

  Returns:
    [...] uint32, `IGNORE_LABEL` where void. `losses.make` needs this dtype to
    tell them from numbers of classes.

  Raises:
    ValueError: if there are more than `MAX_CLASSES` classes.
  """
  num_classes = classes.shape[-1]
  if num_classes > MAX_CLASSES:
    raise ValueError(
      f"classes of shape {classes.shape} are {num_classes} classes; a bit mask "
      f"has room for {MAX_CLASSES}."
    )
  masks = classes.astype(bool).astype(np.int32) << _bits(classes)
  # Labels of this dtype are not taken for numbers of classes.
  masks = masks.sum(axis=-1, dtype=np.int32).astype(np.uint32)
  if is_void is None:
    return masks
  chex.assert_equal_shape((masks, is_void))
  where = jnp.where if isinstance(masks, jax.Array) else np.where
  return where(is_void, types.IGNORE_LABEL, masks).astype(np.uint32)


def unpack_bit_masks(masks: jax.Array, *, num_classes: int) -> jax.Array:
  """The classes of each pixel: the inverse of `bit_masks`.

  Args:
    masks: [...] uint32, an array of NumPy or JAX.
    num_classes: C.

  Returns:
    [..., C] bool; no class where void.

  Raises:
    ValueError: if the labels are not uint32, and so no bit masks.
  """
  check(masks)
  masks = masks[..., None].astype(np.int32)
  bits = _bits(np.empty((1,) * (masks.ndim - 1) + (num_classes,)))
  return (masks >> bits) & 1 == 1


def check(masks: jax.Array, name: str = "labels") -> None:
  """Raises a `ValueError` if labels are not uint32, and so no bit masks."""
  if masks.dtype != np.uint32:
    raise ValueError(
      f"{name} are {masks.dtype}; bit masks are uint32: make them of arrays "
      "[..., C] with losses.bit_masks."
    )


def _bits(classes):
  """The bit of each class of arrays [..., C], with as many axes."""
  shape = (1,) * (classes.ndim - 1) + (-1,)
  return (np.arange(classes.shape[-1], dtype=np.int32) + SHIFT).reshape(shape)
