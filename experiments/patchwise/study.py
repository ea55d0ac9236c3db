"""Patches against whole images: what each costs, and what it trains.

    python experiments/patchwise.py shapes
    python experiments/patchwise.py camvid --data-dir DIR

Timing. The same outputs of the same FCN-32s on the same picture, once by
patches, one receptive field for each output, and once by one pass over the
picture: forward, and forward with the gradient of the summed cross-entropy.
The outputs are those whose receptive fields lie inside the picture (10x10 by
default, as in CVPR 2015, section 3.1), so that both ways give the same scores
and gradients. Where the pass takes as long as the patches, patchwise training
breaks even: sampling the loss at a lower rate is slower than computing the
kept patches one by one. Section 3.4 puts this rate below 0.2. The network pads
every layer, also on patches, where a network for single outputs would not,
which favours the pass a little.

Training. An FCN-8s with as many pixels in the loss of a step, and as many
steps, in five arms: whole images; more images, of which cells of the score map
are kept at random; and random, grid and class-balanced patches of few images.
Patches may be smaller than the receptive field, as people train: the network
then sees padding where the image would go on.

Writes to the work folder: config.json, timing.json, summary.json, table.md,
patchwise_time.png and patchwise_training.png; arms/ holds what each finished
arm found. Wall time counts loading, augmentation, cutting and training, but
not compilation and evaluation.
"""

import dataclasses
import functools
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
import tyro

import arms
import command_line
import fcn_jax as fcn
import options
import patchwise_report
import training

EXPERIMENT = "patchwise"
TIMING_FILE = "timing.json"
CONTENTS = (TIMING_FILE, arms.FOLDER, *patchwise_report.FILES)
# Stride of the network that is trained, and side of the cells it samples.
STRIDE = 8


@dataclasses.dataclass(frozen=True)
class Patchwise(options.TrainingOptions):
  """Patches against whole images: time, memory and scores."""

  picture_size: int = 512
  """Side of the picture of the timing; random pixels."""
  num_outputs: tuple[int, ...] = (1, 2, 4, 10, 20, 50, 100)
  """Numbers of outputs to time, rising; the last one, at most all outputs
  whose receptive fields lie inside the picture, gives the time of a patch."""
  patch_batch: int = 10
  """Patches that go through the network together in the timing; larger
  numbers of outputs must be multiples of it."""
  rounds: int = 3
  """Timings of each, of which the median counts."""

  patch_size: tuple[int, int] = (32, 32)
  """Height and width of the patches to train on."""
  patches_per_image: int = 20
  """Patches from each image in the arms of patches."""
  patch_images: int = 3
  """Images a step in the arms of patches. The pixels of their patches are as
  many as are in the loss in all arms: they must be those of a whole number of
  images of crop_size."""
  rate: float = 0.25
  """Sampling rate p of the arm of loss sampling, which sees 1 / p times as
  many images as the arm of whole images."""


PRESETS = {
  # Hardware: two CPU cores, 5 minutes.
  "shapes": (
    "Generated shapes, small backbone: 5 minutes on two CPU cores.",
    Patchwise(
      workdir=pathlib.Path("runs/patchwise_shapes"),
      crop_size=(96, 128),
      steps=100,
      num_seeds=1,
    ),
  ),
  # Hardware: two CPU cores, under 10 minutes.
  "camvid": (
    "CamVid at half size, small backbone: under 10 minutes on two CPU cores.",
    Patchwise(
      workdir=pathlib.Path("runs/patchwise_camvid"),
      dataset="camvid",
      evaluation_split="test",
      resize=0.5,
      crop_size=(168, 224),
      patch_size=(56, 56),
      steps=100,
      num_seeds=1,
    ),
  ),
}


