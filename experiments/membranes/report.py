"""The table and the figure of the comparison on membranes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from experiments.common import results
from experiments.common import study as study_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records

SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
FIGURE_FILE = "membranes.png"
# In the folder of each run.
EVALUATION = "evaluation"
FILES = (SUMMARY_FILE, TABLE_FILE, FIGURE_FILE)
# Begins the names of the variants whose best score the others are timed to.
PATCHES = "patches"

# Names of the scores of a run, as in the summary, and as in the table.
SCORES = {
  "pixel_error": "pixel error, %",
  "dice": "Dice of membranes, %",
  "roc_auc": "AUC, %",
  "rand": "Rand, %",
  "information": "information, %",
}


class Target(NamedTuple):
  """What patches reach in a fold, with a seed.

  Attributes:
    error: the smallest share of wrong pixels.
    seconds: of training until then.
  """

  error: float
  seconds: float


class Run(NamedTuple):
  """What one run found.

  Attributes:
    errors: [K] share of wrong pixels of the held-out slices at K steps.
    seconds: [K] of training until then.
    pixels: [K] labelled pixels in the loss until then.
    images: [K] crops or slices until then.
    scores: after the last step, by the names of `SCORES`, in 0..1.
    steps: all of them.
  """

  errors: np.ndarray
  seconds: np.ndarray
  pixels: np.ndarray
  images: np.ndarray
  scores: dict[str, float]
  steps: int


def write(config: Any, variants: Sequence[study_lib.Variant]) -> str:
  """Writes summary, table and figure to the work folder.

  Args:
    config: the options.
    variants: all of them, trained and scored; the name of each ends in its
      fold.

  Returns:
    The table, in Markdown.
  """
  runs = {}
  for variant in variants:
    way = variant.name.rpartition(", fold ")[0]
    runs.setdefault(way, []).extend(
      _read(study_lib.run_config(config, variant, seed))
      for seed in range(config.num_seeds)
    )
  targets = _targets(runs)
  summary = {
    "folds": config.folds,
    "seeds": config.num_seeds,
    "error_of_patches": [target.error for target in targets],
    "seconds_of_patches": [target.seconds for target in targets],
    "variants": {
      way: _summarize(found, targets) for way, found in runs.items()
    },
    **results.where(),
  }
  workdir = config.run.workdir
  records.write_json(workdir / SUMMARY_FILE, summary)
  table = _table(config, summary)
  (workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw(config, runs, targets)
  return table


def _targets(runs: dict[str, list[Run]]) -> list[Target]:
  """The best of patches in each fold and seed, if there are patches.

  Folds differ in how hard they are, so each has a target of its own.
  """
  of_patches = [found for way, found in runs.items() if way.startswith(PATCHES)]
  return [
    min(
      Target(float(error), float(seconds))
      for run in same
      for error, seconds in zip(run.errors, run.seconds, strict=True)
    )
    for same in zip(*of_patches, strict=True)
  ]


def _read(config) -> Run:
  workdir = config.run.workdir
  training, evaluations = folder.read_records(workdir)
  steps = np.array([one["step"] for one in evaluations])
  logged = [one["step"] for one in training]

  def at_steps(values):
    return np.interp(steps, [0, *logged], [0, *values])

  summary = records.read_json(workdir / EVALUATION / SUMMARY_FILE)
  # In the order of the values in the masks, 0 and 255.
  membranes, inside = summary["class_dice"]
  return Run(
    errors=1 - np.array([one["pixel_accuracy"] for one in evaluations]),
    seconds=at_steps([one["seconds"] for one in training]),
    pixels=at_steps(np.cumsum([one["num_sampled"] for one in training])),
    images=steps * config.data.batch_size,
    scores={
      "pixel_error": 1 - summary["pixel_accuracy"],
      "dice": summary["class_dice"][membranes],
      "roc_auc": summary["class_roc_auc"][inside],
      "rand": summary["segments"]["best_rand"],
      "information": summary["segments"]["best_information"],
    },
    steps=int(steps[-1]),
  )


def _summarize(
  runs: Sequence[Run], targets: Sequence[Target]
) -> dict[str, Any]:
  return {
    "steps": runs[0].steps,
    "images": int(runs[0].images[-1]),
    "loss_pixels": float(np.mean([run.pixels[-1] for run in runs])),
    "seconds": [float(run.seconds[-1]) for run in runs],
    # Empty without patches.
    "seconds_to_error_of_patches": [
      _seconds_to(run, target.error)
      for run, target in zip(runs, targets, strict=bool(targets))
    ],
    "curves": [
      {
        name: getattr(run, name).tolist()
        for name in ("errors", "seconds", "pixels", "images")
      }
      for run in runs
    ],
    **{name: [run.scores[name] for run in runs] for name in SCORES},
  }


def _seconds_to(run: Run, target: float) -> float | None:
  """Seconds until the error is as small as the target; None if it never is."""
  reached = np.flatnonzero(run.errors <= target)
  return float(run.seconds[reached[0]]) if len(reached) else None


def _table(config: Any, summary: dict[str, Any]) -> str:
  has_patches = bool(summary["error_of_patches"])
  columns = [
    *("steps", "images", "labelled pixels", "seconds"),
    *(["seconds to the error of patches"] if has_patches else []),
    *(["of the time of patches, %"] if has_patches else []),
    *SCORES.values(),
  ]
  lines = [
    f"| variant | {' | '.join(columns)} |",
    "| --- |" + " ---: |" * len(columns),
  ]
  for name, variant in summary["variants"].items():
    cells = [
      name,
      f"{variant['steps']}",
      f"{variant['images']}",
      f"{variant['loss_pixels']:,.0f}",
      results.spread(variant["seconds"], 0),
    ]
    if has_patches:
      cells += _time_cells(
        variant["seconds_to_error_of_patches"], summary["seconds_of_patches"]
      )
    cells += [
      results.spread([100 * value for value in variant[score]], 1)
      for score in SCORES
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join([*lines, "", _note(config, summary), ""])


def _time_cells(
  seconds: Sequence[float | None], of_patches: Sequence[float]
) -> tuple[str, str]:
  """Seconds to the errors of patches, and the share of the time of patches."""
  reached = [
    (time, 100 * time / of_all)
    for time, of_all in zip(seconds, of_patches, strict=True)
    if time is not None
  ]
  if not reached:
    return "never", ""
  times, shares = zip(*reached, strict=True)
  runs = len(seconds)
  some = f", {len(reached)} of {runs} runs" if len(reached) < runs else ""
  return f"{results.spread(times, 1)}{some}", results.spread(shares, 1)


def _note(config: Any, summary: dict[str, Any]) -> str:
  height, width = config.augmentation.crop_size
  folds = ", ".join(map(str, config.folds))
  errors = [100 * error for error in summary["error_of_patches"]]
  return (
    f"FCN-{config.network.stride}s, {config.network.backbone}; crops of "
    f"{height}x{width}; folds held out: {folds} of 0 to 4, "
    f"{config.num_seeds} seed(s): means, with the range if there are several. "
    + (
      "The error of patches is the smallest of their validations in the same "
      f"fold and seed, {results.spread(errors, 2)} % of the pixels. "
      if errors
      else ""
    )
    + "The scores are those after the last step, averaged over mirrored "
    "slices; Rand and information are foreground-restricted, at the best of "
    "the thresholds tried, borders thinned by a watershed. Device: "
    f"{summary['device']} ({summary['cores']} cores), jax {summary['jax']}."
  )


def _draw(config: Any, runs: dict[str, list[Run]], targets) -> None:
  """Draws the error against seconds, labelled pixels and images."""
  figure = matplotlib.figure.Figure((13, 4.6), layout="constrained")
  panels = {
    "seconds": "training time (s)",
    "pixels": "labelled pixels in the loss",
    "images": "crops or slices",
  }
  # Its strong colours first; each is followed by a pale one.
  palette = matplotlib.colormaps["tab20"].colors
  palette = (*palette[::2], *palette[1::2])
  if not targets and len(config.folds) > 1:
    # Folds are neighbours, each with a run for every seed.
    seeds = config.num_seeds
    lines = {
      f"{way}, fold {fold}": found[index * seeds : (index + 1) * seeds]
      for way, found in runs.items()
      for index, fold in enumerate(config.folds)
    }
  else:
    lines = runs
  for axes, (what, label) in zip(
    figure.subplots(1, 3, sharey=True), panels.items(), strict=True
  ):
    for number, (way, found) in enumerate(lines.items()):
      for index, run in enumerate(found):
        axes.plot(
          getattr(run, what),
          100 * run.errors,
          color=palette[number % len(palette)],
          linewidth=2 if way.startswith(PATCHES) else 1.2,
          label=None if index else way,
        )
    if targets:
      target = 100 * np.mean([target.error for target in targets])
      axes.axhline(target, color="grey", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(
      matplotlib.ticker.LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 6, 7, 8, 9))
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
  figure.axes[0].set_ylabel("wrong pixels of held-out slices (%)")
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc="outside lower center", ncols=7, fontsize=8
  )
  subject = (
    "a line for each fold and seed"
    if not targets
    else "patchwise and fully convolutional training"
  )
  figure.suptitle(f"{config.title}: {subject}", fontsize=10)
  figure.savefig(config.run.workdir / FIGURE_FILE, dpi=90)
