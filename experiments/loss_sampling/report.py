"""The tables and figures of the loss-sampling experiment."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common import results
from experiments.common import study as study_lib
from fcn_jax import data
from fcn_jax import inference
from fcn_jax import runs
from fcn_jax import visualize
from fcn_jax.data.pipeline import combining
from fcn_jax.runs import batches
from fcn_jax.runs import records
from fcn_jax.runs import validation

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
CURVES_FILE = "figure5.png"
PREDICTIONS_FILE = "predictions.png"
FILES = (SUMMARY_FILE, TABLE_FILE, CURVES_FILE, PREDICTIONS_FILE)


def write(
  config: study_lib.Study,
  variants: Sequence[study_lib.Variant],
  evaluation: data.Dataset,
) -> str:
  """Writes summary, table and figures to the work folder.

  Args:
    config: the experiment.
    variants: all of them, trained.
    evaluation: the evaluation split.

  Returns:
    The tables, in Markdown.
  """
  workdir = config.run.workdir
  found = results.read(config, variants)
  summary = {
    "variants": {n: results.summarize(seeds) for n, seeds in found.items()},
    "constant_prediction": _constant_prediction(config, evaluation),
    "evaluation_images": len(evaluation.source),
    **results.where(),
  }
  records.write_json(workdir / SUMMARY_FILE, summary)
  table = _table(config, summary, evaluation.class_names)
  (workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  visualize.loss_curves(
    {name: results.curves(seeds) for name, seeds in found.items()},
    config.title,
    path=workdir / CURVES_FILE,
  )
  visualize.predictions(
    _columns(config, variants, evaluation),
    evaluation.class_names,
    evaluation.palette,
    path=workdir / PREDICTIONS_FILE,
  )
  return table


def _constant_prediction(
  config: study_lib.Study, evaluation: data.Dataset
) -> dict[str, Any]:
  """The scores of predicting the commonest class everywhere."""
  num_classes = evaluation.num_classes
  counts = np.zeros(256, np.int64)
  for index in range(len(evaluation.source)):
    example = validation.resized(config.data, evaluation.source[index])
    counts += np.bincount(np.ravel(example.label), minlength=256)
  counts = counts[:num_classes]
  commonest = int(counts.argmax())
  confusion = np.zeros((num_classes, num_classes), np.int64)
  confusion[:, commonest] = counts
  return {
    "class": evaluation.class_names[commonest],
    "scores": validation.scores_by_name(confusion, evaluation.class_names),
  }


def _table(
  config: study_lib.Study,
  summary: dict[str, Any],
  class_names: tuple[str, ...],
) -> str:
  """Two Markdown tables: the variants, and the IU of each class."""
  lines = [
    "| variant | iterations | images | loss terms a step | seconds | mean IU "
    "| pixel accuracy |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
  ]
  of_classes = {}
  for name, variant in summary["variants"].items():
    scores = of_classes[name] = variant["scores"]
    lines.append(
      f"| {name} | {variant['iterations']} | {variant['images']} "
      f"| {variant['loss_pixels_per_step']:,.0f} "
      f"| {results.spread(variant['seconds'], 1)} "
      f"| {results.score_cells(scores, 'mean_iu', 'pixel_accuracy')} |"
    )
  constant = summary["constant_prediction"]
  name, scores = f"all {constant['class']}", [constant["scores"]]
  of_classes[name] = scores
  cells = results.score_cells(scores, "mean_iu", "pixel_accuracy")
  lines.append(f"| {name} | | | | | {cells} |")
  per_class = results.class_table(of_classes, class_names)
  return "\n".join([*lines, "", *per_class, results.note(config, summary), ""])


def _columns(
  config: study_lib.Study,
  variants: Sequence[study_lib.Variant],
  evaluation: data.Dataset,
) -> dict[str, list[np.ndarray]]:
  """The columns of predictions.png; of each variant, those of seed 0."""
  examples = [
    validation.resized(config.data, evaluation.source[index])
    for index in batches.shown(config, evaluation)
  ]
  columns = {
    "image": [combining.picture_of(example.image) for example in examples],
    "truth": [example.label for example in examples],
  }
  for variant in variants:
    workdir = study_lib.run_config(config, variant, 0).run.workdir
    trained = runs.load(workdir, "latest")
    columns[variant.name] = [
      np.asarray(
        inference.predict(
          trained.model, trained.variables, example.image[None]
        )[0],
        np.uint8,
      )
      for example in examples
    ]
  return columns
