"""Units: the same numbers with packed columns, and those of Flax."""

import dataclasses
import functools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import geometry
from fcn_jax import models
from fcn_jax.models import batch_norm
from fcn_jax.models import packed_columns
from fcn_jax.models import units

pytestmark = pytest.mark.slow

POOL = geometry.Layer("pool", 2, 2, ceil_mode=True)
RESNET_POOL = geometry.Layer("pool", 3, 2, padding=1)
CONV = geometry.Layer("conv", 3, padding=1)
CAFFE_CONV = geometry.Layer("conv", 3, padding=100)
STEM = geometry.Layer("conv", 7, 2, padding=3)


def unit_of(layer, pool=None, **options):
  defaults = {"groups": 1, "epsilon": 1e-5, "uses_batch": True}
  return units.Unit(layer, pool, dtype=jnp.float64, **(defaults | options))


def example(layer, *, channels=3, outputs=8, size=(11, 16), norm=True):
  """Inputs and operands, in float64."""
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape))

  kernel = draw(layer.kernel, layer.kernel, channels, outputs)
  operands = units.Operands(kernel, draw(outputs), None, None)
  if norm:
    running = batch_norm.Statistics(draw(outputs), jnp.exp(draw(outputs)))
    scale, shift = draw(outputs), draw(outputs)
    operands = operands._replace(norm=batch_norm.Norm(scale, shift, running))
  return draw(2, *size, channels), operands


def value_and_gradients(unit, columns, inputs, operands):
  """Values, statistics and gradients of a function of the values."""

  def sum_of(inputs, operands):
    values, statistics = units.compute_packed(unit, columns, inputs, operands)
    factors = jnp.cos(jnp.arange(values.size, dtype=values.dtype))
    total = jnp.sum(values * factors.reshape(values.shape))
    return total, (values, statistics)

  return jax.value_and_grad(sum_of, argnums=(0, 1), has_aux=True)(
    inputs, operands
  )


def assert_packing_changes_nothing(unit, columns, inputs, operands):
  chex.assert_trees_all_close(
    value_and_gradients(unit, columns, inputs, operands),
    value_and_gradients(unit, 1, inputs, operands),
    rtol=1e-10,
    atol=1e-10,
  )


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
  "layer, pool, columns, width",
  [
    (CONV, None, 8, 16),
    (CONV, POOL, 2, 16),
    (CONV, POOL, 8, 16),
    (CAFFE_CONV, POOL, 2, 16),
    (STEM, None, 4, 16),
    (STEM, RESNET_POOL, 2, 16),
    (geometry.Layer("conv", 5, padding=1), None, 2, 18),
    (geometry.Layer("conv", 1), None, 4, 16),
    # Columns are missing to complete the last packed ones.
    (geometry.Layer("conv", 7, 2, padding=2), None, 4, 17),
    (geometry.Layer("conv", 3), None, 8, 18),
  ],
)
def test_packed_columns_have_the_same_numbers_and_gradients(
  layer, pool, columns, width, norm
):
  with jax.enable_x64(True):
    arrays = example(layer, norm=norm, size=(11, width))
    assert_packing_changes_nothing(unit_of(layer, pool), columns, *arrays)


@pytest.mark.parametrize(
  "layer, pool, columns", [(CONV, POOL, 4), (STEM, RESNET_POOL, 2)]
)
def test_where_cells_are_equal_packed_columns_share_the_gradient_alike(
  layer, pool, columns
):
  with jax.enable_x64(True):
    inputs, operands = example(layer, norm=False, size=(22, 32))
    inputs = jnp.ones_like(inputs)
    # Exact, so that equal cells are equal in both.
    kernel = jnp.round(4 * operands.kernel) / 4
    operands = operands._replace(kernel=kernel)
    assert_packing_changes_nothing(
      unit_of(layer, pool), columns, inputs, operands
    )


