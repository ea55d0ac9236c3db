import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from tests.helpers import sampler_cases as cases

# Places.


@pytest.mark.parametrize("distance", [1, 3, 10])
def test_boundary_probabilities_are_those_of_a_loop(distance):
  labels = np.random.default_rng(2).integers(0, 3, (2, 4, 5)).astype(np.int32)
  labels = labels.repeat(6, axis=1).repeat(5, axis=2)
  labels[0, 10:12, 3:20] = cases.VOID
  probabilities = sampling.boundary_probabilities(
    rate=0.75, rate_elsewhere=0.0, distance=distance
  ).of(jnp.asarray(labels))
  near = cases.near_boundary_oracle(labels, distance) & (labels != cases.VOID)
  assert probabilities.dtype == jnp.float32
  np.testing.assert_array_equal(probabilities, 0.75 * near)


def test_the_border_of_the_image_is_no_boundary_and_void_is():
  labels = jnp.full((1, 9, 9), 2, jnp.int32)
  options = {"rate": 1.0, "rate_elsewhere": 0.25, "distance": 2}
  probabilities = sampling.boundary_probabilities(**options).of(labels)
  np.testing.assert_array_equal(probabilities, jnp.full((1, 9, 9), 0.25))
  labels = labels.at[0, 4, 4].set(cases.VOID)
  expected = np.full((1, 9, 9), 0.25)
  expected[0, 2:7, 2:7] = 1.0
  expected[0, 4, 4] = 0.0
  probabilities = sampling.boundary_probabilities(**options).of(labels)
  np.testing.assert_array_equal(probabilities, expected)


def test_the_expected_sum_under_importance_is_the_whole_sum():
  weights = cases.draws_of("importance of boundaries")
  sums = np.sum(weights * cases.LOSSES, axis=(1, 2, 3), dtype=np.float64)
  error = abs(sums.mean() - cases.LOSSES[cases.VALID].sum())
  assert error < 5 * sums.std() / np.sqrt(cases.NUM_DRAWS)


def test_importance_takes_probabilities_as_they_are():
  labels = jnp.array([[[0, 1, 2, 3, cases.VOID, 0]]], jnp.int32)
  given = jnp.array([[[1.0, 2.0, 0.0, 1e-30, 1.0, jnp.nan]]], jnp.float32)
  sampler = sampling.importance(
    probabilities=sampling.Probabilities(lambda labels: given)
  )
  weights = sampler.draw(cases.KEY, labels)
  # Always, not more than always, never, practically never, void, unknown.
  np.testing.assert_array_equal(weights, [[[1, 1, 0, 0, 0, np.nan]]])


@pytest.mark.long
@pytest.mark.parametrize("probability", [1e-7, 2.5e-7, 1e-9])
def test_the_weights_of_rare_pixels_have_the_expectation_1(probability):
  labels = jnp.zeros((1, 4096, 4096), jnp.int32)
  sampler = sampling.importance(
    probabilities=sampling.Probabilities(
      lambda labels: jnp.full(labels.shape, probability)
    )
  )

  @jax.jit
  def total_and_largest(key):
    weights = sampler.draw(key, labels)
    return jnp.sum(weights), jnp.max(weights)

  # Each pixel is kept with a multiple of 2^-23, 1 or 3 times here.
  kept = np.ceil(probability * 2**23) / 2**23
  keys = jax.random.split(cases.KEY, 40)
  sums, largest = zip(*map(total_and_largest, keys), strict=True)
  assert max(largest) == np.float32(1 / kept)
  deviation = np.sqrt(labels.size * (1 / kept - 1) / len(sums))
  assert abs(np.mean(sums) - labels.size) < 4 * deviation
