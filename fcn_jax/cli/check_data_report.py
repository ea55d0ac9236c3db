"""The tables and the figure of a checked data set."""

import collections
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import matplotlib.patches
import matplotlib.ticker
import numpy as np

import fcn_jax as fcn
from fcn_jax import reprs
from fcn_jax import writing

REPORT_FILE = "data_report.json"
FIGURE_FILE = "data_report.png"
FILES = (REPORT_FILE, FIGURE_FILE)

# More classes than this have no legend, but the bars are in their colours.
_MAX_LEGEND = 24
# The figure shows the counts of this many of the commonest sizes.
_MAX_NOTED_SIZES = 4


class Findings(NamedTuple):
  """What was found in a data set.

  Attributes:
    class_names: of the classes 0..C-1.
    palette: [C, 3] uint8, RGB of each class.
    totals: what is in the good examples, by split.
    faults: the bad files.
    notes: remarks for the user.
    examples: some of the good ones, to show.
  """

  class_names: tuple[str, ...]
  palette: np.ndarray
  totals: Mapping[str, fcn.data.files.totals.Totals]
  faults: Sequence[fcn.data.files.listing.Fault]
  notes: Sequence[str]
  examples: Sequence[fcn.data.Example]


def write(workdir: pathlib.Path, title: str, findings: Findings) -> str:
  """Writes the report and its figure.

  Args:
    workdir: folder to write to.
    title: of the data set.
    findings: what was found.

  Returns:
    The report for people to read.
  """
  summary = summarize(title, findings)
  text = describe(summary)
  with writing.together(workdir, FILES) as new:
    fcn.runs.records.write_json(new / REPORT_FILE, summary)
    if findings.totals:
      draw(new / FIGURE_FILE, title, findings, summary)
  return f"{text}\n\n{' and '.join(FILES)} are in {workdir}"


def write_template(
  workdir: pathlib.Path, table: dict[str, Any]
) -> pathlib.Path:
  """Writes a table of classes to complete, and never over another file."""
  # A class a line.
  lines = ",\n".join(f"  {json.dumps(entry)}" for entry in table["classes"])
  workdir.mkdir(parents=True, exist_ok=True)
  for number in itertools.count(1):
    suffix = f"-{number}" if number > 1 else ""
    path = workdir / f"classes_template{suffix}.json"
    try:
      with writing.whole(path) as partial:
        partial.write_text(f'{{"classes": [\n{lines}],\n"ignore": []}}\n')
      return path
    except FileExistsError:
      continue


def summarize(title: str, findings: Findings) -> dict[str, Any]:
  """All figures of the report, as it is written to JSON."""
  summaries = {
    split: _summarize_split(found, len(findings.class_names))
    for split, found in findings.totals.items()
  }
  return {
    "data_set": title,
    "good_examples": sum(t.examples for t in findings.totals.values()),
    "bad_files": len(findings.faults),
    "notes": [*findings.notes, *_not_learned(findings.class_names, summaries)],
    "class_names": list(findings.class_names),
    "splits": summaries,
    "faults": [
      {"file": str(path), "reason": reason} for path, reason in findings.faults
    ],
  }


def _not_learned(
  class_names: Sequence[str], splits: dict[str, dict[str, Any]]
) -> list[str]:
  """Names the classes that another split has and "train" has not."""
  if "train" not in splits:
    return []
  notes = []
  for label, name in enumerate(class_names):
    has = [s for s, found in splits.items() if found["class_examples"][label]]
    if has and "train" not in has:
      notes.append(
        f"class {reprs.shown(name)} is in {' and '.join(has)}, but not in"
        " train, so it cannot be learned"
      )
  return notes


