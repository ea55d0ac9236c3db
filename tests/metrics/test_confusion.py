import functools

import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies

from fcn_jax import label_bits
from fcn_jax import metrics
from fcn_jax import types

VOID = types.IGNORE_LABEL
NUM_CLASSES = 4
LABELS = strategies.sampled_from([*range(NUM_CLASSES), VOID])
CLASSES = strategies.integers(0, NUM_CLASSES - 1)
# One shape, so that nothing is compiled again.
SHAPE = (2, 3, 5)


def arrays(elements):
  return hypothesis.extra.numpy.arrays(np.int32, SHAPE, elements=elements)


def confusion_loop(labels, predictions):
  counts = np.zeros((NUM_CLASSES, NUM_CLASSES), int)
  for label, prediction in zip(
    labels.ravel(), predictions.ravel(), strict=True
  ):
    if label != VOID:
      counts[label, prediction] += 1
  return counts


def scores_loop(n):
  """Section 4 of the papers, class by class."""
  t = [sum(row) for row in n]
  found, overlap, weighted = [], [], []
  for i in range(len(n)):
    union = t[i] + sum(row[i] for row in n) - n[i][i]
    if t[i]:
      found.append(n[i][i] / t[i])
      weighted.append(t[i] * n[i][i] / union)
    if union:
      overlap.append(n[i][i] / union)
  right = sum(n[i][i] for i in range(len(n)))
  return (
    right / sum(t),
    sum(found) / len(found),
    sum(overlap) / len(overlap),
    sum(weighted) / sum(t),
  )


@pytest.mark.usefixtures("each_platform")
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(arrays(LABELS), arrays(CLASSES))
def test_the_confusion_matrix_agrees_with_a_loop_and_with_scikit_learn(
  labels, predictions
):
  counts = metrics.confusion_matrix(
    jnp.asarray(labels), jnp.asarray(predictions), num_classes=NUM_CLASSES
  )
  assert jnp.issubdtype(counts.dtype, jnp.integer)
  np.testing.assert_array_equal(counts, confusion_loop(labels, predictions))
  valid = labels != VOID
  if valid.any():
    theirs = sklearn.metrics.confusion_matrix(
      labels[valid], predictions[valid], labels=range(NUM_CLASSES)
    )
    np.testing.assert_array_equal(counts, theirs)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
  hypothesis.extra.numpy.arrays(
    np.int64, (4, 4), elements=strategies.integers(0, 5)
  ).filter(np.any)
)
def test_scores_agree_with_their_definitions(confusion):
  scores = metrics.scores(confusion)
  np.testing.assert_allclose(scores[:4], scores_loop(confusion.tolist()))


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(arrays(CLASSES), arrays(CLASSES))
def test_dice_is_the_f1_score_of_scikit_learn(labels, predictions):
  expected = sklearn.metrics.f1_score(
    labels.ravel(),
    predictions.ravel(),
    labels=range(NUM_CLASSES),
    average=None,
    zero_division=np.nan,
  )
  confusion = confusion_loop(labels, predictions)
  np.testing.assert_allclose(metrics.dice(confusion), expected)


