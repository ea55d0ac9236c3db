import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from tests.helpers import sampler_cases as cases

# What holds for every sampler.


@pytest.mark.long
@pytest.mark.parametrize("name", cases.SAMPLERS)
def test_weights_are_float32_and_0_exactly_where_void(name):
  chance = np.random.default_rng(0)
  batches = chance.integers(
    0, cases.NUM_CLASSES, (cases.NUM_DRAWS, *cases.SHAPE), np.int32
  )
  batches[chance.random(batches.shape) < 0.3] = cases.VOID
  batches[-1] = cases.VOID
  weights = cases.draws(cases.SAMPLERS[name], batches)
  assert weights.dtype == np.float32
  assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
  assert not np.any(weights[batches == cases.VOID])
  # Something is kept of each image that has truth, at some time.
  assert np.all(weights.any(axis=(0, 2, 3)))
  assert not weights[-1].any()


@pytest.mark.long
@pytest.mark.parametrize("name", cases.SAMPLERS)
def test_a_compiled_sampler_gives_the_same(name):
  np.testing.assert_allclose(
    cases.draws_of(name)[0],
    cases.SAMPLERS[name].draw(cases.KEYS[0], jnp.asarray(cases.LABELS)),
    rtol=1e-6,
  )


@pytest.mark.parametrize("name", cases.SAMPLERS)
def test_the_key_decides_if_the_sampler_is_random(name):
  num_different = len(np.unique(cases.draws_of(name), axis=0))
  if name in cases.RANDOM_SAMPLERS:
    # Of blocks and places there are few.
    assert num_different > 8
  else:
    assert num_different == 1


def expectations():
  """For each random sampler, the stated mean and the second moment."""
  num_valid = cases.VALID.sum(axis=(1, 2), keepdims=True)
  squares = np.zeros(cases.SHAPE)
  for n, i, j in itertools.product((0, 1), (0, 3), (0, 3, 6)):
    square = cases.VALID[n, i : i + 3, j : j + 3]
    squares[n, i : i + 3, j : j + 3] = square.sum()
  near = np.where(cases.near_boundary_oracle(cases.LABELS, 1), 0.8, 0.3)
  balanced = cases.class_probabilities_oracle(cases.LABELS, **cases.CLASSES)
  by_set = cases.class_probabilities_oracle(cases.LABELS, **cases.TRAINING_SET)
  floor = cases.class_probabilities_oracle(cases.LABELS, **cases.FLOOR)
  shared = cases.class_probabilities_oracle(cases.LABELS, **cases.REDISTRIBUTED)
  one = np.ones(cases.SHAPE)
  inverse, inverse_floor = (
    np.divide(1, chosen, where=cases.VALID, out=np.zeros(cases.SHAPE))
    for chosen in (balanced, floor)
  )
  # A weight of 0 or 1 is its own square.
  stated = {
    "bernoulli": (0.3 * one, 0.3 * one),
    "bernoulli by gaps": (0.2 * one, 0.2 * one),
    "bernoulli of blocks": (0.3 * one, 0.3 * one),
    "places": (one / 3, one / 3),
    "random places": (one / 3, one / 3),
    "places in every other block": (one / 18, one / 18),
    "fixed_count": (5 / num_valid * one, 5 / num_valid * one),
    "fixed_count_in_batch": (
      9 / cases.VALID.sum() * one,
      9 / cases.VALID.sum() * one,
    ),
    "one_per_square": (one / 9, squares / 81),
    "class_balanced": (balanced, balanced),
    "class_balanced by set": (by_set, by_set),
    "class_balanced with a floor": (floor, floor),
    "class_balanced, redistributed": (shared, shared),
    "near_boundary": (near, near),
    "importance of boundaries": (one, 1 / near),
    "importance of classes": (one, inverse),
    "importance with a floor": (one, inverse_floor),
  }
  assert stated.keys() == cases.RANDOM_SAMPLERS.keys()
  return [
    pytest.param(name, mean, square, id=name)
    for name, (mean, square) in stated.items()
  ]


@pytest.mark.parametrize("name, mean, square", expectations())
def test_expected_weights_are_those_of_the_docstring(name, mean, square):
  weights = cases.draws_of(name)
  variance = np.maximum(square - mean**2, 0.0)[cases.VALID]
  bound = 5 * np.sqrt(variance / cases.NUM_DRAWS) + 1e-5
  error = np.abs(weights.mean(axis=0) - mean)[cases.VALID]
  assert np.all(error <= bound)
  # The spread, too, is that of a draw with one weight and 0.
  np.testing.assert_allclose(
    weights.var(axis=0)[cases.VALID].mean(), variance.mean(), rtol=0.05
  )


@pytest.mark.parametrize("name, mean, square", expectations())
def test_the_stated_sum_is_that_of_the_expected_weights(name, mean, square):
  stated = cases.SAMPLERS[name].expected_sum(jnp.asarray(cases.LABELS))
  np.testing.assert_allclose(stated, mean[cases.VALID].sum(), rtol=1e-5)


