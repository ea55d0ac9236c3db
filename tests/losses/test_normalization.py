import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import types

ONE = jnp.int32(1)


def test_an_unknown_normalization_is_an_error_that_names_the_choices():
  with pytest.raises(ValueError, match="'mean'; choose one of sum, valid"):
    losses.make(normalize="mean")
  with pytest.raises(ValueError, match="'mean'; choose one of sum, valid"):
    losses.normalizer("mean", ONE, ONE)


@pytest.mark.parametrize(
  "normalize, rate",
  [("expected", None), ("kept", 0.5), ("sum", 1.0), ("valid", 0.5)],
)
def test_a_missing_or_superfluous_rate_is_an_error(normalize, rate):
  with pytest.raises(ValueError, match=f"rate is {rate}"):
    losses.make(normalize=normalize, rate=rate)
  with pytest.raises(ValueError, match=f"rate is {rate}"):
    losses.normalizer(normalize, ONE, ONE, rate)


@pytest.mark.parametrize("rate", [0.0, 2.0])
def test_a_rate_outside_0_to_1_is_an_error(rate):
  with pytest.raises(ValueError, match=f"sampling rate is {rate}"):
    losses.make(normalize="expected", rate=rate)


def test_weights_on_void_are_not_counted_as_kept():
  labels = jnp.array([[[0, types.IGNORE_LABEL, types.IGNORE_LABEL]]])
  weights = jnp.ones((1, 1, 3))
  assert losses.num_kept(labels, weights) == 1
  loss = losses.masked_cross_entropy(
    jnp.zeros((1, 1, 3, 2)), labels, weights, normalize="kept"
  )
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
