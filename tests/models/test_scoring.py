import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.models import scoring


def example(dtype):
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(2, 3, 5, 300)), dtype)
  kernel = jnp.asarray(rng.normal(size=(1, 1, 300, 7)), jnp.float32)
  bias = jnp.asarray(rng.normal(size=7), jnp.float32)
  return features, {"params": {"kernel": kernel, "bias": bias}}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sums_are_not_rounded_to_the_dtype_of_the_features(dtype):
  features, variables = example(dtype)
  scores = scoring.Scores(7, dtype, jnp.float32).apply(variables, features)
  assert scores.dtype == jnp.float32
  kernel = variables["params"]["kernel"].astype(dtype)
  expected = np.einsum(
    "nhwd,dc->nhwc",
    np.asarray(features, np.float64),
    np.asarray(kernel[0, 0], np.float64),
  )
  expected += np.asarray(variables["params"]["bias"])
  np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_a_new_layer_scores_zero_and_has_the_parameters_of_flax():
  features, _ = example(jnp.float32)
  ours = scoring.Scores(7, jnp.float32, jnp.float32)
  theirs = nn.Conv(7, (1, 1))
  shapes = [
    jax.tree.map(jnp.shape, layer.init(jax.random.key(0), features))
    for layer in (ours, theirs)
  ]
  assert shapes[0] == shapes[1]
  variables = ours.init(jax.random.key(0), features)
  np.testing.assert_array_equal(ours.apply(variables, features), 0)
