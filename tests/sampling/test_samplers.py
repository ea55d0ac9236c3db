import collections
import functools
import itertools

import chex
import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.sampling import capacity
from fcn_jax.sampling import uniform

VOID = types.IGNORE_LABEL
NUM_DRAWS = 4000
# Of another generator than the default, whose compilation takes seconds.
KEY = jax.random.key(0, impl="rbg")
KEYS = jax.random.split(jax.random.key(7, impl="rbg"), NUM_DRAWS)

SHAPE = (2, 6, 7)
NUM_CLASSES = 4
FREQUENCIES = (8.0, 4.0, 3.0, 1.0)

# Neither class 3 in the first image nor class 2 in the batch is there; blocks
# and cells of 3 pixels are cut off at the right; one of them is all void.
LABELS = np.array(
  [
    [
      [0, 0, 0, 1, 1, 1, VOID],
      [0, 0, 0, 1, 1, 1, VOID],
      [0, 0, 0, 0, 1, 1, VOID],
      [0, 0, 0, 0, 0, 0, 0],
      [VOID, 0, 0, 0, 0, 0, 0],
      [VOID, VOID, 0, 0, 0, 0, 0],
    ],
    [
      [0, 0, 0, 0, 0, 0, 3],
      [0, 0, 0, 0, 0, 3, 0],
      [0, 0, 0, 0, 0, 0, 0],
      [0, 0, VOID, VOID, VOID, 0, 0],
      [0, 0, VOID, 1, VOID, 0, 0],
      [0, 0, VOID, VOID, VOID, 0, 0],
    ],
  ],
  np.int32,
)
VALID = LABELS != VOID
LOSSES = np.random.default_rng(3).exponential(size=SHAPE).astype(np.float32)

partial = functools.partial
BOUNDARY = {"rate": 0.8, "rate_elsewhere": 0.3, "distance": 1}
CLASSES = {"count": 12, "num_classes": NUM_CLASSES}
TRAINING_SET = {**CLASSES, "frequencies": FREQUENCIES}

RANDOM_SAMPLERS = {
  "bernoulli": partial(sampling.bernoulli, rate=0.3),
  "bernoulli by gaps": partial(sampling.bernoulli, rate=0.2),
  "bernoulli in cells": partial(sampling.bernoulli, rate=0.3, cell=3),
  "fixed_count": partial(sampling.fixed_count, count=5),
  "fixed_count_in_batch": partial(sampling.fixed_count_in_batch, count=9),
  "one_per_block": partial(sampling.one_per_block, block=3),
  "class_balanced": partial(sampling.class_balanced, **CLASSES),
  "class_balanced by set": partial(sampling.class_balanced, **TRAINING_SET),
  "near_boundary": partial(sampling.near_boundary, **BOUNDARY),
  "importance of boundaries": partial(
    sampling.importance,
    probabilities=partial(sampling.boundary_probabilities, **BOUNDARY),
  ),
  "importance of classes": partial(
    sampling.importance,
    probabilities=partial(sampling.class_probabilities, **CLASSES),
  ),
}
SAMPLERS = {
  **RANDOM_SAMPLERS,
  "whole_image": sampling.whole_image,
  "class_weighted": partial(
    sampling.class_weighted, class_weights=(0.5, 1.0, 2.0, 4.0)
  ),
  "hardest": partial(sampling.hardest, pixel_losses=LOSSES, count=5),
  "harder_than": partial(
    sampling.harder_than, pixel_losses=LOSSES, threshold=1.0, min_count=5
  ),
}


def draws(sampler, labels=LABELS, keys=KEYS):
  """Weights [D, N, H, W] for each of D keys."""
  labels = np.broadcast_to(labels, (len(keys), *labels.shape[-3:]))
  return np.asarray(compiled_over_keys(sampler)(keys, labels))


@functools.cache
def compiled_over_keys(sampler):
  # Not `vmap`, of which some random functions take longer to compile.
  return jax.jit(
    lambda keys, labels: jax.lax.map(lambda x: sampler(*x), (keys, labels))
  )


@functools.cache
def with_static_options(name):
  """A sampler that is compiled with its options static, its arrays not."""
  options = dict(getattr(SAMPLERS[name], "keywords", {}))
  arrays = {k: options.pop(k) for k in ["pixel_losses"] if k in options}
  function = getattr(SAMPLERS[name], "func", SAMPLERS[name])
  compiled = jax.jit(function, static_argnames=tuple(options))
  return lambda key, labels: compiled(key, labels, **options, **arrays)


