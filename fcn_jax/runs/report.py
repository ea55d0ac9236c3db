"""What a run writes when it ends: summary, table, curves and pictures."""

from typing import Any

import jax
import numpy as np

from fcn_jax import data
from fcn_jax import inference
from fcn_jax import reprs
from fcn_jax import visualize
from fcn_jax import writing
from fcn_jax.data.pipeline import combining
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import environment
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import trained_model
from fcn_jax.runs import validation


def write(
  config: config_lib.Train,
  best: int | None,
  dataset: data.Dataset,
  *,
  steps: int,
  ended_early: str | None = None,
) -> str:
  """Writes summary.json, table.md and curves.png to the work folder.

  Args:
    config: the options of the run, which has ended.
    best: the step that was saved as the best one.
    dataset: the validation split.
    steps: that were taken.
    ended_early: why there were no more, if so.

  Returns:
    The table, in Markdown, for people to read.
  """
  workdir = config.run.workdir
  training, evaluations = folder.read_records(workdir)
  last = evaluations[-1]
  at_best = next((one for one in evaluations if one["step"] == best), last)
  images, seconds = steps * config.data.batch_size, training[-1]["seconds"]
  summary = {
    "steps": steps,
    "images": images,
    "training_seconds": seconds,
    "images_per_second": images / seconds,
    "num_skipped": sum(one["num_skipped"] for one in training),
    "num_dropped": sum(one["num_dropped"] for one in training),
    "final_loss": training[-1]["loss"],
    "starts": folder.num_starts(workdir),
    "best": at_best,
    "last": last,
    "ended_early": ended_early,
    **environment.describe(),
  }
  records.write_json(workdir / folder.SUMMARY_FILE, summary)
  table = _table(summary, config, dataset)
  writing.write_text(workdir / folder.TABLE_FILE, table)
  visualize.training_curves(
    training,
    evaluations,
    title=(
      f"{config.data.dataset}, FCN-{config.network.stride}s, "
      f"{config.network.backbone}: validation on {len(dataset.source)} images"
    ),
    path=workdir / folder.CURVES_FILE,
  )
  return table


def write_predictions(
  config: config_lib.Train,
  dataset: data.Dataset,
  sharding: jax.sharding.Sharding,
) -> None:
  """Writes predictions.png: pictures, labels and what the best step predicts.

  Args:
    config: the options of the run, which has ended.
    dataset: the validation split.
    sharding: where to predict.
  """
  trained = trained_model.load(config.run.workdir, "best")
  variables = jax.device_put(trained.variables, sharding)
  examples = [
    validation.resized(config.data, dataset.source[index])
    for index in batches.shown(config, dataset)
  ]
  visualize.predictions(
    {
      "image": [combining.picture_of(one.image) for one in examples],
      "labels": [one.label for one in examples],
      "prediction": [
        np.asarray(
          inference.predict(trained.model, variables, one.image[None])[0]
        )
        for one in examples
      ],
    },
    dataset.class_names,
    dataset.palette,
    row_titles=[one.name for one in examples],
    path=config.run.workdir / folder.PREDICTIONS_FILE,
  )


def _table(
  summary: dict[str, Any],
  config: config_lib.Train,
  dataset: data.Dataset,
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
      f"| {name} | {one['step']} | "
      + " | ".join(_percent(one[score]) for score in scores)
      + " |"
      for name, one in both
    ),
    "",
    "| IU of | best | last |",
    "| --- | ---: | ---: |",
    *(
      f"| {reprs.in_table(name)} | {_percent(best['class_iu'][name])} "
      f"| {_percent(last['class_iu'][name])} |"
      for name in dataset.class_names
    ),
    "",
    f"In percent, on the {len(dataset.source)} images of the split "
    f"{config.data.validation_split}, resized by {config.data.resize:g}. "
    f"{summary['images']:,} images in {summary['training_seconds']:,.0f} s of "
    f"training ({summary['images_per_second']:.1f} a second), on "
    f"{summary['device']} with {summary['cores']} cores.",
    *(
      [f"The run {ended_early}"]
      if (ended_early := summary["ended_early"])
      else []
    ),
    "",
  ]
  return "\n".join(lines)


def _percent(value: float | None) -> str:
  # None stands for NaN: a class that does not occur.
  return "-" if value is None else f"{100 * value:.1f}"
