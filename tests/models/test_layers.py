"""The layers of backbones, against loops over cells in NumPy."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import geometry
from fcn_jax import upsampling
from fcn_jax.models import convolution
from fcn_jax.models import layers
from fcn_jax.models import pooling

SIZES = ((3, 5), (4, 4), (7, 6), (12, 13))

MAKE = layers.Layers(
  layers.Settings(
    padding="same",
    inputs=fcn.models.input_normalization.CAFFE,
    head_width=None,
    dropout_rate=0.0,
    normalization="group",
    dtype=jnp.float32,
    param_dtype=jnp.float32,
  ),
  train=False,
)


def values(*shape, seed=0):
  """Not negative, as after a ReLU, and all different."""
  rng = np.random.default_rng(seed)
  count = int(np.prod(shape))
  return (rng.permutation(count).reshape(shape) / count).astype(np.float32)


def windows_of(cells, layer):
  """Row, column and cells [n, C] of each window of one image [h, w, C]."""
  outputs = [layer.num_outputs(side) for side in cells.shape[:2]]
  for row, column in itertools.product(*map(range, outputs)):
    parts = [
      slice(
        max(0, i * layer.stride - layer.padding),
        max(0, i * layer.stride - layer.padding + layer.kernel),
      )
      for i in (row, column)
    ]
    yield row, column, cells[*parts].reshape(-1, cells.shape[-1])


def pooled(cells, layer, reduce):
  outputs = [layer.num_outputs(side) for side in cells.shape[:2]]
  result = np.full((*outputs, cells.shape[-1]), np.nan)
  for row, column, window in windows_of(cells, layer):
    result[row, column] = reduce(window, axis=0)
  return result


every_pooling = pytest.mark.parametrize(
  "kernel, stride, padding, ceil_mode",
  [
    (3, 2, 0, True),
    (3, 2, 0, False),
    (3, 2, 1, False),
    (3, 1, 1, False),
    (2, 2, 0, True),
    (2, 2, 0, False),
  ],
)


@pytest.mark.slow
@every_pooling
def test_max_pool_takes_the_largest_cell_of_each_window(
  kernel, stride, padding, ceil_mode
):
  layer = geometry.Layer(
    "pool", kernel, stride, padding=padding, ceil_mode=ceil_mode
  )
  pool = jax.jit(
    functools.partial(
      pooling.max_pool,
      kernel=kernel,
      stride=stride,
      padding=padding,
      ceil_mode=ceil_mode,
    )
  )
  for height, width in SIZES:
    # Negative, so that a cell outside that counts as zero would be seen.
    inputs = values(2, height, width, 3) - 2
    found = pool(jnp.asarray(inputs))
    expected = [pooled(one, layer, np.max) for one in inputs]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@every_pooling
def test_the_gradient_of_max_pool_is_that_of_xla(
  kernel, stride, padding, ceil_mode
):
  inputs = jnp.asarray(values(2, 12, 13, 3))
  pool = functools.partial(
    pooling.max_pool,
    kernel=kernel,
    stride=stride,
    padding=padding,
    ceil_mode=ceil_mode,
  )
  outputs, transpose = jax.vjp(pool, inputs)
  pads = [
    # What the last window lacks, where it is one more.
    (padding, max(0, (cells - 1) * stride + kernel - padding - side))
    for cells, side in zip(outputs.shape[1:3], inputs.shape[1:3], strict=True)
  ]

  def by_xla(inputs):
    return jax.lax.reduce_window(
      inputs,
      -jnp.inf,
      jax.lax.max,
      (1, kernel, kernel, 1),
      (1, stride, stride, 1),
      ((0, 0), *pads, (0, 0)),
    )

  cotangent = jnp.asarray(values(*outputs.shape, seed=1))
  expected, expected_transpose = jax.vjp(by_xla, inputs)
  np.testing.assert_array_equal(outputs, expected)
  np.testing.assert_allclose(
    transpose(cotangent)[0], expected_transpose(cotangent)[0], atol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize("padding", [3, 0])
def test_average_pool_is_the_mean_of_the_cells_inside(padding):
  layer = geometry.Layer("pool5", 7, padding=padding)
  sizes = ((7, 9), (8, 12), (10, 7))
  inputs = values(3, 10, 12, 2)
  pool = jax.jit(functools.partial(MAKE.average_pool, layer=layer))
  found = pool(layers.Maps(jnp.asarray(inputs), None)).values
  expected = [pooled(one, layer, np.mean) for one in inputs]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  maps = layers.zero_outside(
    layers.Maps(jnp.asarray(inputs), jnp.array(sizes, jnp.int32))
  )
  found = pool(maps)
  for n, (height, width) in enumerate(sizes):
    expected = pooled(inputs[n, :height, :width], layer, np.mean)
    rows, columns = expected.shape[:2]
    assert tuple(np.asarray(found.valid_sizes[n])) == (rows, columns)
    np.testing.assert_allclose(
      found.values[n, :rows, :columns], expected, rtol=1e-5
    )
    assert not np.any(found.values[n, rows:])
    assert not np.any(found.values[n, :, columns:])


@pytest.mark.slow
def test_average_pool_rounds_means_of_bfloat16_once():
  layer = geometry.Layer("pool5", 7, padding=3)
  # Beside 100, a bfloat16 sum would lose what is below a quarter.
  inputs = jnp.asarray(100 + values(1, 9, 9, 2), jnp.bfloat16)
  found = MAKE.average_pool(layers.Maps(inputs, None), layer).values
  expected = pooled(np.asarray(inputs[0], np.float64), layer, np.mean)
  assert found.dtype == jnp.bfloat16
  # Half of the distance of two numbers of bfloat16.
  np.testing.assert_allclose(
    np.asarray(found[0], np.float64), expected, atol=0.26
  )


@pytest.mark.slow
def test_local_response_norm_divides_by_the_channels_around():
  # Energies that matter beside the 1 that is added to them.
  inputs = 100 * values(2, 3, 4, 7)
  found = MAKE.local_response_norm(layers.Maps(jnp.asarray(inputs), None))
  expected = np.empty(inputs.shape)
  for i in range(7):
    around = inputs[..., max(0, i - 2) : i + 3].astype(np.float64)
    energy = 1e-4 / 5 * np.sum(around**2, axis=-1)
    expected[..., i] = inputs[..., i] / (1 + energy) ** 0.75
  assert expected.max() < 0.9 * inputs.max()
  np.testing.assert_allclose(found.values, expected, rtol=1e-5)


def resized(scores, height, width):
  """Bilinear, of half-pixel centres: one image [h, w, C] to [H, W, C]."""
  result = np.zeros((height, width, scores.shape[-1]))
  for row, column in itertools.product(range(height), range(width)):
    taps = []
    for i, side, cells in (
      (row, height, scores.shape[0]),
      (column, width, scores.shape[1]),
    ):
      place = min(max((i + 0.5) * cells / side - 0.5, 0), cells - 1)
      low = int(np.floor(place))
      taps.append(
        ((low, 1 - place + low), (min(low + 1, cells - 1), place - low))
      )
    for (i, share), (j, other) in itertools.product(*taps):
      result[row, column] += share * other * scores[i, j]
  return result


@pytest.mark.slow
def test_scores_are_resized_bilinearly_to_each_image():
  sizes = ((37, 21), (8, 30), (33, 1))
  scores = values(3, 5, 4, 2)
  found = upsampling.resize(
    jnp.asarray(scores),
    (40, 31),
    stride=8,
    valid_sizes=jnp.array(sizes, jnp.int32),
  )
  assert found.shape == (3, 40, 31, 2)
  for n, (height, width) in enumerate(sizes):
    cells = scores[n, : -(-height // 8), : -(-width // 8)]
    expected = resized(cells, height, width)
    np.testing.assert_allclose(found[n, :height, :width], expected, atol=1e-5)
  found = upsampling.resize(jnp.asarray(scores), (37, 31), stride=8)
  expected = [resized(one, 37, 31) for one in scores]
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 32), (37, 30)])
def test_resizing_is_that_of_jax(size):
  scores = jnp.asarray(values(2, 5, 4, 3))
  found = upsampling.resize(scores, size, stride=8)
  expected = jax.image.resize(
    scores, (2, *size, 3), method="linear", antialias=False
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kernel, stride", [(5, 1), (3, 1), (3, 2), (1, 1)])
def test_groups_are_convolved_as_xla_does(kernel, stride):
  rng = np.random.default_rng(0)
  inputs, weights = (
    jnp.asarray(rng.normal(size=shape), jnp.float32)
    for shape in ((2, 9, 8, 6), (kernel, kernel, 3, 8))
  )
  options = {
    "window_strides": (stride, stride),
    "padding": ((kernel // 2, kernel // 2),) * 2,
    "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    "feature_group_count": 2,
  }
  found, expected = (
    jax.vjp(functools.partial(function, **options), inputs, weights)
    for function in (
      convolution.conv_general_dilated,
      jax.lax.conv_general_dilated,
    )
  )
  np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
  cotangent = jnp.asarray(values(*found[0].shape))
  for a, b in zip(found[1](cotangent), expected[1](cotangent), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


class GroupNormalized(nn.Module):
  """A convolution with group normalization, without ReLU."""

  @nn.compact
  def __call__(self, inputs):
    layer = geometry.Layer("conv", 1)
    maps = layers.Maps(inputs, None)
    return MAKE.conv(maps, layer, 16, relu=False).values


@pytest.mark.slow
def test_group_normalization_is_of_8_channels_with_the_epsilon_of_flax():
  # So small that the epsilon counts.
  inputs = 1e-3 * np.random.default_rng(0).normal(size=(2, 5, 4, 16))
  module = GroupNormalized()
  variables = module.init(jax.random.key(0), inputs.astype(np.float32))
  variables["params"]["conv"]["kernel"] = np.eye(16, dtype=np.float32)[
    None, None
  ]
  found = module.apply(variables, inputs.astype(np.float32))
  groups = inputs.reshape(2, 5, 4, 2, 8)
  mean, variance = (
    reduce(groups, axis=(1, 2, 4), keepdims=True)
    for reduce in (np.mean, np.var)
  )
  expected = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(inputs.shape)
  np.testing.assert_allclose(found, expected, atol=1e-4)
