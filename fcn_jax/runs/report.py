"""What train.py writes when a run ends: summary, table and curves."""

from typing import Any

import fcn_jax as fcn
import run_folder
import train_presets


def write(
  config: train_presets.Train, best: int | None, dataset: fcn.data.Dataset
) -> str:
  """Writes summary.json, table.md and curves.png to the work folder.

  Args:
    config: the options of the run, which has ended.
    best: the step that was saved as the best one.
    dataset: the validation split.

  Returns:
    The table, in Markdown, for people to read.
  """
  rows = run_folder.effective_rows(
    fcn.runs.records.read_json_lines(config.workdir / run_folder.METRICS_FILE)
  )
  training = [row for row in rows if row["kind"] == "train"]
  evaluations = [row for row in rows if row["kind"] == "evaluation"]
  last = evaluations[-1]
  at_best = next((row for row in evaluations if row["step"] == best), last)
  seconds = training[-1]["seconds"]
  summary = {
    "steps": config.steps,
    "images": config.steps * config.batch_size,
    "training_seconds": seconds,
    "images_per_second": config.steps * config.batch_size / seconds,
    "num_skipped": sum(row["num_skipped"] for row in training),
    "num_dropped": sum(row["num_dropped"] for row in training),
    "final_loss": training[-1]["loss"],
    "starts": run_folder.num_starts(config.workdir),
    "best": at_best,
    "last": last,
    **run_folder.environment(),
  }
  fcn.runs.records.write_json(config.workdir / run_folder.SUMMARY_FILE, summary)
  table = _table(summary, config, dataset)
  (config.workdir / run_folder.TABLE_FILE).write_text(table, encoding="utf-8")
  fcn.visualize.training_curves(
    config.workdir / run_folder.CURVES_FILE,
    training,
    evaluations,
    title=(
      f"{config.dataset}, FCN-{config.stride}s, {config.backbone}: validation "
      f"on {len(dataset.source)} images"
    ),
  )
  return table


def _table(
  summary: dict[str, Any],
  config: train_presets.Train,
  dataset: fcn.data.Dataset,
) -> str:
  """Two Markdown tables: scores, and the IU of each class."""
  best, last = summary["best"], summary["last"]
  both = (("best", best), ("last", last))
  scores = (
    "mean_iu",
    "pixel_accuracy",
    "mean_accuracy",
    "frequency_weighted_iu",
  )
  lines = [
    "| checkpoint | step | mean IU | pixel accuracy | mean accuracy "
    "| frequency weighted IU |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
    *(
      f"| {name} | {row['step']} | "
      + " | ".join(_percent(row[score]) for score in scores)
      + " |"
      for name, row in both
    ),
    "",
    "| IU of | best | last |",
    "| --- | ---: | ---: |",
    *(
      f"| {name} | {_percent(best['class_iu'][name])} "
      f"| {_percent(last['class_iu'][name])} |"
      for name in dataset.class_names
    ),
    "",
    f"In percent, on the {len(dataset.source)} images of the split "
    f"{config.validation_split}, resized by {config.resize:g}. "
    f"{summary['images']:,} images in {summary['training_seconds']:,.0f} s of "
    f"training ({summary['images_per_second']:.1f} a second), on "
    f"{summary['device']} with {summary['cores']} cores.",
    "",
  ]
  return "\n".join(lines)


def _percent(value: float | None) -> str:
  # None is what NaN became: a class that is not there.
  return "-" if value is None else f"{100 * value:.1f}"
