"""Samplers of pixels near boundaries, and importance sampling."""

import chex
import jax.numpy as jnp

from fcn_jax import label_boundaries
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.sampling import capacity
from fcn_jax.sampling import sampler as sampler_lib
from fcn_jax.sampling import uniform


@reprs.described
def boundary_probabilities(
  *, rate: float, rate_elsewhere: float, distance: int
) -> sampler_lib.Probabilities:
  """Probabilities of keeping pixels: one near boundaries, one elsewhere.

  See `label_boundaries.near`: void counts as a label of its own.

  Args:
    rate: probability in (0, 1] near a boundary.
    rate_elsewhere: probability in [0, 1] of all other valid pixels.
    distance: in pixels, the larger of the distances in rows and in columns.

  Raises:
    ValueError: if a rate is out of range or `distance` is not positive.
  """
  _check_rates(rate, rate_elsewhere)
  uniform.check_integer("distance", distance)

  def of(labels):
    near = label_boundaries.near(labels, distance=distance)
    probabilities = jnp.where(near, rate, rate_elsewhere)
    return probabilities.astype(jnp.float32) * uniform.valid_pixels(labels)

  def max_count(shape):
    num_pixels = shape[1] * shape[2]
    return capacity.tail_bound(
      max(rate, rate_elsewhere) * num_pixels,
      num_draws=num_pixels,
      num_images=shape[0],
    )

  return sampler_lib.Probabilities(of, max_count)


@reprs.described
def near_boundary(
  *, rate: float, rate_elsewhere: float, distance: int
) -> sampler_lib.Sampler:
  """Keeps pixels near boundaries with one probability, others with another.

  The expected weight of a pixel is its probability, so the sum of the sampled
  loss does not estimate the whole sum; `importance` does, with the same draws.

  Args:
    rate: see `boundary_probabilities`, as for the following.
    rate_elsewhere: probability of all other valid pixels.
    distance: of pixels near a boundary.

  Returns:
    A sampler with weights 0 and 1.
  """
  return uniform.independently(
    boundary_probabilities(
      rate=rate, rate_elsewhere=rate_elsewhere, distance=distance
    )
  )


@reprs.described
def importance(
  *, probabilities: sampler_lib.Probabilities
) -> sampler_lib.Sampler:
  """Keeps pixels with given probabilities and corrects for them by weights.

  A pixel kept with probability q has weight 1 / q, so that the expected weight
  of each valid pixel is 1, and the expected sum of the sampled loss the whole
  sum (Horvitz and Thompson, Journal of the American Statistical Association,
  1952). This needs q > 0 at all valid pixels: no weight makes up for a pixel
  that is never kept.

  Random numbers have steps of 2^-23, so q is rounded up to a multiple of that,
  in the draw and in the weight: no weight exceeds 2^23.

  Args:
    probabilities: q, such as `boundary_probabilities` or `class_probabilities`.
      Small q make large weights and a noisy gradient.

  Returns:
    A sampler with weights 0 and 1 / q; NaN where q is NaN.
  """

  def draw(key, labels):
    chosen = probabilities.of(labels)
    chex.assert_equal_shape((labels, chosen))
    void = labels == types.IGNORE_LABEL
    # A probability is at most 1.
    chosen = jnp.where(void, 0.0, jnp.minimum(chosen, 1.0))
    # `jax.random.bernoulli` keeps a pixel with exactly this probability. For
    # q = 1e-7 it is 1.19e-7.
    chosen = jnp.ceil(chosen * 2**23) / 2**23
    kept = uniform.independent(key, chosen)
    return kept / jnp.where(chosen > 0, chosen, 1.0)

  return sampler_lib.Sampler(
    draw, probabilities.max_count, uniform.num_valid_as_float
  )


def _check_rates(rate: float, rate_elsewhere: float) -> None:
  uniform.check_rate(rate)
  if not 0.0 <= rate_elsewhere <= 1.0:
    raise ValueError(
      f"rate_elsewhere is {rate_elsewhere}; it is the share of the pixels far "
      "from boundaries that is kept, from 0 to 1."
    )
