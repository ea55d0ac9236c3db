import numpy as np
import pytest

from fcn_jax import metrics
from fcn_jax import types

VOID = types.IGNORE_LABEL


def test_the_error_of_six_pixels_is_that_worked_out_by_hand():
  confidences = np.array([0.6, 0.62, 0.64, 0.95, 0.97, 0.99])
  probabilities = np.stack([confidences, 1 - confidences], axis=-1)
  labels = np.array([0, 1, 1, 0, 0, 1])
  # Two of ten bins: (0.6, 0.7] has 0.62 and 0.64, both wrong; (0.9, 1] has two
  # of three right. And 0.6 itself belongs to (0.5, 0.6].
  error = (abs(1 - 0.6) + abs(0 - 1.26) + abs(2 - 2.91)) / 6
  counts = metrics.calibration_counts(labels, probabilities, num_bins=10)
  np.testing.assert_array_equal(counts[0], [0, 0, 0, 0, 0, 1, 2, 0, 0, 3])
  np.testing.assert_array_equal(counts[1], [0, 0, 0, 0, 0, 1, 0, 0, 0, 2])
  assert metrics.expected_calibration_error(counts) == pytest.approx(error)


def test_the_error_of_many_pixels_agrees_with_a_loop_over_bins():
  rng = np.random.default_rng(0)
  probabilities = rng.dirichlet(np.ones(3) / 2, (40, 50)).astype(np.float32)
  labels = rng.choice([0, 1, 2, VOID], (40, 50))
  parts = zip(
    np.array_split(labels, 7), np.array_split(probabilities, 7), strict=True
  )
  counts = sum(metrics.calibration_counts(*part) for part in parts)
  valid = labels != VOID
  confidence = probabilities.max(axis=-1)[valid]
  is_right = (probabilities.argmax(axis=-1) == labels)[valid]
  expected = 0
  for low in range(15):
    inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
    if inside.any():
      gap = abs(is_right[inside].mean() - confidence[inside].mean())
      expected += gap * inside.sum() / valid.sum()
  assert metrics.expected_calibration_error(counts) == pytest.approx(expected)
  assert counts.shape == (3, 15) and expected > 0.1


def test_labels_drawn_from_the_probabilities_are_calibrated():
  rng = np.random.default_rng(1)
  probabilities = rng.dirichlet(np.ones(3), 100_000)
  sums = probabilities.cumsum(axis=-1)
  labels = (rng.random((100_000, 1)) > sums).sum(axis=-1).clip(max=2)
  counts = metrics.calibration_counts(labels, probabilities)
  assert metrics.expected_calibration_error(counts) < 0.01
  # Squaring makes a network too sure.
  sure = probabilities**2 / (probabilities**2).sum(axis=-1, keepdims=True)
  counts = metrics.calibration_counts(labels, sure)
  assert metrics.expected_calibration_error(counts) > 0.1


def test_without_pixels_there_is_no_error():
  counts = metrics.calibration_counts(
    np.full((4, 5), VOID), np.full((4, 5, 2), 0.5)
  )
  assert not counts.any()
  assert np.isnan(metrics.expected_calibration_error(counts))


def test_a_network_that_diverged_has_no_error_either():
  counts = metrics.calibration_counts(
    np.zeros((4, 5), int), np.full((4, 5, 2), np.nan)
  )
  assert np.isnan(metrics.expected_calibration_error(counts))