@functools.cache
def draws_of(name):
  """As `draws`, from `LABELS`; once for all tests."""
  return draws(with_static_options(name))


def counts_by_image(weights):
  return np.sum(weights != 0, axis=(-2, -1))


def near_boundary_oracle(labels, distance):
  near = np.zeros(labels.shape, bool)
  for n, i, j in np.ndindex(labels.shape):
    around = labels[
      n,
      max(i - distance, 0) : i + distance + 1,
      max(j - distance, 0) : j + distance + 1,
    ]
    near[n, i, j] = np.any(around != labels[n, i, j])
  return near


def class_probabilities_oracle(labels, count, num_classes, frequencies=None):
  valid = labels[labels != VOID].tolist()
  sizes = collections.Counter(valid)
  num_present = len(sizes)
  if frequencies is not None:
    num_present = num_classes
    sizes = {
      c: len(valid) * f / sum(frequencies) for c, f in enumerate(frequencies)
    }
  probabilities = np.zeros(labels.shape)
  for place, label in np.ndenumerate(labels):
    if label != VOID:
      expected = count / (num_present * sizes[label])
      probabilities[place] = min(1.0, expected)
  return probabilities


# What holds for every sampler.


@pytest.mark.parametrize("name", SAMPLERS)
def test_weights_are_float32_and_0_exactly_where_void(name):
  chance = np.random.default_rng(0)
  batches = chance.integers(0, NUM_CLASSES, (NUM_DRAWS, *SHAPE), np.int32)
  batches[chance.random(batches.shape) < 0.3] = VOID
  batches[-1] = VOID
  weights = draws(with_static_options(name), batches)
  assert weights.dtype == np.float32
  assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
  assert not np.any(weights[batches == VOID])
  # Something is kept of each image that has truth, at some time.
  assert np.all(weights.any(axis=(0, 2, 3)))
  assert not weights[-1].any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_compiled_with_static_options_a_sampler_gives_the_same(name):
  np.testing.assert_allclose(
    draws_of(name)[0],
    SAMPLERS[name](KEYS[0], jnp.asarray(LABELS)),
    rtol=1e-6,
  )


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_key_decides_if_the_sampler_is_random(name):
  num_different = len(np.unique(draws_of(name), axis=0))
  if name in RANDOM_SAMPLERS:
    # Of cells and blocks there are few.
    assert num_different > 1000
  else:
    assert num_different == 1


def expectations():
  """For each random sampler, the stated mean and the second moment."""
  num_valid = VALID.sum(axis=(1, 2), keepdims=True)
  blocks = np.zeros(SHAPE)
  for n, i, j in itertools.product((0, 1), (0, 3), (0, 3, 6)):
    block = VALID[n, i : i + 3, j : j + 3]
    blocks[n, i : i + 3, j : j + 3] = block.sum()
  near = np.where(near_boundary_oracle(LABELS, 1), 0.8, 0.3)
  balanced = class_probabilities_oracle(LABELS, **CLASSES)
  by_set = class_probabilities_oracle(LABELS, **TRAINING_SET)
  one = np.ones(SHAPE)
  inverse = np.divide(1, balanced, where=VALID, out=np.zeros(SHAPE))
  # A weight of 0 or 1 is its own square.
  stated = {
    "bernoulli": (0.3 * one, 0.3 * one),
    "bernoulli by gaps": (0.2 * one, 0.2 * one),
    "bernoulli in cells": (0.3 * one, 0.3 * one),
    "fixed_count": (5 / num_valid * one, 5 / num_valid * one),
    "fixed_count_in_batch": (9 / VALID.sum() * one, 9 / VALID.sum() * one),
    "one_per_block": (one / 9, blocks / 81),
    "class_balanced": (balanced, balanced),
    "class_balanced by set": (by_set, by_set),
    "near_boundary": (near, near),
    "importance of boundaries": (one, 1 / near),
    "importance of classes": (one, inverse),
  }
  assert stated.keys() == RANDOM_SAMPLERS.keys()
  return [
    pytest.param(name, mean, square, id=name)
    for name, (mean, square) in stated.items()
  ]


