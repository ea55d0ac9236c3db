"""The tables and the figure of the measurement of gradient noise."""

import pathlib
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

from fcn_jax.runs import records

TIMING_FILE = "timing.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
FIGURE_FILE = "gradient_noise.png"
NOISE = "noise"
CONTENTS = (NOISE, TIMING_FILE, SUMMARY_FILE, TABLE_FILE, FIGURE_FILE)


def rates_table(
  noise_at: dict[str, Any], seconds: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
  """Cost and benefit of samplers and rates, relative to whole images.

  Args:
    noise_at: what `measuring.measure` found.
    seconds: of a step, for each image, by sampler and rate.

  Returns:
    For each sampler and rate: the `sampler`, the `rate`, the `seconds` an
    image, and the variance of the gradient relative to that of whole images:
    with as many images (`images`), with as many loss terms, that is 1 / p times
    the images (`terms`), and with as many images as take the same time
    (`time`).
  """
  compared = []
  for sampler, by_rate in seconds.items():
    for rate, cost in by_rate.items():
      masks = noise_at["rates"][sampler][rate]["masks"]
      ratio = 1 + masks / noise_at["whole"]["images"]
      compared.append(
        {
          "sampler": sampler,
          "rate": float(rate),
          "seconds": cost,
          "images": ratio,
          "terms": ratio * float(rate),
          "time": ratio * cost / by_rate["1.0"],
        }
      )
  return compared


def write(workdir: pathlib.Path, summary: dict[str, Any], title: str) -> str:
  """Writes summary, table and figure to the work folder.

  Args:
    workdir: the folder.
    summary: what was measured; the suggestions are added.
    title: what was trained on what.

  Returns:
    The table, in Markdown, for people to read.
  """
  lines = []
  for steps, noise_at in summary["measured"].items():
    compared = rates_table(noise_at, summary["seconds_an_image"])
    best = min(compared, key=lambda one: one["time"])
    noise_at["rates_compared"] = compared
    noise_at["suggested_sampler"] = best["sampler"]
    noise_at["suggested_rate"] = best["rate"]
    # The noise of one image is the batch at which noise and signal are equal.
    noise_at["suggested_batch"] = noise_at["whole"]["noise"] * best["images"]
    lines += _tables(steps, noise_at)
  lines += [
    f"Device: {summary['device']} ({summary['cores']} cores), jax "
    f"{summary['jax']}.",
    "",
  ]
  records.write_json(workdir / SUMMARY_FILE, summary)
  table = "\n".join(lines)
  (workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw(workdir / FIGURE_FILE, summary, title)
  return table


def _tables(steps: str, noise_at: dict[str, Any]) -> list[str]:
  whole = noise_at["whole"]
  samplers = noise_at["samplers"]
  batch = "and too few images to see a signal and suggest a batch"
  if np.isfinite(noise_at["suggested_batch"]):
    images = max(1, round(noise_at["suggested_batch"]))
    batch = f"a batch of about {images} images"
  lines = [
    f"After {steps} steps (loss {noise_at['loss']:.2f} nats a pixel). One "
    f"whole image: noise {whole['noise']:.1f}; {noise_at['pixels']:,.0f} "
    f"pixels that count as {noise_at['independent_pixels']:.1f} independent "
    f"ones. Suggested: {noise_at['suggested_sampler']} at p = "
    f"{noise_at['suggested_rate']:g}, {batch}.",
    "",
    "Noise of one image's gradient (share of the pixels kept in brackets); "
    "1/q: weighted so that the expected loss is that of whole images; the last "
    "two have an objective, and so a signal, of their own:",
    "",
    "| sampler |" + " |" * len(next(iter(samplers.values()))),
    "| --- |" + " ---: |" * len(next(iter(samplers.values()))),
  ]
  for name, by_rate in samplers.items():
    cells = (
      f"{one['noise']:.1f} ({one['share']:.1%})"
      if np.isfinite(one["noise"])
      else f"no signal ({one['share']:.1%})"
      for one in by_rate
    )
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  lines += [
    "",
    "Variance relative to whole images (p = 1):",
    "",
    "| sampler | p | ms an image | as many images | as many loss terms "
    "| as much time |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
  ]
  for one in noise_at["rates_compared"]:
    lines.append(
      f"| {one['sampler']} | {one['rate']:g} | {1e3 * one['seconds']:.1f} "
      f"| {one['images']:.3f} | {one['terms']:.3f} | {one['time']:.3f} |"
    )
  distances = [1, 2, 4, 8, 16, 32, 64]
  found = noise_at["correlation"]
  distances = [d for d in distances if d < len(found)]
  return [
    *lines,
    "",
    "Correlation of the gradients of two pixels:",
    "",
    "| distance (pixels) | " + " | ".join(map(str, distances)) + " |",
    "| --- |" + " ---: |" * len(distances),
    "| correlation | "
    + " | ".join(f"{found[d]:.2f}" for d in distances)
    + " |",
    "",
  ]


def _draw(path: pathlib.Path, summary: dict[str, Any], title: str) -> None:
  figure = matplotlib.figure.Figure((13, 4.2), layout="constrained")
  noise, correlation, rates = figure.subplots(1, 3)
  *_, (steps, last) = summary["measured"].items()
  _draw_noise(noise, last, f"Samplers, after {steps} steps")
  _draw_rates(rates, last)
  for steps, noise_at in summary["measured"].items():
    correlation.plot(np.array(noise_at["correlation"]), label=f"{steps} steps")
  correlation.axhline(0, color="black", linewidth=0.5)
  correlation.set(
    xlabel="distance (pixels)",
    ylabel="correlation of pixel gradients",
    title="Spatial correlation",
  )
  rates.set(
    xscale="log",
    yscale="log",
    xlabel="rate p",
    ylabel="variance of the gradient, relative to whole images",
    title=f"What a rate brings, after {steps} steps",
  )
  for axes in (noise, correlation, rates):
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
  figure.suptitle(title)
  figure.savefig(path, dpi=85)


def _draw_noise(
  axes: matplotlib.axes.Axes, noise_at: dict[str, Any], title: str
) -> None:
  """Draws the noise of each sampler by the share of the pixels."""
  for name, by_rate in noise_at["samplers"].items():
    axes.plot(
      [one["share"] for one in by_rate],
      [one["noise"] for one in by_rate],
      marker="o",
      markersize=3,
      label=name,
    )
  axes.axhline(
    noise_at["whole"]["noise"],
    color="black",
    linestyle=":",
    label="whole image",
  )
  axes.set(
    xscale="log",
    yscale="log",
    xlim=(0.01, 1),
    xlabel="share of the pixels in the loss",
    ylabel="noise of one image (trace of covariance / signal)",
    title=title,
  )
  axes.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["1%", "3%", "10%", "30%", "100%"])
  axes.minorticks_off()


def _draw_rates(axes: matplotlib.axes.Axes, noise_at: dict[str, Any]) -> None:
  """Draws the variance at each rate, relative to that of whole images."""
  compared = noise_at["rates_compared"]
  samplers = dict.fromkeys(one["sampler"] for one in compared)
  for number, sampler in enumerate(samplers):
    mine = [one for one in compared if one["sampler"] == sampler]
    for key, meaning, style in (
      ("images", "many images", ":"),
      ("time", "much time", "-"),
    ):
      axes.plot(
        [one["rate"] for one in mine],
        [one[key] for one in mine],
        style,
        color=f"C{number}",
        marker="o",
        markersize=3,
        label=f"{sampler}, as {meaning}",
      )
