"""The tables and figures of the loss-sampling experiment."""

import json
from typing import Any

import jax
import numpy as np

import command_line
import configs
import fcn_jax as fcn

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
CURVES_FILE = "figure5.png"
PREDICTIONS_FILE = "predictions.png"
FILES = (SUMMARY_FILE, TABLE_FILE, CURVES_FILE, PREDICTIONS_FILE)


def pictures_to_show(
  num_images: int, config: configs.LossSampling
) -> list[int]:
  """Indices of the images in predictions.png, evenly spread."""
  count = min(config.num_pictures, num_images)
  return [int(i) for i in (np.arange(count) + 0.5) * num_images / count]


def write(
  config: configs.LossSampling,
  arm_names: list[str],
  evaluation: fcn.data.Dataset,
  batches: list[fcn.types.Batch],
) -> str:
  """Writes summary, table and figures to the work folder.

  Args:
    config: the experiment, all arms of which are finished.
    arm_names: names of the arms, in the order of the tables.
    evaluation: the evaluation split.
    batches: all batches of the evaluation split, in order.

  Returns:
    The table, in Markdown, for people to read.
  """
  curves = _read_curves(config, arm_names)
  constant, constant_class = _constant_prediction(
    batches, evaluation.num_classes
  )
  summary = {
    "arms": {
      name: {
        "iterations": config.steps,
        "images": int(curves[name].images[-1]),
        "loss_terms_per_step": terms,
        "seconds": curves[name].seconds[:, -1].tolist(),
        "final_loss": curves[name].losses[:, -1].tolist(),
        "scores": [
          _scores(confusion, evaluation.class_names)
          for confusion in _read_confusions(config, name)
        ],
      }
      for name, terms in _loss_terms(config, arm_names).items()
    },
    "constant_prediction": {
      "class": evaluation.class_names[constant_class],
      "scores": _scores(constant, evaluation.class_names),
    },
    "evaluation_images": len(evaluation.source),
    "device": jax.devices()[0].device_kind,
    "cores": command_line.num_cores(),
    "jax": jax.__version__,
  }
  fcn.runs.records.write_json(config.workdir / SUMMARY_FILE, summary)
  table = _table(summary, evaluation.class_names)
  (config.workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  fcn.visualize.loss_curves(
    config.workdir / CURVES_FILE,
    curves,
    f"{config.dataset}, FCN-{config.stride}s, {config.backbone}",
  )
  fcn.visualize.predictions(
    config.workdir / PREDICTIONS_FILE,
    _columns(config, arm_names, evaluation),
    evaluation.class_names,
    evaluation.palette,
  )
  return table


def _rows(
  config: configs.LossSampling, arm_name: str
) -> list[list[dict[str, Any]]]:
  """The logged rows of each seed of an arm, from its last attempt."""
  rows = fcn.runs.records.read_json_lines(config.workdir / "metrics.jsonl")
  by_seed = []
  for seed in range(config.num_seeds):
    mine = [r for r in rows if (r["arm"], r["seed"]) == (arm_name, seed)]
    last = max(row["attempt"] for row in mine)
    by_seed.append([row for row in mine if row["attempt"] == last])
  return by_seed


def _read_curves(
  config: configs.LossSampling, arm_names: list[str]
) -> dict[str, fcn.visualize.Curves]:
  curves = {}
  for name in arm_names:
    seeds = _rows(config, name)
    curves[name] = fcn.visualize.Curves(
      iterations=np.array([row["step"] for row in seeds[0]]),
      images=np.array([row["images"] for row in seeds[0]]),
      seconds=np.array([[row["seconds"] for row in rows] for rows in seeds]),
      losses=np.array([[row["loss"] for row in rows] for rows in seeds], float),
    )
  return curves


def _loss_terms(
  config: configs.LossSampling, arm_names: list[str]
) -> dict[str, float]:
  """Mean number of pixels that entered the loss of a step."""
  return {
    name: sum(row["num_sampled"] for rows in seeds for row in rows)
    / (config.num_seeds * config.steps)
    for name in arm_names
    for seeds in (_rows(config, name),)
  }


def _read_confusions(
  config: configs.LossSampling, arm_name: str
) -> list[np.ndarray]:
  files = [
    config.workdir / "arms" / f"{arm_name}-seed{seed}.json"
    for seed in range(config.num_seeds)
  ]
  return [
    np.array(json.loads(file.read_text(encoding="utf-8"))["confusion"])
    for file in files
  ]


def _constant_prediction(
  batches: list[fcn.types.Batch], num_classes: int
) -> tuple[np.ndarray, int]:
  """Confusion matrix of the commonest class everywhere, and that class."""
  counts = sum(
    np.bincount(np.ravel(batch.labels), minlength=256)[:num_classes]
    for batch in batches
  )
  commonest = int(counts.argmax())
  confusion = np.zeros((num_classes, num_classes), np.int64)
  confusion[:, commonest] = counts
  return confusion, commonest


def _scores(
  confusion: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
  scores = fcn.metrics.scores(confusion)._asdict()
  class_iu = scores.pop("class_iu").tolist()
  return {**scores, "class_iu": dict(zip(class_names, class_iu, strict=True))}


def _table(summary: dict[str, Any], class_names: tuple[str, ...]) -> str:
  """Two Markdown tables: the arms, and the IU of each class."""
  lines = [
    "| arm | iterations | images | loss terms a step | seconds | mean IU "
    "| pixel accuracy |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
  ]
  per_class = [
    "| IU of | " + " | ".join(class_names) + " |",
    "| --- |" + " ---: |" * len(class_names),
  ]
  for name, arm in summary["arms"].items():
    scores = arm["scores"]
    lines.append(
      f"| {name} | {arm['iterations']} | {arm['images']} "
      f"| {arm['loss_terms_per_step']:,.0f} | {_spread(arm['seconds'], 1)} "
      f"| {_spread([s['mean_iu'] for s in scores], 3)} "
      f"| {_spread([s['pixel_accuracy'] for s in scores], 3)} |"
    )
    per_class.append(_class_row(name, scores, class_names))
  constant = summary["constant_prediction"]
  name = f"all {constant['class']}"
  scores = constant["scores"]
  lines.append(
    f"| {name} | | | | | {scores['mean_iu']:.3f} "
    f"| {scores['pixel_accuracy']:.3f} |"
  )
  per_class.append(_class_row(name, [scores], class_names))
  num_seeds = len(next(iter(summary["arms"].values()))["scores"])
  note = (
    f"Mean over {num_seeds} seed(s), with the range where there are several; "
    f"scores on {summary['evaluation_images']} images. Device: "
    f"{summary['device']} ({summary['cores']} cores), jax {summary['jax']}."
  )
  return "\n".join([*lines, "", *per_class, "", note, ""])


def _class_row(
  name: str, scores: list[dict[str, Any]], class_names: tuple[str, ...]
) -> str:
  means = (
    np.mean([s["class_iu"][class_name] for s in scores])
    for class_name in class_names
  )
  return f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |"


def _spread(values: list[float], digits: int) -> str:
  mean = f"{np.mean(values):.{digits}f}"
  if len(values) == 1:
    return mean
  return f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _columns(
  config: configs.LossSampling,
  arm_names: list[str],
  evaluation: fcn.data.Dataset,
) -> dict[str, list[np.ndarray]]:
  """The pictures of predictions.png by column, seed 0 of each arm."""
  shown = pictures_to_show(len(evaluation.source), config)
  examples = [evaluation.source[index] for index in shown]
  pairs = [
    fcn.data.pipeline.transforms.rescale(
      example.image, example.label, factor=config.resize
    )
    for example in examples
  ]
  columns = {
    "image": [image for image, _ in pairs],
    "truth": [label for _, label in pairs],
  }
  for name in arm_names:
    with np.load(config.workdir / "arms" / f"{name}-seed0.npz") as file:
      # Predictions cover the whole batch, into which images were padded.
      columns[name] = [
        file[str(index)][: label.shape[0], : label.shape[1]]
        for index, label in zip(shown, columns["truth"], strict=True)
      ]
  return columns