@pytest.mark.parametrize("uses_batch", [True, False])
def test_packed_columns_have_the_same_numbers_in_bfloat16(uses_batch):
  inputs, operands = jax.tree.map(
    lambda array: array.astype(jnp.bfloat16), example(CONV, size=(32, 32))
  )
  unit = unit_of(CONV, POOL, uses_batch=uses_batch)
  unit = unit._replace(dtype=jnp.bfloat16)
  operands = operands._replace(
    norm=jax.tree.map(lambda array: array.astype(jnp.float32), operands.norm)
  )
  (packed, _), (plain, _) = (
    units.compute_packed(unit, columns, inputs, operands) for columns in (4, 1)
  )
  assert packed.dtype == plain.dtype == jnp.bfloat16
  difference = np.abs(np.asarray(packed - plain, np.float32))
  assert difference.max() <= 0.02 * np.abs(np.asarray(plain, np.float32)).max()


@pytest.mark.parametrize(
  "layer, pool, outputs, packs, columns",
  [
    (CONV, POOL, 64, True, 2),
    (CONV, None, 64, True, 2),
    (STEM, RESNET_POOL, 64, True, 2),
    (CONV, POOL, 128, True, 1),
    # None of these is packed.
    (CONV, None, 64, False, 1),
    (geometry.Layer("conv", 1), None, 64, True, 1),
    (geometry.Layer("conv", 3, padding=2, dilation=2), None, 64, True, 1),
    (STEM, RESNET_POOL, 16, True, 1),
    (STEM, dataclasses.replace(RESNET_POOL, ceil_mode=True), 64, True, 1),
  ],
)
def test_a_program_for_a_tpu_packs_what_it_can(
  layer, pool, outputs, packs, columns
):
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  _, operands = jax.tree.map(
    lambda array: jax.ShapeDtypeStruct(array.shape, jnp.float32),
    example(layer, outputs=outputs, norm=False),
  )
  unit = unit_of(layer, pool, packs=packs)._replace(dtype=jnp.float32)
  compute = jax.jit(functools.partial(units.compute, unit))
  text = (
    compute.trace(images, operands).lower(lowering_platforms=("tpu",)).as_text()
  )
  side = layer.num_outputs(64)
  shape = f"1x{side}x{side // columns}x{columns * outputs}xf32"
  (convolved,) = re.findall(r"stablehlo.convolution.*-> tensor<(.*)>", text)
  assert convolved == shape


@pytest.mark.parametrize(
  "channels, width, columns",
  [(64, 512, 2), (64, 355, 1), (16, 512, 8), (16, 12, 4), (96, 64, 1)],
)
def test_columns_fill_the_lanes_and_divide_the_width(channels, width, columns):
  assert packed_columns.num_columns(channels, width) == columns
  values = jnp.arange(2 * 3 * width * 4).reshape(2, 3, width, 4)
  packed = packed_columns.pack(values, columns)
  assert packed.shape == (2, 3, width // columns, 4 * columns)
  np.testing.assert_array_equal(packed_columns.unpack(packed, columns), values)


def program_for(platform, model):
  images = jnp.zeros((1, 64, 64, 3), jnp.uint8)
  variables = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), images
  )
  score = jax.jit(functools.partial(model.apply, train=False))
  lowered = score.trace(variables, images).lower(lowering_platforms=(platform,))
  return lowered.as_text()


def test_only_a_program_for_a_tpu_packs_columns():
  model = models.FCN(3, backbone="vgg_small", head_width=8)
  # The first layer: 16 channels of 64 columns, or of 8 columns of 8.
  packed, plain = "tensor<1x64x8x128xf32>", "tensor<1x64x64x16xf32>"
  assert packed in program_for("tpu", model)
  for platform in ("cpu", "cuda"):
    text = program_for(platform, model)
    assert plain in text and packed not in text


