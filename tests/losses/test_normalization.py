import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import sampling
from fcn_jax import types

ONE = jnp.int32(1)


def test_an_unknown_normalization_is_an_error_that_names_the_choices():
  with pytest.raises(ValueError, match="'mean'; choose one of sum, valid"):
    losses.make(normalize="mean")
  with pytest.raises(ValueError, match="'mean'; choose one of sum, valid"):
    losses.normalizer("mean", ONE, ONE)


def test_expected_needs_a_sampler_that_states_its_expectation():
  with pytest.raises(ValueError, match="does not state the expected sum"):
    losses.make(sampler=sampling.hardest(count=5), normalize="expected")
  with pytest.raises(ValueError, match="expected sum .* is not given"):
    losses.normalizer("expected", ONE, ONE)


@pytest.mark.slow
def test_a_count_of_an_image_that_is_half_void_is_expected_whole():
  # Divided by the rate times the valid pixels, it would be twice the loss.
  labels = jnp.zeros((1, 8, 8), jnp.int32).at[:, 4:].set(types.IGNORE_LABEL)
  score_map = types.ScoreMap(jnp.zeros((1, 8, 8, 3)), 1, 0.0, (8, 8), "clamp")
  loss = losses.make(
    sampler=sampling.fixed_count(count=16), normalize="expected"
  )
  terms = jax.jit(loss)(jax.random.key(0), score_map, labels)
  np.testing.assert_allclose(terms.loss, np.log(3), rtol=1e-6)
  assert terms.num_kept == 16


def test_counts_above_2_to_the_24_are_rounded_to_float32():
  count = losses.normalizer("kept", jnp.int32(2**24 + 1), ONE)
  assert count == 2**24


def test_a_batch_of_2_to_the_31_pixels_is_refused():
  size = 2**15
  score_map = jax.eval_shape(
    lambda: types.ScoreMap(
      jnp.zeros((2, size, size, 3)), 1, 0.0, (size, size), "clamp"
    )
  )
  labels = jax.ShapeDtypeStruct((2, size, size), jnp.int32)
  with pytest.raises(ValueError, match="2147483648 pixels; a batch may"):
    jax.eval_shape(losses.make(), jax.random.key(0), score_map, labels)


@pytest.mark.slow
def test_weights_on_void_are_not_counted_as_kept():
  labels = jnp.array([[[0, types.IGNORE_LABEL, types.IGNORE_LABEL]]])
  weights = jnp.ones((1, 1, 3))
  assert losses.num_kept(labels, weights) == 1
  loss = losses.masked_cross_entropy(
    jnp.zeros((1, 1, 3, 2)), labels, weights, normalize="kept"
  )
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