def test_without_chance_the_stated_sum_is_that_of_the_weights():
  labels = jnp.asarray(cases.LABELS)
  for name in ("whole_image", "class_weighted"):
    sampler = cases.SAMPLERS[name]
    weights = sampler.draw(None, labels)
    np.testing.assert_allclose(sampler.expected_sum(labels), weights.sum())


def test_a_count_above_the_valid_pixels_is_not_expected():
  labels = jnp.asarray(cases.LABELS).at[0].set(cases.VOID)
  num_valid = int(np.sum(cases.VALID[1]))
  assert sampling.fixed_count(count=30).expected_sum(labels) == 30
  assert sampling.fixed_count(count=1000).expected_sum(labels) == num_valid
  in_batch = sampling.fixed_count_in_batch(count=1000)
  assert in_batch.expected_sum(labels) == num_valid


# Wrong options.

WRONG = [
  (sampling.bernoulli, {"rate": 0.0}, "sampling rate is 0.0"),
  (sampling.bernoulli, {"rate": -1.0}, "sampling rate is -1.0"),
  (sampling.bernoulli, {"rate": 1.5}, "sampling rate is 1.5"),
  (sampling.bernoulli, {"rate": float("nan")}, "sampling rate is nan"),
  (sampling.bernoulli, {"rate": 0.5, "unit": "cell"}, "'cell'; choose .block"),
  (sampling.places, {"rate": 0.0}, "sampling rate is 0.0"),
  (
    sampling.places,
    {"rate": 0.5, "arrangement": "grid"},
    "'grid'; choose one of even, random",
  ),
  (sampling.fixed_count, {"count": 0}, "count is 0; give an integer, 1"),
  (sampling.fixed_count, {"count": 2.5}, "count is 2.5"),
  (sampling.fixed_count_in_batch, {"count": -3}, "count is -3"),
  (sampling.one_per_square, {"side": 0}, "side is 0"),
  (sampling.class_balanced, {**cases.CLASSES, "count": 0}, "count is 0"),
  (
    sampling.class_balanced,
    {**cases.CLASSES, "num_classes": 0},
    "num_classes is 0",
  ),
  (
    sampling.class_balanced,
    {**cases.CLASSES, "frequencies": (0.5, 0.5)},
    "2 entries and num_classes is 4",
  ),
  (
    sampling.class_balanced,
    {**cases.CLASSES, "frequencies": (0.5, 0.0, 0.3, 0.2)},
    "frequency of class 1 is 0.0.*Merge",
  ),
  (
    sampling.class_balanced,
    {**cases.CLASSES, "min_probability": 1.5},
    "min_probability is 1.5; it is the least probability",
  ),
  (
    sampling.class_weighted,
    {"class_weights": (1.0, -0.5)},
    "weight of class 1 is -0.5",
  ),
  (
    sampling.class_weighted,
    {"class_weights": (1.0, float("inf"))},
    "weight of class 1 is inf",
  ),
  (sampling.class_weighted, {"class_weights": ()}, r"shape \(0,\)"),
  (sampling.near_boundary, {**cases.BOUNDARY, "rate": 0}, "sampling rate is 0"),
  (
    sampling.near_boundary,
    {**cases.BOUNDARY, "rate_elsewhere": -0.1},
    "rate_elsewhere is -0.1",
  ),
  (
    sampling.near_boundary,
    {**cases.BOUNDARY, "rate_elsewhere": 1.1},
    "rate_elsewhere is 1.1",
  ),
  (sampling.near_boundary, {**cases.BOUNDARY, "distance": 0}, "distance is 0"),
  (sampling.hardest, {"count": 0}, "count is 0"),
  (
    sampling.harder_than,
    {"threshold": -1.0, "min_count": 1},
    "threshold is -1.0; it is a loss in nats",
  ),
  (
    sampling.harder_than,
    {"threshold": 1.0, "min_count": -1},
    "min_count is -1; give an integer, 0 or more",
  ),
]


@pytest.mark.parametrize("sampler, options, message", WRONG)
def test_a_wrong_option_is_named_with_its_remedy(sampler, options, message):
  with pytest.raises(ValueError, match=message):
    sampler(**options)


# Several devices.


@pytest.mark.parametrize(
  "name",
  ["fixed_count_in_batch", "class_balanced"],
)
def test_a_batch_spread_over_devices_is_sampled_as_on_one(name):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
  spread = jax.sharding.NamedSharding(mesh, jax.P("data"))
  labels = jax.device_put(cases.LABELS, spread)
  sample = jax.jit(cases.SAMPLERS[name].draw)
  key = jax.random.key(0)
  np.testing.assert_array_equal(
    sample(key, labels), sample(key, jnp.asarray(cases.LABELS))
  )