@pytest.mark.parametrize("name, mean, square", expectations())
def test_expected_weights_are_those_of_the_docstring(name, mean, square):
  weights = draws_of(name)
  variance = np.maximum(square - mean**2, 0.0)[VALID]
  bound = 5 * np.sqrt(variance / NUM_DRAWS) + 1e-5
  error = np.abs(weights.mean(axis=0) - mean)[VALID]
  assert np.all(error <= bound)
  # The spread, too, is that of a draw with one weight and 0.
  np.testing.assert_allclose(
    weights.var(axis=0)[VALID].mean(), variance.mean(), rtol=0.05
  )


# Bounds of the number of pixels that are kept.


@pytest.mark.parametrize(
  "name, bound",
  [("fixed_count", 5), ("fixed_count_in_batch", 9), ("one_per_block", 6)],
)
def test_an_exact_bound_is_reached_and_not_exceeded(name, bound):
  labels = np.zeros(SHAPE, np.int32)
  # All that a batch keeps can be in one image.
  labels[1] = VOID
  counts = counts_by_image(draws(with_static_options(name), labels))
  stated = capacity.of_sampler(RANDOM_SAMPLERS[name], SHAPE)
  assert counts.max() == stated == bound


@pytest.mark.parametrize("name", RANDOM_SAMPLERS.keys())
def test_the_bound_of_a_small_image_holds(name):
  bound = capacity.of_sampler(RANDOM_SAMPLERS[name], SHAPE)
  assert counts_by_image(draws_of(name)).max() <= bound <= SHAPE[1] * SHAPE[2]


def test_bounds_are_known_where_there_are_any():
  assert capacity.of_sampler(SAMPLERS["hardest"], SHAPE) == 5
  for name in ("whole_image", "class_weighted", "harder_than"):
    assert capacity.of_sampler(SAMPLERS[name], SHAPE) is None


BIG = (4, 96, 96)
BIG_LABELS = np.random.default_rng(5).integers(0, 4, BIG).astype(np.int32)
# Of these, training had fewer in its images than this batch has.
BIG_LABELS[0] = 3


@pytest.mark.parametrize(
  "sampler, most_expected, slack",
  [
    (partial(sampling.bernoulli, rate=0.1), 922, 1.25),
    (partial(sampling.bernoulli, rate=0.1, cell=4), 922, 2.0),
    (partial(sampling.bernoulli, rate=1.0, cell=5), 9216, 1.0),
    (partial(sampling.one_per_block, block=5), 400, 1.0),
    (partial(sampling.class_balanced, count=2000, num_classes=4), 500, 5.0),
    (
      partial(
        sampling.class_balanced,
        count=500,
        num_classes=4,
        frequencies=(4, 4, 4, 1),
      ),
      406,
      5.0,
    ),
    (
      partial(
        sampling.near_boundary, rate=0.01, rate_elsewhere=0.2, distance=1
      ),
      1844,
      1.25,
    ),
    (
      partial(
        sampling.importance,
        probabilities=partial(
          sampling.class_probabilities, count=2000, num_classes=4
        ),
      ),
      900,
      5.0,
    ),
  ],
)
def test_bounds_of_large_images_are_not_silly(sampler, most_expected, slack):
  bound = capacity.of_sampler(sampler, BIG)
  counts = counts_by_image(draws(sampler, BIG_LABELS, KEYS[:100]))
  assert counts.max() <= bound <= slack * most_expected


def test_with_a_batch_rich_in_a_rare_class_its_bound_still_holds():
  # All valid pixels are in one image and of the rarest class: the expected
  # number is then count / (C * share) = 80 * 13 / 4 = 260.
  labels = np.full(BIG, VOID, np.int32)
  labels[2, :50] = 3
  sampler = partial(
    sampling.class_balanced, count=80, num_classes=4, frequencies=(4, 4, 4, 1)
  )
  bound = capacity.of_sampler(sampler, BIG)
  counts = counts_by_image(draws(sampler, labels, KEYS[:200]))[:, 2]
  assert abs(counts.mean() - 260) < 5 * np.sqrt(260 / 200)
  assert counts.max() <= bound < 400


def test_importance_has_the_bound_of_its_probabilities():
  function = partial(sampling.boundary_probabilities, **BOUNDARY)
  shape = (4, 300, 200)
  sampler = partial(sampling.importance, probabilities=function)
  assert (
    capacity.of_sampler(sampler, shape)
    == capacity.of_sampler(function, shape)
    == capacity.of_sampler(RANDOM_SAMPLERS["near_boundary"], shape)
    < 300 * 200
  )
  unknown = partial(
    sampling.importance, probabilities=lambda labels: jnp.ones(labels.shape)
  )
  assert capacity.of_sampler(unknown, shape) == 300 * 200


