"""Times the train step of VGG16 with its first three blocks frozen, on the CPU.

    python -m experiments.benchmarks.frozen_step

The steps with and without frozen layers take turns in one process, so that
other work on the machine slows both equally: compare the ratios.
"""

import dataclasses
import statistics
import time

import jax
import numpy as np
import optax
import tqdm
import tyro

import fcn_jax as fcn


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the benchmark."""

  strides: tuple[int, ...] = (32, 8)
  """Strides of the networks: 32 is FCN-32s, 8 is FCN-8s."""
  batch_size: int = 4
  """Images a step."""
  image_size: int = 256
  """Side of the images in pixels."""
  frozen: str = "pool3"
  """The last frozen layer or block."""
  head_widths: tuple[int, ...] = (4096, 512)
  """Channels of fc6 and fc7: 4096 as published, fewer to fine-tune fast."""
  turns: int = 7
  """Steps of each, of whose times the medians count."""


def steps(options: Options, stride: int, head_width: int):
  """Steps with all layers trained, and partly frozen.

  Returns:
    Functions of nothing that run a step, and the ratio of their operations.
  """
  generator = np.random.default_rng(0)
  shape = (options.batch_size, options.image_size, options.image_size)
  batch = jax.device_put(
    fcn.types.Batch(
      generator.integers(0, 256, (*shape, 3), dtype=np.uint8),
      generator.integers(0, 21, shape, dtype=np.int32),
    )
  )
  models = [
    fcn.models.FCN(
      21,
      backbone="vgg16",
      stride=stride,
      head_width=head_width,
      frozen=frozen,
    )
    for frozen in (None, options.frozen)
  ]
  full, frozen = (num_operations(model, options.image_size) for model in models)
  return [make_step(batch, model) for model in models], frozen / full


def num_operations(model, image_size: int) -> int:
  """Of a step: a pass, and as many for each of the two gradients of a layer.

  The gradient with respect to the inputs of the first trained layer, which is
  not computed, is counted.
  """
  rows = fcn.summary(model, image_size=image_size).rows
  return sum(row.flops * (1 if row.is_frozen else 3) for row in rows)


def make_step(batch, model):
  """A function that runs a step of the network, which is compiled."""
  optimizer = optax.sgd(1e-5, momentum=0.9)
  state = fcn.train.create_state(jax.random.key(0), model, optimizer)
  train_step = fcn.train.make_train_step(model, optimizer)

  def step():
    nonlocal state
    state, metrics = train_step(state, batch, jax.random.key(1))
    metrics.loss.block_until_ready()

  step()
  return step


def main(options: Options) -> None:
  """Runs the turns and prints the table."""
  print(
    f"VGG16, batch {options.batch_size} of {options.image_size}x"
    f"{options.image_size}, float32, frozen up to {options.frozen}, medians of "
    f"{options.turns} turns; jax {jax.__version__}\n"
  )
  print(
    "| network | channels of fc6, fc7 | all trained, s | frozen, s | ratio "
    "| range of ratios | ratio of operations |"
  )
  print("| --- |" + " ---: |" * 6)
  for stride in options.strides:
    for head_width in options.head_widths:
      time_pair(options, stride, head_width)


def time_pair(options: Options, stride: int, head_width: int) -> None:
  """Prints a row of the table."""
  seconds = [[], []]
  functions, operations = steps(options, stride, head_width)
  name = f"FCN-{stride}s"
  for _ in tqdm.trange(options.turns, desc=name, disable=None):
    for times, step in zip(seconds, functions, strict=True):
      begin = time.perf_counter()
      step()
      times.append(time.perf_counter() - begin)
  ratios = [b / a for a, b in zip(*seconds, strict=True)]
  full, frozen = map(statistics.median, seconds)
  print(
    f"| {name} | {head_width} | {full:.2f} | {frozen:.2f} "
    f"| {statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} "
    f"| {operations:.2f} |",
    flush=True,
  )


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))
