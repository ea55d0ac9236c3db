"""The tables and figures of the comparison of patches and whole images."""

import math
from typing import Any

import jax
import matplotlib.figure
import numpy as np

import arms
import command_line
import fcn_jax as fcn

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
TIME_FILE = "patchwise_time.png"
CURVES_FILE = "patchwise_training.png"
FILES = (SUMMARY_FILE, TABLE_FILE, TIME_FILE, CURVES_FILE)

# Seconds of one pass with 10x10 outputs and of a single patch; AlexNet, 500 and
# 227 pixels a side, on a GPU of 2014 (CVPR 2015, section 3.1).
PAPER_SECONDS = {
  "forward": (22e-3, 1.2e-3),
  "forward and backward": (22e-3 + 37e-3, 1.2e-3 + 2.4e-3),
}
PAPER_OUTPUTS = 100


def break_even(
  pass_seconds: float, patch_seconds: float, num_outputs: int
) -> dict[str, float]:
  """Where patches take as long as one pass.

  Args:
    pass_seconds: of the pass, whatever the number of outputs wanted.
    patch_seconds: of each patch, and thus of each output.
    num_outputs: all outputs of the pass.

  Returns:
    The number of `outputs`, and their share of all outputs, the `rate`.
  """
  outputs = pass_seconds / patch_seconds
  return {
    "one_pass_seconds": pass_seconds,
    "patch_seconds": patch_seconds,
    "outputs": outputs,
    "rate": outputs / num_outputs,
  }