# Wrong options.

WRONG = [
  (sampling.bernoulli, {"rate": 0.0}, "sampling rate is 0.0"),
  (sampling.bernoulli, {"rate": -1.0}, "sampling rate is -1.0"),
  (sampling.bernoulli, {"rate": 1.5}, "sampling rate is 1.5"),
  (sampling.bernoulli, {"rate": float("nan")}, "sampling rate is nan"),
  (sampling.bernoulli, {"rate": 0.5, "cell": 0}, "cell is 0; give an integer"),
  (sampling.bernoulli, {"rate": 0.5, "cell": -8}, "cell is -8"),
  (sampling.fixed_count, {"count": 0}, "count is 0; give an integer, 1"),
  (sampling.fixed_count, {"count": 2.5}, "count is 2.5"),
  (sampling.fixed_count_in_batch, {"count": -3}, "count is -3"),
  (sampling.one_per_block, {"block": 0}, "block is 0"),
  (sampling.class_balanced, {**CLASSES, "count": 0}, "count is 0"),
  (sampling.class_balanced, {**CLASSES, "num_classes": 0}, "num_classes is 0"),
  (
    sampling.class_balanced,
    {**CLASSES, "frequencies": (0.5, 0.5)},
    "2 entries and num_classes is 4",
  ),
  (
    sampling.class_balanced,
    {**CLASSES, "frequencies": (0.5, 0.0, 0.3, 0.2)},
    "frequency of class 1 is 0.0.*Merge",
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
  (sampling.near_boundary, {**BOUNDARY, "rate": 0}, "sampling rate is 0"),
  (
    sampling.near_boundary,
    {**BOUNDARY, "rate_elsewhere": -0.1},
    "rate_elsewhere is -0.1",
  ),
  (
    sampling.near_boundary,
    {**BOUNDARY, "rate_elsewhere": 1.1},
    "rate_elsewhere is 1.1",
  ),
  (sampling.near_boundary, {**BOUNDARY, "distance": 0}, "distance is 0"),
  (sampling.hardest, {"pixel_losses": LOSSES, "count": 0}, "count is 0"),
  (
    sampling.harder_than,
    {"pixel_losses": LOSSES, "threshold": -1.0, "min_count": 1},
    "threshold is -1.0; it is a loss in nats",
  ),
  (
    sampling.harder_than,
    {"pixel_losses": LOSSES, "threshold": 1.0, "min_count": -1},
    "min_count is -1; give an integer, 0 or more",
  ),
]


@pytest.mark.parametrize("sampler, options, message", WRONG)
def test_a_wrong_option_is_named_with_its_remedy(sampler, options, message):
  with pytest.raises(ValueError, match=message):
    sampler(KEY, jnp.asarray(LABELS), **options)


@pytest.mark.parametrize(
  "sampler, options, message",
  [
    (sampling.bernoulli, {"rate": 0.0}, "sampling rate is 0.0"),
    (sampling.bernoulli, {"rate": 0.5, "cell": 0}, "cell is 0"),
    (sampling.one_per_block, {"block": 0}, "block is 0"),
    (sampling.class_balanced, {**CLASSES, "count": 0}, "count is 0"),
    (
      sampling.class_balanced,
      {**CLASSES, "frequencies": (1.0,) * 3},
      "3 entries and num_classes is 4",
    ),
    (sampling.near_boundary, {**BOUNDARY, "rate": 0}, "sampling rate is 0"),
  ],
)
def test_asking_for_the_bound_names_a_wrong_option_too(
  sampler, options, message
):
  with pytest.raises(ValueError, match=message):
    capacity.of_sampler(partial(sampler, **options), SHAPE)


# All pixels alike.


def labels_with_void(shape=(2, 45, 38)):
  labels = np.random.default_rng(0).integers(0, 5, shape).astype(np.int32)
  labels[labels == 4] = VOID
  return jnp.asarray(labels)


class UniformTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_whole_image_keeps_all_but_void(self):
    labels = labels_with_void()
    weights = self.variant(sampling.whole_image)(KEY, labels)
    np.testing.assert_array_equal(weights, np.asarray(labels) != VOID)

  @chex.variants(with_jit=True, without_jit=True)
  def test_rate_1_is_the_whole_image(self):
    labels = labels_with_void()
    sampler = partial(sampling.bernoulli, rate=1.0, cell=8)
    weights = self.variant(sampler)(KEY, labels)
    np.testing.assert_array_equal(weights, sampling.whole_image(None, labels))

  @chex.variants(with_jit=True, without_jit=True)
  def test_cells_are_constant_inside_also_where_they_are_cut_off(self):
    cell, shape = 8, (2, 45, 38)
    labels = jnp.zeros(shape, jnp.int32)
    sampler = partial(sampling.bernoulli, rate=0.5, cell=cell)
    weights = np.asarray(self.variant(sampler)(KEY, labels))
    corners = weights[:, ::cell, ::cell]
    assert corners.shape == (2, 6, 5)
    filled = corners.repeat(cell, axis=1).repeat(cell, axis=2)
    np.testing.assert_array_equal(weights, filled[:, :45, :38])
    assert 0 < corners.mean() < 1


@pytest.mark.parametrize("rate", [0.05, 0.25, 0.9])
@pytest.mark.parametrize("cell", [1, 4])
def test_the_share_of_kept_cells_is_the_rate(rate, cell):
  labels = jnp.zeros((4, 50 * cell, 50 * cell), jnp.int32)
  weights = sampling.bernoulli(KEY, labels, rate=rate, cell=cell)
  # Five standard deviations of a binomial share of 10,000 cells.
  bound = 5 * np.sqrt(rate * (1 - rate) / 10_000)
  assert abs(float(weights.mean()) - rate) < bound


def test_neighbouring_cells_and_images_are_drawn_independently():
  labels = jnp.zeros((2, 400, 400), jnp.int32)
  weights = sampling.bernoulli(KEY, labels, rate=0.5, cell=4)
  cells = np.asarray(weights)[:, ::4, ::4] - 0.5
  for a, b in (
    (cells[:, 1:], cells[:, :-1]),
    (cells[:, :, 1:], cells[:, :, :-1]),
    (cells[0], cells[1]),
  ):
    # The correlation of 10,000 or more independent pairs.
    assert abs(np.mean(a * b) / 0.25) < 0.05


@pytest.mark.parametrize("count", [1, 35, 1000])
def test_each_image_keeps_the_count_or_all_it_has(count):
  sampler = partial(sampling.fixed_count, count=count)
  weights = draws(sampler, keys=KEYS[:200])
  kept = np.minimum(count, VALID.sum(axis=(1, 2)))
  assert np.all(counts_by_image(weights) == kept)
  assert set(np.unique(weights)) <= {0.0, 1.0}


@pytest.mark.parametrize("count", [1, 69, 1000])
def test_the_batch_keeps_the_count_or_all_it_has(count):
  sampler = partial(sampling.fixed_count_in_batch, count=count)
  kept = counts_by_image(draws(sampler, keys=KEYS[:200]))
  assert np.all(kept.sum(axis=1) == min(count, VALID.sum()))


@pytest.mark.parametrize(
  "sampler", [sampling.fixed_count, sampling.fixed_count_in_batch]
)
def test_all_sets_of_a_count_are_equally_likely(sampler):
  labels = np.array([[[0, VOID, 1], [2, 0, VOID]]], np.int32)
  labels = np.concatenate([labels, np.full((1, 2, 3), VOID, np.int32)])
  weights = draws(partial(sampler, count=2), labels)
  sets = collections.Counter(map(bytes, weights))
  assert len(sets) == 6
  # Five standard deviations of a binomial count.
  bound = 5 * np.sqrt(NUM_DRAWS * (1 / 6) * (5 / 6))
  assert all(abs(n - NUM_DRAWS / 6) < bound for n in sets.values())


def test_each_block_with_truth_keeps_one_pixel_that_stands_for_all():
  weights = draws_of("one_per_block")
  for n, i, j in itertools.product((0, 1), (0, 3), (0, 3, 6)):
    block = weights[:, n, i : i + 3, j : j + 3].reshape(NUM_DRAWS, -1)
    num_valid = VALID[n, i : i + 3, j : j + 3].sum()
    assert np.all((block != 0).sum(axis=1) == min(num_valid, 1))
    np.testing.assert_allclose(block.sum(axis=1), num_valid / 9, rtol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 45])
