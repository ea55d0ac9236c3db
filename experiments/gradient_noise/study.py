"""What sampling the loss does to the noise of the gradient.

    python -m experiments.gradient_noise shapes
    python -m experiments.gradient_noise camvid --data-dir CAMVID --num-seeds 3

The papers conjecture (section 3.4) that sampling counters the spatial
correlation of a batch, but found no faster convergence. This study measures the
noise. It trains a network on whole images. After some steps it projects the
gradient g_i of each pixel's loss onto random directions v of the parameter
space: <g_i, v>, for all pixels of an image in one pass. The mean of
<g_i, v> <g_j, v> over the directions is <g_i, g_j>. Sums over pixels are exact;
means over directions, images and masks are estimates. (The squared norm of the
mean gradient has a relative standard error of about sqrt(2 / num_directions),
and more if the noise is larger than num_images. All noise that is divided by
one signal shares its error.) All estimates have standard errors: by the
jackknife over directions, or from the spread of several seeds, where that is
larger. A seed has a network, images, masks and directions of its own.

The study finds:

- the noise of a sampled gradient, for each sampler and share of the pixels: the
  trace of the covariance of one image's gradient, over images and masks,
  divided by the squared norm of the mean gradient. In a batch of so many
  images, noise and signal are equal (the simple noise scale of McCandlish et
  al. 2018, arXiv:1812.06162);
- the correlation of the gradients of two pixels, by their distance, and the
  distance at which it falls to 1 / e;
- the effective number of independent pixels in an image: the variance of one
  random pixel's gradient over that of an image's mean gradient;
- with the measured time of a step: the noise with as many images, with as many
  loss terms, and in as much time; the rate p with the least noise for its time;
  and the smallest p of each sampler with at most 10 % more noise.

A network may begin with another one, and be measured before its first step:

    fcn-jax convert import VGG16 --partial --workdir runs/vgg16_conv
    python -m experiments.gradient_noise camvid_vgg16 --data-dir CAMVID

VGG16 is a file of its weights; --partial is for one that has only the
convolutions. Layers that give scores begin with zeros, so that before the first
step only their own parameters have a gradient.

All pixel losses are those of evaluation mode (fixed batch statistics), so that
the gradient of a pixel depends on its own image alone. They are summed and
divided by the expected number of kept pixels of an image, not by the number
drawn.

Writes to the work folder: config.json, variants/ (the runs), noise/ (what was
found for each seed and step), timing.json, summary.json, table.md and
gradient_noise.png.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax
import tqdm

from experiments.common import results
from experiments.common import study as study_lib
from experiments.gradient_noise import measuring
from experiments.gradient_noise import report
from fcn_jax import data
from fcn_jax import sampling
from fcn_jax import train
from fcn_jax import types
from fcn_jax.cli import errors
from fcn_jax.cli import presets
from fcn_jax.runs import batches
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import records
from fcn_jax.runs import training
from fcn_jax.runs import watch

NAME = "gradient_noise"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientNoise(study_lib.Study):
  """Noise of the gradient by sampler, rate and time."""

  num_images: int = 48
  """Images whose gradients are measured; a multiple of batch_size."""
  num_directions: int = 16
  """Random directions that gradients are projected onto."""
  num_masks: int = 24
  """Masks drawn for each sampler and share."""
  measure_at: tuple[int, ...] = (20, 200)
  """Steps of training after which the noise is measured, in rising order; 0 is
  before the first."""
  shares: tuple[float, ...] = (1 / 4, 1 / 16, 1 / 64)
  """Approximate shares of the pixels that samplers keep."""
  rates: tuple[float, ...] = (1.0, 0.5, 0.25, 0.05)
  """Rates p at which a step is timed; 1 must be among them."""
  rounds: int = 7
  """How often each step is timed; the median counts."""

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    super().check()
    config_lib.at_least_one(self, "num_directions", "rounds")
    for rate in (*self.shares, *self.rates):
      sampling.check_rate(rate)
    at, last, size = self.measure_at, self.optimizer.steps, self.data.batch_size
    crop_size = self.augmentation.crop_size
    config_lib.require(
      self,
      num_masks=(self.num_masks >= 2, "at least 2, for a variance"),
      num_images=(
        self.num_images >= 2 and self.num_images % size == 0,
        f"a multiple of batch_size = {size}, at least 2",
      ),
      measure_at=(
        bool(at)
        and at[0] >= 0
        and sorted(set(at)) == list(at)
        and at[-1] <= last,
        f"rising from 0 or more, up to the {last} steps of training",
      ),
      rates=(1.0 in self.rates, "a list with 1 in it, to compare with"),
      shares=(
        min(self.shares, default=0) * math.prod(crop_size) >= 1,
        "shares that are large enough for a pixel of an image",
      ),
    )


def _make(name, **options):
  # One step more than are measured: the learning rate is 0 at the last.
  options = {"steps": 201, "dropout_rate": 0.0, "num_seeds": 1} | options
  return GradientNoise.make(name, batch_size=4, warmup_steps=10, **options)


PRESETS = {
  # Two CPU cores, under 5 minutes.
  "shapes": (
    "Generated shapes, small backbone: minutes on two CPU cores.",
    _make("gradient_noise_shapes"),
  ),
  # Two CPU cores, under 10 minutes.
  "camvid": (
    "CamVid at half size, small backbone: under 10 minutes on two CPU cores.",
    _make(
      "gradient_noise_camvid",
      dataset="camvid",
      resize=0.5,
      crop_size=(160, 224),
      num_images=16,
    ),
  ),
  # Two CPU cores, a quarter of an hour a seed.
  "camvid_vgg16": (
    "CamVid at half size, VGG16 from ImageNet: a quarter of an hour "
    "a seed on two CPU cores.",
    _make(
      "gradient_noise_camvid_vgg16",
      dataset="camvid",
      resize=0.5,
      crop_size=(160, 224),
      num_images=16,
      measure_at=(0, 20, 200),
      rounds=3,
      **presets.VGG16_CONVOLUTIONS,
    ),
  ),
}
VARIANT = study_lib.Variant("whole images", {})


def noise_file(config: GradientNoise, step: int, seed: int) -> pathlib.Path:
  """Where the noise after a step is kept, for the seed of that number."""
  return config.run.workdir / report.NOISE / f"seed{seed}-step{step}.json"


def measured_batches(
  config: GradientNoise, dataset: data.Dataset, seed: int
) -> list[types.Batch]:
  """The images whose gradients are measured, on the device."""
  run_config = study_lib.run_config(config, VARIANT, seed)
  other = run_config.replace(seed=run_config.run.seed + 1)
  endless = batches.training_batches(other, dataset).starting_at(0)
  count = config.num_images // config.data.batch_size
  result = [jax.device_put(next(endless)) for _ in range(count)]
  endless.close()
  return result


def train_and_measure(
  config: GradientNoise,
  measured: list[types.Batch],
  num_classes: int,
  seed: int,
) -> None:
  """Trains, and measures the noise after the steps that were asked for."""
  run_config = study_lib.run_config(config, VARIANT, seed)
  model = build.model(run_config, num_classes)
  samplers = measuring.samplers_to_compare(config, num_classes)
  work = len(measured) + len(samplers) * len(config.shares)
  # Directions and masks are those of the seed.
  of_seed = config.replace(seed=run_config.run.seed)

  def measure(step: int, state: train.TrainState) -> None:
    file = noise_file(config, step, seed)
    if file.exists():
      return
    title = f"seed {seed}: noise after {step} steps"
    with tqdm.tqdm(total=work, desc=title, disable=None) as bar:
      state = jax.device_get(state)
      found = measuring.measure(of_seed, model, state, measured, samplers, bar)
    file.parent.mkdir(exist_ok=True)
    records.write_json(file, found)

  at_steps = {
    step: lambda state, step=step: measure(step, state)
    for step in config.measure_at
    if step > 0
  }
  with errors.ends_of_runs(config):
    with errors.explained():
      prepared = training.prepare(run_config, at_steps=at_steps)
    if 0 in config.measure_at and int(prepared.state.step) == 0:
      measure(0, prepared.state)
    training.run(prepared)


def check_measured(config: GradientNoise, seed: int) -> None:
  """Raises a `ValueError` if training has ended and a measurement is lost."""
  for step in config.measure_at:
    file = noise_file(config, step, seed)
    if not file.exists():
      raise ValueError(
        f"{file} is not there, but training has ended: bring it back, begin "
        "anew with --overwrite, or give another --workdir."
      )


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, measures what is missing and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = study_lib.parse(PRESETS, NAME, __doc__, arguments)
  seeds = range(config.num_seeds)
  own = {"experiment": NAME, "contents": report.CONTENTS}
  with errors.explained():
    study_lib.check_is_alone()
    config.check()
    study_lib.check_folder(config, **own)
    dataset = batches.load_split(config.data, "train")
    study_lib.check(config, [VARIANT], dataset, **own)
    study_lib.claim(config, **own)
    missing = []
    for seed in seeds:
      if study_lib.has_ended(study_lib.run_config(config, VARIANT, seed)):
        check_measured(config, seed)
      else:
        missing.append(seed)
  for seed in missing:
    measured = measured_batches(config, dataset, seed)
    train_and_measure(config, measured, dataset.num_classes, seed)
    with errors.explained():
      check_measured(config, seed)
  timing_file = config.run.workdir / report.TIMING_FILE
  if not timing_file.exists():
    model = build.model(config, dataset.num_classes)
    optimizer = build.optimizer(config.optimizer)
    batch, *_ = measured_batches(config, dataset, 0)
    seconds = measuring.time_steps(config, model, optimizer, batch)
    records.write_json(timing_file, seconds)
  summary = {
    "measured": {
      str(step): {
        "seeds": [
          results.read_figures(noise_file(config, step, seed)) for seed in seeds
        ]
      }
      for step in config.measure_at
    },
    "seconds_an_image": results.read_figures(timing_file),
    "seeds": config.num_seeds,
    **results.where(),
  }
  print(report.write(config.run.workdir, summary, config.title))
