"""Whether predictions are right as often as their probabilities say.

counts = sum(
  calibration_counts(labels, probabilities)
  for labels, probabilities in parts
)
expected_calibration_error(counts)
"""

import chex
import numpy as np

from fcn_jax import types


def calibration_counts(
  labels: np.ndarray, probabilities: np.ndarray, *, num_bins: int = 15
) -> np.ndarray:
  """Counts pixels by the probability of the class that is predicted.

  Args:
    labels: [...] int, classes 0..C-1 or `IGNORE_LABEL`.
    probabilities: [..., C] float; the class of the largest is predicted, and
      this probability is the confidence.
    num_bins: M equal bins of the confidence; bin m holds those above m / M, up
      to (m + 1) / M.

  Returns:
    [3, M] float64: number of pixels, number of those that are right, and the
    sum of their confidences, in each bin. Void pixels are left out.
  """
  chex.assert_equal_shape_prefix((labels, probabilities), labels.ndim)
  valid = np.flatnonzero(labels != types.IGNORE_LABEL)
  labels = labels.reshape(-1)[valid]
  probabilities = probabilities.reshape(-1, probabilities.shape[-1])[valid]
  predicted = probabilities.argmax(axis=-1)
  confidence = probabilities[np.arange(len(valid)), predicted]
  confidence = confidence.astype(np.float64)
  is_right = predicted == labels
  edges = np.arange(1, num_bins) / num_bins
  bins = np.searchsorted(edges, confidence)
  return np.stack(
    [
      np.bincount(bins, weights, minlength=num_bins)
      for weights in (np.ones_like(confidence), is_right, confidence)
    ]
  )


def expected_calibration_error(counts: np.ndarray) -> float:
  """How far confidence is from accuracy, on average over pixels.

  The expected calibration error (ECE) of Guo et al. (ICML, 2017, section 2):
  the distance between the accuracy and the mean confidence in each bin,
  weighted by the bin's share of the pixels.

  Args:
    counts: [3, M], sums of `calibration_counts`.

  Returns:
    In 0..1; NaN without pixels.
  """
  num_pixels, num_right, confidence = counts
  if not num_pixels.sum():
    return float("nan")
  return float(np.abs(num_right - confidence).sum() / num_pixels.sum())