def test_blocks_of_any_size_cover_the_image(block):
  labels = np.asarray(labels_with_void())
  sampler = partial(sampling.one_per_block, block=block)
  weights = np.asarray(jax.jit(sampler)(KEY, labels))
  num_valid = np.sum(labels != VOID, axis=(1, 2))
  np.testing.assert_allclose(
    weights.sum(axis=(1, 2)), num_valid / block**2, rtol=1e-5
  )
  if block == 1:
    np.testing.assert_array_equal(weights, labels != VOID)
  if block == 45:
    assert counts_by_image(weights).tolist() == [1, 1]


mark_largest = jax.jit(uniform.largest, static_argnames="count")


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  values=hypothesis.extra.numpy.arrays(
    np.uint32,
    (2, 9),
    # Few values, so that many are equal, or any.
    elements=st.integers(0, 3) | st.integers(0, 2**32 - 1),
  ),
  count=st.sampled_from([0, 1, 4, 10]),
)
def test_largest_marks_what_a_stable_sort_puts_first(values, count):
  marks = np.asarray(mark_largest(jnp.asarray(values), count=count))
  for row, marked in zip(values, marks, strict=True):
    order = np.argsort(-row.astype(np.int64), kind="stable")[:count]
    expected = [place for place in sorted(order) if row[place] > 0]
    assert np.flatnonzero(marked).tolist() == expected


