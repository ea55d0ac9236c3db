"""The tables and figures of the comparison of patches and whole images."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure

from experiments.common import results
from experiments.common import study as study_lib
from fcn_jax import data
from fcn_jax import visualize
from fcn_jax.runs import records

TIMING_FILE = "timing.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
TIME_FILE = "patchwise_time.png"
CURVES_FILE = "patchwise_training.png"
FILES = (TIMING_FILE, SUMMARY_FILE, TABLE_FILE, TIME_FILE, CURVES_FILE)

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
  variants: Sequence[study_lib.Variant],
  evaluation: data.Dataset,
) -> str:
  """Writes summary, table and figures to the work folder.

  Args:
    config: the options.
    timing: what `timing.measure` found.
    outputs: the outputs that were timed.
    variants: all of them, trained.
    evaluation: the evaluation split.

  Returns:
    The tables, in Markdown.
  """
  found = results.read(config, variants)
  summary = {
    "outputs": outputs._asdict(),
    "timing": timing["outputs"],
    "step_bytes": timing["step_bytes"],
    "break_even": {
      name: break_even(
        work["one_pass"]["seconds"],
        work["patches"][-1]["seconds"] / work["patches"][-1]["outputs"],
        outputs.side**2,
      )
      for name, work in timing["outputs"].items()
    },
    "variants": {n: results.summarize(seeds) for n, seeds in found.items()},
    "evaluation_images": len(evaluation.source),
    **results.where(),
  }
  workdir = config.run.workdir
  records.write_json(workdir / SUMMARY_FILE, summary)
  scores = {name: v["scores"] for name, v in summary["variants"].items()}
  table = "\n".join(
    [
      *_timing_table(summary),
      *_break_even_table(config, summary),
      *_training_table(config, summary),
      *results.class_table(scores, evaluation.class_names),
    ]
  )
  (workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw_time(config, summary)
  visualize.loss_curves(
    {name: results.curves(seeds) for name, seeds in found.items()},
    f"{config.title}, as many pixels in the loss of each step",
    path=workdir / CURVES_FILE,
  )
  return table


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
  of_counts = zip(*(work["patches"] for work in works.values()), strict=True)
  for timings in of_counts:
    count = timings[0]["outputs"]
    cells = "".join(
      f" {1e3 * one['seconds'] / count:.2f} "
      f"| {1e3 * work['one_pass']['seconds'] / count:.2f} |"
      for one, work in zip(timings, works.values(), strict=True)
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
      max(one["temporary_bytes"] for one in work["patches"]),
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
    f"FCN-32s, {config.network.backbone}, the {geometry['side']}x"
    f"{geometry['side']} outputs that see nothing but the picture, of "
    f"{config.picture_size}x{config.picture_size} pixels, against patches of "
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
  """The variants, and what they saw."""
  lines = [
    "| variant | images a step | images | pixels in the loss a step | seconds "
    "| step, MB | mean IU | mean accuracy | pixel accuracy |",
    "| --- |" + " ---: |" * 8,
  ]
  for name, variant in summary["variants"].items():
    scores = results.score_cells(
      variant["scores"], "mean_iu", "mean_accuracy", "pixel_accuracy"
    )
    lines.append(
      f"| {name} | {variant['images_per_step']} | {variant['images']} "
      f"| {variant['loss_pixels_per_step']:,.0f} "
      f"| {results.spread(variant['seconds'], 1)} "
      f"| {summary['step_bytes'][name] / 1e6:.0f} | {scores} |"
    )
  counts = [
    variant["images_per_step"] for variant in summary["variants"].values()
  ]
  height, width = config.patch_size
  rows, columns = config.augmentation.crop_size
  pixels, cell = counts[0] * rows * columns, config.network.stride
  note = (
    f"{config.optimizer.steps} steps with {pixels:,} pixels in the loss, less "
    f"the void ones: {counts[0]} images of {rows}x{columns}; "
    f"{counts[1]} images, with each block of {cell}x{cell} pixels kept with "
    f"probability {config.rate:g}; or {config.patches_per_image} patches "
    f"of {height}x{width} from each of {counts[2]} images: anywhere, "
    "from a grid of a third of their size without replacement, or around "
    "pixels of all classes alike. Training losses are those of a variant's own "
    "pixels: compare variants by their scores. "
  )
  # The backbone that is trained is the one that was timed.
  receptive_field = summary["outputs"]["receptive_field"]
  if min(height, width) < receptive_field:
    note += (
      "The patches are smaller than the network's receptive field of "
      f"{receptive_field} pixels: beyond their edges the network sees padding. "
    )
  note += results.note(config, summary)
  return [*lines, "", note, ""]


def _draw_time(config: Any, summary: dict[str, Any]) -> None:
  """Draws time against the number of outputs, for patches and for a pass."""
  works = summary["timing"]
  figure = matplotlib.figure.Figure((9, 3.6), layout="constrained")
  axes = figure.subplots(1, len(works), sharey=True)
  for axis, (name, work) in zip(axes, works.items(), strict=True):
    counts = [one["outputs"] for one in work["patches"]]
    times = [1e3 * one["seconds"] for one in work["patches"]]
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
    f"FCN-32s, {config.network.backbone}, {side}x{side} pixels, "
    f"{summary['device']} ({summary['cores']} cores)"
  )
  figure.savefig(config.run.workdir / TIME_FILE, dpi=90)
