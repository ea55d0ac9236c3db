"""Times the input pipeline against PyTorch's DataLoader and tf.data.

    python -m experiments.benchmarks.input_pipeline
    python -m experiments.benchmarks.input_pipeline --data-dir CAMVID_FOLDER

All read the same files, JPEG pictures with PNG masks, and do the same to them:
a random scale, a crop (padded with void), a flip, random changes of brightness,
contrast, saturation and hue from the same distributions, and batches. The
DataLoader is timed twice: with transforms as people write them for PyTorch, on
Pillow's images in torchvision's manner, and with those of fcn_jax.

The benchmark times each stage on its own, in one thread, and then all together.
The contestants take turns in one process (and its workers), so that other work
on the machine slows all of them equally: compare the ratios. PyTorch and
TensorFlow are timed if they are installed: `make parity` installs PyTorch, `pip
install tensorflow-cpu` TensorFlow.
"""

import contextlib
import dataclasses
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL
import tqdm
import tyro

import fcn_jax as fcn
from experiments.benchmarks.input_pipeline import picture_files
from experiments.benchmarks.input_pipeline import pipeline_stages
from fcn_jax.cli import errors
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import environment

try:
  from experiments.benchmarks.input_pipeline import torch_loaders
except ModuleNotFoundError:
  torch_loaders = None
try:
  from experiments.benchmarks.input_pipeline import tf_batches
except ModuleNotFoundError:
  tf_batches = None

# What the others are compared with.
REFERENCE = "PyTorch's DataLoader, usual transforms"

# Pictures whose stages are timed.
NUM_STAGE_PICTURES = 40


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the benchmark."""

  data_dir: pathlib.Path | None = None
  """Folder with train/ and trainannot/, like CamVid's; None makes pictures."""
  num_pictures: int = 200
  """Number of pictures to make."""
  batch_size: int = 8
  """Pictures in a batch."""
  crop_size: tuple[int, int] = (320, 320)
  """Height and width of the crops."""
  scale_range: tuple[float, float] = (0.5, 2.0)
  """Smallest and largest random scale."""
  jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
  """Strengths of brightness, contrast, saturation and hue."""
  num_workers: int = environment.num_cores()
  """Threads or processes of each contestant."""
  num_batches: int = 10
  """Batches timed in a round."""
  rounds: int = 15
  """Rounds; the median counts."""


def time_stages(
  options: Options,
  pairs: list[tuple[pathlib.Path, pathlib.Path]],
  augmentation: dict[str, Any],
) -> list[tuple[str, float, float | None]]:
  """Median milliseconds a picture, of fcn_jax and of Pillow's users."""
  pairs = pairs[:NUM_STAGE_PICTURES]
  ours, theirs = (
    make(pairs, **augmentation, batch_size=options.batch_size)
    for make in (pipeline_stages.of_fcn_jax, pipeline_stages.of_pillow)
  )
  seconds = {}
  turns = [
    ((name, stages is ours), stages[name])
    for name in ours
    for stages in (ours, theirs)
    if name in stages
  ]
  for _ in tqdm.trange(options.rounds, desc="stages", disable=None):
    for key, stage in turns:
      begin = time.perf_counter()
      for number, one in enumerate(stage.inputs):
        stage.function(np.random.default_rng(number), one)
      seconds.setdefault(key, []).append(time.perf_counter() - begin)
  medians = {
    key: 1e3 * statistics.median(values) / len(pairs)
    for key, values in seconds.items()
  }
  return [
    (name, medians[name, True], medians.get((name, False))) for name in ours
  ]


def contestants(
  options: Options,
  pairs: list[tuple[pathlib.Path, pathlib.Path]],
  augmentation: dict[str, Any],
  stack: contextlib.ExitStack,
) -> dict[str, Iterator[Any]]:
  """Endless batches of each; they stop when the stack is closed."""
  count = options.num_workers
  result = {}
  if torch_loaders is not None:
    for name, dataset in (
      (REFERENCE, torch_loaders.PillowDataset),
      ("PyTorch's DataLoader, our transforms", torch_loaders.OursDataset),
    ):
      result[name] = torch_loaders.batches(
        dataset(pairs, **augmentation),
        batch_size=options.batch_size,
        num_workers=count,
      )
  if tf_batches is not None:
    result["tf.data"] = tf_batches.batches(
      pairs,
      **augmentation,
      batch_size=options.batch_size,
      num_workers=count,
    )
  for name, threads, workers in (
    ("fcn_jax, threads", count, 0),
    ("fcn_jax, processes", 1, count),
  ):
    batches = fcn.data.train_batches(
      picture_files.Source(pairs),
      batch_size=options.batch_size,
      augmentation=fcn.data.Augmentation(
        crop_size=augmentation["crop_size"],
        scale_range=augmentation["scale_range"],
        **augmentation["jitter"],
      ),
      seed=0,
      num_classes=picture_files.NUM_CLASSES,
      # As many batches ahead as PyTorch's.
      loading=fcn.data.Loading(
        num_threads=threads, num_workers=workers, prefetch_buffer_size=2
      ),
    )
    stack.callback(batches.close)
    result[name] = batches
  return result


