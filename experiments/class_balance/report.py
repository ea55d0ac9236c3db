"""The table and the figure of the comparison of ways to balance classes."""

from collections.abc import Callable
from typing import Any

import jax
import matplotlib.figure
import numpy as np

import arms
import command_line
import fcn_jax as fcn

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
FIGURE_FILE = "class_balance.png"
FILES = (SUMMARY_FILE, TABLE_FILE, FIGURE_FILE)


def write(
  config: Any,
  arm_names: list[str],
  *,
  shares: np.ndarray,
  weights: np.ndarray,
  evaluation: fcn.data.Dataset,
) -> str:
  """Writes summary, table and figure to the work folder.

  Args:
    config: the options; all arms are finished.
    arm_names: in the order of the table.
    shares: [C] of the classes in the pixels of the training split.
    weights: [C] of the classes, in the arm that has weights.
    evaluation: the evaluation split.

  Returns:
    The table, in Markdown, for people to read.
  """
  rarest_first = [int(index) for index in np.argsort(shares)]
  classes = {
    evaluation.class_names[index]: {
      "share": float(shares[index]),
      "weight": float(weights[index]),
    }
    for index in rarest_first
  }
  summary = {
    "classes": classes,
    "arms": {
      name: _arm(config, name, evaluation.class_names, list(classes))
      for name in arm_names
    },
    "evaluation_images": len(evaluation.source),
    "device": jax.devices()[0].device_kind,
    "cores": command_line.num_cores(),
    "jax": jax.__version__,
  }
  fcn.runs.records.write_json(config.workdir / SUMMARY_FILE, summary)
  table = _table(config, summary)
  (config.workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw(config, summary)
  return table


def _arm(
  config: Any, name: str, class_names: tuple[str, ...], order: list[str]
) -> dict[str, Any]:
  """The figures of an arm, with its classes in the given order."""
  seeds = arms.read_results(config, name)
  scores = []
  for seed in seeds:
    values = fcn.metrics.scores(np.array(seed["confusion"]))._asdict()
    class_iu = values.pop("class_iu").tolist()
    class_iu = dict(zip(class_names, class_iu, strict=True))
    values["class_iu"] = {
      class_name: class_iu[class_name] for class_name in order
    }
    scores.append(values)
  pixels = [sum(row["num_sampled"] for row in seed["rows"]) for seed in seeds]
  return {
    "loss_pixels_per_step": float(np.mean(pixels)) / config.steps,
    "seconds": [seed["rows"][-1]["seconds"] for seed in seeds],
    "scores": scores,
  }


def _table(config: Any, summary: dict[str, Any]) -> str:
  """Rows of classes, the rarest first, and columns of arms."""
  arms = summary["arms"]

  def row(name, share, cell: Callable[[dict[str, Any]], str]):
    cells = " | ".join(cell(arm) for arm in arms.values())
    return f"| {name} | {share} | {cells} |"

  def score(name):
    return lambda arm: _spread([s[name] for s in arm["scores"]], 3)

  def class_iu(name):
    return lambda arm: _spread([s["class_iu"][name] for s in arm["scores"]], 3)

  lines = [
    "| IU of | share of pixels | " + " | ".join(arms) + " |",
    "| --- |" + " ---: |" * (1 + len(arms)),
    *(
      row(name, f"{100 * values['share']:.2f}%", class_iu(name))
      for name, values in summary["classes"].items()
    ),
    row("mean IU", "", score("mean_iu")),
    row("mean accuracy", "", score("mean_accuracy")),
    row("pixel accuracy", "", score("pixel_accuracy")),
    row(
      "pixels in the loss of a step",
      "",
      lambda arm: f"{arm['loss_pixels_per_step']:,.0f}",
    ),
    row("seconds", "", lambda arm: _spread(arm["seconds"], 1)),
  ]
  return "\n".join([*lines, "", _note(config, summary), ""])


def _note(config: Any, summary: dict[str, Any]) -> str:
  """What the arms have in common, and what not."""
  height, width = config.crop_size
  pixels = config.images_per_step * height * width
  patch_height, patch_width = config.patch_size
  count = config.patches_per_image * patch_height * patch_width
  weights = [values["weight"] for values in summary["classes"].values()]
  return (
    f"FCN-8s, {config.backbone}, {config.steps} steps of the same "
    f"{config.images_per_step} images of {height}x{width} in all arms. Of "
    f"their {pixels:,} pixels, plain and class weights have all in the loss; "
    f"the others {config.images_per_step * count:,}: "
    f"{config.patches_per_image} patch(es) of {patch_height}x{patch_width} of "
    "each image, which may overlap; each pixel with probability "
    f"{count / (height * width):.3g}; the hardest {count:,} of each image; or "
    "an equal part of each class in the batch, all pixels of classes that have "
    "fewer. Void pixels are left out, which the numbers measured show. The "
    "loss is the mean over the pixels in it; class weights are by median "
    "frequency, scaled such that the mean weight of a training pixel is 1 "
    f"({min(weights):.2g} to {max(weights):.2g}). Classes are ordered by their "
    f"share of the training split. Mean over {config.num_seeds} seed(s), with "
    "the range where there are several; scores on "
    f"{summary['evaluation_images']} images. Device: {summary['device']} "
    f"({summary['cores']} cores), jax {summary['jax']}."
  )


def _spread(values: list[float], digits: int) -> str:
  mean = f"{np.mean(values):.{digits}f}"
  if len(values) == 1:
    return mean
  return f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _draw(config: Any, summary: dict[str, Any]) -> None:
  """Draws a group of bars for each class, the rarest first."""
  classes, arms = summary["classes"], summary["arms"]
  figure = matplotlib.figure.Figure(
    (max(7, 1.1 * len(classes)), 4), layout="constrained"
  )
  axes = figure.subplots()
  places, width = np.arange(len(classes)), 0.84 / len(arms)
  for number, (name, arm) in enumerate(arms.items()):
    values = np.array([[*s["class_iu"].values()] for s in arm["scores"]])
    mean = values.mean(axis=0)
    axes.bar(
      places + (number - (len(arms) - 1) / 2) * width,
      mean,
      width,
      # From the lowest to the highest seed; of one seed, nothing.
      yerr=np.stack([mean - values.min(axis=0), values.max(axis=0) - mean]),
      error_kw={"elinewidth": 0.8 if len(values) > 1 else 0},
      label=f"{name} (mean IU "
      f"{np.mean([s['mean_iu'] for s in arm['scores']]):.3f})",
    )
  axes.set_xticks(
    places,
    [f"{name}\n{100 * v['share']:.2g}%" for name, v in classes.items()],
    fontsize=8,
  )
  axes.set_xlabel("class, and its share of the training pixels")
  axes.set_ylabel("IU")
  axes.set_ylim(bottom=0)
  axes.grid(axis="y", alpha=0.3)
  axes.set_axisbelow(True)
  # Above the bars, of which the common classes' reach the top.
  figure.legend(loc="outside upper center", ncols=3, fontsize=8)
  axes.set_title(
    f"{config.dataset}, FCN-8s, {config.backbone}, {config.steps} steps",
    fontsize=10,
  )
  figure.savefig(config.workdir / FIGURE_FILE, dpi=90)
