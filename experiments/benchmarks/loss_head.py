"""Times the forms of the loss against one another, and measures their memory.

    python -m experiments.benchmarks.loss_head
    python -m experiments.benchmarks.loss_head --part train_step

The loss begins at the coarse score map. "logits" interpolates it at every
pixel, as everyone does, and multiplies by the mask; the other forms never hold
all logits, see `losses.make`. All give the same loss and gradient. The time is
that of value and gradient, with drawing the mask and listing its pixels or
blocks. The forms take turns in one process: compare the ratios. Memory is what
the compiled program needs besides its arguments and results.

The second part times whole train steps of FCN-8s, with all logits and with the
form that `losses.make` chooses by itself.
"""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import tqdm
import tyro

import fcn_jax as fcn

# Samplers by name, from the rate and the pixels of an image, and the forms to
# compare beside "logits" and "auto".
SAMPLERS = {
  "places": (
    lambda rate, pixels: fcn.sampling.places(rate=rate),
    ("places", "blocks", "pixels"),
  ),
  "blocks": (
    lambda rate, pixels: fcn.sampling.bernoulli(rate=rate),
    ("blocks", "pixels"),
  ),
  "pixels": (
    lambda rate, pixels: fcn.sampling.bernoulli(rate=rate, unit="pixel"),
    ("blocks", "pixels"),
  ),
  "uncertain": (
    lambda rate, pixels: fcn.sampling.uncertain(count=round(rate * pixels)),
    ("blocks", "pixels"),
  ),
}
LOSSES = {
  "cross_entropy": fcn.losses.cross_entropy,
  "dice": fcn.losses.dice(),
}


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the benchmark."""

  part: Literal["loss", "train_step"] = "loss"
  """What to time: the loss alone, or whole train steps."""
  loss: Literal["cross_entropy", "dice"] = "cross_entropy"
  """Which loss, for the loss."""
  samplers: tuple[str, ...] = ("places", "blocks", "pixels")
  """Which samplers, for the loss; there is also uncertain."""
  num_classes: tuple[int, ...] = (21, 150)
  """Numbers of classes; the train steps always have 21."""
  image_size: int = 512
  """Side of the images in pixels, for the loss."""
  batch_size: int = 4
  """Images, for the loss."""
  strides: tuple[Literal[4, 8, 16, 32], ...] = (8,)
  """Strides of the score map."""
  max_logits_gb: float = 1.0
  """Leave the form "logits" out if one array of them is larger."""
  rates: tuple[float, ...] = (1.0, 0.25, 0.125, 0.0625)
  """Sampling rates; 1 is the whole image."""
  train_rates: tuple[float, ...] = (1.0, 0.25, 0.05)
  """Sampling rates of the train steps."""
  rounds: int = 5
  """How often each is timed; the median counts."""
  figure: pathlib.Path | None = None
  """PNG file to draw the times and the memory to."""


def take_turns(
  functions: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
  """Median seconds of each function; they run one after the other."""
  seconds = {name: [] for name in functions}
  for function in functions.values():
    jax.block_until_ready(function())
  for _ in range(rounds):
    for name, function in functions.items():
      if name != "logits":
        # What comes after all logits would find their pages and no cache.
        jax.block_until_ready(function())
      begin = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - begin)
  return {name: statistics.median(values) for name, values in seconds.items()}


def loss_function(of: str, form: str, score_map, sampler):
  """Value and gradient of a loss, from scores, labels and a key."""
  loss = fcn.losses.make(LOSSES[of], sampler=sampler, form=form)

  def loss_of(scores, labels, key):
    moved = dataclasses.replace(score_map, scores=scores)
    return loss(key, moved, labels).loss

  return jax.jit(jax.value_and_grad(loss_of))


def cases_of(options: Options) -> list[tuple[str, float, Any, tuple[str, ...]]]:
  """Name of the sampler, rate, sampler and forms of each case."""
  cases = []
  for rate in options.rates:
    if rate == 1:
      forms = ("logits", "strips", "blocks", "auto")
      cases.append(("whole image", rate, fcn.sampling.whole_image(), forms))
      continue
    for name in options.samplers:
      sampler_of, forms = SAMPLERS[name]
      sampler = sampler_of(rate, options.image_size**2)
      cases.append((name, rate, sampler, ("logits", *forms, "auto")))
  return cases


def time_losses(options: Options) -> list[dict[str, Any]]:
  """A row for each number of classes, size, sampler and rate."""
  generator = np.random.default_rng(0)
  cases = [
    (stride, num_classes, *case)
    for stride in options.strides
    for num_classes in options.num_classes
    for case in cases_of(options)
  ]
  rows = []
  size = options.image_size
  for stride, num_classes, name, rate, sampler, forms in tqdm.tqdm(
    cases, unit="case", disable=None
  ):
    shape = (options.batch_size, size, size)
    if 4e-9 * np.prod(shape) * num_classes > options.max_logits_gb:
      forms = tuple(form for form in forms if form != "logits")
    if rate * stride**2 < 1:
      # Less than one place in a block.
      forms = tuple(form for form in forms if form != "places")
    cells = -(-size // stride)
    score_map = fcn.types.ScoreMap(
      jnp.asarray(
        generator.normal(size=(shape[0], cells, cells, num_classes)),
        jnp.float32,
      ),
      stride,
      (stride - 1) / 2,
      (size, size),
      "clamp",
    )
    labels = generator.integers(0, min(num_classes, 250), shape)
    arguments = score_map.scores, jnp.asarray(labels, jnp.int32)
    arguments += (jax.random.key(0),)
    functions, megabytes = {}, {}
    for form in forms:
      compiled = (
        loss_function(options.loss, form, score_map, sampler)
        .lower(*arguments)
        .compile()
      )
      functions[form] = functools.partial(compiled, *arguments)
      memory = compiled.memory_analysis()
      megabytes[form] = memory.temp_size_in_bytes / 1e6
    check_equal({name: function() for name, function in functions.items()})
    rows.append(
      {
        "case": f"stride {stride}, {num_classes} classes, {name}",
        "rate": rate,
        "seconds": take_turns(functions, options.rounds),
        "megabytes": megabytes,
      }
    )
  return rows


def check_equal(results: dict[str, Any]) -> None:
  """Raises an `AssertionError` unless all forms gave the same numbers."""
  value, gradient = next(iter(results.values()))
  scale = float(jnp.abs(gradient).max())
  for other, other_gradient in results.values():
    np.testing.assert_allclose(other, value, rtol=1e-4)
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-4 * scale)


def time_train_steps(options: Options) -> list[dict[str, Any]]:
  """A row for each network and rate."""
  generator = np.random.default_rng(0)
  rows = []
  for backbone, batch_size, size in (("vgg_small", 4, 256), ("vgg16", 1, 256)):
    model = fcn.models.FCN(21, backbone=backbone, stride=8)
    optimizer = fcn.optimizers.caffe_sgd(1e-6, momentum=0.9, weight_decay=5e-4)
    shape = (batch_size, size, size)
    batch = fcn.types.Batch(
      jnp.asarray(generator.integers(0, 256, (*shape, 3)), jnp.uint8),
      jnp.asarray(generator.integers(0, 21, shape), jnp.int32),
    )
    steps = TrainSteps(model, optimizer, batch)
    for rate in tqdm.tqdm(options.train_rates, desc=backbone, disable=None):
      functions, megabytes = steps.of_forms(rate)
      rows.append(
        {
          "case": f"{backbone}, {batch_size} of {size}x{size}",
          "rate": rate,
          "seconds": take_turns(functions, options.rounds),
          "megabytes": megabytes,
        }
      )
  return rows


class TrainSteps:
  """Train steps that take turns with one state.

  There is one for all: large networks do not fit several times.
  """

  def __init__(self, model, optimizer, batch):
    self._model, self._optimizer, self._batch = model, optimizer, batch
    self._key = jax.random.key(0)
    self._state = fcn.train.create_state(self._key, model, optimizer)

  def of_forms(
    self, rate: float
  ) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """For each form of the loss, what runs a step, and its megabytes."""
    sampler = fcn.sampling.whole_image()
    if rate < 1:
      sampler = fcn.sampling.places(rate=rate)
    functions, megabytes = {}, {}
    for form in ("logits", "auto"):
      loss = fcn.losses.make(sampler=sampler, form=form)
      step = fcn.train.make_train_step(self._model, self._optimizer, loss)
      compiled = step.lower(self._state, self._batch, self._key).compile()
      memory = compiled.memory_analysis()
      megabytes[form] = memory.temp_size_in_bytes / 1e6
      functions[form] = functools.partial(self._run, compiled)
    return functions, megabytes

  def _run(self, compiled):
    self._state, metrics = compiled(self._state, self._batch, self._key)
    return metrics


def table(rows: list[dict[str, Any]]) -> str:
  """Rows as Markdown: milliseconds, how many times as fast, memory."""
  forms = list(dict.fromkeys(form for row in rows for form in row["seconds"]))
  header = ["", "p", *(f"{form} ms" for form in forms)]
  header += ["logits / auto", "auto / best", "logits MB", "auto MB"]
  lines = [
    "| " + " | ".join(header) + " |",
    "| --- |" + " ---: |" * (len(header) - 1),
  ]
  for row in rows:
    seconds, megabytes = row["seconds"], row["megabytes"]
    cells = [row["case"], f"{row['rate']:g}"]
    cells += [
      f"{1e3 * seconds[form]:.1f}" if form in seconds else "" for form in forms
    ]
    ratio = logits_mb = ""
    if "logits" in seconds:
      ratio = f"{seconds['logits'] / seconds['auto']:.1f}"
      logits_mb = f"{megabytes['logits']:.0f}"
    cells += [
      ratio,
      f"{seconds['auto'] / min(seconds.values()):.2f}",
      logits_mb,
      f"{megabytes['auto']:.0f}",
    ]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def draw(path: pathlib.Path, rows: list[dict[str, Any]], title: str) -> None:
  """Draws time and memory against the rate, a column for each case."""
  # The whole image belongs to each sampler, as rate 1.
  cases = list(
    dict.fromkeys(row["case"] for row in rows if row["rate"] < 1)
  ) or [rows[0]["case"]]
  forms = dict.fromkeys(form for row in rows for form in row["seconds"])
  colors = {form: f"C{number}" for number, form in enumerate(forms)}
  figure = matplotlib.figure.Figure((4.5 * len(cases), 6), layout="constrained")
  axes = figure.subplots(2, len(cases), squeeze=False, sharex=True)
  for column, case in enumerate(cases):
    classes = case.rsplit(",", 1)[0]
    mine = [
      row
      for row in rows
      if row["case"] == case
      or (row["rate"] == 1 and row["case"].rsplit(",", 1)[0] == classes)
    ]
    for axis, key, scale, label in (
      (axes[0, column], "seconds", 1e3, "time (ms)"),
      (axes[1, column], "megabytes", 1, "temporary memory (MB)"),
    ):
      for form in dict.fromkeys(form for row in mine for form in row[key]):
        points = [
          (row["rate"], scale * row[key][form])
          for row in mine
          if form in row[key]
        ]
        axis.plot(
          *zip(*points, strict=True),
          marker="o",
          color=colors[form],
          label=form,
          # Over the form that it has chosen.
          linestyle="--" if form == "auto" else "-",
        )
      axis.set(xscale="log", yscale="log", ylabel=label)
      axis.grid(alpha=0.3, which="both")
    axes[0, column].set_title(case)
    axes[1, column].set_xlabel("sampling rate p")
  lines = {}
  for axis in axes.flat:
    for line in axis.lines:
      lines.setdefault(line.get_label(), line)
  figure.legend(
    lines.values(), lines, title="form of the loss", loc="outside right center"
  )
  figure.suptitle(title)
  figure.savefig(path, dpi=85)


def main(options: Options) -> None:
  """Prints the table and draws the figure."""
  time_part = {"loss": time_losses, "train_step": time_train_steps}
  rows = time_part[options.part](options)
  device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
  print(f"Medians of {options.rounds} rounds; {device}.\n")
  print(table(rows))
  if options.figure is not None:
    titles = {
      "loss": f"Value and gradient of the loss, {options.batch_size} of "
      f"{options.image_size}x{options.image_size}",
      "train_step": "Train step of FCN-8s, 21 classes",
    }
    draw(options.figure, rows, f"{titles[options.part]} ({device})")


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))
