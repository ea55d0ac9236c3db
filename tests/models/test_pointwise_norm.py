"""1x1 convolutions whose statistics follow from their inputs' moments."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import geometry
from fcn_jax.models import batch_norm
from fcn_jax.models import units


def unit_of(stride=1, dtype=jnp.float64, **options):
  layer = geometry.Layer("conv", 1, stride)
  defaults = {"pool": None, "groups": 1, "epsilon": 1e-5, "uses_batch": True}
  return units.Unit(layer, dtype=dtype, **(defaults | options))


def example(channels=5, outputs=8):
  """Inputs as after a ReLU, and operands, in float64."""
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape))

  norm = batch_norm.Norm(
    draw(outputs),
    draw(outputs),
    batch_norm.Statistics(draw(outputs), jnp.exp(draw(outputs))),
  )
  kernel = draw(1, 1, channels, outputs)
  inputs = jax.nn.relu(draw(2, 7, 6, channels) + 1)
  return inputs, units.Operands(kernel, None, norm, None)


def value_and_gradients(compute, inputs, operands):
  def sum_of(inputs, operands):
    values, statistics = compute(inputs, operands)
    factors = jnp.cos(jnp.arange(values.size, dtype=values.dtype))
    return jnp.sum(values * factors.reshape(values.shape)), (values, statistics)

  gradient = jax.value_and_grad(sum_of, argnums=(0, 1), has_aux=True)
  return jax.jit(gradient)(inputs, operands)


@pytest.mark.parametrize("stride", [1, 2])
def test_moments_of_the_inputs_give_the_same_numbers_and_gradients(stride):
  with jax.enable_x64(True):
    unit, arrays = unit_of(stride), example()
    plain = functools.partial(units.compute_packed, unit, 1)
    widening = functools.partial(units.compute_widening, unit)
    chex.assert_trees_all_close(
      value_and_gradients(widening, *arrays),
      value_and_gradients(plain, *arrays),
      rtol=1e-10,
      atol=1e-10,
    )


def test_in_bfloat16_they_are_as_exact_as_the_plain_form():
  with jax.enable_x64(True):
    inputs, operands = example(32, 64)
    # All see the same rounded numbers.
    inputs, kernel = (
      array.astype(jnp.bfloat16) for array in (inputs, operands.kernel)
    )
    norm = jax.tree.map(lambda array: array.astype(jnp.float32), operands.norm)
    rounded = units.Operands(kernel, None, norm, None)

    def exact(array):
      return array.astype(jnp.float64)

    exact_unit, unit = unit_of(), unit_of(dtype=jnp.bfloat16)

    @jax.jit
    def errors(inputs, operands):
      exact_inputs, exact_operands = jax.tree.map(exact, (inputs, operands))
      expected, _ = units.compute_packed(
        exact_unit, 1, exact_inputs, exact_operands
      )
      found, _ = zip(
        units.compute_packed(unit, 1, inputs, operands),
        units.compute_widening(unit, inputs, operands),
        strict=True,
      )
      return [jnp.std(exact(values) - expected) for values in found]

    plain, widening = map(float, errors(inputs, rounded))
  assert 0 < widening < 2 * plain


@pytest.mark.parametrize(
  "platform, outputs, options, changes",
  [
    ("tpu", 8, {}, True),
    ("cpu", 8, {}, False),
    ("cuda", 8, {}, False),
    ("tpu", 4, {}, False),
    ("tpu", 8, {"uses_batch": False}, False),
  ],
)
def test_a_program_for_a_tpu_multiplies_factors_into_the_kernel(
  platform, outputs, options, changes
):
  unit = unit_of(dtype=jnp.float32, **options)
  compute = jax.jit(functools.partial(units.compute, unit))
  with jax.enable_x64(True):
    arrays = jax.tree.map(
      lambda array: jax.ShapeDtypeStruct(array.shape, jnp.float32),
      example(5, outputs),
    )
  lowered = compute.trace(*arrays).lower(lowering_platforms=(platform,))
  # The covariances of the five channels.
  assert ("tensor<5x5xf" in lowered.as_text()) == changes
