"""The tables and the figure of the measurement of gradient noise."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from fcn_jax.runs import records

TIMING_FILE = "timing.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
FIGURE_FILE = "gradient_noise.png"
NOISE = "noise"
CONTENTS = (NOISE, TIMING_FILE, SUMMARY_FILE, TABLE_FILE, FIGURE_FILE)


# A rate is suggested if it makes the noise at most this many times as large.
MOST_NOISE = 1.1


class Estimate(NamedTuple):
  """A figure and its standard error, NaN if unknown."""

  value: float
  error: float

  def text(self, digits: int) -> str:
    """The figure with its error, as far as it is known."""
    error = f" ± {self.error:.{digits}f}" if np.isfinite(self.error) else ""
    return f"{self.value:.{digits}f}{error}"


def over_seeds(values: Sequence[Any], errors: Sequence[Any]) -> Estimate:
  """The mean over seeds.

  Seeds have their own networks, images, masks and directions. With few seeds
  their spread may be small by chance, so that the error is at least that of the
  directions.

  Args:
    values: one for each seed; numbers or arrays.
    errors: of each, over directions.
  """
  count = len(values)
  mean_square = np.mean(np.square(errors), axis=0)
  if count > 1:
    mean_square = np.fmax(mean_square, np.var(values, axis=0, ddof=1))
  return Estimate(np.mean(values, axis=0), np.sqrt(mean_square / count))


def estimate(seeds: Sequence[dict[str, Any]], name: str) -> Estimate:
  """The mean over seeds of a figure that has an error beside it."""
  return over_seeds(
    [one[name] for one in seeds], [one[f"{name}_error"] for one in seeds]
  )


def rates_table(
  seeds: Sequence[dict[str, Any]], seconds: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
  """Cost and benefit of samplers and rates, relative to whole images.

  Args:
    seeds: what `measuring.measure` found, for each seed.
    seconds: of a step, for each image, by sampler and rate.

  Returns:
    For each sampler and rate: the `sampler`, the `rate`, the `seconds` an
    image, and the variance of the gradient relative to that of whole images:
    with as many images (`images`, and its error), with as many loss terms, that
    is 1 / p times the images (`terms`), and with as many images as take the
    same time (`time`).
  """
  compared = []
  for sampler, by_rate in seconds.items():
    for rate, cost in by_rate.items():
      found = [one["rates"][sampler][rate] for one in seeds]
      ratio, error = estimate(found, "ratio")
      compared.append(
        {
          "sampler": sampler,
          "rate": float(rate),
          "seconds": cost,
          "images": ratio,
          "images_error": error,
          "terms": ratio * float(rate),
          "time": ratio * cost / by_rate["1.0"],
        }
      )
  return compared


def smallest_rates(compared: Sequence[dict[str, Any]]) -> dict[str, float]:
  """By sampler, the smallest rate that hardly adds noise, see `MOST_NOISE`."""
  rates = {}
  for one in compared:
    if one["images"] <= MOST_NOISE:
      name = one["sampler"]
      rates[name] = min(one["rate"], rates.get(name, 1.0))
  return rates


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
    compared = rates_table(noise_at["seeds"], summary["seconds_an_image"])
    best = min(compared, key=lambda one: one["time"])
    whole = _whole(noise_at["seeds"])
    noise_at["rates_compared"] = compared
    noise_at["smallest_rates"] = smallest_rates(compared)
    noise_at["suggested_sampler"] = best["sampler"]
    noise_at["suggested_rate"] = best["rate"]
    # The noise of one image is the batch at which noise and signal are equal.
    noise_at["suggested_batch"] = whole.value * best["images"]
    lines += _tables(steps, noise_at)
  lines += [
    "±: standard error, of the directions, and of the seeds where they differ "
    f"more. Seeds: {summary['seeds']}. Device: {summary['device']} "
    f"({summary['cores']} cores), jax {summary['jax']}.",
    "",
  ]
  records.write_json(workdir / SUMMARY_FILE, summary)
  table = "\n".join(lines)
  (workdir / TABLE_FILE).write_text(table, encoding="utf-8")
  _draw(workdir / FIGURE_FILE, summary, title)
  return table


def _tables(steps: str, noise_at: dict[str, Any]) -> list[str]:
  seeds = noise_at["seeds"]
  samplers = _by_sampler(seeds)
  whole = _whole(seeds)
  length = estimate(seeds, "correlation_length")
  independent = estimate(seeds, "independent_pixels")
  loss = np.mean([one["loss"] for one in seeds])
  noise = "too large to be measured with so few images"
  batch = "and too few images to suggest a batch"
  if np.isfinite(noise_at["suggested_batch"]):
    noise = whole.text(1)
    images = max(1, round(noise_at["suggested_batch"]))
    batch = f"a batch of about {images} images"
  smallest = ", ".join(
    f"{name} {rate:g}" for name, rate in noise_at["smallest_rates"].items()
  )
  lines = [
    f"After {steps} steps (loss {loss:.2f} nats a pixel). One whole image: "
    f"noise {noise}; {np.mean([one['pixels'] for one in seeds]):,.0f} "
    f"pixels that count as {independent.text(1)} independent ones; their "
    f"gradients correlate by 1 / e at a distance of {length.text(1)} pixels. "
    f"Least variance in the same time: {noise_at['suggested_sampler']} at p = "
    f"{noise_at['suggested_rate']:g}, {batch}. Smallest p with at most "
    f"{MOST_NOISE - 1:.0%} more noise: {smallest}.",
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
      f"{noise.text(1) if np.isfinite(noise.value) else 'no signal'} "
      f"({share:.1%})"
      for share, noise in by_rate
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
    ratio = Estimate(one["images"], one["images_error"])
    lines.append(
      f"| {one['sampler']} | {one['rate']:g} | {1e3 * one['seconds']:.1f} "
      f"| {ratio.text(3)} | {one['terms']:.3f} | {one['time']:.3f} |"
    )
  found = estimate(
    [_arrays(one, "correlation") for one in seeds], "correlation"
  )
  distances = [1, 2, 4, 8, 16, 32, 64]
  distances = [d for d in distances if d < len(found.value)]
  return [
    *lines,
    "",
    "Correlation of the gradients of two pixels:",
    "",
    "| distance (pixels) | " + " | ".join(map(str, distances)) + " |",
    "| --- |" + " ---: |" * len(distances),
    "| correlation | "
    + " | ".join(
      Estimate(found.value[d], found.error[d]).text(2) for d in distances
    )
    + " |",
    "",
  ]


def _whole(seeds: Sequence[dict[str, Any]]) -> Estimate:
  """The noise of one whole image."""
  return estimate([one["whole"] for one in seeds], "noise")


def _arrays(found: dict[str, Any], name: str) -> dict[str, np.ndarray]:
  return {key: np.array(found[key]) for key in (name, f"{name}_error")}


def _by_sampler(
  seeds: Sequence[dict[str, Any]],
) -> dict[str, list[tuple[float, Estimate]]]:
  """By sampler, each share of the pixels and the noise at it."""
  return {
    name: [
      (
        float(np.mean([one["share"] for one in found])),
        estimate(found, "noise"),
      )
      for found in zip(*(one["samplers"][name] for one in seeds), strict=True)
    ]
    for name in seeds[0]["samplers"]
  }


def _draw(path: pathlib.Path, summary: dict[str, Any], title: str) -> None:
  figure = matplotlib.figure.Figure((13, 5.4), layout="constrained")
  noise, correlation, rates = figure.subplots(1, 3)
  *_, (steps, last) = summary["measured"].items()
  measurable = [
    (number, noise_at["seeds"])
    for number, noise_at in summary["measured"].items()
    if np.isfinite(_whole(noise_at["seeds"]).value)
  ]
  # A trained network's signal may be too small to divide by.
  *_, (seen_at, seeds) = measurable or [(steps, last["seeds"])]
  later = " (no signal later)" * (seen_at != steps)
  _draw_noise(noise, seeds, f"Samplers, after {seen_at} steps{later}")
  _draw_rates(rates, last)
  for steps, noise_at in summary["measured"].items():
    found = estimate(
      [_arrays(one, "correlation") for one in noise_at["seeds"]], "correlation"
    )
    distances = np.arange(len(found.value))
    correlation.plot(distances, found.value, label=f"{steps} steps")
    correlation.fill_between(
      distances,
      found.value - found.error,
      found.value + found.error,
      alpha=0.25,
      linewidth=0,
    )
  correlation.axhline(0, color="black", linewidth=0.5)
  correlation.set(
    xlabel="distance (pixels)",
    ylabel="correlation of pixel gradients",
    title="Spatial correlation",
  )
  ticks = sorted({one["rate"] for one in last["rates_compared"]})
  rates.set(
    xscale="log",
    xlabel="rate p",
    ylabel="variance of the gradient, relative to whole images",
    title=f"What a rate brings, after {steps} steps",
  )
  rates.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
  rates.minorticks_off()
  for axes, columns in ((noise, 3), (correlation, 3), (rates, 2)):
    axes.legend(
      fontsize=8,
      ncols=columns,
      loc="upper center",
      bbox_to_anchor=(0.5, -0.14),
    )
    axes.grid(alpha=0.3)
  figure.suptitle(f"{title}, with standard errors")
  figure.savefig(path, dpi=85)


def _draw_noise(
  axes: matplotlib.axes.Axes, seeds: Sequence[dict[str, Any]], title: str
) -> None:
  """Draws the noise of each sampler by the share of the pixels."""
  for name, by_rate in _by_sampler(seeds).items():
    axes.errorbar(
      [share for share, _ in by_rate],
      [noise.value for _, noise in by_rate],
      [noise.error for _, noise in by_rate],
      marker="o",
      markersize=3,
      elinewidth=0.7,
      capsize=2,
      label=name,
    )
  whole = _whole(seeds)
  axes.axhline(whole.value, color="black", linestyle=":", label="whole image")
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
  axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter("{x:g}")


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
      axes.errorbar(
        [one["rate"] for one in mine],
        [one[key] for one in mine],
        [one[key] * one["images_error"] / one["images"] for one in mine],
        linestyle=style,
        color=f"C{number}",
        marker="o",
        markersize=3,
        elinewidth=0.7,
        capsize=2,
        label=f"{sampler}, as {meaning}",
      )
