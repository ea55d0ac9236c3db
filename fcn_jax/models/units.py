"""A convolution and what follows it: normalization, max-pooling and bias.

They are computed together, so that a TPU can keep packed columns between them,
see `packed_columns`. On other devices they are one after the other.

The pooling comes before the ReLU and, without normalization, before the bias.
It commutes with both, and there are fewer cells to work on.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax import geometry
from fcn_jax import platforms
from fcn_jax.models import batch_norm
from fcn_jax.models import convolution
from fcn_jax.models import packed_columns
from fcn_jax.models import pointwise_norm
from fcn_jax.models import pooling


class Unit(NamedTuple):
  """What is computed.

  Attributes:
    layer: the convolution.
    pool: the max-pooling, or None.
    groups: groups of channels that do not see each other.
    epsilon: added to the variances of batch normalization.
    uses_batch: whether batch normalization uses the statistics of the batch.
    dtype: of the computation.
    packs: whether a TPU may pack columns. This pays where units follow each
      other that do; a single one spends more time on packing and unpacking.
  """

  layer: geometry.Layer
  pool: geometry.Layer | None
  groups: int
  epsilon: float
  uses_batch: bool
  dtype: jnp.dtype
  packs: bool = True


class Operands(NamedTuple):
  """What is computed with, besides the inputs.

  Attributes:
    kernel: [k, k, C / groups, D].
    bias: [D] or None.
    norm: or None, for no batch normalization.
    inside: [N, h, w, 1] bool, the outputs of the convolution that lie in the
      images; None for all.
  """

  kernel: jax.Array
  bias: jax.Array | None
  norm: batch_norm.Norm | None
  inside: jax.Array | None


def compute(
  unit: Unit, inputs: jax.Array, operands: Operands
) -> tuple[jax.Array, batch_norm.Statistics | None]:
  """Computes a unit in the form that suits the device.

  Args:
    unit: what to compute.
    inputs: [N, H, W, C].
    operands: parameters and what lies inside the images.

  Returns:
    Values [N, h, w, D], and the statistics used in batch normalization.
  """
  columns = _num_columns(unit, inputs, operands)
  plain = functools.partial(compute_packed, unit, 1)
  if _is_widening(unit, operands):
    tpu = functools.partial(compute_widening, unit)
  elif columns > 1:
    tpu = functools.partial(compute_packed, unit, columns)
  else:
    return plain(inputs, operands)
  return platforms.dependent(inputs, operands, tpu=tpu, default=plain)


def compute_packed(
  unit: Unit, columns: int, inputs: jax.Array, operands: Operands
) -> tuple[jax.Array, batch_norm.Statistics | None]:
  """As `compute`, with so many columns packed into the channels."""
  kernel, bias, norm, inside = operands
  values = _convolve(unit, columns, inputs, kernel)
  statistics = None
  if norm is not None:
    if bias is not None:
      # The normalization subtracts it again: reducing its gradient would cost
      # another pass over the map.
      bias = jax.lax.stop_gradient(bias) if unit.uses_batch else bias
      values += packed_columns.for_columns(bias, columns)
    values, statistics = _normalize(unit, columns, values, norm, inside)
  if unit.pool is not None:
    values, columns = _pool(unit.pool, columns, values, inside)
  if norm is None and bias is not None:
    values += packed_columns.for_columns(bias, columns)
  return packed_columns.unpack(values, columns), statistics


def _is_widening(unit, operands):
  """Whether `compute_widening` serves a unit, and saves time on a TPU."""
  _, _, channels, width = operands.kernel.shape
  return (
    (unit.layer.kernel, unit.layer.padding, unit.groups) == (1, 0, 1)
    and operands.norm is not None
    and unit.uses_batch
    and channels < width
    and unit.pool is None
    and operands.bias is None
    and operands.inside is None
  )


def compute_widening(
  unit: Unit, inputs: jax.Array, operands: Operands
) -> tuple[jax.Array, batch_norm.Statistics]:
  """As `compute`, for a 1x1 convolution with batch statistics and no more."""
  stride = unit.layer.stride
  values, statistics = pointwise_norm.by_batch(
    inputs[:, ::stride, ::stride],
    operands.kernel[0, 0],
    operands.norm,
    epsilon=unit.epsilon,
  )
  return values.astype(unit.dtype), statistics


def _num_columns(unit, inputs, operands):
  """How many columns to pack on a TPU; 1 for none."""
  layer, pool = unit.layer, unit.pool
  width = inputs.shape[2]
  if (
    not unit.packs
    or operands.inside is not None
    or unit.groups > 1
    or layer.dilation > 1
    or layer.kernel == 1
    or jax.export.is_symbolic_dim(width)
  ):
    return 1
  columns = packed_columns.num_columns(
    operands.kernel.shape[-1], layer.num_outputs(width)
  )
  if pool is not None and not packed_columns.can_pool(pool, columns):
    return 1
  return columns


def _convolve(unit, columns, inputs, kernel):
  layer = unit.layer
  if columns > 1:
    return packed_columns.convolution(
      inputs,
      kernel,
      stride=layer.stride,
      padding=layer.padding,
      columns=columns,
      even_first=unit.pool is not None,
    )
  return convolution.conv_general_dilated(
    inputs,
    kernel,
    (layer.stride,) * 2,
    ((layer.padding,) * 2,) * 2,
    lhs_dilation=(1, 1),
    rhs_dilation=(layer.dilation,) * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=unit.groups,
  )


def _normalize(unit, columns, values, norm, inside):
  options = {"epsilon": unit.epsilon, "columns": columns}
  if unit.uses_batch:
    values, statistics = batch_norm.by_batch(values, norm, inside, **options)
  else:
    values = batch_norm.by_running_statistics(values, norm, **options)
    statistics = norm.running
  return values.astype(unit.dtype), statistics


def _pool(pool, columns, values, inside):
  options = {"padding": pool.padding, "ceil_mode": pool.ceil_mode}
  if columns > 1:
    values = packed_columns.max_pool(
      values, pool.kernel, pool.stride, **options
    )
    return values, columns // 2
  if inside is not None:
    values = jnp.where(inside, values, -jnp.inf)
  return pooling.max_pool(values, pool.kernel, pool.stride, **options), 1


class Convolution(nn.Module):
  """The parameters of a convolution, named as those of `flax.linen.Conv`."""

  shape: tuple[int, int, int, int]
  use_bias: bool
  param_dtype: jnp.dtype

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array | None]:
    """Kernel and bias."""
    kernel = self.param(
      "kernel", nn.initializers.he_normal(), self.shape, self.param_dtype
    )
    bias = None
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros, self.shape[-1:], self.param_dtype
      )
    return kernel, bias