def time_batches(
  options: Options, batches: dict[str, Iterator[Any]]
) -> dict[str, list[float]]:
  """Pictures a second of each contestant, by round."""
  # Batches in the buffers were made while the others had their turn.
  num_waiting = 4 * options.num_workers
  rates = {name: [] for name in batches}
  for _ in tqdm.trange(options.rounds, desc="rounds", disable=None):
    for name, iterator in batches.items():
      for _ in range(num_waiting):
        next(iterator)
      begin = time.perf_counter()
      for _ in range(options.num_batches):
        next(iterator)
      seconds = time.perf_counter() - begin
      rates[name].append(options.num_batches * options.batch_size / seconds)
  return rates


def stage_table(rows: list[tuple[str, float, float | None]]) -> str:
  """Milliseconds a picture as Markdown."""
  lines = [
    "| stage | fcn_jax ms | Pillow, usual ms | ratio |",
    "| --- | ---: | ---: | ---: |",
  ]
  for name, ours, theirs in rows:
    cells = ["", ""]
    if theirs is not None:
      cells = [f"{theirs:.2f}", f"{theirs / ours:.1f}"]
    lines.append(f"| {name} | {ours:.2f} | {' | '.join(cells)} |")
  return "\n".join(lines)


def batch_table(rates: dict[str, list[float]]) -> str:
  """Pictures a second as Markdown, and their ratios in the same round."""
  lines = [
    "| | pictures/s | ratio | range of ratios |",
    "| --- | ---: | ---: | ---: |",
  ]
  for name, values in rates.items():
    cells = ["", ""]
    if REFERENCE in rates:
      ratios = [
        own / other for own, other in zip(values, rates[REFERENCE], strict=True)
      ]
      cells = [
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
      ]
    lines.append(
      f"| {name} | {statistics.median(values):.0f} | {' | '.join(cells)} |"
    )
  return "\n".join(lines)


def left_out() -> Iterator[str]:
  """A sentence for each contestant that is not installed."""
  for name, module in (("PyTorch", torch_loaders), ("tf.data", tf_batches)):
    if module is None:
      yield f"{name} is not installed here, and left out."


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, times, and prints the two tables.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options,
    prog="python -m experiments.benchmarks.input_pipeline",
    description=__doc__,
    args=arguments,
  )
  with errors.explained():
    config_lib.at_least_one(
      options,
      "num_pictures",
      "batch_size",
      "num_workers",
      "num_batches",
      "rounds",
    )
  names = ("brightness", "contrast", "saturation", "hue")
  augmentation = {
    "crop_size": options.crop_size,
    "scale_range": options.scale_range,
    "jitter": dict(zip(names, options.jitter, strict=True)),
  }
  with contextlib.ExitStack() as stack:
    folder = options.data_dir
    if folder is None:
      folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
      picture_files.make(folder, options.num_pictures)
    pairs = picture_files.find(folder)
    rows = time_stages(options, pairs, augmentation)
    rates = time_batches(
      options, contestants(options, pairs, augmentation, stack)
    )
  source = "made pictures" if options.data_dir is None else "pictures"
  height, width = options.crop_size
  print(
    f"{len(pairs)} {source}, scale {options.scale_range[0]:g} to"
    f" {options.scale_range[1]:g}, crops of {width}x{height}, jitter"
    f" {options.jitter}, batch {options.batch_size}, {options.num_workers}"
    f" threads or processes each; medians of {options.rounds} rounds;"
    f" {platform.machine()}, Pillow {PIL.__version__}\n"
  )
  print(stage_table(rows) + "\n")
  print(batch_table(rates))
  for sentence in left_out():
    print("\n" + sentence)
