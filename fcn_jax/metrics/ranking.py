"""How well the probability of a class ranks its pixels before all others.

Areas under curves over all thresholds, so they say nothing about the threshold
that a prediction uses. They need the probabilities of all pixels of a data set
in order; counts in fine bins of the probability take their place, which need
the same memory for any number of pixels:

    counts = sum(
      ranking_counts(labels, probabilities) for labels, probabilities in parts
    )
    ranking_scores(counts).roc_auc
"""

from typing import NamedTuple

import chex
import numpy as np

from fcn_jax import types

# Bins are equal steps of the bits of float32, 256 to each power of 2. They are
# at most 0.4 % wide: of the probability up to a half, and of what is missing to
# 1 above. All below 2**-64 is one bin.
_STEPS = 256
_SHIFT = 23 - 8
_HALF = (127 - 1) * _STEPS
_LOW = 63 * _STEPS
_HIGH = 24 * _STEPS
_NUM_BINS = _LOW + 1 + _HIGH


class RankingScores(NamedTuple):
  """Scores [C] in 0..1 of each class against all others.

  Attributes:
    roc_auc: area under the ROC curve: the probability that a pixel of the class
      has a larger probability of the class than a pixel of another, where equal
      ones count as a half. NaN if there is no pixel of one kind.
    average_precision: area under the curve of precision against recall, as a
      sum of steps. NaN if there is no pixel of the class.
    roc_auc_error: the most by which the bins can change `roc_auc`: half the
      share of pairs of pixels that lie in the same bin.
  """

  roc_auc: np.ndarray
  average_precision: np.ndarray
  roc_auc_error: np.ndarray


def ranking_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
  """Counts pixels by the probability of each class.

  Args:
    labels: [...] int, classes 0..C-1 or `IGNORE_LABEL`.
    probabilities: [..., C] float32.

  Returns:
    [2, C, B] int64: pixels of other classes, and pixels of the class, in B
    bins of growing probability. Void pixels are left out.
  """
  chex.assert_equal_shape_prefix((labels, probabilities), labels.ndim)
  num_classes = probabilities.shape[-1]
  # By number, which is faster than by a mask.
  valid = np.flatnonzero(labels != types.IGNORE_LABEL)
  labels = labels.reshape(-1)[valid]
  probabilities = probabilities.reshape(-1, num_classes)[valid]
  counts = np.empty((2, num_classes, _NUM_BINS), np.int64)
  # Class by class: bins of all classes at once would be a large array.
  for one in range(num_classes):
    bins = _bins(probabilities[:, one])
    counts[1, one] = np.bincount(bins[labels == one], minlength=_NUM_BINS)
    counts[0, one] = np.bincount(bins, minlength=_NUM_BINS) - counts[1, one]
  return counts


def _bins(probabilities: np.ndarray) -> np.ndarray:
  probabilities = probabilities.astype(np.float32)
  # From a half to 1 the difference from 1 is exact.
  smaller = np.minimum(probabilities, 1 - probabilities)
  # Counted down from a half. NaN, of a network that diverged, counts as a half.
  steps = np.maximum(_HALF - (smaller.view(np.int32) >> _SHIFT), 0)
  return np.where(
    probabilities > 0.5,
    _LOW + np.minimum(steps, _HIGH),
    _LOW - np.minimum(steps, _LOW),
  )


def ranking_scores(counts: np.ndarray) -> RankingScores:
  """Areas under the ROC and the precision-recall curves.

  Fawcett, "An introduction to ROC analysis" (2006); Davis and Goadrich (ICML,
  2006). For a rare class the ROC curve hardly shows how many pixels of other
  classes are found with its own; precision does.

  Args:
    counts: [2, C, B], sums of `ranking_counts`.
  """
  other, own = np.asarray(counts, np.float64)
  num_other, num_own = other.sum(axis=-1), own.sum(axis=-1)
  below = np.cumsum(other, axis=-1) - other
  # Pixels that are found at thresholds below each bin.
  found_own, found_other = (
    np.cumsum(those[:, ::-1], axis=-1)[:, ::-1] for those in (own, other)
  )
  with np.errstate(invalid="ignore"):
    pairs = num_own * num_other
    precision = found_own / (found_own + found_other)
    return RankingScores(
      roc_auc=np.sum(own * (below + other / 2), axis=-1) / pairs,
      average_precision=np.sum(own * np.nan_to_num(precision), axis=-1)
      / num_own,
      roc_auc_error=np.sum(own * other, axis=-1) / 2 / pairs,
    )