def test_dice_of_a_class_that_is_nowhere_is_nan():
  np.testing.assert_allclose(
    metrics.dice([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), [6 / 7, 8 / 9, np.nan]
  )


def test_the_matrix_of_two_batches_is_the_sum_of_theirs():
  rng = np.random.default_rng(0)
  labels = jnp.asarray(rng.integers(0, NUM_CLASSES, (2, 6, 7)), jnp.int32)
  classes = jnp.asarray(rng.integers(0, NUM_CLASSES, (2, 6, 7)), jnp.int32)

  def count(labels, classes):
    return metrics.confusion_matrix(labels, classes, num_classes=NUM_CLASSES)

  parts = [count(labels[i], classes[i]) for i in range(2)]
  np.testing.assert_array_equal(sum(parts), count(labels, classes))


def test_a_class_that_is_nowhere_is_left_out_of_the_means():
  confusion = [[3, 1, 0], [0, 4, 0], [0, 0, 0]]
  scores = metrics.scores(confusion)
  np.testing.assert_allclose(scores.class_iu, [3 / 4, 4 / 5, np.nan])
  np.testing.assert_allclose(scores.mean_iu, (3 / 4 + 4 / 5) / 2)
  np.testing.assert_allclose(scores.mean_accuracy, (3 / 4 + 1) / 2)


def test_a_class_that_is_only_predicted_counts_as_0_in_the_mean_iu():
  scores = metrics.scores([[2, 2], [0, 0]])
  np.testing.assert_allclose(scores.class_iu, [0.5, 0.0])
  assert scores.mean_iu == 0.25
  assert scores.mean_accuracy == 0.5
  assert scores.frequency_weighted_iu == 0.5


def test_nothing_but_void_scores_nan():
  labels = jnp.full((1, 3, 3), VOID, jnp.int32)
  confusion = metrics.confusion_matrix(
    labels, jnp.zeros_like(labels), num_classes=NUM_CLASSES
  )
  assert not np.any(confusion)
  scores = metrics.scores(confusion)
  assert np.all(np.isnan(scores[:4]))
  assert np.all(np.isnan(scores.class_iu))


def test_a_perfect_prediction_scores_1():
  assert metrics.scores(np.diag([5, 1, 9]))[:4] == (1, 1, 1, 1)


def test_large_counts_are_exact():
  scores = metrics.scores(np.array([[2**40 + 1, 0], [1, 2**40]]))
  assert scores.pixel_accuracy == pytest.approx(1, abs=1e-11)
  assert scores.pixel_accuracy < 1


def test_labels_and_predictions_of_different_size_are_refused():
  labels = jnp.zeros((1, 3, 3), jnp.int32)
  with pytest.raises(AssertionError):
    metrics.confusion_matrix(labels, labels[:, 1:], num_classes=2)


@pytest.mark.usefixtures("each_platform")
@pytest.mark.parametrize("wide", [False, True])
def test_a_batch_is_counted_in_int32_in_a_compiled_program(wide):
  rng = np.random.default_rng(0)
  labels, classes = rng.integers(0, NUM_CLASSES, (2, 3, 9, 11))
  with jax.enable_x64(wide):
    count = jax.jit(
      functools.partial(metrics.confusion_matrix, num_classes=NUM_CLASSES)
    )
    counts = count(jnp.asarray(labels), jnp.asarray(classes))
  assert counts.dtype == np.int32
  np.testing.assert_array_equal(
    counts,
    sklearn.metrics.confusion_matrix(
      labels.ravel(), classes.ravel(), labels=range(NUM_CLASSES)
    ),
  )


@pytest.mark.usefixtures("each_platform")
def test_labels_outside_the_classes_are_no_pixels_of_another_class():
  labels = jnp.array([-1, 3, 7, 254, 255, 1])
  predictions = jnp.zeros(6, jnp.int32)
  counts = metrics.confusion_matrix(labels, predictions, num_classes=3)
  np.testing.assert_array_equal(counts, [[0, 0, 0], [1, 0, 0], [0, 0, 0]])


@pytest.mark.usefixtures("each_platform")
def test_predictions_outside_the_classes_are_left_out_and_counted():
  labels = jnp.array([0, 1, 2, 2, 255, 7, 1], jnp.int32)
  predictions = jnp.array([0, 255, -1, 3, 255, -1, 2], jnp.int32)
  counts = metrics.confusion_matrix(labels, predictions, num_classes=3)
  np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 1], [0, 0, 0]])
  # Neither void nor a label that is no class lacks a prediction.
  left_out = metrics.num_unpredicted(labels, predictions, num_classes=3)
  assert left_out == 3


def test_bit_masks_are_counted_as_scikit_learn_does():
  rng = np.random.default_rng(0)
  true, predicted = rng.random((2, 3, 8, 9, NUM_CLASSES)) < 0.4
  true[..., 2] = False
  is_void = rng.random((3, 8, 9)) < 0.2
  is_outside = rng.random((3, 8, 9)) < 0.1
  matrix = metrics.multilabel_confusion_matrix(
    label_bits.bit_masks(jnp.asarray(true), is_void=is_void),
    label_bits.bit_masks(jnp.asarray(predicted), is_void=is_outside),
    num_classes=NUM_CLASSES,
  )
  valid = ~(is_void | is_outside)
  expected = sklearn.metrics.multilabel_confusion_matrix(
    true[valid], predicted[valid]
  )
  assert matrix.dtype == np.int32
  np.testing.assert_array_equal(matrix, expected)
  found = [metrics.scores(of_class).class_iu[1] for of_class in matrix]
  np.testing.assert_allclose(
    found,
    sklearn.metrics.jaccard_score(true[valid], predicted[valid], average=None),
  )


def test_bit_masks_and_numbers_of_classes_are_told_apart():
  classes = np.zeros((2, 2), np.int32)
  masks = classes.astype(np.uint32)
  with pytest.raises(ValueError, match="uint32 are bit masks: use multilabel"):
    metrics.confusion_matrix(masks, classes, num_classes=2)
  with pytest.raises(ValueError, match="predictions are int32; bit masks are"):
    metrics.multilabel_confusion_matrix(masks, classes, num_classes=2)