class Outputs(NamedTuple):
  """The outputs of a network whose receptive fields lie inside a picture.

  Output (i, j) is cell (first + i, first + j) of the score map, and the same
  as cell (first, first) of the patch with corner (stride i, stride j).

  Attributes:
    side: outputs along a side of the picture.
    stride: pixels between them.
    first: first cell that sees no padding.
    patch_size: side of a patch; the receptive field and the few pixels by
      which poolings on the patch and on the picture fall together.
    receptive_field: side in pixels of what an output sees.
  """

  side: int
  stride: int
  first: int
  patch_size: int
  receptive_field: int


def locate_outputs(model: fcn.models.Network, picture_size: int) -> Outputs:
  """Finds the outputs that see nothing but the picture.

  Raises:
    ValueError: if there are none.
  """
  layers = model.chain().score
  stride = int(fcn.geometry.grid(layers).stride)
  field = fcn.geometry.receptive_field(layers)
  start = fcn.geometry.receptive_field_start(layers)
  first = -(start // stride)
  patch_size = start + first * stride + field
  if picture_size < patch_size:
    raise ValueError(
      f"picture_size is {picture_size}; {model.backbone} sees {field} pixels, "
      f"for which patches of {patch_size} are cut: it must be that at least."
    )
  side = (picture_size - patch_size) // stride + 1
  return Outputs(side, stride, first, patch_size, field)


def make_timed_model(config: Patchwise, num_classes: int) -> fcn.models.FCN:
  """The network that is timed; without normalisation, as in the papers."""
  return fcn.models.FCN(num_classes, backbone=config.backbone, stride=32)


def loss_by_pass(model, outputs, params, picture, cells, labels):
  """Summed cross-entropy of the outputs `cells` [n, 2] from one pass."""
  score_map = model.apply({"params": params}, picture[None], train=False)
  rows, columns = outputs.first + cells.T
  scores = score_map.scores[0, rows, columns]
  return jnp.sum(fcn.losses.pixel_cross_entropy(scores, labels))


def loss_by_patches(model, outputs, params, picture, cells, labels):
  """The same loss from a patch for each output, in one batch."""
  (crops,) = fcn.patches.extract_patches(
    picture[None], outputs.stride * cells[None], (outputs.patch_size,) * 2
  )
  score_map = model.apply({"params": params}, crops, train=False)
  scores = score_map.scores[:, outputs.first, outputs.first]
  return jnp.sum(fcn.losses.pixel_cross_entropy(scores, labels))


# What is timed, made of a loss.
WORK = {
  "forward": lambda loss: loss,
  "forward and backward": jax.value_and_grad,
}


class Contestant:
  """One way to compute some outputs, with the times it took.

  Attributes:
    seconds: of each run so far.
  """

  def __init__(self, function, params, picture, cells, labels, *, chunk):
    """Compiles a function that is given `chunk` outputs at a time."""
    self._function = function
    self._given = params, picture
    # A loop here, not in the function: XLA's loops are slow on a CPU.
    self._chunks = [
      (cells[start : start + chunk], labels[start : start + chunk])
      for start in range(0, len(cells), chunk)
    ]
    self._num_outputs = len(cells)
    self._temporary_bytes = training.temporary_bytes(
      function, *self._given, *self._chunks[0]
    )
    self._compute(self._chunks[:2])  # Warms up.
    self.seconds = []

  def run(self) -> Any:
    """Computes the sum over all outputs."""
    begin = time.perf_counter()
    total = self._compute(self._chunks)
    self.seconds.append(time.perf_counter() - begin)
    return total

  def _compute(self, chunks):
    parts = (self._function(*self._given, *chunk) for chunk in chunks)
    total = functools.reduce(functools.partial(jax.tree.map, jnp.add), parts)
    return jax.block_until_ready(total)

  def row(self) -> dict[str, Any]:
    """The figures for the report."""
    return {
      "outputs": self._num_outputs,
      "seconds": statistics.median(self.seconds),
      "temporary_bytes": self._temporary_bytes,
    }


def make_contestants(
  config: Patchwise, num_classes: int
) -> dict[str, tuple[Contestant, list[Contestant]]]:
  """For each kind of work, the pass and the growing numbers of patches."""
  model = make_timed_model(config, num_classes)
  outputs = locate_outputs(model, config.picture_size)
  generator = np.random.default_rng(0)
  shape = (config.picture_size, config.picture_size, 3)
  picture = jnp.asarray(generator.integers(0, 256, shape, np.uint8))
  labels = generator.integers(0, num_classes, outputs.side**2, np.int32)
  # Not those of a new network, whose scores and most gradients are zero.
  params = jax.tree.map(
    lambda leaf: jnp.asarray(
      generator.normal(
        0, math.sqrt(2 / math.prod(leaf.shape[:-1])), leaf.shape
      ),
      leaf.dtype,
    ),
    jax.eval_shape(
      functools.partial(model.init, train=False),
      jax.random.key(0),
      picture[None],
    )["params"],
  )

  def contestant(function, num_outputs, chunk):
    # Evenly spread over the picture.
    chosen = np.arange(num_outputs) * outputs.side**2 // num_outputs
    cells = np.stack(np.divmod(chosen, outputs.side), axis=-1)
    given = params, picture, cells.astype(np.int32), labels[chosen]
    return Contestant(function, *given, chunk=chunk)

  contestants = {}
  for name, work in WORK.items():
    by_pass, by_patches = (
      jax.jit(work(functools.partial(loss, model, outputs)))
      for loss in (loss_by_pass, loss_by_patches)
    )
    most = config.num_outputs[-1]
    contestants[name] = (
      contestant(by_pass, most, most),
      [
        contestant(by_patches, count, min(count, config.patch_batch))
        for count in config.num_outputs
      ],
    )
  return contestants


def measure(config: Patchwise, num_classes: int) -> dict[str, Any]:
  """Times patches against the one pass, in turn, in one process."""
  result = {}
  num_runs = len(WORK) * config.rounds * len(config.num_outputs)
  with tqdm.tqdm(total=num_runs, unit="timing", disable=None) as progress:
    progress.set_description("compiling")
    contestants = make_contestants(config, num_classes)
    for name, (one_pass, patches) in contestants.items():
      progress.set_description(name)
      for _ in range(config.rounds):
        for some_patches in patches:
          by_patches, by_pass = some_patches.run(), one_pass.run()
          progress.update()
      result[name] = {
        "one_pass": one_pass.row(),
        "patches": [some_patches.row() for some_patches in patches],
        # Both are of the same outputs: zero but for rounding.
        "relative_difference": relative_difference(by_patches, by_pass),
      }
  return result


def relative_difference(tree: Any, reference: Any) -> float:
  """Norm of the difference of two trees over the norm of the second."""
  difference = jax.tree.map(jnp.subtract, tree, reference)
  return float(optax.tree.norm(difference) / optax.tree.norm(reference))


def grid_patches(
  key: jax.Array,
  batch: fcn.types.Batch,
  *,
  num_patches: int,
  size: tuple[int, int],
) -> fcn.types.Batch:
  """Some patches of a grid of a third of their size, each at most once."""
  corners = fcn.patches.grid_corners(
    batch.labels.shape[1:], size, grid_stride(size)
  )

  def choose(key):
    return jax.random.choice(key, corners, (num_patches,), replace=False)

  chosen = jax.vmap(choose)(jax.random.split(key, len(batch.labels)))
  return fcn.patches.cut(batch, chosen, size)


def grid_stride(size: tuple[int, int]) -> tuple[int, int]:
  """Distance of the patches of a grid: a third of their size."""
  return max(1, size[0] // 3), max(1, size[1] // 3)


def count_images(config: Patchwise) -> tuple[int, int]:
  """Images a step of the arms of whole images and of loss sampling.

  Raises:
    ValueError: if the arms cannot have the same number of pixels.
  """
  num_patches = config.patch_images * config.patches_per_image
  pixels = num_patches * math.prod(config.patch_size)
  whole, rest = divmod(pixels, math.prod(config.crop_size))
  if rest:
    raise ValueError(
      f"patch_images = {config.patch_images} with patches_per_image = "
      f"{config.patches_per_image} of patch_size = {config.patch_size} are "
      f"{pixels} pixels a step, which is no whole number of images of "
      f"crop_size = {config.crop_size}: choose others."
    )
  sampled = round(whole / config.rate)
  if abs(sampled * config.rate - whole) > 1e-6:
    raise ValueError(
      f"{whole} images / rate = {whole} / {config.rate} is no whole number of "
      "images: choose another rate."
    )
  return whole, sampled


def plan_arms(config: Patchwise, num_classes: int) -> list[arms.Arm]:
  """The arms of the training."""
  whole, sampled = count_images(config)

  def patches(name, cut, **options):
    cut = functools.partial(
      cut,
      num_patches=config.patches_per_image,
      size=config.patch_size,
      **options,
    )
    return arms.Arm(name, config.patch_images, cut=jax.jit(cut))

  return [
    arms.Arm("whole images", whole),
    arms.Arm(
      f"p={config.rate:g}",
      sampled,
      functools.partial(fcn.sampling.bernoulli, rate=config.rate, cell=STRIDE),
    ),
    patches("random patches", fcn.patches.sample_patches),
    patches("grid patches", grid_patches),
    patches(
      "balanced patches",
      fcn.patches.balanced_patches,
      num_classes=num_classes,
    ),
  ]


def check_options(config: Patchwise) -> Outputs:
  """Checks all that can be wrong before the data are there.

  Returns:
    The outputs that are timed.

  Raises:
    ValueError: for an option out of its range.
  """
  numbers, batch = config.num_outputs, config.patch_batch
  training.check_options(
    config,
    at_least_one=("patch_batch", "rounds", "patches_per_image", "patch_images"),
    conditions={
      "num_outputs": (
        min(numbers, default=0) >= 1
        and sorted(set(numbers)) == list(numbers)
        and all(n <= batch or n % batch == 0 for n in numbers),
        f"rising numbers, those above patch_batch = {batch} multiples of it",
      )
    },
  )
  fcn.sampling.check_rate(config.rate)
  fcn.patches.check_size(config.crop_size, config.patch_size)
  count_images(config)
  grid = fcn.patches.grid_corners(
    config.crop_size, config.patch_size, grid_stride(config.patch_size)
  )
  if len(grid) < config.patches_per_image:
    raise ValueError(
      f"patches_per_image is {config.patches_per_image}, but the grid has "
      f"{len(grid)} patches of {config.patch_size} in an image of "
      f"{config.crop_size}: choose fewer."
    )
  # The number of classes has no influence on where outputs lie.
  outputs = locate_outputs(make_timed_model(config, 1), config.picture_size)
  if numbers[-1] > outputs.side**2:
    raise ValueError(
      f"num_outputs goes up to {numbers[-1]}, but a picture of "
      f"{config.picture_size} pixels a side has {outputs.side**2} outputs "
      "that see nothing but the picture: choose fewer, or a larger "
      "picture_size."
    )
  return outputs


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, times and trains what is missing, writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = tyro.extras.overridable_config_cli(
    PRESETS, description=__doc__, args=arguments
  )
  with command_line.explained_errors():
    outputs = check_options(config)
    command_line.check_workdir(config, EXPERIMENT)
    splits = training.load_data(config)
    num_classes = splits.train.num_classes
    planned = plan_arms(config, num_classes)
    images_per_step = {arm.name: arm.images_per_step for arm in planned}
    training.check_images_per_step(images_per_step, splits.train)
    command_line.claim_workdir(config, EXPERIMENT, CONTENTS)
  timing_file = config.workdir / TIMING_FILE
  if not timing_file.exists():
    fcn.runs.records.write_json(timing_file, measure(config, num_classes))
  arms.train(config, planned, splits)
  print(
    patchwise_report.write(
      config,
      json.loads(timing_file.read_text(encoding="utf-8")),
      outputs,
      images_per_step,
      splits.evaluation,
    )
  )


if __name__ == "__main__":
  try:
    main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command with --resume continues.")