def _summarize_split(
  found: fcn.data.files.totals.Totals, num_classes: int
) -> dict[str, Any]:
  pixels = found.class_pixels[:num_classes]
  labelled = pixels.sum()
  mean, deviation = _moments(found.histogram)
  sizes = np.repeat(list(found.sizes), list(found.sizes.values()), axis=0)
  return {
    "examples": found.examples,
    "sizes": {
      "smallest_height_width": sizes.min(axis=0).tolist(),
      "median_height_width": np.median(sizes, axis=0).tolist(),
      "largest_height_width": sizes.max(axis=0).tolist(),
      "different": len(found.sizes),
      "commonest": [
        {"height_width": list(size), "examples": count}
        for size, count in sorted(
          found.sizes.items(), key=lambda item: (-item[1], item[0])
        )[:10]
      ],
    },
    "pixels": int(found.class_pixels.sum()),
    "void_share": float(1 - labelled / found.class_pixels.sum()),
    # Of the labelled pixels.
    "class_pixel_share": (pixels / max(labelled, 1)).tolist(),
    "class_examples": found.class_examples[:num_classes].tolist(),
    "median_frequency_weights": _weights(
      pixels, found.labelled_where_present[:num_classes]
    ),
    "pixel_mean_rgb": mean.tolist(),
    "pixel_deviation_rgb": deviation.tolist(),
  }


