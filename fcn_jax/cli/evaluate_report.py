"""The tables and figures of `fcn-jax evaluate`."""

import csv
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import matplotlib.figure
import numpy as np

import fcn_jax as fcn
from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.cli import evaluate_summary
from fcn_jax.runs import environment

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
PER_IMAGE_FILE = "per_image.csv"
CONFUSION_FILE = "confusion_matrix.png"
BANDS_FILE = "boundary_bands.png"
RELIABILITY_FILE = "reliability.png"
WORST_FILE = "worst.png"
BEST_FILE = "best.png"
FILES = (
  SUMMARY_FILE,
  TABLE_FILE,
  PER_IMAGE_FILE,
  CONFUSION_FILE,
  BANDS_FILE,
  RELIABILITY_FILE,
  WORST_FILE,
  BEST_FILE,
)

# Titles in the tables of what is in the summary.
OF_ALL = {
  "pixel_accuracy": "pixel accuracy",
  "mean_accuracy": "mean accuracy",
  "mean_iu": "mean IU",
  "frequency_weighted_iu": "frequency weighted IU",
  "mean_dice": "mean Dice",
  "mean_boundary_f1": "boundary F1",
  "mean_roc_auc": "mean ROC AUC",
  "mean_average_precision": "mean average precision",
  "expected_calibration_error": "calibration error",
}
OF_CLASSES = {
  "iu": "IU",
  "dice": "Dice",
  "boundary_f1": "boundary F1",
  "roc_auc": "ROC AUC",
  "average_precision": "average precision",
}


def write(
  folder: pathlib.Path,
  findings: Any,
  dataset: fcn.data.Dataset,
  *,
  widths: Sequence[int],
  segments: str | None,
  thresholds: Sequence[float],
  facts: dict[str, Any],
  num_pictures: int,
  predict: Callable[[np.ndarray], np.ndarray],
) -> str:
  """Writes everything to a folder.

  Args:
    folder: where to.
    findings: of `evaluate_scoring.score`.
    dataset: the split that was scored.
    widths: half widths of the bands along boundaries, in pixels.
    segments: the class whose segments were scored, if any.
    thresholds: of its probability.
    facts: what was scored, for the summary.
    num_pictures: pictures in each of worst.png and best.png.
    predict: image to classes, to show.

  Returns:
    The tables, in Markdown, for people to read.
  """
  confusion = findings.confusions.sum(axis=0)
  summary = {
    **facts,
    **evaluate_summary.make(
      findings,
      dataset.class_names,
      widths=widths,
      segments=segments,
      thresholds=thresholds,
    ),
    "device": jax.devices()[0].device_kind,
    "cores": environment.num_cores(),
    "jax": jax.__version__,
  }
  with writing.together(folder, FILES) as new:
    fcn.runs.records.write_json(new / SUMMARY_FILE, summary)
    table = _table(summary, confusion, dataset.class_names)
    writing.write_text(new / TABLE_FILE, table)
    of_images = [fcn.metrics.scores(one) for one in findings.confusions]
    _write_per_image(new / PER_IMAGE_FILE, findings, of_images)
    fcn.visualize.confusion_matrix(
      confusion, dataset.class_names, path=new / CONFUSION_FILE
    )
    _draw_bands(new / BANDS_FILE, summary)
    if findings.calibration is not None:
      fcn.visualize.reliability(
        findings.calibration, path=new / RELIABILITY_FILE
      )
    # Images without labels have no accuracy: neither worst nor best.
    accuracies = np.array([scores.pixel_accuracy for scores in of_images])
    order = np.argsort(accuracies, kind="stable")
    order = order[: np.sum(np.isfinite(accuracies))]
    for name, indices in (
      (WORST_FILE, order[:num_pictures]),
      (BEST_FILE, order[::-1][:num_pictures]),
    ):
      if len(indices):
        _draw_pictures(new / name, indices, accuracies, dataset, predict)
  return table


