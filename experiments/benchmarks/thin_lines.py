"""What fine strides are for: lines of one to three pixels.

Trains a network from scratch at several strides, on pictures with
random lines, and scores the lines of other pictures:

    python -m experiments.benchmarks.thin_lines --figure lines.png

Prints a table, and draws one picture with the predictions.
"""

import dataclasses
import pathlib
import time
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.colors
import matplotlib.figure
import matplotlib.patches
import numpy as np
import optax
import tqdm
import tyro

import fcn_jax as fcn
from fcn_jax.runs import config


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the benchmark."""

  strides: tuple[Literal[1, 2, 4, 8, 16, 32], ...] = (8, 4, 2, 1)
  """Strides of the networks."""
  backbone: config.Backbone = "vgg_small"
  """Network, from scratch."""
  steps: int = 300
  """Steps of training."""
  batch_size: int = 8
  """Pictures a step."""
  image_size: int = 96
  """Side of the pictures."""
  num_test: int = 32
  """Pictures to score."""
  learning_rate: float = 3e-3
  """Highest learning rate of Adam; it falls to 0 along a cosine."""
  seed: int = 0
  """Of pictures and parameters."""
  figure: pathlib.Path | None = None
  """PNG file to draw to."""


def draw_lines(
  generator: np.random.Generator, size: int, num_lines: int = 5
) -> tuple[np.ndarray, np.ndarray]:
  """A noisy picture [H, W, 3] uint8 of dark lines, and its labels [H, W].

  The lines are waves across the picture, one to three pixels wide, as membranes
  are.
  """
  rows, columns = np.mgrid[:size, :size].astype(np.float32)
  is_line = np.zeros((size, size), bool)
  for _ in range(num_lines):
    angle = generator.uniform(0, np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    amplitude = generator.uniform(2, 10)
    period = generator.uniform(30, 90)
    phase = generator.uniform(0, 2 * np.pi)
    middle = generator.uniform(across.min(), across.max())
    wave = middle + amplitude * np.sin(2 * np.pi * along / period + phase)
    width = generator.integers(1, 4)
    is_line |= np.abs(across - wave) < width / 2
  gray = np.where(is_line, 80.0, 160.0) + generator.normal(0, 20, (size, size))
  image = np.clip(gray, 0, 255).astype(np.uint8)
  return np.repeat(image[..., None], 3, axis=-1), is_line.astype(np.int32)


def draw_batch(
  generator: np.random.Generator, number: int, size: int
) -> fcn.types.Batch:
  """A batch of `draw_lines`."""
  pairs = [draw_lines(generator, size) for _ in range(number)]
  images, labels = map(np.stack, zip(*pairs, strict=True))
  return fcn.types.Batch(images, labels)


def train_and_predict(
  options: Options, stride: int, test_images: np.ndarray
) -> tuple[np.ndarray, float]:
  """Classes [N, H, W] of the test images, and the seconds of a step."""
  model = fcn.models.FCN(
    2, backbone=options.backbone, stride=stride, normalization="batch"
  )
  optimizer = optax.adam(
    optax.cosine_decay_schedule(options.learning_rate, options.steps)
  )
  step = fcn.train.make_train_step(model, optimizer)
  state = fcn.train.create_state(jax.random.key(options.seed), model, optimizer)
  generator = np.random.default_rng(options.seed)
  key = jax.random.key(options.seed + 1)
  begin = 0.0
  for number in tqdm.trange(
    options.steps, desc=f"stride {stride}", disable=None
  ):
    batch = draw_batch(generator, options.batch_size, options.image_size)
    state, metrics = step(state, batch, key)
    if number == 0:
      # The first step compiles.
      jax.block_until_ready(metrics)
      begin = time.perf_counter()
  jax.block_until_ready(state)
  seconds = (time.perf_counter() - begin) / max(1, options.steps - 1)
  classes = fcn.inference.predict(
    model, fcn.train.variables(state), jnp.asarray(test_images)
  )
  return np.asarray(classes), seconds


def iu_of_lines(classes: np.ndarray, labels: np.ndarray) -> float:
  """Intersection over union of the lines."""
  both = np.sum((classes == 1) & (labels == 1))
  return float(both / np.sum((classes == 1) | (labels == 1)))


def save_figure(
  image: np.ndarray,
  label: np.ndarray,
  predictions: dict[str, np.ndarray],
  path: pathlib.Path,
) -> None:
  """Draws a picture, and which lines were found, missed or made up."""
  figure = matplotlib.figure.Figure(figsize=(3 * (1 + len(predictions)), 3.6))
  colors = ["#202020", "#e69f00", "#d55e00", "#f0f0f0"]
  names = ["background", "made up", "missed", "found"]
  axes = figure.subplots(1, 1 + len(predictions))
  axes[0].imshow(image)
  axes[0].set_title("picture")
  for axis, (title, classes) in zip(axes[1:], predictions.items(), strict=True):
    kind = np.where(label == 1, 2 + (classes == 1), classes == 1)
    palette = matplotlib.colors.ListedColormap(colors)
    axis.imshow(kind, cmap=palette, vmin=0, vmax=3, interpolation="nearest")
    axis.set_title(title)
  for axis in axes:
    axis.set_axis_off()
  figure.legend(
    handles=[
      matplotlib.patches.Patch(facecolor=color, edgecolor="black", label=name)
      for color, name in zip(colors, names, strict=True)
    ],
    loc="lower center",
    ncols=4,
  )
  figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
  """Trains, prints the table and draws the figure."""
  options = tyro.cli(Options, description=__doc__)
  generator = np.random.default_rng(options.seed + 1000)
  test = draw_batch(generator, options.num_test, options.image_size)
  rows, predictions = [], {}
  for stride in options.strides:
    classes, seconds = train_and_predict(options, stride, test.images)
    iu = iu_of_lines(classes, test.labels)
    rows.append(f"| {stride} | {iu:.3f} | {1e3 * seconds:.0f} |")
    predictions[f"stride {stride}: IU {iu:.2f}"] = classes[0]
  print(
    f"{options.steps} steps; {jax.default_backend()}, jax {jax.__version__}."
  )
  print("\n| stride | IU of the lines | ms a step |\n| ---: | ---: | ---: |")
  print("\n".join(rows))
  if options.figure is not None:
    save_figure(test.images[0], test.labels[0], predictions, options.figure)


if __name__ == "__main__":
  main()
