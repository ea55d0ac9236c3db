"""Forms of a computation for the kinds of devices."""

import jax
import jax.numpy as jnp
import pytest

from fcn_jax import platforms


@pytest.fixture
def function():
  """A compiled function, and which of its forms were traced."""
  traced = []

  def form(name, factor):
    def compute(x):
      traced.append(name)
      return factor * x

    return compute

  @jax.jit
  def compute(x):
    return platforms.dependent(
      x, tpu=form("tpu", 2.0), cpu=form("cpu", 3.0), default=form("other", 4.0)
    )

  return compute, traced


def test_all_forms_are_traced_and_the_devices_own_is_computed(function):
  compute, traced = function
  assert compute(jnp.ones(())) == 3
  assert {*traced} == {"cpu", "tpu", "other"}


def test_within_known_only_the_form_of_this_device_is_traced(function):
  compute, traced = function
  with platforms.known():
    assert compute(jnp.ones(())) == 3
  assert traced == ["cpu"]


def test_a_program_for_this_device_is_not_used_for_another(function):
  compute, traced = function
  x = jnp.ones(())
  with platforms.known():
    compute(x)
  del traced[:]
  exported = jax.export.export(compute, platforms=["tpu"])(x)
  assert "tpu" in traced
  assert exported.platforms == ("tpu",)
  assert "2.0" in exported.mlir_module()
  assert "3.0" not in exported.mlir_module()


def test_a_form_that_is_not_there_is_the_default():
  with platforms.known():
    assert platforms.dependent(1, tpu=lambda x: x, default=lambda x: -x) == -1
