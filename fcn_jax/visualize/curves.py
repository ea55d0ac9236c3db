"""Curves of losses and scores."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.axes
import matplotlib.ticker
import numpy as np

from fcn_jax import reprs
from fcn_jax.visualize import figures

# In characters; the figures are wide.
_MAX_TITLE = 120


class Curves(NamedTuple):
  """Training losses of one variant in an experiment.

  Attributes:
    iterations: [K] steps taken.
    images: [K] images processed.
    seconds: [S, K] wall time of each of S seeds.
    losses: [S, K] mean loss of a sampled pixel, in nats.
  """

  iterations: np.ndarray
  images: np.ndarray
  seconds: np.ndarray
  losses: np.ndarray


def loss_curves(
  variants: Mapping[str, Curves],
  title: str,
  *,
  path: str | os.PathLike[str] | None = None,
) -> figures.Figure:
  """Draws the paper's Figure 5: loss against iterations, images and seconds.

  Lines are means over seeds, of the seconds as well; bands reach from the
  smallest to the largest loss.

  Args:
    variants: curves by the name of the variant.
    title: what was trained on what.
    path: PNG file to write, or None to write nothing.

  Returns:
    The figure.
  """
  figure = figures.Figure((12, 4), layout="constrained", dpi=150)
  axes = figure.subplots(1, 3, sharey=True)
  for name, curves in variants.items():
    mean = curves.losses.mean(axis=0)
    for axis, x in zip(
      axes,
      (curves.iterations, curves.images, curves.seconds.mean(axis=0)),
      strict=True,
    ):
      (line,) = axis.plot(x, mean, label=reprs.in_figure(name), linewidth=1.5)
      axis.fill_between(
        x,
        curves.losses.min(axis=0),
        curves.losses.max(axis=0),
        color=line.get_color(),
        alpha=0.2,
        linewidth=0,
      )
  for axis, label in zip(
    axes, ("iterations", "images processed", "wall time (s)"), strict=True
  ):
    axis.set_xlabel(label)
    axis.margins(x=0)
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
  axes[0].set_ylabel("training loss (nats a pixel)")
  axes[0].legend(title="variant")
  num_seeds = max(len(curves.losses) for curves in variants.values())
  seeds = f"bands: range over {num_seeds} seeds" if num_seeds > 1 else "1 seed"
  title = reprs.in_figure(title, max_length=_MAX_TITLE)
  figure.suptitle(f"{title} ({seeds})")
  figures.save(figure, path)
  return figure


def training_curves(
  training: Sequence[Mapping[str, Any]],
  evaluations: Sequence[Mapping[str, Any]],
  *,
  title: str = "",
  path: str | os.PathLike[str] | None = None,
) -> figures.Figure:
  """Draws a run of training: loss, scores, learning rate and gradient.

  Args:
    training: records with "step", "loss" (nats a pixel), "learning_rate" and
      "gradient_norm". The last record of a step counts, as a run that resumes
      repeats steps; None is a number that was not finite.
    evaluations: records with "step", "mean_iu" and "pixel_accuracy", likewise.
    title: what was trained on what.
    path: PNG file to write, or None to write nothing.

  Returns:
    The figure.
  """
  figure = figures.Figure((11, 6.5), layout="constrained", dpi=150)
  (loss, scores), (rate, gradient) = figure.subplots(2, 2, sharex=True)
  steps = _column(training, "step")
  for axes, name, label in (
    (loss, "loss", "training loss (nats a pixel)"),
    (rate, "learning_rate", "learning rate"),
    (gradient, "gradient_norm", "norm of the gradient"),
  ):
    values = _column(training, name)
    if axes is rate:
      axes.plot(steps, values)
    else:
      _draw_noisy(axes, steps, values)
    axes.set_ylabel(label)
  _draw_scores(scores, evaluations)
  for axes in (loss, scores, rate, gradient):
    axes.grid(alpha=0.3)
    axes.margins(x=0.02)
  for axes in (rate, gradient):
    axes.set_xlabel("step")
  figure.suptitle(reprs.in_figure(title, max_length=_MAX_TITLE))
  figures.save(figure, path)
  return figure


# A curve of more points than this shows means, too.
_MAX_POINTS = 100


def _draw_noisy(
  axes: matplotlib.axes.Axes, steps: np.ndarray, values: np.ndarray
) -> None:
  """Draws positive values, with their moving mean if there are many."""
  if np.any(values > 0):
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
  if len(values) <= _MAX_POINTS:
    axes.plot(steps, values)
    return
  (line,) = axes.plot(steps, values, linewidth=0.8, alpha=0.35)
  width = len(values) // (_MAX_POINTS // 2)
  window = np.full(width, 1 / width)
  axes.plot(
    np.convolve(steps, window, "valid"),
    np.convolve(values, window, "valid"),
    color=line.get_color(),
    label=f"mean of {width} points",
  )
  axes.legend()


def _draw_scores(
  axes: matplotlib.axes.Axes, evaluations: Sequence[Mapping[str, Any]]
) -> None:
  """Draws the scores, and marks the step that checkpoints call the best."""
  axes.set_ylabel("validation score (%)")
  if not evaluations:
    axes.text(
      0.5, 0.5, "no evaluation yet", ha="center", transform=axes.transAxes
    )
    return
  steps = _column(evaluations, "step")
  for name, label in (
    ("mean_iu", "mean IU"),
    ("pixel_accuracy", "pixel accuracy"),
  ):
    # With a marker also where there is one point only.
    axes.plot(steps, 100 * _column(evaluations, name), marker=".", label=label)
  mean_iu = _column(evaluations, "mean_iu")
  if not np.all(np.isnan(mean_iu)):
    best = int(np.nanargmax(mean_iu))
    axes.axvline(steps[best], color="grey", linestyle=":")
    axes.plot(
      steps[best],
      100 * mean_iu[best],
      "*",
      color="black",
      markersize=11,
      label=f"best: {100 * mean_iu[best]:.1f} at step {int(steps[best])}",
    )
  axes.legend()


def _column(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
  """One value of each step, in their order; NaN where it is None."""
  last = {record["step"]: record[name] for record in records}
  return np.array([last[step] for step in sorted(last)], np.float64)