# Classes.


def test_class_counts_leave_out_void_and_what_is_no_class():
  labels = labels_with_void().at[0, 0, :4].set(jnp.array([-1, 7, 254, 4]))
  counts = sampling.class_counts(labels, num_classes=4)
  assert counts.dtype == jnp.int32
  known = np.asarray(labels)[np.isin(labels, range(4))]
  np.testing.assert_array_equal(counts, np.bincount(known, minlength=4))


def test_class_counts_leave_out_void_also_among_300_classes():
  labels = jnp.array([[[VOID, 254, 256, 299]]], jnp.int32)
  counts = sampling.class_counts(labels, num_classes=300)
  assert np.flatnonzero(counts).tolist() == [254, 256, 299]


@pytest.mark.parametrize("count", [1, 12, 30, 1000])
@pytest.mark.parametrize("frequencies", [None, FREQUENCIES, (1, 1, 1, 1)])
def test_class_probabilities_are_those_of_a_loop(count, frequencies):
  options = {"count": count, "num_classes": 4, "frequencies": frequencies}
  probabilities = sampling.class_probabilities(jnp.asarray(LABELS), **options)
  assert probabilities.dtype == jnp.float32
  np.testing.assert_allclose(
    probabilities, class_probabilities_oracle(LABELS, **options), rtol=1e-5
  )


def test_class_probabilities_sum_to_the_count_if_all_classes_have_enough():
  labels = jnp.asarray(BIG_LABELS)
  options = {"count": 800, "num_classes": 6}
  function = jax.jit(partial(sampling.class_probabilities, **options))
  probabilities = np.asarray(function(labels))
  np.testing.assert_allclose(probabilities.sum(), 800, rtol=1e-5)
  for index in range(4):
    np.testing.assert_allclose(
      probabilities[index == BIG_LABELS].sum(), 200, rtol=1e-5
    )


def test_a_batch_like_the_training_set_has_the_same_probabilities():
  counts = np.bincount(BIG_LABELS.ravel())
  options = {"count": 800, "num_classes": 4}
  counted = sampling.class_probabilities(jnp.asarray(BIG_LABELS), **options)
  for frequencies in (counts, counts / counts.sum()):
    given = sampling.class_probabilities(
      jnp.asarray(BIG_LABELS), frequencies=tuple(frequencies), **options
    )
    np.testing.assert_allclose(given, counted, rtol=1e-5)


def test_of_each_class_equally_many_pixels_are_kept():
  sampler = partial(sampling.class_balanced, count=400, num_classes=6)
  kept = draws(sampler, BIG_LABELS, KEYS[:200]) != 0
  for index in range(4):
    mean = kept[:, index == BIG_LABELS].sum(axis=1).mean()
    # The variance of a sum of independent draws is below its mean.
    assert abs(mean - 100) < 5 * np.sqrt(100 / 200)


