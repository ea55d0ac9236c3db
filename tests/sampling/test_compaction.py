import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling


def random_weights(shape, rate, seed=0):
  rng = np.random.default_rng(seed)
  kept = rng.random(shape) < rate
  return (kept * rng.uniform(0.5, 2.0, shape)).astype(np.float32)


def compact_by_loops(weights, capacity):
  """Indices, weights and counts, one pixel after the other."""
  num_images, height, width = weights.shape
  capacity = min(capacity, height * width)
  indices = np.zeros((num_images, capacity), np.int32)
  values = np.zeros((num_images, capacity), np.float32)
  used, dropped = np.zeros(num_images, np.int32), 0
  for n in range(num_images):
    for row in range(height):
      for column in range(width):
        if weights[n, row, column] == 0:
          continue
        if used[n] == capacity:
          dropped += 1
          continue
        indices[n, used[n]] = row * width + column
        values[n, used[n]] = weights[n, row, column]
        used[n] += 1
  return indices, values, used, dropped


compact = jax.jit(sampling.compact, static_argnames="capacity")


def assert_equals_the_loops(weights, capacity):
  found = compact(jnp.asarray(weights), capacity=capacity)
  for one, other in zip(
    found, compact_by_loops(weights, capacity), strict=True
  ):
    np.testing.assert_array_equal(one, other)
    assert np.asarray(one).dtype == np.asarray(other).dtype or np.ndim(one) == 0


@pytest.mark.long
@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("capacity", [1, 7, 40, 10_000])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 11), (2, 8, 32)])
def test_compact_is_a_loop_over_the_pixels(shape, rate, capacity):
  assert_equals_the_loops(random_weights(shape, rate), capacity)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  st.integers(0, 10**6), st.sampled_from([1, 12]), st.floats(0, 1),
)  # fmt: skip
def test_compact_is_a_loop_over_the_pixels_of_any_mask(seed, capacity, rate):
  assert_equals_the_loops(random_weights((2, 5, 13), rate, seed), capacity)


def test_negative_weights_are_sampled_too():
  weights = -random_weights((2, 5, 7), 0.5)
  assert_equals_the_loops(weights, 35)


@pytest.mark.long
def test_what_has_no_room_is_counted_and_is_what_lies_last():
  weights = jnp.ones((2, 4, 5))
  sample = sampling.compact(weights, capacity=12)
  assert sample.num_dropped == 2 * (20 - 12)
  np.testing.assert_array_equal(
    sample.indices, np.broadcast_to(np.arange(12), (2, 12))
  )


@pytest.mark.parametrize("capacity", [0, -3])
def test_a_list_without_room_is_an_error(capacity):
  with pytest.raises(ValueError, match=f"capacity is {capacity}; .* at least"):
    sampling.compact(jnp.ones((1, 4, 4)), capacity=capacity)
