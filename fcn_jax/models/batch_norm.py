"""Batch normalization of maps, also of those with packed columns.

Ioffe and Szegedy (2015). Values and statistics are those of
`flax.linen.BatchNorm`. The gradient of the statistics is written out, as in
their section 3: XLA's own takes twice as long on a CPU.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax.models import packed_columns


class Statistics(NamedTuple):
  """Mean and variance of each channel, [C]."""

  mean: jax.Array
  variance: jax.Array


class Norm(NamedTuple):
  """What to normalize with.

  Attributes:
    scale: [C].
    shift: [C].
    running: statistics to use if those of the batch are not used.
  """

  scale: jax.Array
  shift: jax.Array
  running: Statistics


def by_running_statistics(
  values: jax.Array, norm: Norm, *, epsilon: float, columns: int
) -> jax.Array:
  """Normalizes with given statistics, as in inference.

  Args:
    values: [N, h, w, f C].
    norm: parameters and statistics.
    epsilon: added to the variances.
    columns: f, how many columns are packed; 1 for none.

  Returns:
    [N, h, w, f C] float32, or float64 if values or parameters are.
  """
  dtype = _wide_dtype(values, norm)
  return _normalize(
    values.astype(dtype),
    norm.running.mean.astype(dtype),
    _factor(norm.running.variance.astype(dtype), norm.scale, epsilon),
    norm.shift,
    columns,
  )


def by_batch(
  values: jax.Array,
  norm: Norm,
  inside: jax.Array | None,
  *,
  epsilon: float,
  columns: int,
) -> tuple[jax.Array, Statistics]:
  """Normalizes with the statistics of the values, as in training.

  Args:
    values: [N, h, w, f C].
    norm: parameters.
    inside: [N, h, w, 1] bool, the cells that count in the statistics; None for
      all.
    epsilon: added to the variances.
    columns: f, how many columns are packed; 1 for none.

  Returns:
    Values as of `by_running_statistics`, with the gradient, and the statistics,
    without one.
  """
  dtype = _wide_dtype(values, norm)
  values, statistics = _by_batch(
    epsilon,
    columns,
    values,
    norm.scale.astype(dtype),
    norm.shift.astype(dtype),
    inside,
  )
  return values, jax.lax.stop_gradient(statistics)


def _wide_dtype(values, norm):
  is_wide = jnp.float64 in (values.dtype, norm.scale.dtype)
  return jnp.float64 if is_wide else jnp.float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_batch(epsilon, columns, values, scale, shift, inside):
  return _forward(epsilon, columns, values, scale, shift, inside)[0]


def _forward(epsilon, columns, values, scale, shift, inside):
  wide = values.astype(scale.dtype)
  count = _count(values, inside, columns, scale.dtype)
  mean, square = (
    _channel_sums(each, inside, columns) / count
    for each in (wide, jnp.square(wide))
  )
  # Rounding may make it negative.
  variance = jnp.maximum(0, square - jnp.square(mean))
  result = _normalize(
    wide, mean, _factor(variance, scale, epsilon), shift, columns
  )
  statistics = Statistics(mean, variance)
  return (result, statistics), (values, scale, shift, inside, statistics)


def _backward(epsilon, columns, residuals, cotangent):
  values, scale, shift, inside, (mean, variance) = residuals
  gradient, _ = cotangent
  factor = _factor(variance, scale, epsilon)
  inverse = jax.lax.rsqrt(variance + epsilon)
  spread = functools.partial(packed_columns.for_columns, columns=columns)
  centred = values.astype(scale.dtype) - spread(mean)
  sum_of = functools.partial(_channel_sums, inside=None, columns=columns)
  shift_gradient = sum_of(gradient)
  product = sum_of(gradient * centred)
  # Through the statistics: they depend on the cells that count.
  count = _count(values, inside, columns, scale.dtype)
  through = spread(factor * shift_gradient / count) + centred * spread(
    factor * jnp.square(inverse) * product / count
  )
  if inside is not None:
    through = jnp.where(inside, through, 0)
  values_gradient = gradient * spread(factor) - through
  return (
    values_gradient.astype(values.dtype),
    product * inverse,
    shift_gradient.astype(shift.dtype),
    None,
  )


_by_batch.defvjp(_forward, _backward)


def _factor(variance, scale, epsilon):
  return jax.lax.rsqrt(variance + epsilon) * scale.astype(variance.dtype)


def _normalize(values, mean, factor, shift, columns):
  mean, factor, shift = (
    packed_columns.for_columns(each.astype(values.dtype), columns)
    for each in (mean, factor, shift)
  )
  return (values - mean) * factor + shift


def _channel_sums(values, inside, columns):
  """Sums over all cells, [C]."""
  sums = jnp.sum(values, (0, 1, 2), where=inside)
  return jnp.sum(sums.reshape(columns, -1), 0) if columns > 1 else sums


def _count(values, inside, columns, dtype):
  """How many cells count in the statistics."""
  if inside is None:
    return values.size // values.shape[-1] * columns
  return jnp.sum(inside, dtype=jnp.int32).astype(dtype)


class BatchNorm(nn.Module):
  """The parameters of batch normalization, and its running statistics.

  Their names are those of `flax.linen.BatchNorm`.

  Attributes:
    num_channels: C.
    uses_batch: whether to normalize with the statistics of the batch, which the
      running statistics then follow.
    param_dtype: of scale and shift.
    momentum: share of the running statistics that stays, per step.
  """

  num_channels: int
  uses_batch: bool
  param_dtype: jnp.dtype
  momentum: float = 0.9

  @nn.compact
  def __call__(
    self, compute: Callable[[Norm], tuple[jax.Array, Statistics]]
  ) -> jax.Array:
    """Values of a function from `Norm` to values and statistics."""
    shape = (self.num_channels,)
    running = [
      self.variable("batch_stats", name, initializer, shape, jnp.float32)
      for name, initializer in (("mean", jnp.zeros), ("var", jnp.ones))
    ]
    scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
    shift = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
    old = Statistics(*(variable.value for variable in running))
    values, new = compute(Norm(scale, shift, old))
    if self.uses_batch and not self.is_initializing():
      for variable, array in zip(running, new, strict=True):
        variable.value = self.momentum * variable.value + (
          1 - self.momentum
        ) * array.astype(jnp.float32)
    return values
