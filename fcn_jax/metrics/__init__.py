"""Scores of predictions.

- `confusion_matrix` counts pixels by true and predicted class, on the device;
  `scores` gives the papers' four scores of it, and `dice` that coefficient.
- `boundary_band` and `boundary_f1` look at the outlines of classes.
- `ranking_counts` and `ranking_scores` give areas under the ROC and
  precision-recall curves.
- `calibration_counts` and `expected_calibration_error` compare probabilities
  with accuracies.
- `segments` and `segment_scores` compare segments, such as cells.

Counts are added up over a data set, image by image or tile by tile.
"""

from fcn_jax.metrics.boundaries import boundary_band
from fcn_jax.metrics.boundaries import boundary_f1
from fcn_jax.metrics.calibration import calibration_counts
from fcn_jax.metrics.calibration import expected_calibration_error
from fcn_jax.metrics.confusion import Scores
from fcn_jax.metrics.confusion import confusion_matrix
from fcn_jax.metrics.confusion import dice
from fcn_jax.metrics.confusion import multilabel_confusion_matrix
from fcn_jax.metrics.confusion import num_unpredicted
from fcn_jax.metrics.confusion import scores
from fcn_jax.metrics.ranking import RankingScores
from fcn_jax.metrics.ranking import ranking_counts
from fcn_jax.metrics.ranking import ranking_scores
from fcn_jax.metrics.segmentations import SegmentScores
from fcn_jax.metrics.segmentations import segment_scores
from fcn_jax.metrics.segmentations import segments
from fcn_jax.metrics.segmentations import segments_of_thin_borders

__all__ = [
  "RankingScores",
  "Scores",
  "SegmentScores",
  "boundary_band",
  "boundary_f1",
  "calibration_counts",
  "confusion_matrix",
  "dice",
  "expected_calibration_error",
  "multilabel_confusion_matrix",
  "num_unpredicted",
  "ranking_counts",
  "ranking_scores",
  "scores",
  "segment_scores",
  "segments",
  "segments_of_thin_borders",
]
