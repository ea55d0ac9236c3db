"""Maps whose neighbouring columns are packed into the channels, for TPUs.

A TPU holds the channels of a map in 128 lanes, so that with 64 channels it
computes with half of them and stores twice the memory. A map [N, h, w, C] is
packed as [N, h, w / f, f C], where f columns fill the lanes. Packed maps have
the same numbers, and a convolution of them has a kernel of the same parameters
and zeros between them: the sums are the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import geometry
from fcn_jax.models import pooling

_LANES = 128


def num_columns(num_channels: int, width: int) -> int:
  """How many columns of a map of this width fill the lanes: a power of two."""
  columns = 1
  while 2 * columns * num_channels <= _LANES and width % (2 * columns) == 0:
    columns *= 2
  return columns


def pack(values: jax.Array, columns: int) -> jax.Array:
  """[N, h, w, C] as [N, h, w / columns, columns * C]."""
  batch, height, width, channels = values.shape
  return values.reshape(batch, height, width // columns, columns * channels)


def unpack(values: jax.Array, columns: int) -> jax.Array:
  """The opposite of `pack`."""
  batch, height, width, channels = values.shape
  return values.reshape(batch, height, width * columns, channels // columns)


def for_columns(values: jax.Array, columns: int) -> jax.Array:
  """Values of the channels [C], for a packed map: [1, 1, 1, columns * C]."""
  return jnp.tile(values, columns).reshape(1, 1, 1, -1)


def convolution(
  inputs: jax.Array,
  kernel: jax.Array,
  *,
  stride: int,
  padding: int,
  columns: int,
  even_first: bool,
) -> jax.Array:
  """A convolution whose outputs are packed.

  Args:
    inputs: [N, H, W, C].
    kernel: [k, k, C, D].
    stride: of rows and columns.
    padding: zeros around the inputs.
    columns: how many columns of the outputs are packed, f.
    even_first: whether the even columns come first among those packed, as
      `max_pool` needs them.

  Returns:
    [N, h, w / f, f D].
  """
  size, _, channels, num_outputs = kernel.shape
  width = (inputs.shape[2] + 2 * padding - size) // stride + 1
  packed_inputs = stride * columns
  missing = -inputs.shape[2] % packed_inputs
  inputs = jnp.pad(inputs, ((0, 0), (0, 0), (0, missing), (0, 0)))
  inputs = pack(inputs, packed_inputs)
  selection, first = _selection(size, stride, padding, columns, even_first)
  # The sums have one term: exact, if the factors are not rounded.
  kernel = jnp.einsum(
    "ijcd,jbJa->iJbcad",
    kernel,
    jnp.asarray(selection, kernel.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
  num_taps = selection.shape[2]
  kernel = kernel.reshape(
    size, num_taps, packed_inputs * channels, columns * num_outputs
  )
  after = width // columns + first + num_taps - 1 - inputs.shape[2]
  return jax.lax.conv_general_dilated(
    inputs,
    kernel,
    (stride, 1),
    ((padding, padding), (-first, after)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


@functools.cache
def _selection(size, stride, padding, columns, even_first):
  """Where the taps of a kernel stand in that of packed maps.

  Returns:
    [tap, column of the packed inputs, packed tap, column of the packed outputs]
    0 or 1, and the position of the first packed tap.
  """
  packed_inputs = stride * columns
  first = -padding // packed_inputs
  last = (stride * (columns - 1) + size - 1 - padding) // packed_inputs
  shape = size, packed_inputs, last - first + 1, columns
  selection = np.zeros(shape, np.float32)
  order = range(columns)
  if even_first:
    order = (*range(0, columns, 2), *range(1, columns, 2))
  for place, column in enumerate(order):
    for tap in range(size):
      position, within = divmod(stride * column + tap - padding, packed_inputs)
      selection[tap, within, position - first, place] = 1
  return selection, first


def can_pool(pool: geometry.Layer, columns: int) -> bool:
  """Whether `max_pool` serves such a pooling."""
  windows = pool.kernel, pool.stride, pool.padding
  if windows == (2, 2, 0):
    return columns > 1
  return windows == (3, 2, 1) and columns == 2 and not pool.ceil_mode


def max_pool(
  values: jax.Array,
  kernel: int,
  stride: int,
  *,
  padding: int,
  ceil_mode: bool,
) -> jax.Array:
  """Max-pooling of a packed map whose even columns come first.

  Args:
    values: [N, h, w, f C], see `convolution`.
    kernel: side of the windows, see `can_pool`.
    stride: of the windows.
    padding: cells that windows reach beyond the borders.
    ceil_mode: whether the number of rows is rounded up, as in Caffe.

  Returns:
    [N, h / 2, w, f C / 2], where packed columns are in their order.
  """
  values = pooling.max_along(
    values, 1, kernel, stride, padding, ceil_mode=ceil_mode
  )
  even, odd = jnp.split(values, 2, axis=-1)
  if kernel == 3:
    pads = [(0, 0), (0, 0), (1, 0), (0, 0)]
    before = jnp.pad(odd, pads, constant_values=-jnp.inf)[:, :, :-1]
    # In the order of `pooling.max_pool`, as it decides on equal cells.
    even = pooling.maximum(before, even)
  return pooling.maximum(even, odd)
