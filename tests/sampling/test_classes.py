import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from tests.helpers import sampler_cases as cases

# Classes.


@pytest.mark.usefixtures("each_platform")
def test_class_counts_leave_out_void_and_what_is_no_class():
  labels = cases.labels_with_void().at[0, 0, :4].set(jnp.array([-1, 7, 254, 4]))
  counts = sampling.class_counts(labels, num_classes=4)
  assert counts.dtype == jnp.int32
  known = np.asarray(labels)[np.isin(labels, range(4))]
  np.testing.assert_array_equal(counts, np.bincount(known, minlength=4))


@pytest.mark.usefixtures("each_platform")
def test_class_counts_leave_out_void_also_among_300_classes():
  labels = jnp.array([[[cases.VOID, 254, 256, 299]]], jnp.int32)
  counts = sampling.class_counts(labels, num_classes=300)
  assert np.flatnonzero(counts).tolist() == [254, 256, 299]


@pytest.mark.parametrize("count", [1, 12, 30, 1000])
@pytest.mark.parametrize("frequencies", [None, cases.FREQUENCIES, (1, 1, 1, 1)])
@pytest.mark.parametrize(
  "more", [{}, {"min_probability": 0.3}, {"redistribute": True}]
)
def test_class_probabilities_are_those_of_a_loop(count, frequencies, more):
  options = {"count": count, "num_classes": 4, "frequencies": frequencies}
  options |= more
  probabilities = sampling.class_probabilities(**options).of(
    jnp.asarray(cases.LABELS)
  )
  assert probabilities.dtype == jnp.float32
  np.testing.assert_allclose(
    probabilities,
    cases.class_probabilities_oracle(cases.LABELS, **options),
    rtol=1e-5,
  )


def test_class_probabilities_sum_to_the_count_if_all_classes_have_enough():
  labels = jnp.asarray(cases.BIG_LABELS)
  options = {"count": 800, "num_classes": 6}
  function = jax.jit(sampling.class_probabilities(**options).of)
  probabilities = np.asarray(function(labels))
  np.testing.assert_allclose(probabilities.sum(), 800, rtol=1e-5)
  for index in range(4):
    np.testing.assert_allclose(
      probabilities[index == cases.BIG_LABELS].sum(), 200, rtol=1e-5
    )


@pytest.mark.parametrize("count", [5, 40, 300, 899, 900, 2000])
def test_redistributed_probabilities_sum_to_the_count_if_it_is_there(count):
  # Class 3 is absent, and class 2 three pixels.
  labels = np.repeat([0, 1, 2, 4], [800, 90, 3, 7]).astype(np.int32)
  probabilities = sampling.class_probabilities(
    count=count, num_classes=5, redistribute=True
  ).of(jnp.asarray(labels.reshape(1, 30, 30)))
  np.testing.assert_allclose(probabilities.sum(), min(count, 900), rtol=1e-5)


@pytest.mark.usefixtures("each_platform")
def test_no_pixel_has_less_than_the_least_probability_and_void_has_none():
  probabilities = sampling.class_probabilities(**cases.FLOOR).of(
    jnp.asarray(cases.LABELS)
  )
  assert np.min(probabilities, where=cases.VALID, initial=1) == np.float32(0.2)
  assert not np.any(probabilities, where=~cases.VALID)


def test_a_batch_like_the_training_set_has_the_same_probabilities():
  counts = np.bincount(cases.BIG_LABELS.ravel())
  options = {"count": 800, "num_classes": 4}
  labels = jnp.asarray(cases.BIG_LABELS)
  counted = sampling.class_probabilities(**options).of(labels)
  for frequencies in (counts, counts / counts.sum()):
    given = sampling.class_probabilities(
      frequencies=tuple(frequencies), **options
    )
    np.testing.assert_allclose(given.of(labels), counted, rtol=1e-5)


def test_of_each_class_equally_many_pixels_are_kept():
  sampler = sampling.class_balanced(count=400, num_classes=6)
  kept = cases.draws(sampler, cases.BIG_LABELS, cases.KEYS[:200]) != 0
  for index in range(4):
    mean = kept[:, index == cases.BIG_LABELS].sum(axis=1).mean()
    # The variance of a sum of independent draws is below its mean.
    assert abs(mean - 100) < 5 * np.sqrt(100 / 200)


@pytest.mark.usefixtures("each_platform")
@pytest.mark.parametrize("label", [-1, 4, 254])
def test_a_label_that_is_no_class_shows_as_nan(label):
  labels = jnp.asarray(cases.LABELS).at[0, 0, 0].set(label)
  samplers = [
    cases.SAMPLERS["class_weighted"],
    cases.SAMPLERS["class_balanced"],
    cases.SAMPLERS["class_balanced by set"],
    cases.SAMPLERS["importance of classes"],
  ]
  for sampler in samplers:
    weights = np.asarray(sampler.draw(cases.KEY, labels))
    assert np.flatnonzero(np.isnan(weights)).tolist() == [0]


@pytest.mark.usefixtures("each_platform")
def test_class_weighted_gives_each_pixel_the_weight_of_its_class():
  class_weights = (0.5, 0.0, 2.0, 3.0)
  sampler = sampling.class_weighted(class_weights=class_weights)
  weights = sampler.draw(None, jnp.asarray(cases.LABELS))
  for place, label in np.ndenumerate(cases.LABELS):
    expected = 0.0 if label == cases.VOID else class_weights[label]
    assert weights[place] == expected


@pytest.mark.usefixtures("each_platform")
def test_void_has_no_weight_also_where_it_would_be_a_class():
  sampler = sampling.class_weighted(class_weights=np.ones(300))
  weights = sampler.draw(None, jnp.asarray(cases.LABELS))
  np.testing.assert_array_equal(weights, cases.VALID)


def test_inverse_frequency_weights_leave_the_mean_weight_of_a_pixel_1():
  weights = sampling.inverse_frequency_weights(cases.FREQUENCIES)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(
    np.average(weights, weights=cases.FREQUENCIES), 1.0
  )
  np.testing.assert_allclose(weights * cases.FREQUENCIES, 4.0)


def test_median_frequency_weights_are_median_over_frequency():
  weights = sampling.median_frequency_weights([0.5, 0.125, 0.25])
  assert weights.dtype == np.float32
  assert weights.tolist() == [0.5, 2.0, 1.0]
  weights = sampling.median_frequency_weights(cases.FREQUENCIES)
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
