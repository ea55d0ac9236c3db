"""Samplers of pixels near boundaries, and importance sampling."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from fcn_jax import label_boundaries
from fcn_jax import types
from fcn_jax.sampling import capacity
from fcn_jax.sampling import uniform


def _boundary_bound(
  shape: tuple[int, int, int],
  *,
  rate: float,
  rate_elsewhere: float,
  distance: int,
) -> int:
  del distance
  _check_rates(rate, rate_elsewhere)
  num_pixels = shape[1] * shape[2]
  return capacity.tail_bound(
    max(rate, rate_elsewhere) * num_pixels,
    num_draws=num_pixels,
    num_images=shape[0],
  )


@capacity.bounded_by(_boundary_bound)
def boundary_probabilities(
  labels: jax.Array, *, rate: float, rate_elsewhere: float, distance: int
) -> jax.Array:
  """Probabilities of keeping pixels: one near boundaries, one elsewhere.

  See `label_boundaries.near`: void counts as a label of its own.

  Args:
    labels: [N, H, W] int32.
    rate: probability in (0, 1] near a boundary.
    rate_elsewhere: probability in [0, 1] of all other valid pixels.
    distance: in pixels, the larger of the distances in rows and in columns.

  Returns:
    [N, H, W] float32 probabilities, 0 where void.

  Raises:
    ValueError: if a rate is out of range or `distance` is not positive.
  """
  _check_rates(rate, rate_elsewhere)
  near = label_boundaries.near(labels, distance=distance)
  probabilities = jnp.where(near, rate, rate_elsewhere)
  return probabilities.astype(jnp.float32) * uniform.valid_pixels(labels)


@capacity.bounded_by(_boundary_bound)
def near_boundary(
  key: jax.Array,
  labels: jax.Array,
  *,
  rate: float,
  rate_elsewhere: float,
  distance: int,
) -> jax.Array:
  """Keeps pixels near boundaries with one probability, others with another.

  The expected weight of a pixel is its probability, so the sum of the sampled
  loss does not estimate the whole sum; `importance` does, with the same draws.

  Args:
    key: random key.
    labels: [N, H, W] int32.
    rate: see `boundary_probabilities`, as for the following.
    rate_elsewhere: probability of all other valid pixels.
    distance: of pixels near a boundary.

  Returns:
    [N, H, W] float32 weights, 0 where void or dropped, else 1.
  """
  probabilities = boundary_probabilities(
    labels, rate=rate, rate_elsewhere=rate_elsewhere, distance=distance
  )
  return uniform.independent(key, probabilities)


def _importance_bound(
  shape: tuple[int, int, int],
  *,
  probabilities: Callable[[jax.Array], jax.Array],
) -> int:
  most = capacity.of_sampler(probabilities, shape)
  return shape[1] * shape[2] if most is None else most


@capacity.bounded_by(_importance_bound)
def importance(
  key: jax.Array,
  labels: jax.Array,
  *,
  probabilities: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Keeps pixels with given probabilities and corrects for them by weights.

  A pixel kept with probability q has weight 1 / q, so that the expected weight
  of each valid pixel is 1, and the expected sum of the sampled loss the whole
  sum (Horvitz and Thompson, Journal of the American Statistical Association,
  1952). This needs q > 0 at all valid pixels: no weight makes up for a pixel
  that is never kept.

  Args:
    key: random key.
    labels: [N, H, W] int32.
    probabilities: function of the labels to q, [N, H, W] float32 in 0..1, such
      as `boundary_probabilities` or `class_probabilities` with the options
      bound by `functools.partial`. Small q make large weights and a noisy
      gradient.

  Returns:
    [N, H, W] float32 weights, 0 where void or dropped, else 1 / q; NaN where q
    is NaN.
  """
  chosen = probabilities(labels)
  chex.assert_equal_shape((labels, chosen))
  void = labels == types.IGNORE_LABEL
  # A probability is at most 1.
  chosen = jnp.where(void, 0.0, jnp.minimum(chosen, 1.0))
  kept = uniform.independent(key, chosen)
  return kept / jnp.where(chosen > 0, chosen, 1.0)


def _check_rates(rate: float, rate_elsewhere: float) -> None:
  uniform.check_rate(rate)
  if not 0.0 <= rate_elsewhere <= 1.0:
    raise ValueError(
      f"rate_elsewhere is {rate_elsewhere}; it is the share of the pixels far "
      "from boundaries that is kept, from 0 to 1."
    )
