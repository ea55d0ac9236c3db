"""Patches against whole images: what each costs, and how well it trains.

    python -m experiments.patchwise shapes
    python -m experiments.patchwise camvid --data-dir CAMVID

Timing. The study computes the same outputs of the same FCN-32s on the same
picture twice: by patches, one receptive field for each output, and by one pass
over the picture; first forward only, then with the gradient of the summed
cross-entropy. It takes the outputs whose receptive fields lie inside the
picture (10x10 by default, as in CVPR 2015, section 3.1), so both ways give the
same scores and gradients. They break even where the pass takes as long as the
patches. At a lower rate, sampling the loss is slower than computing the kept
patches one by one; section 3.4 puts this rate below 0.2. The network pads every
layer, also on patches. A network for single outputs would not; this favours the
pass a little.

Training. The study trains an FCN-8s in five variants, with the same number of
steps and about as many pixels in the loss of a step: on whole images; on more
images, with blocks of pixels kept at random; and on random, grid and
class-balanced patches of few images. As in practice, patches may be smaller
than the receptive field: the network then sees padding beyond the patch.

Writes to the work folder: config.json, variants/ (a run each), timing.json,
summary.json, table.md, patchwise_time.png and patchwise_training.png. Wall time
counts loading, augmentation, cutting and training, but not compilation and
evaluation.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence

import jax

from experiments.common import results
from experiments.common import study as study_lib
from experiments.patchwise import report
from experiments.patchwise import timing
from fcn_jax import sampling
from fcn_jax import train
from fcn_jax.cli import errors
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import records
from fcn_jax.runs import trained_model
from fcn_jax.runs import training
from fcn_jax.runs import watch

NAME = "patchwise"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patchwise(study_lib.Study):
  """Patches against whole images: time, memory and scores."""

  picture_size: int = 512
  """Side of the picture that is timed; its pixels are random."""
  num_outputs: tuple[int, ...] = (1, 2, 4, 10, 20, 50, 100)
  """Numbers of outputs to time, in rising order. The last one gives the time of
  a patch. It is at most the number of outputs whose receptive fields lie inside
  the picture."""
  patch_batch: int = 10
  """Patches that go through the network together when they are timed. Larger
  numbers of outputs must be multiples of it."""
  rounds: int = 3
  """How often each is timed; the median counts."""
  patch_size: tuple[int, int] = (32, 32)
  """Height and width of the patches to train on."""
  patches_per_image: int = 20
  """Patches from each of the batch_size images in the variants of patches. All
  variants have as many pixels in the loss as these patches have together, which
  must be those of a whole number of images of crop_size."""
  rate: float = 0.25
  """Sampling rate p of the variant of loss sampling. It sees 1 / p times as
  many images as the variant of whole images."""

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    super().check()
    config_lib.at_least_one(self, "patch_batch", "rounds", "patches_per_image")
    numbers, batch = self.num_outputs, self.patch_batch
    config_lib.require(
      self,
      num_outputs=(
        min(numbers, default=0) >= 1
        and sorted(set(numbers)) == list(numbers)
        and all(n <= batch or n % batch == 0 for n in numbers),
        f"rising numbers, those above patch_batch = {batch} multiples of it",
      ),
    )
    sampling.check_rate(self.rate)
    grid = config_lib.Patches("grid", self.patch_size, self.patches_per_image)
    grid.check_image(self.augmentation.crop_size)


PRESETS = {
  # Two CPU cores, 5 minutes.
  "shapes": (
    "Generated shapes, small backbone: 5 minutes on two CPU cores.",
    Patchwise.make(
      "patchwise_shapes",
      batch_size=3,
      crop_size=(96, 128),
      steps=100,
      num_seeds=1,
    ),
  ),
  # Two CPU cores, under 10 minutes.
  "camvid": (
    "CamVid at half size, small backbone: under 10 minutes on two CPU cores.",
    Patchwise.make(
      "patchwise_camvid",
      dataset="camvid",
      validation_split="test",
      resize=0.5,
      batch_size=3,
      crop_size=(168, 224),
      patch_size=(56, 56),
      steps=100,
      num_seeds=1,
    ),
  ),
}


def count_images(config: Patchwise) -> tuple[int, int]:
  """Images a step of the variants of whole images and of loss sampling.

  Raises:
    ValueError: if the variants cannot have the same number of pixels.
  """
  images, crop_size = config.data.batch_size, config.augmentation.crop_size
  num_patches = images * config.patches_per_image
  pixels = num_patches * math.prod(config.patch_size)
  whole, rest = divmod(pixels, math.prod(crop_size))
  if rest:
    raise ValueError(
      f"batch_size = {images} with patches_per_image = "
      f"{config.patches_per_image} of patch_size = {config.patch_size} are "
      f"{pixels} pixels a step, which is not a whole number of images of "
      f"crop_size = {crop_size}: choose others."
    )
  sampled = round(whole / config.rate)
  if abs(sampled * config.rate - whole) > 1e-6:
    raise ValueError(
      f"{whole} images / rate = {whole} / {config.rate} is not a whole number "
      "of images: choose another rate."
    )
  return whole, sampled


def plan(config: Patchwise) -> list[study_lib.Variant]:
  """The variants of the training."""
  whole, sampled = count_images(config)

  def of_patches(kind):
    options = {
      "patches": kind,
      "patch_size": config.patch_size,
      "patches_per_image": config.patches_per_image,
    }
    return study_lib.Variant(f"{kind} patches", options)

  return [
    study_lib.Variant("whole images", {"batch_size": whole}),
    study_lib.Variant(
      f"p={config.rate:g}",
      {"batch_size": sampled, "sampler": "bernoulli", "rate": config.rate},
    ),
    of_patches("random"),
    of_patches("grid"),
    of_patches("balanced"),
  ]


def locate_outputs(config: Patchwise) -> timing.Outputs:
  """The outputs that are timed.

  Raises:
    ValueError: if the picture has fewer.
  """
  # The number of classes has no influence on where outputs lie.
  model = timing.make_timed_model(config, 1)
  outputs = timing.locate_outputs(model, config.picture_size)
  if config.num_outputs[-1] > outputs.side**2:
    raise ValueError(
      f"num_outputs goes up to {config.num_outputs[-1]}, but a picture of "
      f"{config.picture_size} pixels a side has {outputs.side**2} outputs that "
      "see nothing but the picture: choose fewer, or a larger picture_size."
    )
  return outputs


def step_bytes(config: Patchwise, variant: study_lib.Variant) -> int:
  """Temporary memory of a compiled train step."""
  run_config = study_lib.run_config(config, variant, 0)
  parts, optimizer, _ = training.make_parts(run_config)
  state = trained_model.state_template(parts.model, optimizer)
  with contextlib.closing(parts.batches.starting_at(0)) as of_images:
    batch = next(parts.batches.patches_of(of_images, first_batch=0))
  return timing.temporary_bytes(
    parts.step, train.TrainState(**state), batch, jax.random.key(0)
  )


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, times and trains what is missing, writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = study_lib.parse(PRESETS, NAME, __doc__, arguments)
  folder = {"experiment": NAME, "contents": report.FILES}
  with errors.explained():
    study_lib.check_is_alone()
    config.check()
    outputs = locate_outputs(config)
    variants = plan(config)
    study_lib.check_folder(config, **folder)
    evaluation = batches.load_split(config.data, config.data.validation_split)
    dataset = batches.load_split(config.data, "train")
    study_lib.check(config, variants, dataset, **folder)
    study_lib.claim(config, **folder)
  timing_file = config.run.workdir / report.TIMING_FILE
  if not timing_file.exists():
    found = {
      "outputs": timing.measure(config, dataset.num_classes),
      "step_bytes": {one.name: step_bytes(config, one) for one in variants},
    }
    records.write_json(timing_file, found)
  study_lib.train(config, variants)
  found = results.read_figures(timing_file)
  print(report.write(config, found, outputs, variants, evaluation))
