"""Reliability diagrams."""

import os

import numpy as np

from fcn_jax.visualize import figures


def reliability(
  counts: np.ndarray, *, path: str | os.PathLike[str] | None = None
) -> figures.Figure:
  """Draws how often predictions are right against their probability.

  The reliability diagram of Guo et al. (ICML, 2017): bars below the diagonal
  are predictions that are right less often than the network says. The lower
  part shows how many pixels each bar stands for.

  Args:
    counts: [3, M] of `metrics.calibration_counts`.
    path: PNG file to write, or None to write nothing.

  Returns:
    The figure.
  """
  num_pixels, num_right, confidence = np.asarray(counts, np.float64)
  with np.errstate(invalid="ignore"):
    accuracy = 100 * num_right / num_pixels
    mean_confidence = 100 * confidence / num_pixels
    shares = 100 * num_pixels / num_pixels.sum()
  edges = np.linspace(0, 100, len(num_pixels) + 1)
  figure = figures.Figure((5, 6), layout="constrained", dpi=150)
  upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
  upper.bar(
    edges[:-1],
    np.nan_to_num(accuracy),
    np.diff(edges),
    align="edge",
    edgecolor="white",
    label="pixels that are right",
  )
  upper.plot(
    mean_confidence, accuracy, "o", color="black", label="mean of a bin"
  )
  upper.plot([0, 100], [0, 100], "--", color="grey", label="calibrated")
  upper.set_ylabel("accuracy (%)")
  upper.set_ylim(0, 100)
  upper.legend(loc="upper left")
  lower.bar(edges[:-1], shares, np.diff(edges), align="edge", edgecolor="white")
  lower.set_ylabel("share of pixels (%)")
  lower.set_xlabel("probability of the predicted class (%)")
  lower.set_xlim(0, 100)
  for axes in (upper, lower):
    axes.grid(alpha=0.3)
  figures.save(figure, path)
  return figure
