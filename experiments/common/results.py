"""What the runs of a study found, as numbers, table cells and curves."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common import study as study_lib
from fcn_jax import visualize
from fcn_jax.runs import environment
from fcn_jax.runs import folder
from fcn_jax.runs import records


class Result(NamedTuple):
  """What one run found.

  Attributes:
    training: the records of its training.
    scores: on the evaluation split after the last step, with `class_iu` by
      class name.
    batch_size: images a step.
  """

  training: list[dict[str, Any]]
  scores: dict[str, Any]
  batch_size: int


def read(
  study: study_lib.Study, variants: Sequence[study_lib.Variant]
) -> dict[str, list[Result]]:
  """What the runs of each variant found; all must have ended."""
  return {
    variant.name: [
      _read(study_lib.run_config(study, variant, seed))
      for seed in range(study.num_seeds)
    ]
    for variant in variants
  }


def _read(config):
  training, evaluations = folder.read_records(config.run.workdir)
  names = ("pixel_accuracy", "mean_accuracy", "mean_iu", "class_iu")
  # NaN is null in JSON: a class that is neither there nor predicted.
  scores = {
    **{name: evaluations[-1][name] for name in names},
    "class_iu": {
      name: float("nan") if iu is None else iu
      for name, iu in evaluations[-1]["class_iu"].items()
    },
  }
  return Result(training, scores, config.data.batch_size)


def read_figures(path: pathlib.Path) -> Any:
  """Reads figures that `records.write_json` wrote; null is NaN again."""

  def restored(value):
    if isinstance(value, dict):
      return {name: restored(item) for name, item in value.items()}
    if isinstance(value, list):
      return [restored(item) for item in value]
    return float("nan") if value is None else value

  return restored(records.read_json(path))


def summarize(seeds: Sequence[Result]) -> dict[str, Any]:
  """The figures of one variant."""
  steps = seeds[0].training[-1]["step"]
  sampled = [sum(one["num_sampled"] for one in s.training) for s in seeds]
  return {
    "iterations": steps,
    "images_per_step": seeds[0].batch_size,
    "images": steps * seeds[0].batch_size,
    "loss_pixels_per_step": float(np.mean(sampled)) / steps,
    "seconds": [one.training[-1]["seconds"] for one in seeds],
    "final_loss": [one.training[-1]["loss"] for one in seeds],
    "scores": [one.scores for one in seeds],
  }


def curves(seeds: Sequence[Result]) -> visualize.Curves:
  """The training loss of one variant, at the steps that all seeds recorded.

  `log_every` may change between seeds, when a study resumes.
  """
  by_step = [{r["step"]: r for r in one.training} for one in seeds]
  steps = sorted(set.intersection(*(set(records) for records in by_step)))

  def values(name):
    return np.array([[r[step][name] for step in steps] for r in by_step], float)

  return visualize.Curves(
    iterations=np.array(steps, float),
    images=np.array(steps, float) * seeds[0].batch_size,
    seconds=values("seconds"),
    losses=values("loss"),
  )


def where() -> dict[str, Any]:
  """Device, cores and versions, for summaries."""
  described = environment.describe()
  return {
    "device": described["device"],
    "cores": described["cores"],
    "jax": described["versions"]["jax"],
    "commit": described["commit"],
  }


def note(study: study_lib.Study, summary: dict[str, Any]) -> str:
  """How to read the tables, and where the figures are from."""
  return (
    f"Mean over {study.num_seeds} seed(s), with the range if there are "
    f"several; scores on {summary['evaluation_images']} images. Device: "
    f"{summary['device']} ({summary['cores']} cores), jax {summary['jax']}."
  )


def spread(values: Sequence[float], digits: int) -> str:
  """Mean of the seeds, and their range."""
  mean = f"{np.mean(values):.{digits}f}"
  if len(values) == 1:
    return mean
  return f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def score_cells(scores: Sequence[dict[str, Any]], *names: str) -> str:
  """Table cells of some scores."""
  return " | ".join(spread([s[name] for s in scores], 3) for name in names)


def class_table(
  scores: dict[str, list[dict[str, Any]]], class_names: Sequence[str]
) -> list[str]:
  """Lines of a table: IU of each class, a line for each name."""
  lines = [
    "| IU of | " + " | ".join(class_names) + " |",
    "| --- |" + " ---: |" * len(class_names),
  ]
  for name, seeds in scores.items():
    means = (
      np.mean([one["class_iu"][class_name] for one in seeds])
      for class_name in class_names
    )
    lines.append(f"| {name} | " + " | ".join(f"{m:.2f}" for m in means) + " |")
  return [*lines, ""]