def _moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each channel from its histogram [3, 256]."""
  values = np.arange(256)
  share = histogram / histogram.sum(axis=1, keepdims=True)
  mean = share @ values
  return mean, np.sqrt(share @ values**2 - mean**2)


def _weights(
  pixels: np.ndarray, pixels_where_present: np.ndarray
) -> list[float | None]:
  """Median-frequency weights; None for classes that do not occur.

  The frequency of a class is its share of the images that contain it, see
  `fcn.sampling.median_frequency_weights`.
  """
  occurs = pixels > 0
  weights = np.full(len(pixels), np.nan)
  weights[occurs] = fcn.sampling.median_frequency_weights(
    pixels[occurs] / pixels_where_present[occurs]
  )
  return [None if np.isnan(weight) else float(weight) for weight in weights]


def describe(summary: dict[str, Any]) -> str:
  """The report as Markdown tables and lists."""
  splits = summary["splits"]
  lines = [f"# {reprs.path(summary['data_set'])}", ""]
  lines += [f"- {note}" for note in summary["notes"]]
  lines += [
    "",
    "| split | examples | height x width, median (smallest-largest) | sizes "
    "| void | mean R, G, B | deviation R, G, B |",
    "| --- | ---: | --- | ---: | ---: | --- | --- |",
  ]
  for name, split in splits.items():
    sizes = split["sizes"]
    lines.append(
      f"| {name} | {split['examples']} | {_size(sizes['median_height_width'])} "
      f"({_size(sizes['smallest_height_width'])}-"
      f"{_size(sizes['largest_height_width'])}) | {sizes['different']} "
      f"| {split['void_share']:.2%} | {_values(split['pixel_mean_rgb'])} "
      f"| {_values(split['pixel_deviation_rgb'])} |"
    )
  names = list(splits)
  lines += [
    "",
    "| class | " + " | ".join(f"{n}: pixels" for n in names)
    + " | " + " | ".join(f"{n}: examples" for n in names)
    + " | weight |",
    "| --- |" + " ---: |" * (2 * len(names) + 1),
  ]  # fmt: skip
  weights = splits[names[0]]["median_frequency_weights"] if names else []
  for label, name in enumerate(summary["class_names"]):
    shares = (splits[n]["class_pixel_share"][label] for n in names)
    examples = (splits[n]["class_examples"][label] for n in names)
    weight = weights[label] if names else None
    lines.append(
      f"| {label} {reprs.in_table(name)} | "
      + " | ".join(f"{share:.3%}" for share in shares)
      + " | "
      + " | ".join(map(str, examples))
      + f" | {'does not occur' if weight is None else f'{weight:.3f}'} |"
    )
  lines += [
    "",
    "pixels: share of the labelled pixels; examples: with the class in them; "
    "weight: of median-frequency balancing"
    + (f" on {names[0]}." if names else "."),
    "",
    f"{summary['good_examples']} good examples, {summary['bad_files']} bad "
    "files" + (":" if summary["bad_files"] else "."),
  ]
  lines += [
    f"- {reprs.path(fault['file'])} {fault['reason']}"
    for fault in summary["faults"]
  ]
  return "\n".join(lines)


def _size(height_width: Sequence[float]) -> str:
  return "x".join(f"{side:g}" for side in height_width)


def _values(values: Sequence[float]) -> str:
  return ", ".join(f"{value:.1f}" for value in values)


def draw(
  path: pathlib.Path, title: str, findings: Findings, summary: dict[str, Any]
) -> None:
  """Draws examples, the classes and the sizes."""
  count = len(findings.examples)
  figure = matplotlib.figure.Figure(
    (max(10, 2 * count), 10), layout="constrained"
  )
  figure.suptitle(
    f"{reprs.in_figure(title)}: {summary['good_examples']} examples, "
    f"{summary['bad_files']} bad files"
  )
  pictures, plots = figure.subfigures(2, 1, height_ratios=(1.1, 1))
  _draw_examples(pictures, findings)
  class_axis, size_axis = plots.subplots(1, 2, width_ratios=(2.2, 1))
  _draw_classes(class_axis, findings, summary)
  _draw_sizes(size_axis, findings)
  with writing.whole(path, replace=True) as partial:
    figure.savefig(partial, dpi=150)


def _draw_examples(figure, findings: Findings) -> None:
  axes = figure.subplots(2, len(findings.examples), squeeze=False)
  for (above, below), example in zip(axes.T, findings.examples, strict=True):
    above.imshow(example.image)
    above.set_title(reprs.in_figure(example.name, max_length=30), fontsize=7)
    below.imshow(
      fcn.visualize.overlay(
        example.image,
        example.label,
        findings.palette,
        background=fcn.visualize.background_of(findings.class_names),
      )
    )
    for axis in (above, below):
      axis.set_axis_off()
  if len(findings.class_names) <= _MAX_LEGEND:
    handles = [
      matplotlib.patches.Patch(
        facecolor=np.array(color) / 255,
        edgecolor="grey",
        label=reprs.in_figure(name),
      )
      for name, color in zip(
        findings.class_names, findings.palette, strict=True
      )
    ]
    figure.legend(
      handles=handles, loc="outside lower center", ncols=8, fontsize=8
    )


def _draw_classes(axis, findings: Findings, summary: dict[str, Any]) -> None:
  splits = summary["splits"]
  places = np.arange(len(findings.class_names))
  width = 0.8 / len(splits)
  for number, (name, split) in enumerate(splits.items()):
    axis.bar(
      places + (number - (len(splits) - 1) / 2) * width,
      np.array(split["class_pixel_share"]) * 100,
      width,
      color=findings.palette / 255,
      edgecolor="grey",
      linewidth=0.5,
      hatch=("", "///", "...")[number % 3],
      label=name,
    )
  axis.set_yscale("log")
  axis.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(_percent))
  # So that even the rarest classes have a visible bar.
  shares = np.concatenate([s["class_pixel_share"] for s in splits.values()])
  axis.set_ylim(bottom=shares[shares > 0].min() * 100 / 3)
  axis.set_ylabel("share of the labelled pixels (%)")
  axis.set_xlabel("class")
  axis.set_xticks(
    places,
    [reprs.in_figure(name, max_length=30) for name in findings.class_names],
    rotation=90,
    fontsize=7,
  )
  axis.legend(title="split", handles=[
    matplotlib.patches.Patch(
      facecolor="white", edgecolor="black", label=name,
      hatch=("", "///", "...")[number % 3],
    )
    for number, name in enumerate(splits)
  ])  # fmt: skip
  axis.grid(axis="y", alpha=0.3)


def _draw_sizes(axis, findings: Findings) -> None:
  counts = sum(
    (found.sizes for found in findings.totals.values()), collections.Counter()
  )
  sizes, count = np.array(list(counts)), np.array(list(counts.values()))
  # Areas in proportion to the counts; the largest is a square of 15 points.
  axis.scatter(sizes[:, 1], sizes[:, 0], s=225 * count / count.max(), alpha=0.6)
  for i in np.argsort(-count)[:_MAX_NOTED_SIZES]:
    axis.annotate(
      f"{sizes[i, 1]}x{sizes[i, 0]}: {count[i]}",
      (sizes[i, 1], sizes[i, 0]),
      xytext=(-8, -12),
      textcoords="offset points",
      horizontalalignment="right",
      fontsize=8,
    )
  axis.set_xlabel("width (pixels)")
  axis.set_ylabel("height (pixels)")
  axis.set_xlim(0, sizes[:, 1].max() * 1.1)
  axis.set_ylim(0, sizes[:, 0].max() * 1.1)
  axis.set_aspect("equal")
  axis.grid(alpha=0.3)
  axis.set_title("sizes; width x height: examples")


def _percent(value: float, position: int) -> str:
  del position
  return f"{value:g}"