@pytest.mark.parametrize("label", [-1, 4, 254])
def test_a_label_that_is_no_class_shows_as_nan(label):
  labels = jnp.asarray(LABELS).at[0, 0, 0].set(label)
  samplers = [
    SAMPLERS["class_weighted"],
    SAMPLERS["class_balanced"],
    SAMPLERS["class_balanced by set"],
    SAMPLERS["importance of classes"],
  ]
  for sampler in samplers:
    weights = np.asarray(sampler(KEY, labels))
    assert np.flatnonzero(np.isnan(weights)).tolist() == [0]


def test_class_weighted_gives_each_pixel_the_weight_of_its_class():
  class_weights = (0.5, 0.0, 2.0, 3.0)
  weights = sampling.class_weighted(
    None, jnp.asarray(LABELS), class_weights=class_weights
  )
  for place, label in np.ndenumerate(LABELS):
    expected = 0.0 if label == VOID else class_weights[label]
    assert weights[place] == expected


def test_void_has_no_weight_also_where_it_would_be_a_class():
  weights = sampling.class_weighted(
    None, jnp.asarray(LABELS), class_weights=np.ones(300)
  )
  np.testing.assert_array_equal(weights, VALID)


def test_inverse_frequency_weights_leave_the_mean_weight_of_a_pixel_1():
  weights = sampling.inverse_frequency_weights(FREQUENCIES)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(np.average(weights, weights=FREQUENCIES), 1.0)
  np.testing.assert_allclose(weights * FREQUENCIES, 4.0)


def test_median_frequency_weights_are_median_over_frequency():
  weights = sampling.median_frequency_weights([0.5, 0.125, 0.25])
  assert weights.dtype == np.float32
  assert weights.tolist() == [0.5, 2.0, 1.0]
  weights = sampling.median_frequency_weights(FREQUENCIES)
  np.testing.assert_allclose(weights, [3.5 / 8, 3.5 / 4, 3.5 / 3, 3.5])


@pytest.mark.parametrize(
  "function",
  [sampling.inverse_frequency_weights, sampling.median_frequency_weights],
)
@pytest.mark.parametrize(
  "frequencies, message",
  [
    ((0.5, 0.0), "frequency of class 1 is 0.0, not.*[Mm]erge"),
    ((-0.5, 1.0), "frequency of class 0 is -0.5"),
    ((0.5, float("nan")), "frequency of class 1 is nan"),
    ((0.5, float("inf")), "frequency of class 1 is inf"),
    ((), r"shape \(0,\).*one frequency for each class"),
    (((0.5, 0.5),), r"shape \(1, 2\)"),
    (0.5, r"shape \(\)"),
  ],
)
def test_wrong_frequencies_are_named(function, frequencies, message):
  with pytest.raises(ValueError, match=message):
    function(frequencies)


# Places.


@pytest.mark.parametrize("distance", [1, 3, 10])
def test_boundary_probabilities_are_those_of_a_loop(distance):
  labels = np.random.default_rng(2).integers(0, 3, (2, 4, 5)).astype(np.int32)
  labels = labels.repeat(6, axis=1).repeat(5, axis=2)
  labels[0, 10:12, 3:20] = VOID
  probabilities = sampling.boundary_probabilities(
    jnp.asarray(labels), rate=0.75, rate_elsewhere=0.0, distance=distance
  )
  near = near_boundary_oracle(labels, distance) & (labels != VOID)
  assert probabilities.dtype == jnp.float32
  np.testing.assert_array_equal(probabilities, 0.75 * near)


def test_the_border_of_the_image_is_no_boundary_and_void_is():
  labels = jnp.full((1, 9, 9), 2, jnp.int32)
  options = {"rate": 1.0, "rate_elsewhere": 0.25, "distance": 2}
  probabilities = sampling.boundary_probabilities(labels, **options)
  np.testing.assert_array_equal(probabilities, jnp.full((1, 9, 9), 0.25))
  labels = labels.at[0, 4, 4].set(VOID)
  expected = np.full((1, 9, 9), 0.25)
  expected[0, 2:7, 2:7] = 1.0
  expected[0, 4, 4] = 0.0
  probabilities = sampling.boundary_probabilities(labels, **options)
  np.testing.assert_array_equal(probabilities, expected)


def test_the_expected_sum_under_importance_is_the_whole_sum():
  weights = draws_of("importance of boundaries")
  sums = np.sum(weights * LOSSES, axis=(1, 2, 3), dtype=np.float64)
  error = abs(sums.mean() - LOSSES[VALID].sum())
  assert error < 5 * sums.std() / np.sqrt(NUM_DRAWS)


