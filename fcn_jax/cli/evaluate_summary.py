"""The numbers that `fcn-jax evaluate` writes to summary.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import fcn_jax as fcn


def make(
  findings: Any,
  class_names: Sequence[str],
  *,
  widths: Sequence[int],
  segments: str | None,
  thresholds: Sequence[float],
) -> dict[str, Any]:
  """All scores of a split.

  Args:
    findings: of `evaluate_scoring.score`.
    class_names: C names.
    widths: half widths of the bands along boundaries, in pixels.
    segments: the class whose segments were scored, if any.
    thresholds: of its probability.
  """
  confusion = findings.confusions.sum(axis=0)
  summary = {
    "num_images": len(findings.names),
    **scores_of(confusion, class_names),
    **_of_classes("dice", fcn.metrics.dice(confusion), class_names),
  }
  if findings.ranking is not None:
    summary |= _of_boundaries(findings.boundary_f1, class_names)
    summary |= _of_ranking(findings.ranking, class_names)
    summary |= _of_calibration(findings.calibration)
  if segments is not None:
    summary["segments"] = _of_segments(findings.segments, segments, thresholds)
  summary["bands"] = [
    {"half_width": width, **scores_of(band, class_names)}
    for width, band in zip(widths, findings.bands, strict=True)
  ]
  summary["confusion"] = confusion.tolist()
  return summary


def mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
  """The mean of what is not NaN; NaN if nothing is left."""
  values = np.asarray(values)
  with np.errstate(invalid="ignore"):
    return np.nansum(values, axis) / np.sum(~np.isnan(values), axis)


def scores_of(
  confusion: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
  """The papers' scores, and the IU of each class by its name."""
  scores = fcn.metrics.scores(confusion)._asdict()
  return scores | {"class_iu": _by_name(scores["class_iu"], class_names)}


def _of_classes(
  name: str, values: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
  return {
    f"mean_{name}": float(mean(values)),
    f"class_{name}": _by_name(values, class_names),
  }


def _by_name(
  values: np.ndarray, class_names: Sequence[str]
) -> dict[str, float]:
  return dict(zip(class_names, values.tolist(), strict=True))


def _of_boundaries(
  of_images: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
  """Of [N, C] boundary F1 scores."""
  return {
    # As in the paper: over the classes of each image, then over images.
    "mean_boundary_f1": float(mean(mean(of_images, axis=1))),
    "class_boundary_f1": _by_name(mean(of_images, axis=0), class_names),
  }


def _of_ranking(
  counts: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
  scores = fcn.metrics.ranking_scores(counts)
  return {
    **_of_classes("roc_auc", scores.roc_auc, class_names),
    **_of_classes("average_precision", scores.average_precision, class_names),
    "largest_roc_auc_error": float(
      np.nan_to_num(scores.roc_auc_error).max(initial=0)
    ),
  }


def _of_calibration(counts: np.ndarray) -> dict[str, Any]:
  num_pixels, num_right, confidence = counts.tolist()
  return {
    "expected_calibration_error": (
      fcn.metrics.expected_calibration_error(counts)
    ),
    "calibration": {
      "num_pixels": num_pixels,
      "num_right": num_right,
      "sum_of_confidence": confidence,
    },
  }


def _of_segments(
  of_images: np.ndarray, name: str, thresholds: Sequence[float]
) -> dict[str, Any]:
  """Of [N, T, 2] scores: means over images at each threshold, and the best."""
  summary = {"class": name, "thresholds": list(thresholds)}
  for score, values in zip(
    fcn.metrics.SegmentScores._fields, mean(of_images, axis=0).T, strict=True
  ):
    # Without a true segment all are NaN, and the first is named.
    best = int(np.nan_to_num(values).argmax())
    summary |= {
      score: values.tolist(),
      f"best_{score}": float(values[best]),
      f"best_{score}_threshold": thresholds[best],
    }
  return summary
