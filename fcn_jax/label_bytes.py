"""Class labels as bytes: a quarter of the memory to copy and to read."""

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import types


def in_bytes(labels: jax.Array, *, num_classes: int) -> jax.Array:
  """Class labels as uint8, if none changes its meaning.

  Args:
    labels: [...] integers, classes 0..C-1 or `IGNORE_LABEL`; an array of NumPy
      or JAX. Bit masks (`losses.bit_masks`, uint32) are returned as they are.
    num_classes: C; labels of 255 classes or more are returned as they are.

  Returns:
    [...] uint8. What is neither void nor a class stays that.
  """
  last = types.IGNORE_LABEL - 1
  if num_classes > last or labels.dtype in (np.uint8, np.uint32):
    return labels
  where = jnp.where if isinstance(labels, jax.Array) else np.where
  is_known = (labels >= 0) & (labels <= types.IGNORE_LABEL)
  return where(is_known, labels, last).astype(np.uint8)
