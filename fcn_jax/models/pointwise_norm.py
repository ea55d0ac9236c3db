"""A 1x1 convolution and its batch normalization in one product, for TPUs.

The mean and the variance of the outputs y = x W follow from moments of the
inputs: mean(y) = mean(x) W, and var(y) = diag(W^T S W) with the covariances S
of the channels of x. So the factors of the normalization are known before the
convolution, and are multiplied into its kernel: y is neither written nor read
again, and with few inputs and many outputs, as at the end of a bottleneck
block, that is most of the memory that the block moves. The backward pass needs
no y either: sums over y follow from the gradient of the kernel.
"""

import functools

import jax
import jax.numpy as jnp

from fcn_jax.models import batch_norm

# Products of parameters and sums are small, and differences of them matter.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def by_batch(
  inputs: jax.Array,
  kernel: jax.Array,
  norm: batch_norm.Norm,
  *,
  epsilon: float,
) -> tuple[jax.Array, batch_norm.Statistics]:
  """Convolves, and normalizes with the statistics of the outputs.

  Args:
    inputs: [N, h, w, C].
    kernel: [C, D].
    norm: parameters.
    epsilon: added to the variances.

  Returns:
    Values [N, h, w, D] of the dtype of the inputs, with the gradient, and the
    statistics, without one.
  """
  is_wide = jnp.float64 in (inputs.dtype, norm.scale.dtype)
  dtype = jnp.float64 if is_wide else jnp.float32
  values, statistics = _by_batch(
    epsilon, inputs, kernel, norm.scale.astype(dtype), norm.shift.astype(dtype)
  )
  return values, jax.lax.stop_gradient(statistics)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_batch(epsilon, inputs, kernel, scale, shift):
  return _forward(epsilon, inputs, kernel, scale, shift)[0]


def _forward(epsilon, inputs, kernel, scale, shift):
  dtype = scale.dtype
  count = inputs.size // inputs.shape[-1]
  mean_in = jnp.sum(inputs.astype(dtype), (0, 1, 2)) / count
  squares = _outer(inputs, inputs, dtype) / count
  covariances = squares - jnp.outer(mean_in, mean_in)
  wide = kernel.astype(dtype)
  mean = _einsum("c,cd->d", mean_in, wide)
  # Rounding may make it negative.
  variance = jnp.maximum(
    0, jnp.sum(wide * _einsum("bc,cd->bd", covariances, wide), 0)
  )
  factor = scale * jax.lax.rsqrt(variance + epsilon)
  folded = (wide * factor[None]).astype(kernel.dtype)
  # The mean of what the rounded kernel computes, so that that of the values is
  # exact.
  constant = shift - _einsum("c,cd->d", mean_in, folded.astype(dtype))
  values = _product(inputs, folded, dtype) + _for_cells(constant)
  values = values.astype(inputs.dtype)
  statistics = batch_norm.Statistics(mean, variance)
  residuals = inputs, kernel, scale, statistics, mean_in, covariances
  return (values, statistics), residuals


def _backward(epsilon, residuals, cotangent):
  inputs, kernel, scale, (mean, variance), mean_in, covariances = residuals
  gradient, _ = cotangent
  dtype = scale.dtype
  count = inputs.size // inputs.shape[-1]
  wide = kernel.astype(dtype)
  inverse = jax.lax.rsqrt(variance + epsilon)
  factor = scale * inverse
  shift_gradient = jnp.sum(gradient.astype(dtype), (0, 1, 2))
  # The gradient of the kernel, were the statistics constant and factor 1.
  raw = _outer(inputs, gradient, dtype)
  # The sum over cells of the gradient times the centred outputs.
  product = jnp.sum(wide * raw, 0) - mean * shift_gradient
  through = wide * (factor * jnp.square(inverse) * product / count)[None]
  mixing = _einsum("bd,cd->bc", through, wide)
  constant = _einsum("b,bc->c", mean_in, mixing) - _einsum(
    "cd,d->c", wide, factor * shift_gradient / count
  )
  inputs_gradient = (
    _product(gradient, (wide * factor[None]).T.astype(kernel.dtype), dtype)
    - _product(inputs, mixing.astype(kernel.dtype), dtype)
    + _for_cells(constant)
  )
  kernel_gradient = (
    raw * factor[None]
    - jnp.outer(mean_in, factor * shift_gradient)
    - count * _einsum("bc,cd->bd", covariances, through)
  )
  return (
    inputs_gradient.astype(inputs.dtype),
    kernel_gradient.astype(kernel.dtype),
    product * inverse,
    shift_gradient,
  )


_by_batch.defvjp(_forward, _backward)


def _for_cells(values):
  """Values of the channels [C], for a map: [1, 1, 1, C]."""
  return values.reshape(1, 1, 1, -1)


def _product(values, kernel, dtype):
  """[N, h, w, C] and [C, D] to [N, h, w, D]."""
  return jax.lax.conv_general_dilated(
    values,
    kernel[None, None],
    (1, 1),
    "VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    preferred_element_type=dtype,
  )


def _outer(a, b, dtype):
  """Sums over cells of products of channels: [C, D]."""
  return jax.lax.dot_general(
    a, b, (((0, 1, 2), (0, 1, 2)), ((), ())), preferred_element_type=dtype
  )