def test_importance_takes_probabilities_as_they_are():
  labels = jnp.array([[[0, 1, 2, 3, VOID, 0]]], jnp.int32)
  given = jnp.array([[[1.0, 2.0, 0.0, 1e-30, 1.0, jnp.nan]]], jnp.float32)
  weights = sampling.importance(KEY, labels, probabilities=lambda labels: given)
  # Always, not more than always, never, practically never, void, unknown.
  np.testing.assert_array_equal(weights, [[[1, 1, 0, 0, 0, np.nan]]])


# Hard examples.


def hardest_oracle(labels, losses, count):
  kept = np.zeros(labels.shape, bool)
  for n in range(len(labels)):
    places = np.flatnonzero(labels[n] != VOID)
    order = np.argsort(-losses[n].ravel()[places], kind="stable")
    kept[n].ravel()[places[order[:count]]] = True
  return kept


@pytest.mark.parametrize("count", [1, 7, 35, 1000])
@pytest.mark.parametrize(
  "losses",
  [
    LOSSES,
    # Many are equal; some are negative; all are equal.
    np.round(LOSSES),
    LOSSES - 1,
    np.zeros_like(LOSSES),
  ],
  ids=["losses", "rounded", "negative", "equal"],
)
def test_the_hardest_pixels_are_kept_and_of_equal_ones_the_first(losses, count):
  weights = sampling.hardest(
    KEY, jnp.asarray(LABELS), pixel_losses=losses, count=count
  )
  np.testing.assert_array_equal(weights, hardest_oracle(LABELS, losses, count))


@pytest.mark.parametrize("threshold", [0.0, 0.7, 3.0, 100.0])
@pytest.mark.parametrize("min_count", [0, 6, 1000])
def test_harder_than_keeps_what_is_above_and_the_hardest(threshold, min_count):
  weights = sampling.harder_than(
    KEY,
    jnp.asarray(LABELS),
    pixel_losses=LOSSES,
    threshold=threshold,
    min_count=min_count,
  )
  expected = hardest_oracle(LABELS, LOSSES, min_count)
  expected |= VALID & (threshold < LOSSES)
  np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_a_bad_loss_keeps_a_valid_pixel_and_no_void_one(bad):
  losses = np.where(VALID, LOSSES, np.float32(bad))
  losses[1, 0, 0] = bad
  labels = jnp.asarray(LABELS)
  weights = sampling.hardest(KEY, labels, pixel_losses=losses, count=1)
  replaced = np.where(np.isfinite(losses), losses, np.inf)
  expected = hardest_oracle(LABELS, replaced, 1)
  assert expected[1, 0, 0]
  np.testing.assert_array_equal(weights, expected)
  weights = sampling.harder_than(
    KEY, labels, pixel_losses=losses, threshold=100.0, min_count=0
  )
  assert np.flatnonzero(weights).tolist() == [42]


@pytest.mark.parametrize("name", ["hardest", "harder_than"])
def test_no_gradient_goes_through_the_choice(name):
  options = dict(SAMPLERS[name].keywords)
  del options["pixel_losses"]
  labels = jnp.asarray(LABELS)

  def total(losses):
    weights = SAMPLERS[name].func(None, labels, pixel_losses=losses, **options)
    return jnp.sum(weights * losses)

  gradient = jax.grad(total)(jnp.asarray(LOSSES))
  np.testing.assert_array_equal(gradient, SAMPLERS[name](None, labels))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_losses_of_half_precision_are_ordered_too(dtype):
  losses = jnp.asarray(LOSSES, dtype)
  weights = sampling.hardest(
    None, jnp.asarray(LABELS), pixel_losses=losses, count=9
  )
  expected = hardest_oracle(LABELS, np.asarray(losses, np.float32), 9)
  np.testing.assert_array_equal(weights, expected)


# Several devices.


@pytest.mark.parametrize(
  "name",
  ["fixed_count_in_batch", "class_balanced"],
)
def test_a_batch_spread_over_devices_is_sampled_as_on_one(name):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
  spread = jax.sharding.NamedSharding(mesh, jax.P("data"))
  labels = jax.device_put(LABELS, spread)
  sample = jax.jit(SAMPLERS[name])
  key = jax.random.key(0)
  np.testing.assert_array_equal(
    sample(key, labels), sample(key, jnp.asarray(LABELS))
  )
