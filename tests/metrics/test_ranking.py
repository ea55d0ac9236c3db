import hypothesis
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies

from fcn_jax import metrics
from fcn_jax import types

VOID = types.IGNORE_LABEL
NUM_CLASSES = 4


def draw(seed, sharpness=2.0, shape=(60, 80)):
  """Labels, a tenth of them void, and probabilities that tend to them."""
  rng = np.random.default_rng(seed)
  # The last class is rare.
  labels = rng.choice(NUM_CLASSES, shape, p=(0.5, 0.3, 0.19, 0.01))
  logits = rng.normal(0, 1, (*shape, NUM_CLASSES)) + np.eye(NUM_CLASSES)[labels]
  logits *= sharpness
  probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
  probabilities /= probabilities.sum(axis=-1, keepdims=True)
  labels[rng.random(shape) < 0.1] = VOID
  return labels.astype(np.int32), probabilities.astype(np.float32)


# With the smallest, all probabilities are close and share few bins; with the
# largest, many lie below all bins.
@pytest.mark.parametrize(
  ("sharpness", "error"), [(0.01, 0.05), (0.3, 2e-3), (2, 1e-3), (20, 0.02)]
)
def test_areas_agree_with_scikit_learn_on_exact_probabilities(sharpness, error):
  labels, probabilities = draw(0, sharpness)
  scores = metrics.ranking_scores(metrics.ranking_counts(labels, probabilities))
  valid = labels != VOID
  for one in range(NUM_CLASSES):
    given = labels[valid] == one, probabilities[valid][:, one]
    roc_auc = sklearn.metrics.roc_auc_score(*given)
    assert abs(scores.roc_auc[one] - roc_auc) <= scores.roc_auc_error[one]
    assert scores.roc_auc_error[one] < error
    assert scores.average_precision[one] == pytest.approx(
      sklearn.metrics.average_precision_score(*given), abs=error
    )


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  strategies.lists(
    strategies.tuples(
      strategies.booleans(),
      # One to each bin: ties are exact.
      strategies.sampled_from([0, 2**-70, 1e-9, 0.01, 0.5, 0.6, 0.99, 1.0]),
    ),
    min_size=2,
  )
)
def test_areas_are_exact_for_probabilities_that_share_no_bin(pixels):
  is_class, values = np.array(pixels).T
  values = np.where(values == 2**-70, 0, values).astype(np.float32)
  labels = np.where(is_class > 0, 1, 0)
  probabilities = np.stack([1 - values, values], axis=-1)
  scores = metrics.ranking_scores(metrics.ranking_counts(labels, probabilities))
  if not is_class.any():
    assert np.isnan(scores.roc_auc[1]) and np.isnan(scores.average_precision[1])
    return
  assert scores.average_precision[1] == pytest.approx(
    sklearn.metrics.average_precision_score(labels, values)
  )
  if is_class.all():
    assert np.isnan(scores.roc_auc[1])
    return
  assert scores.roc_auc[1] == pytest.approx(
    sklearn.metrics.roc_auc_score(labels, values)
  )


def test_bins_are_narrow_near_0_and_near_1():
  near_0 = np.float32(2.0 ** -np.arange(1, 64))
  for values in (
    np.sort([*near_0, *(1.02 * near_0[1:])]),
    np.sort([*(1 - near_0[:24]), *(1 - 1.02 * near_0[1:17])]),
  ):
    probabilities = np.stack([1 - values, values], axis=-1).astype(np.float32)
    counts = metrics.ranking_counts(np.ones(len(values), int), probabilities)
    assert counts[1, 1].max() == 1


def test_counts_of_parts_add_up_to_those_of_the_whole():
  labels, probabilities = draw(1)
  counts = metrics.ranking_counts(labels, probabilities)
  parts = [
    metrics.ranking_counts(*part)
    for part in zip(
      np.array_split(labels, 3), np.array_split(probabilities, 3), strict=True
    )
  ]
  np.testing.assert_array_equal(sum(parts), counts)
  num_valid = np.sum(labels != VOID)
  np.testing.assert_array_equal(counts.sum(axis=(0, 2)), num_valid)


def test_nothing_but_void_has_no_areas():
  labels, probabilities = draw(2)
  counts = metrics.ranking_counts(np.full_like(labels, VOID), probabilities)
  assert not counts.any()
  assert np.isnan(metrics.ranking_scores(counts)).all()


def test_a_network_that_diverged_is_as_good_as_chance():
  labels, probabilities = draw(3)
  counts = metrics.ranking_counts(labels, np.full_like(probabilities, np.nan))
  np.testing.assert_array_equal(metrics.ranking_scores(counts).roc_auc, 0.5)