@pytest.mark.parametrize("uses_batch", [True, False])
def test_batch_normalization_is_that_of_flax(uses_batch):
  inputs, operands = jax.tree.map(
    lambda array: array.astype(jnp.float32), example(CONV)
  )
  inside = jnp.asarray(
    np.random.default_rng(1).random((*inputs.shape[:3], 1)) < 0.7
  )
  norm = operands.norm
  unit = unit_of(CONV, uses_batch=uses_batch)._replace(dtype=jnp.float32)
  found, statistics = units.compute(
    unit, inputs, operands._replace(inside=inside)
  )
  conv = units.compute(unit, inputs, operands._replace(norm=None))[0]
  variables = {
    "params": {"scale": norm.scale, "bias": norm.shift},
    "batch_stats": {"mean": norm.running.mean, "var": norm.running.variance},
  }
  flax_norm = nn.BatchNorm(
    use_running_average=not uses_batch, momentum=0.0, epsilon=1e-5
  )
  expected, state = flax_norm.apply(
    variables, conv, mask=inside, mutable=["batch_stats"]
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    statistics.variance, state["batch_stats"]["var"], rtol=1e-5
  )
  np.testing.assert_allclose(
    statistics.mean, state["batch_stats"]["mean"], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
# Flax mixes bfloat16 with float32.
@jax.numpy_dtype_promotion("standard")
def test_running_statistics_are_those_of_flax(dtype):
  rng = np.random.default_rng(0)
  values = jnp.asarray(rng.normal(2, 3, (4, 5, 6, 8)), dtype)
  ours = batch_norm.BatchNorm(8, uses_batch=True, param_dtype=jnp.float32)
  unit = unit_of(geometry.Layer("conv", 1))._replace(dtype=dtype)
  kernel = jnp.eye(8, dtype=dtype).reshape(1, 1, 8, 8)

  def compute(norm):
    return units.compute(unit, values, units.Operands(kernel, None, norm, None))

  variables = ours.init(jax.random.key(0), compute)
  theirs = nn.BatchNorm(
    use_running_average=False, momentum=0.9, dtype=dtype, epsilon=1e-5
  )
  chex.assert_trees_all_equal(variables, theirs.init(jax.random.key(0), values))
  found = ours.apply(variables, compute, mutable=["batch_stats"])
  expected = theirs.apply(variables, values, mutable=["batch_stats"])
  chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("has_outside", [False, True])
@pytest.mark.parametrize("uses_batch", [True, False])
def test_gradients_of_batch_normalization_are_those_of_flax(
  has_outside, uses_batch
):
  with jax.enable_x64(True):
    values, operands = example(CONV, channels=8)
    inside = None
    if has_outside:
      drawn = np.random.default_rng(1).random((*values.shape[:3], 1))
      inside = jnp.asarray(drawn < 0.7)
    factors = jnp.cos(jnp.arange(values.size, dtype=values.dtype))
    factors = factors.reshape(values.shape)
    flax_norm = nn.BatchNorm(
      use_running_average=not uses_batch,
      epsilon=1e-5,
      dtype=jnp.float64,
      force_float32_reductions=False,
      param_dtype=jnp.float64,
    )

    def ours(values, scale, shift):
      norm = operands.norm._replace(scale=scale, shift=shift)
      options = {"epsilon": 1e-5, "columns": 1}
      if uses_batch:
        found, _ = batch_norm.by_batch(values, norm, inside, **options)
      else:
        found = batch_norm.by_running_statistics(values, norm, **options)
      return jnp.sum(factors * found)

    def theirs(values, scale, shift):
      running = operands.norm.running
      variables = {
        "params": {"scale": scale, "bias": shift},
        "batch_stats": {"mean": running.mean, "var": running.variance},
      }
      found, _ = flax_norm.apply(
        variables, values, mask=inside, mutable=["batch_stats"]
      )
      return jnp.sum(factors * found)

    arguments = values, operands.norm.scale, operands.norm.shift
    chex.assert_trees_all_close(
      *(jax.value_and_grad(f, (0, 1, 2))(*arguments) for f in (ours, theirs)),
      rtol=1e-9,
      atol=1e-9,
    )


def test_a_bias_before_batch_normalization_has_no_gradient():
  with jax.enable_x64(True):
    _, (_, gradient) = value_and_gradients(unit_of(CONV), 1, *example(CONV))
    np.testing.assert_array_equal(gradient.bias, 0)
    unit = unit_of(CONV, uses_batch=False)
    _, (_, gradient) = value_and_gradients(unit, 1, *example(CONV))
    assert np.all(gradient.bias != 0)
