"""Convolution in the form that is fastest on the device.

Some of XLA's convolutions are slow on a CPU (measured on two cores, float32),
and equivalent slices and matrix products replace them:

- the gradient of a kernel of a 3x3 convolution, dilated or not, takes 3 to 5
  times as long as the convolution itself; summed over strips of rows it takes 1
  to 2 times;
- a 7x7 convolution of many channels, on a map hardly larger than its kernel
  (fc6), is one matrix product of the gathered windows, and a 1x1 convolution of
  the map;
- a convolution in two groups takes 2 to 4 times as long as one convolution for
  each group, and its backward pass 4 to 9 times.

On a GPU or TPU the convolutions are XLA's own. The form is chosen when a
program is lowered, so that one for another device has that device's form.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fcn_jax import platforms

# Gathered windows of this many bytes stay in the cache until they are
# multiplied; 2 to 8 MB were equally fast.
_STRIP_BYTES = 4 * 2**20
# Never gather more than this at once.
_WINDOWS_BYTES = 256 * 2**20


def conv_general_dilated(
  inputs: jax.Array,
  kernel: jax.Array,
  window_strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **options,
) -> jax.Array:
  """`jax.lax.conv_general_dilated`, with faster forms on a CPU.

  The faster forms are for convolutions without strides, and some also for
  dilated ones; all others are XLA's. A convolution that has a faster form has
  no forward-mode derivative on any device. Groups are convolved one by one, so
  there should be few.

  Args:
    inputs: [N, H, W, C].
    kernel: [k, k, C / groups, D].
    window_strides: for rows and columns.
    padding: cells before and after, for rows and columns.
    **options: those of `jax.lax.conv_general_dilated`.

  Returns:
    [N, h, w, D].
  """
  num_groups = options.get("feature_group_count", 1)
  dilation = tuple(options.get("rhs_dilation") or (1, 1))
  is_dense = (
    not isinstance(padding, str)
    and all(stride == 1 for stride in window_strides)
    and all(d == 1 for d in options.get("lhs_dilation") or ())
    and num_groups == 1
  )
  is_dilated = dilation != (1, 1)

  def by_xla(inputs, kernel):
    return jax.lax.conv_general_dilated(
      inputs, kernel, window_strides, padding, **options
    )

  def by_windows(inputs, kernel):
    return convolution_by_windows(inputs, kernel, tuple(padding))

  def by_groups(inputs, kernel):
    one = options | {"feature_group_count": 1}
    parts = zip(
      jnp.split(inputs, num_groups, axis=-1),
      jnp.split(kernel, num_groups, axis=-1),
      strict=True,
    )
    outputs = [
      conv_general_dilated(*part, window_strides, padding, **one)
      for part in parts
    ]
    return jnp.concatenate(outputs, axis=-1)

  def by_strips(inputs, kernel):
    return convolution_by_strips(inputs, kernel, tuple(padding), dilation)

  is_exported = any(map(jax.export.is_symbolic_dim, inputs.shape))
  taps, channels = kernel.shape[0] * kernel.shape[1], kernel.shape[2]
  # An exported program does not know the size of its windows; those of fc6 at
  # stride 32 take less memory than the features of the first layers.
  num_bytes = 0 if is_exported else inputs.size * taps * inputs.dtype.itemsize
  if num_groups > 1:
    faster = by_groups
  elif not is_dense or 9 < taps <= 25 or (taps > 25 and channels < 128):
    # XLA is fast at 5x5, also backward, and as fast at 7x7 of few channels,
    # where its programs compile ten times as fast.
    faster = by_xla
  elif is_dilated:
    faster = by_strips if 1 < taps <= 9 else by_xla
  elif taps == 1 or (taps > 25 and num_bytes <= _WINDOWS_BYTES):
    faster = by_windows
  else:
    faster = by_strips
  # Strips are for the gradient, which exported programs do not have, and their
  # number depends on the size.
  if faster is by_xla or (is_exported and faster is by_strips):
    return by_xla(inputs, kernel)
  return platforms.dependent(inputs, kernel, cpu=faster, default=by_xla)


def convolution_by_windows(
  inputs: jax.Array, kernel: jax.Array, padding: tuple[tuple[int, int], ...]
) -> jax.Array:
  """Convolution as one matrix product of all windows.

  Args:
    inputs: [N, H, W, C].
    kernel: [k, k, C, D].
    padding: zeros before and after, for rows and columns.

  Returns:
    [N, h, w, D].
  """
  inputs = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
  windows = _windows(inputs, kernel.shape, (1, 1))
  return jnp.dot(windows, kernel.reshape(-1, kernel.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution_by_strips(
  inputs: jax.Array,
  kernel: jax.Array,
  padding: tuple[tuple[int, int], ...],
  dilation: tuple[int, int] = (1, 1),
) -> jax.Array:
  """XLA's convolution, whose kernel gradient is summed over strips of rows.

  Args:
    inputs: see `convolution_by_windows`, as for `kernel` and `padding`.
    kernel: [k, k, C, D].
    padding: for rows and columns.
    dilation: distance between taps, in rows and columns.

  Returns:
    [N, h, w, D].
  """
  return _convolution(inputs, kernel, padding, dilation)


def _forward(inputs, kernel, padding, dilation):
  outputs = _convolution(inputs, kernel, padding, dilation)
  return outputs, (inputs, kernel)


def _backward(padding, dilation, residuals, cotangent):
  inputs, kernel = residuals
  transpose = jax.linear_transpose(
    lambda inputs: _convolution(inputs, kernel, padding, dilation), inputs
  )
  (inputs_gradient,) = transpose(cotangent)
  return inputs_gradient, _kernel_gradient(
    inputs, kernel, padding, dilation, cotangent
  )


convolution_by_strips.defvjp(_forward, _backward)


def _convolution(inputs, kernel, padding, dilation):
  return jax.lax.conv_general_dilated(
    inputs,
    kernel,
    (1, 1),
    padding,
    rhs_dilation=dilation,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _kernel_gradient(inputs, kernel, padding, dilation, cotangent):
  """Sum over strips of rows of (windows of the inputs)^T @ cotangent."""
  batch, height, width, num_outputs = cotangent.shape
  extent = dilation[0] * (kernel.shape[0] - 1) + 1
  num_taps = kernel.size // num_outputs
  row_bytes = batch * width * num_taps * inputs.dtype.itemsize
  rows = max(1, min(height, _STRIP_BYTES // row_bytes))
  num_strips = -(-height // rows)
  # Rows of zeros complete the last strip; they add nothing to the sum.
  missing = num_strips * rows - height
  cotangent = jnp.pad(cotangent, ((0, 0), (0, missing), (0, 0), (0, 0)))
  (top, bottom), columns = padding
  inputs = jnp.pad(inputs, ((0, 0), (top, bottom + missing), columns, (0, 0)))

  # Sums of bfloat16 are kept in float32.
  dtype = jnp.float64 if kernel.dtype == jnp.float64 else jnp.float32

  def add_strip(total, strip):
    def strip_of(array, length):
      return jax.lax.dynamic_slice_in_dim(array, strip * rows, length, axis=1)

    strip_inputs = strip_of(inputs, rows + extent - 1)
    windows = _windows(strip_inputs, kernel.shape, dilation)
    outputs = strip_of(cotangent, rows).reshape(-1, num_outputs)
    product = jnp.matmul(
      windows.reshape(-1, num_taps).T, outputs, preferred_element_type=dtype
    )
    return total + product, None

  total = jnp.zeros((num_taps, num_outputs), dtype)
  total, _ = jax.lax.scan(add_strip, total, jnp.arange(num_strips))
  return total.reshape(kernel.shape).astype(kernel.dtype)


def _windows(inputs, kernel_shape, dilation):
  """All windows of the inputs: [N, h, w, k * k * C]."""
  (rows, columns), (down, right) = kernel_shape[:2], dilation
  height = inputs.shape[1] - down * (rows - 1)
  width = inputs.shape[2] - right * (columns - 1)
  taps = [
    inputs[:, i : i + height, j : j + width]
    for i in range(0, down * rows, down)
    for j in range(0, right * columns, right)
  ]
  return jnp.concatenate(taps, axis=-1)
