"""Images that fill only the upper left part of their array.

Pictures of different sizes share a batch once they are padded below and to the
right. `valid_sizes` are the height and width that each image, or the map of one
of its layers, fills; the rest is outside, and networks must not see it.
"""

import chex
import jax
import jax.numpy as jnp

from fcn_jax import types


def inside(valid_sizes: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """Marks the pixels of the images in their arrays.

  Args:
    valid_sizes: [N, 2] int32, height and width of each image.
    shape: height and width of the arrays, H and W.

  Returns:
    [N, H, W] bool.
  """
  chex.assert_shape(valid_sizes, (None, 2))
  rows, columns = (
    jnp.arange(side, dtype=valid_sizes.dtype)[None] < valid_sizes[:, axis, None]
    for axis, side in enumerate(shape)
  )
  return rows[:, :, None] & columns[:, None, :]


def fill_outside(
  values: jax.Array, valid_sizes: jax.Array, *, edge: types.EdgeRule
) -> jax.Array:
  """Replaces what lies outside, by an edge rule.

  Args:
    values: [N, H, W, C].
    valid_sizes: [N, 2] int32, height and width that count; at least 1 for
      "clamp".
    edge: "zero", or "clamp" to repeat the last row and column that count.

  Returns:
    [N, H, W, C]. The values replaced have no gradient.
  """
  if edge == "zero":
    is_inside = inside(valid_sizes, values.shape[1:3])
    return jnp.where(is_inside[..., None], values, 0)
  for axis in (1, 2):
    shape = [1] * values.ndim
    shape[axis] = values.shape[axis]
    index = jnp.arange(values.shape[axis], dtype=valid_sizes.dtype).reshape(
      shape
    )
    size = valid_sizes[:, axis - 1].reshape(-1, *[1] * (values.ndim - 1))
    # A sum with one term: no gather forward, no scatter backward.
    last = jnp.where(index == size - 1, values, 0)
    last = jnp.sum(last, axis=axis, keepdims=True)
    values = jnp.where(index < size, values, last)
  return values
