"""Boundaries between the labels of an image."""

import numbers
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from fcn_jax import types


def near(labels: jax.Array, *, distance: int) -> jax.Array:
  """The valid pixels near a boundary.

  A pixel is near a boundary if the square of pixels around it that reaches
  `distance` pixels to each side has more than one label. Void is a label of its
  own here, since data sets mark outlines with it; the border of the image is
  not a boundary.

  Args:
    labels: [N, H, W] int32.
    distance: in pixels, the larger of the distances in rows and in columns.

  Returns:
    [N, H, W] bool, false where void.

  Raises:
    ValueError: if `distance` is not a positive integer.
  """
  if not isinstance(distance, numbers.Integral) or distance < 1:
    raise ValueError(
      f"distance is {distance}; give an integer of pixels, 1 or more."
    )
  chex.assert_rank(labels, 3)
  limits = jnp.iinfo(labels.dtype)
  highest = _over_squares(labels, jax.lax.max, limits.min, distance)
  lowest = _over_squares(labels, jax.lax.min, limits.max, distance)
  return (highest != lowest) & (labels != types.IGNORE_LABEL)


def _over_squares(
  labels: jax.Array,
  combine: Callable[[jax.Array, jax.Array], jax.Array],
  beyond: int,
  distance: int,
) -> jax.Array:
  """Combines the labels in the square around each pixel, rows then columns."""
  start = labels.dtype.type(beyond)
  for axis in (1, 2):
    window, padding = [1, 1, 1], [(0, 0), (0, 0), (0, 0)]
    window[axis] = 2 * distance + 1
    padding[axis] = (distance, distance)
    labels = jax.lax.reduce_window(
      labels, start, combine, window, (1, 1, 1), padding
    )
  return labels