def write(
  config: Any,
  timing: dict[str, Any],
  outputs: Any,
  images_per_step: dict[str, int],
  evaluation: fcn.data.Dataset,
) -> str:
  """Writes summary, table and figures to the work folder.

  Args:
    config: the options; all arms are finished.
    timing: what `patchwise.measure` found.
    outputs: the outputs that were timed.
    images_per_step: images of a step by the name of the arm.
    evaluation: the evaluation split.

  Returns:
    The tables, in Markdown, for people to read.
  """
  results = {name: arms.read_results(config, name) for name in images_per_step}
  summary = {
    "outputs": outputs._asdict(),
    "timing": timing,
    "break_even": {
      name: break_even(
        work["one_pass"]["seconds"],
        work["patches"][-1]["seconds"] / work["patches"][-1]["outputs"],
        outputs.side**2,
      )
      for name, work in timing.items()
    },
    "arms": {
      name: {
        "images_per_step": images_per_step[name],
        "images": images_per_step[name] * config.steps,
        "loss_pixels_per_step": float(
          np.mean([_total(seed, "num_sampled") for seed in seeds])
        )
        / config.steps,
        "seconds": [seed["rows"][-1]["seconds"] for seed in seeds],
        "temporary_bytes": seeds[0]["temporary_bytes"],
        "scores": [
          _scores(seed["confusion"], evaluation.class_names) for seed in seeds
        ],
      }
      for name, seeds in results.items()
    },
    "evaluation_images": len(evaluation.source),
    "device": jax.devices()[0].device_kind,
    "cores": command_line.num_cores(),
    "jax": jax.__version__,
  }
  fcn.runs.records.write_json(config.workdir / SUMMARY_FILE, summary)
  table = "\n".join(
    [
      *_timing_table(summary),
      *_break_even_table(config, summary),
      *_training_table(config, summary),
      *_class_table(summary, evaluation.class_names),
    ]
  )
  (config.workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw_time(config, summary)
  fcn.visualize.loss_curves(
    config.workdir / CURVES_FILE,
    {
      name: _curves(seeds, images_per_step[name])
      for name, seeds in results.items()
    },
    f"{config.dataset}, FCN-8s, {config.backbone}, as many pixels in the loss "
    "of each step",
  )
  return table


def _total(seed: dict[str, Any], name: str) -> int:
  return sum(row[name] for row in seed["rows"])


def _scores(
  confusion: list[list[int]], class_names: tuple[str, ...]
) -> dict[str, Any]:
  scores = fcn.metrics.scores(np.array(confusion))._asdict()
  class_iu = scores.pop("class_iu").tolist()
  return {**scores, "class_iu": dict(zip(class_names, class_iu, strict=True))}


def _curves(
  seeds: list[dict[str, Any]], images_per_step: int
) -> fcn.visualize.Curves:
  def values(name):
    return np.array(
      [[row[name] for row in seed["rows"]] for seed in seeds], float
    )

  iterations = values("step")[0]
  return fcn.visualize.Curves(
    iterations=iterations,
    images=iterations * images_per_step,
    seconds=values("seconds"),
    losses=values("loss"),
  )


def _timing_table(summary: dict[str, Any]) -> list[str]:
  """Time for each output by the number of outputs."""
  works = summary["timing"]
  lines = [
    "| outputs |"
    + "".join(
      f" {name}: patches, ms an output | one pass, ms an output |"
      for name in works
    ),
    "| ---: |" + " ---: |" * 2 * len(works),
  ]
  for rows in zip(*(work["patches"] for work in works.values()), strict=True):
    count = rows[0]["outputs"]
    cells = "".join(
      f" {1e3 * row['seconds'] / count:.2f} "
      f"| {1e3 * work['one_pass']['seconds'] / count:.2f} |"
      for row, work in zip(rows, works.values(), strict=True)
    )
    lines.append(f"| {count} |{cells}")
  return [*lines, ""]


def _break_even_table(config: Any, summary: dict[str, Any]) -> list[str]:
  """Break-even rates beside the paper's, and memory."""
  lines = [
    "| | one pass, ms | a patch, ms | break-even outputs | break-even rate "
    "| one pass, MB | patches, MB |",
    "| --- |" + " ---: |" * 6,
  ]
  for name, work in summary["timing"].items():
    memory = (
      work["one_pass"]["temporary_bytes"],
      max(row["temporary_bytes"] for row in work["patches"]),
    )
    cells = _break_even_cells(summary["break_even"][name])
    lines.append(
      f"| {name} | {cells} | {memory[0] / 1e6:.1f} | {memory[1] / 1e6:.1f} |"
    )
  for name, seconds in PAPER_SECONDS.items():
    cells = _break_even_cells(break_even(*seconds, PAPER_OUTPUTS))
    lines.append(f"| {name}, AlexNet in CVPR 2015 | {cells} | | |")
  geometry = summary["outputs"]
  largest = max(
    work["relative_difference"] for work in summary["timing"].values()
  )
  note = (
    f"FCN-32s, {config.backbone}, the {geometry['side']}x{geometry['side']} "
    f"outputs of a picture of {config.picture_size}x{config.picture_size} "
    f"pixels that see nothing but the picture, against patches of "
    f"{geometry['patch_size']}x{geometry['patch_size']} (receptive field "
    f"{geometry['receptive_field']}), up to {config.patch_batch} at once. Both "
    "ways give the same scores and gradients (relative difference at most "
    f"{largest:.0e}). The pass takes the same time for any number of outputs; "
    "the break-even rate is its time over that of the patches of all of them. "
    "Section 3.4 found sampling faster than patches at least for p > 0.2. "
    f"Medians of {config.rounds} rounds. MB: compiled temporary memory."
  )
  return [*lines, "", note, ""]


def _break_even_cells(values: dict[str, float]) -> str:
  return (
    f"{1e3 * values['one_pass_seconds']:.1f} "
    f"| {1e3 * values['patch_seconds']:.1f} | {values['outputs']:.1f} "
    f"| {values['rate']:.3f}"
  )


def _training_table(config: Any, summary: dict[str, Any]) -> list[str]:
  """The arms, and what they saw."""
  lines = [
    "| arm | images a step | images | pixels in the loss a step | seconds "
    "| step, MB | mean IU | mean accuracy | pixel accuracy |",
    "| --- |" + " ---: |" * 8,
  ]
  for name, arm in summary["arms"].items():
    scores = " | ".join(
      _spread([s[score] for s in arm["scores"]], 3)
      for score in ("mean_iu", "mean_accuracy", "pixel_accuracy")
    )
    lines.append(
      f"| {name} | {arm['images_per_step']} | {arm['images']} "
      f"| {arm['loss_pixels_per_step']:,.0f} | {_spread(arm['seconds'], 1)} "
      f"| {arm['temporary_bytes'] / 1e6:.0f} | {scores} |"
    )
  counts = [arm["images_per_step"] for arm in summary["arms"].values()]
  height, width = config.patch_size
  pixels = counts[0] * math.prod(config.crop_size)
  note = (
    f"{config.steps} steps of {pixels:,} pixels in the loss, of which void "
    f"ones are left out: {counts[0]} images of {config.crop_size[0]}x"
    f"{config.crop_size[1]}; {counts[1]} images, of which each cell of 8x8 "
    f"pixels is kept with probability {config.rate:g}; or "
    f"{config.patches_per_image} patches of {height}x{width} from each of "
    f"{counts[2]} images: anywhere, from a grid of a third of their size "
    "without replacement, or around pixels of all classes alike. Training "
    "losses are those of an arm's own pixels: compare arms by their scores. "
  )
  # The backbone that is trained is the one that was timed.
  receptive_field = summary["outputs"]["receptive_field"]
  if min(height, width) < receptive_field:
    note += (
      "The patches are smaller than the network's receptive field of "
      f"{receptive_field} pixels: where the image would go on, they see "
      "padding. "
    )
  note += (
    f"Mean over {config.num_seeds} seed(s), with the range where there are "
    f"several; scores on {summary['evaluation_images']} images. Device: "
    f"{summary['device']} ({summary['cores']} cores), jax {summary['jax']}."
  )
  return [*lines, "", note, ""]


def _class_table(
  summary: dict[str, Any], class_names: tuple[str, ...]
) -> list[str]:
  """IU of each class."""
  lines = [
    "| IU of | " + " | ".join(class_names) + " |",
    "| --- |" + " ---: |" * len(class_names),
  ]
  for name, arm in summary["arms"].items():
    means = (
      np.mean([scores["class_iu"][class_name] for scores in arm["scores"]])
      for class_name in class_names
    )
    lines.append(f"| {name} | " + " | ".join(f"{m:.2f}" for m in means) + " |")
  return [*lines, ""]


def _spread(values: list[float], digits: int) -> str:
  mean = f"{np.mean(values):.{digits}f}"
  if len(values) == 1:
    return mean
  return f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _draw_time(config: Any, summary: dict[str, Any]) -> None:
  """Draws time against the number of outputs, for patches and for a pass."""
  works = summary["timing"]
  figure = matplotlib.figure.Figure((9, 3.6), layout="constrained")
  axes = figure.subplots(1, len(works), sharey=True)
  for axis, (name, work) in zip(axes, works.items(), strict=True):
    counts = [row["outputs"] for row in work["patches"]]
    times = [1e3 * row["seconds"] for row in work["patches"]]
    one_pass = 1e3 * work["one_pass"]["seconds"]
    even = summary["break_even"][name]
    axis.loglog(counts, times, "o-", label="a patch for each output")
    axis.loglog(
      [counts[0], counts[-1]], [one_pass] * 2, label="one pass over the picture"
    )
    axis.axvline(
      even["outputs"],
      color="grey",
      linestyle=":",
      label=f"break-even: {even['outputs']:.1f} outputs, p = "
      f"{even['rate']:.2f}",
    )
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("outputs")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
  axes[0].set_ylabel("time (ms)")
  side = config.picture_size
  figure.suptitle(
    f"FCN-32s, {config.backbone}, {side}x{side} pixels, {summary['device']} "
    f"({summary['cores']} cores)"
  )
  figure.savefig(config.workdir / TIME_FILE, dpi=90)
