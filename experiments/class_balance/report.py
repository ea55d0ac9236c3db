"""The table and the figure of the comparison of ways to balance classes."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from experiments.common import results
from experiments.common import study as study_lib
from fcn_jax import data
from fcn_jax.runs import records

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
FIGURE_FILE = "class_balance.png"
FILES = (SUMMARY_FILE, TABLE_FILE, FIGURE_FILE)


def write(
  config: Any,
  variants: Sequence[study_lib.Variant],
  *,
  shares: np.ndarray,
  weights: np.ndarray,
  evaluation: data.Dataset,
) -> str:
  """Writes summary, table and figure to the work folder.

  Args:
    config: the options.
    variants: all of them, trained, in the order of the table.
    shares: [C] of the classes in the pixels of the training split.
    weights: [C] of the classes, in the variant that has weights.
    evaluation: the evaluation split.

  Returns:
    The table, in Markdown.
  """
  rarest_first = [int(index) for index in np.argsort(shares)]
  names = evaluation.class_names
  summary = {
    "classes": {
      names[index]: {
        "share": float(shares[index]),
        "weight": float(weights[index]),
      }
      for index in rarest_first
    },
    "variants": {
      name: results.summarize(seeds)
      for name, seeds in results.read(config, variants).items()
    },
    "evaluation_images": len(evaluation.source),
    **results.where(),
  }
  workdir = config.run.workdir
  records.write_json(workdir / SUMMARY_FILE, summary)
  table = _table(config, summary)
  (workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw(config, summary)
  return table


def _table(config: Any, summary: dict[str, Any]) -> str:
  """Rows of classes, the rarest first, and columns of variants."""
  variants = summary["variants"]

  def row(name, share, cell: Callable[[dict[str, Any]], str]):
    cells = " | ".join(cell(variant) for variant in variants.values())
    return f"| {name} | {share} | {cells} |"

  def score(name):
    return lambda variant: results.spread(
      [s[name] for s in variant["scores"]], 3
    )

  def class_iu(name):
    return lambda variant: results.spread(
      [s["class_iu"][name] for s in variant["scores"]], 3
    )

  lines = [
    "| IU of | share of pixels | " + " | ".join(variants) + " |",
    "| --- |" + " ---: |" * (1 + len(variants)),
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
      lambda variant: f"{variant['loss_pixels_per_step']:,.0f}",
    ),
    row("seconds", "", lambda variant: results.spread(variant["seconds"], 1)),
  ]
  return "\n".join([*lines, "", _note(config, summary), ""])


def _note(config: Any, summary: dict[str, Any]) -> str:
  """What the variants share, and where they differ."""
  height, width = config.augmentation.crop_size
  pixels = config.data.batch_size * height * width
  patch_height, patch_width = config.patch_size
  count = config.patches_per_image * patch_height * patch_width
  weights = [values["weight"] for values in summary["classes"].values()]
  return (
    f"FCN-{config.network.stride}s, {config.network.backbone}, "
    f"{config.optimizer.steps} steps of the same {config.data.batch_size} "
    f"images of {height}x{width} in all variants. Of their {pixels:,} pixels, "
    "most variants have all in the loss; those of pixels and patches "
    f"{config.data.batch_size * count:,}: "
    f"{config.patches_per_image} patch(es) of {patch_height}x{patch_width} of "
    "each image, which may overlap; each pixel with probability "
    f"{count / (height * width):.3g}; the hardest or most uncertain {count:,} "
    "of each image; or an equal part of each class in the batch, all pixels "
    "of classes that have fewer. Void pixels are left out, as the measured "
    "numbers show. The loss of pixels is the mean over the pixels in it; class "
    "weights are by median frequency, scaled so that the mean weight of a "
    f"training pixel is 1 ({min(weights):.2g} to {max(weights):.2g}). "
    "Classes are ordered by their share of the training split. "
    f"{results.note(config, summary)}"
  )


def _draw(config: Any, summary: dict[str, Any]) -> None:
  """Draws a group of bars for each class, the rarest first."""
  classes, variants = summary["classes"], summary["variants"]
  figure = matplotlib.figure.Figure(
    (max(7, 1.1 * len(classes)), 4), layout="constrained"
  )
  axes = figure.subplots()
  places, width = np.arange(len(classes)), 0.84 / len(variants)
  # The usual cycle has ten colours.
  palette = matplotlib.colormaps["tab20"]
  for number, (name, variant) in enumerate(variants.items()):
    values = np.array(
      [[s["class_iu"][c] for c in classes] for s in variant["scores"]]
    )
    mean = values.mean(axis=0)
    axes.bar(
      places + (number - (len(variants) - 1) / 2) * width,
      mean,
      width,
      color=palette(number % 20),
      # From the lowest to the highest seed; of one seed, nothing.
      yerr=np.stack([mean - values.min(axis=0), values.max(axis=0) - mean]),
      error_kw={"elinewidth": 0.8 if len(values) > 1 else 0},
      label=f"{name} (mean IU "
      f"{np.mean([s['mean_iu'] for s in variant['scores']]):.3f})",
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
  # Above the axes: the bars of common classes reach the top.
  figure.legend(loc="outside upper center", ncols=3, fontsize=8)
  axes.set_title(
    f"{config.title}, {config.optimizer.steps} steps",
    fontsize=10,
  )
  figure.savefig(config.run.workdir / FIGURE_FILE, dpi=90)
