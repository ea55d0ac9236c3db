"""Hard examples: samplers that keep the pixels with the largest losses.

Online hard example mining (Shrivastava, Gupta and Girshick, CVPR 2016), for
pixels: Wu, Shen and van den Hengel call it online bootstrapping
(arXiv:1604.04339 and arXiv:1605.06885). These samplers need the losses of the
pixels, without gradient, which `losses.make` gives them. They are not random,
and what they keep does not estimate the whole loss.
"""

import chex
import jax
import jax.numpy as jnp

from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.sampling import sampler as sampler_lib
from fcn_jax.sampling import uniform


@reprs.described
def hardest(*, count: int) -> sampler_lib.Sampler:
  """Keeps the `count` valid pixels of each image with the largest losses.

  Wu, Shen and van den Hengel, arXiv:1605.06885. Pixels of equal loss are taken
  from the top left. A loss of NaN counts as the largest, so that it shows.

  Args:
    count: pixels to keep of each image; all, if it has fewer valid ones.

  Returns:
    A sampler with weights 0 and 1.

  Raises:
    ValueError: if `count` is not positive.
  """
  uniform.check_integer("count", count)

  def draw(key, labels, *, pixel_losses):
    del key
    kept = _with_largest(labels, _detached(pixel_losses), count)
    return kept.astype(jnp.float32)

  return sampler_lib.Sampler(draw, lambda shape: count, needs=("pixel_losses",))


@reprs.described
def harder_than(*, threshold: float, min_count: int) -> sampler_lib.Sampler:
  """Keeps all valid pixels with a loss above a threshold, or a minimum number.

  Wu, Shen and van den Hengel, arXiv:1604.04339, drop pixels whose true class
  has a probability of p or more; that is a threshold of -log(p). For losses of
  NaN, and equal ones, see `hardest`.

  Args:
    threshold: in nats.
    min_count: the least number of the hardest valid pixels to keep of each
      image, if it has as many.

  Returns:
    A sampler with weights 0 and 1.

  Raises:
    ValueError: if `threshold` or `min_count` is negative.
  """
  if not threshold >= 0.0:
    raise ValueError(
      f"threshold is {threshold}; it is a loss in nats, 0 or more."
    )
  uniform.check_integer("min_count", min_count, least=0)

  def draw(key, labels, *, pixel_losses):
    del key
    losses = _detached(pixel_losses)
    kept = _with_largest(labels, losses, min_count) | (losses > threshold)
    return jnp.where(kept, uniform.valid_pixels(labels), 0.0)

  return sampler_lib.Sampler(draw, needs=("pixel_losses",))


def _detached(pixel_losses: jax.Array) -> jax.Array:
  """Losses as float32 without gradient, NaN replaced by infinity."""
  losses = jax.lax.stop_gradient(pixel_losses).astype(jnp.float32)
  return jnp.where(jnp.isnan(losses), jnp.inf, losses)


def _with_largest(
  labels: jax.Array, losses: jax.Array, count: int
) -> jax.Array:
  """Marks `count` valid pixels of each image; [N, H, W] bool."""
  chex.assert_rank(labels, 3)
  chex.assert_equal_shape((labels, losses))
  values = uniform.ordered_bits(losses)
  values = jnp.where(labels != types.IGNORE_LABEL, values, 0)
  values = values.reshape(len(labels), -1)
  return uniform.largest(values, count=count).reshape(labels.shape)
