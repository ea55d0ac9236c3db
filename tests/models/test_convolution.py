import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.models import convolution


def xla(inputs, kernel, padding):
  return jax.lax.conv_general_dilated(
    inputs,
    kernel,
    (1, 1),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def example(shape, size, dtype):
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.normal(size=shape), dtype)
  kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], 4)), dtype)
  return inputs, kernel


def value_and_gradients(inputs, kernel, padding, *forms):
  """For each form its outputs and both gradients under one cotangent."""
  shape = jax.eval_shape(lambda *xs: xla(*xs, padding), inputs, kernel).shape
  cotangent = np.random.default_rng(1).normal(size=shape)
  cotangent = jnp.asarray(cotangent, inputs.dtype)

  @jax.jit
  def evaluate(inputs, kernel, cotangent):
    results = []
    for form in forms:
      outputs, transpose = jax.vjp(
        functools.partial(form, padding=padding), inputs, kernel
      )
      results.append((outputs, *transpose(cotangent)))
    return results

  return evaluate(inputs, kernel, cotangent)


def strips(inputs, kernel, padding):
  return convolution.convolution_by_strips(inputs, kernel, padding)


def relative_error(found, expected):
  expected = np.asarray(expected, np.float64)
  difference = np.asarray(found, np.float64) - expected
  return np.linalg.norm(difference) / np.linalg.norm(expected)


FORMS = (strips, convolution.convolution_by_windows)
SAME = ((1, 1), (1, 1))


@pytest.mark.parametrize(
  "shape, size, padding",
  [
    ((2, 8, 8, 3), 7, ((0, 0), (0, 0))),
    ((2, 9, 7, 3), 3, SAME),
    ((1, 5, 6, 3), 3, ((100, 100), (100, 100))),
    ((2, 5, 6, 3), 1, ((0, 0), (0, 0))),
    ((1, 6, 5, 2), 3, ((0, 2), (1, 0))),
  ],
)
def test_the_faster_forms_agree_with_xla_in_value_and_gradients(
  shape, size, padding
):
  inputs, kernel = example(shape, size, jnp.float32)
  *results, expected = value_and_gradients(inputs, kernel, padding, *FORMS, xla)
  for found in results:
    for a, b in zip(found, expected, strict=True):
      assert (a.shape, a.dtype) == (b.shape, jnp.float32)
      assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_last_strip_with_fewer_rows_counts_in_full(rows, monkeypatch):
  inputs, kernel = example((2, 11, 6, 3), 3, jnp.float32)
  row_bytes = 2 * 6 * 27 * 4
  monkeypatch.setattr(convolution, "_STRIP_BYTES", rows * row_bytes)
  found, expected = value_and_gradients(inputs, kernel, SAME, strips, xla)
  for a, b in zip(found, expected, strict=True):
    assert relative_error(a, b) < 1e-5


def test_the_faster_forms_round_bfloat16_once(monkeypatch):
  # Many strips, whose sum must not be rounded each time.
  monkeypatch.setattr(convolution, "_STRIP_BYTES", 1)
  inputs, kernel = example((2, 32, 7, 3), 3, jnp.bfloat16)
  results = value_and_gradients(inputs, kernel, SAME, *FORMS)
  (expected,) = value_and_gradients(
    inputs.astype(jnp.float32), kernel.astype(jnp.float32), SAME, xla
  )
  for found in results:
    for a, b in zip(found, expected, strict=True):
      assert (a.shape, a.dtype) == (b.shape, jnp.bfloat16)
      assert relative_error(a, b) < 5e-3


def test_the_faster_forms_are_exact_in_float64():
  with jax.enable_x64(True):
    inputs, kernel = example((2, 9, 7, 3), 3, jnp.float64)
    *results, expected = value_and_gradients(inputs, kernel, SAME, *FORMS, xla)
  for found in results:
    for a, b in zip(found, expected, strict=True):
      assert a.dtype == np.float64
      assert relative_error(a, b) < 1e-13


@pytest.mark.parametrize(
  "options",
  [
    {"window_strides": (2, 2)},
    {"window_strides": (1, 1), "rhs_dilation": (2, 2)},
    {
      "window_strides": (1, 1),
      "rhs_dilation": (2, 3),
      "padding": [(0, 3), (3, 1)],
    },
    {"window_strides": (1, 1), "lhs_dilation": (2, 2)},
    {"window_strides": (1, 1), "feature_group_count": 2},
    {"window_strides": (1, 1)},
    {"window_strides": (1, 1), "padding": "SAME"},
  ],
  ids=[
    "strides",
    "dilation",
    "two dilations",
    "upsampling",
    "groups",
    "plain",
    "by name",
  ],
)
def test_options_mean_what_they_mean_to_xla_also_to_gradients(options):
  inputs, kernel = example((1, 9, 8, 4), 3, jnp.float32)
  if "feature_group_count" in options:
    kernel = kernel[:, :, :2]
  options = {
    "padding": [(1, 1), (1, 1)],
    "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    **options,
  }

  def value_and_gradients_of(convolve):
    def outputs_of(inputs, kernel):
      return convolve(inputs, kernel, **options)

    outputs, transpose = jax.vjp(outputs_of, inputs, kernel)
    return outputs, *transpose(jnp.sin(outputs))

  found, expected = (
    jax.jit(value_and_gradients_of, static_argnums=0)(convolve)
    for convolve in (
      convolution.conv_general_dilated,
      jax.lax.conv_general_dilated,
    )
  )
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
  "platform, is_product", [("cpu", True), ("tpu", False), ("cuda", False)]
)
def test_the_form_is_chosen_for_the_device_of_the_program(platform, is_product):
  inputs, kernel = example((2, 8, 8, 3), 1, np.float32)

  def convolve(inputs, kernel):
    return convolution.conv_general_dilated(
      inputs,
      kernel,
      (1, 1),
      ((0, 0), (0, 0)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  # This process has a CPU only.
  traced = jax.jit(convolve).trace(inputs, kernel)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ("stablehlo.dot_general" in text) == is_product
  assert ("stablehlo.convolution" in text) != is_product
