"""Times the train steps of presets against those of another commit.

    python -m experiments.benchmarks.against_commit --commit eda5a1b

For each preset, processes with this checkout and processes with the other
commit take turns, so that other work on the machine slows both equally: compare
the ratios. Networks, losses and optimizers are those of the preset, each side
with its own: leave out a preset that has changed. Pictures and labels are
random, and no larger than `--max-side`, in batches of at most `--max-batch`.
Parameters are random numbers, too, so no file is needed, and numbers are
float32, as CPUs have no bfloat16.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types

import jax
import numpy as np
import tqdm
import tyro

from fcn_jax import train
from fcn_jax import types as fcn_types
from fcn_jax.cli import presets
from fcn_jax.runs import build

# Presets that differ from one another in more than their data.
PRESETS = (
  "shapes",
  "camvid_small",
  "camvid",
  "voc_fcn32s",
  "voc_fcn16s",
  "voc_fcn8s",
  "voc_fcn8s_at_once",
  "voc_fcn32s_accumulated",
  "voc_fcn_alexnet",
  "nyud_fcn32s_color_hha",
  "siftflow_fcn8s",
  "folder_fcn_resnet50",
)
# Channels of what the network sees; colours otherwise.
CHANNELS = {"color_depth": 4, "color_hha": 6}


@dataclasses.dataclass(frozen=True)
class Options:
  """What to compare."""

  commit: str
  """The other commit."""
  presets: tuple[str, ...] = PRESETS
  """Presets of `fcn-jax train`."""
  num_classes: int = 21
  """Classes of the labels."""
  max_side: int = 256
  """Largest side of the pictures in pixels."""
  max_batch: int = 4
  """Most pictures in a batch."""
  rounds: int = 5
  """Timings in each process, of which the median counts."""
  pairs: int = 3
  """Processes of each, of whose ratios the median counts."""


def seconds_of_step(preset: str, options: Options) -> float:
  """Median seconds of a train step of the package on the path."""
  config = presets.PRESETS[preset][1]
  crop_size = config.augmentation.crop_size or (options.max_side,) * 2
  sides = tuple(min(side, options.max_side) for side in crop_size)
  # The counts of samplers depend on both.
  config = config.replace(
    dtype="float32",
    batch_size=min(config.data.batch_size, options.max_batch),
    **({"crop_size": sides} if config.augmentation.crop_size else {}),
  )
  model = build.model(config, options.num_classes)
  optimizer = build.optimizer(config.optimizer)
  classes = types.SimpleNamespace(num_classes=options.num_classes)
  step = train.make_train_step(
    model,
    optimizer,
    build.loss(config, classes),
    skip_nonfinite=config.run.max_skipped > 0,
  )
  key = jax.random.key(0)
  state = _random_state(
    jax.eval_shape(lambda: train.create_state(key, model, optimizer))
  )
  batch = _random_batch(config, sides, options.num_classes)
  seconds = []
  # The first compiles, and the second may still allocate.
  for _ in range(2 + options.rounds):
    begin = time.perf_counter()
    state, metrics = step(state, batch, key)
    metrics.loss.block_until_ready()
    seconds.append(time.perf_counter() - begin)
  return statistics.median(seconds[2:])


def _random_state(shapes):
  """Small random numbers; making those of `create_state` takes longer."""
  generator = np.random.default_rng(0)

  def fill(shape):
    if not jax.numpy.issubdtype(shape.dtype, jax.numpy.floating):
      return jax.numpy.zeros(shape.shape, shape.dtype)
    values = generator.uniform(0.0, 0.02, shape.shape)
    return jax.numpy.asarray(values, shape.dtype)

  return jax.tree.map(fill, shapes)


def _random_batch(config, sides, num_classes):
  generator = np.random.default_rng(1)
  shape = (config.data.batch_size, *sides)
  channels = CHANNELS.get(config.data.modalities, 3)
  images = generator.integers(0, 256, (*shape, channels), dtype=np.uint8)
  labels = generator.integers(0, num_classes, shape, dtype=np.int32)
  heads = build.heads(config.data, num_classes)
  if not isinstance(heads, int):
    # Each head has at least three classes.
    labels = {name: labels % 3 for name in heads}
  sizes = None
  if config.augmentation.crop_size is None:
    sizes = np.tile(np.array(sides, np.int32), (len(images), 1))
  batch = fcn_types.Batch(images.astype(_dtype(channels)), labels, sizes)
  return jax.device_put(batch)


def _dtype(channels):
  """Of pictures; those with a depth are floats."""
  return np.uint8 if channels == 3 else np.float32


def compare(options: Options, other: pathlib.Path) -> None:
  """Runs the pairs and prints the table."""
  here = pathlib.Path(__file__).parents[2]
  print(
    f"Pictures of at most {options.max_side} pixels a side, batches of at most "
    f"{options.max_batch}, {options.num_classes} classes; medians of "
    f"{options.pairs} pairs of {options.rounds} steps; jax {jax.__version__}.\n"
  )
  print(f"| preset | {options.commit} s | now s | ratio | range of ratios |")
  print("| --- | ---: | ---: | ---: | ---: |")
  for preset in options.presets:
    seconds = {other: [], here: []}
    for _ in tqdm.trange(options.pairs, desc=preset, disable=None):
      for checkout, found in seconds.items():
        found.append(_in_process(checkout, preset, options))
    before, now = seconds.values()
    ratios = [b / a for a, b in zip(before, now, strict=True)]
    print(
      f"| {preset} | {statistics.median(before):.3f} "
      f"| {statistics.median(now):.3f} | {statistics.median(ratios):.2f} "
      f"| {min(ratios):.2f}-{max(ratios):.2f} |",
      flush=True,
    )


def _in_process(checkout, preset, options):
  """Times a preset with the package of a checkout."""
  process = subprocess.run(
    [sys.executable, __file__],
    input=json.dumps([preset, dataclasses.asdict(options)]),
    env={**os.environ, "PYTHONPATH": str(checkout)},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return json.loads(process.stdout.splitlines()[-1])


def main(options: Options) -> None:
  """Checks the other commit out beside this one, and compares."""
  git = ["git", "-C", str(pathlib.Path(__file__).parent)]
  with tempfile.TemporaryDirectory() as folder:
    other = pathlib.Path(folder) / "other"
    subprocess.run(
      [*git, "worktree", "add", "--quiet", "--detach", other, options.commit],
      check=True,
    )
    try:
      compare(options, other)
    finally:
      subprocess.run([*git, "worktree", "remove", "--force", other], check=True)


if __name__ == "__main__":
  # A process with no arguments is one of the pairs.
  if len(sys.argv) == 1 and not sys.stdin.isatty():
    which, values = json.load(sys.stdin)
    print(json.dumps(seconds_of_step(which, Options(**values))))
  else:
    main(tyro.cli(Options, description=__doc__))