def _table(
  summary: dict[str, Any], confusion: np.ndarray, class_names: Sequence[str]
) -> str:
  """Markdown tables: scores, classes, bands, and perhaps segments."""
  true = confusion.sum(axis=1)
  with np.errstate(invalid="ignore"):
    accuracies = np.diag(confusion) / true
  shares = true / true.sum()
  scales = " ".join(f"{scale:g}" for scale in summary["scales"])
  of_classes = {
    "share of pixels": shares,
    "accuracy": accuracies,
    **{
      title: list(summary[f"class_{name}"].values())
      for name, title in OF_CLASSES.items()
      if f"class_{name}" in summary
    },
  }
  of_bands = [*summary["bands"], {**summary, "half_width": "all pixels"}]
  there = [name for name in OF_ALL if name in summary]
  views = ", and mirrored" * summary["flip"]
  views += ", and turned" * summary["quarter_turns"]
  tiles = "" if summary["blending"] == "none" else "; their tiles are blended"
  lines = [
    *_head(OF_ALL[name] for name in there),
    _row(summary[name] for name in there),
    "",
    *_head(["class", *of_classes]),
    *(
      f"| {reprs.in_table(name)} {_row(values)}"
      for name, *values in zip(class_names, *of_classes.values(), strict=True)
    ),
    "",
    *_head(["half width of the band in pixels", "mean IU", "pixel accuracy"]),
    *(
      f"| {band['half_width']} "
      + _row([band["mean_iu"], band["pixel_accuracy"]])
      for band in of_bands
    ),
    "",
    *(_segments_table(summary["segments"]) if "segments" in summary else []),
    f"In percent, on the {summary['num_images']} images of the split "
    f"{reprs.shown(summary['split'])} at their native size; step "
    f"{summary['step']} of {reprs.path(summary['run'])}. Pictures are resized "
    f"by {summary['resize']:g} times the scales {scales}{views}{tiles}. "
    "Bands are pixels that close to another label, void left out.",
    "",
  ]
  return "\n".join(lines)


def _segments_table(segments: dict[str, Any]) -> list[str]:
  return [
    *_head(
      [f"threshold of {reprs.in_table(segments['class'])}", "V_Rand", "V_Info"]
    ),
    *(
      f"| {threshold:g} {_row(scores)}"
      for threshold, *scores in zip(
        segments["thresholds"],
        segments["rand"],
        segments["information"],
        strict=True,
      )
    ),
    f"| best {_row([segments['best_rand'], segments['best_information']])}",
    "",
  ]


def _head(titles: Iterable[str]) -> list[str]:
  """The first two lines of a table; names stand on the left."""
  titles = list(titles)
  sides = ["---" if title == "class" else "---:" for title in titles]
  return [f"| {' | '.join(cells)} |" for cells in (titles, sides)]


def _row(values) -> str:
  return "| " + " | ".join(_percent(value) for value in values) + " |"


def _percent(value: float) -> str:
  return "-" if np.isnan(value) else f"{100 * value:.1f}"


def _write_per_image(
  path: pathlib.Path, findings: Any, scores: Sequence[fcn.metrics.Scores]
) -> None:
  columns = {
    "name": [reprs.path(name) for name in findings.names],
    "pixel_accuracy": [one.pixel_accuracy for one in scores],
    "mean_iu": [one.mean_iu for one in scores],
  }
  if findings.boundary_f1 is not None:
    columns["boundary_f1"] = evaluate_summary.mean(findings.boundary_f1, axis=1)
  with (
    writing.whole(path, replace=True) as partial,
    partial.open("w", newline="", encoding="utf-8") as file,
  ):
    rows = csv.writer(file)
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))


def _draw_bands(path: pathlib.Path, summary: dict[str, Any]) -> None:
  """Draws the scores of the bands against their width."""
  figure = matplotlib.figure.Figure((6, 4), layout="constrained")
  axes = figure.subplots()
  bands = sorted(summary["bands"], key=lambda band: band["half_width"])
  widths = [band["half_width"] for band in bands]
  for name, label in (
    ("mean_iu", "mean IU"),
    ("pixel_accuracy", "pixel accuracy"),
  ):
    (line,) = axes.plot(
      widths, [100 * band[name] for band in bands], marker="o", label=label
    )
    axes.axhline(
      100 * summary[name],
      color=line.get_color(),
      linestyle="--",
      linewidth=1,
      label=f"{label}, all pixels",
    )
  axes.set_xlabel("half width of the band along boundaries (pixels)")
  axes.set_ylabel("score in the band (%)")
  axes.grid(alpha=0.3)
  axes.legend()
  with writing.whole(path, replace=True) as partial:
    figure.savefig(partial, dpi=150)


def _draw_pictures(
  path: pathlib.Path,
  indices: Sequence[int],
  accuracies: np.ndarray,
  dataset: fcn.data.Dataset,
  predict: Callable[[np.ndarray], np.ndarray],
) -> None:
  examples = [dataset.source[int(index)] for index in indices]
  classes = [predict(example.image) for example in examples]
  fcn.visualize.predictions(
    {
      "image": [
        fcn.data.pipeline.combining.picture_of(example.image)
        for example in examples
      ],
      "truth": [example.label for example in examples],
      "prediction": classes,
      "errors": [
        fcn.visualize.errors(example.label, found)
        for example, found in zip(examples, classes, strict=True)
      ],
    },
    dataset.class_names,
    dataset.palette,
    row_titles=[
      f"{example.name}: {100 * accuracies[index]:.1f} %"
      for example, index in zip(examples, indices, strict=True)
    ],
    column_width=2.4,
    path=path,
  )
