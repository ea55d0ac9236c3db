"""The papers' patch-sampling experiment (section 3.4 and Figure 5).

    python -m experiments.loss_sampling demo
    python -m experiments.loss_sampling camvid_small --data-dir CAMVID

For each sampling rate p, one variant keeps each block (the pixels between four
cells of the score map) with probability p and sees batch_size / p images a
step: the expected number of loss terms is the same in all variants.
--same-images shows all variants batch_size images a step instead, and so says
how many pixels can be left out. --keeps draws single pixels instead, or the
same places in all blocks, or compares them.
Another variant trains on explicit random patches, with as many pixels a step as
the variant of whole images. All variants have the same network, optimizer and
number of steps.

The papers fine-tuned VGG16. VGG16 here is a file of its weights; --partial is
for one that has only the convolutions:

    fcn-jax convert import VGG16 --partial --workdir runs/vgg16_conv
    python -m experiments.loss_sampling camvid_vgg16 --data-dir CAMVID

Writes to the work folder: config.json, variants/ (a run each), summary.json,
table.md, figure5.png (training loss against iterations, images and wall time)
and predictions.png. Wall time counts loading, augmentation and training, but
not compilation and evaluation.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from experiments.common import study as study_lib
from experiments.loss_sampling import report
from fcn_jax import patches
from fcn_jax import sampling
from fcn_jax.cli import errors
from fcn_jax.cli import presets
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import processes
from fcn_jax.runs import watch

NAME = "loss_sampling"
_SAMPLERS = {
  "blocks": {"sampler": "bernoulli", "unit": "block"},
  "pixels": {"sampler": "bernoulli", "unit": "pixel"},
  "places": {"sampler": "places"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSampling(study_lib.Study):
  """Loss sampling against whole images and explicit patches."""

  rates: tuple[float, ...] = (1.0, 0.5, 0.25)
  """Sampling rates p, one variant each, with batch_size / p images a step. Rate
  1 trains on whole images."""
  same_images: bool = False
  """Show all variants of `rates` batch_size images a step: at rate p the loss
  has p times the pixels, of the same images."""
  keeps: tuple[Literal["blocks", "pixels", "places"], ...] = ("blocks",)
  """What is drawn: blocks, the pixels between four cells of the score map, as
  in the papers; single pixels; or places, the same in all blocks. One variant
  each at every rate below 1."""
  patch_size: tuple[int, int] | None = (48, 48)
  """Height and width of the patches of the explicit-patchwise variant. It sees
  as many pixels a step as the variant of whole images. None leaves it out."""
  patches_per_image: int = 1
  """Random patches cut from each image in the explicit-patchwise variant."""


PRESETS = {
  # Two CPU cores, 5 minutes. Seen: mean IU 0.656 and 0.674 for whole images.
  "demo": (
    "Generated shapes, small backbone: minutes on two CPU cores.",
    LossSampling.make("demo", batch_size=4, steps=250),
  ),
  # Two CPU cores, 22 minutes. Seen: mean IU 0.425 for whole images on the test
  # split, 0.458 at p = 0.25.
  "camvid_small": (
    "CamVid at half size, small backbone: under an hour on two CPU cores.",
    LossSampling.make(
      "camvid_small",
      dataset="camvid",
      validation_split="test",
      resize=0.5,
      crop_size=(160, 224),
      patch_size=(80, 112),
      batch_size=4,
      steps=1400,
      validate_every=1400,
      num_seeds=1,
      warmup_steps=50,
    ),
  ),
  # Two CPU cores, 75 minutes, most of them at p = 1/16. Seen: mean IU 0.481 for
  # whole images on the test split, 0.506 to 0.508 for samples.
  "camvid_vgg16": (
    "CamVid at half size, VGG16 from ImageNet, its lower half frozen: an hour "
    "or two on two CPU cores.",
    LossSampling.make(
      "loss_sampling_camvid_vgg16",
      dataset="camvid",
      validation_split="test",
      resize=0.5,
      crop_size=(160, 224),
      patch_size=(80, 112),
      rates=(1.0, 1 / 4, 1 / 16),
      keeps=("blocks", "places"),
      freeze=("pool3",),
      batch_size=2,
      steps=250,
      validate_every=250,
      save_every=50,
      num_seeds=1,
      warmup_steps=20,
      **presets.VGG16_CONVOLUTIONS,
    ),
  ),
  # One GPU with 40 GB or a TPU; hours. Not run by us yet.
  "camvid": (
    "CamVid at full size, VGG16 from scratch: for a GPU or TPU.",
    LossSampling.make(
      "camvid",
      dataset="camvid",
      validation_split="test",
      backbone="vgg16",
      dropout_rate=0.5,
      dtype="bfloat16",
      crop_size=(352, 480),
      patch_size=(176, 240),
      batch_size=4,
      steps=20_000,
      validate_every=20_000,
      num_seeds=3,
      learning_rate=1e-3,
      warmup_steps=500,
      log_every=50,
      num_threads=8,
    ),
  ),
}


def plan(config: LossSampling) -> list[study_lib.Variant]:
  """The variants.

  Raises:
    ValueError: if an option, or a combination, makes no sense.
  """
  config_lib.at_least_one(config, "patches_per_image")
  config_lib.require(
    config,
    rates=(len(set(config.rates)) == len(config.rates), "all different"),
    keeps=(
      bool(config.keeps) and len(set(config.keeps)) == len(config.keeps),
      f"different ones of {', '.join(_SAMPLERS)}",
    ),
  )
  base = config.data.batch_size
  variants = []
  for rate in config.rates:
    sampling.check_rate(rate)
    images = base if config.same_images else _images(base, rate)
    # All of them keep the whole image at rate 1.
    for kind in config.keeps if rate < 1 else config.keeps[:1]:
      is_only_one = rate == 1 or len(config.keeps) == 1
      name = f"p={rate:g}" if is_only_one else f"{kind}, p={rate:g}"
      options = {"batch_size": images, "rate": rate, **_SAMPLERS[kind]}
      variants.append(study_lib.Variant(name, options))
  if config.patch_size is not None:
    variants.append(_patches(config))
  if not variants:
    raise ValueError("no rates and no patch_size: there is nothing to train.")
  return variants


def _images(base: int, rate: float) -> int:
  """Images a step with as many sampled pixels as `base` whole ones have."""
  images = round(base / rate)
  if abs(images * rate - base) > 1e-6:
    raise ValueError(
      f"batch_size / rate = {base} / {rate} is not a whole number of images: "
      "choose another rate or batch_size, or --same-images."
    )
  return images


def _patches(config: LossSampling) -> study_lib.Variant:
  """The variant of explicit patches."""
  crop_size = config.augmentation.crop_size
  patches.check_size(crop_size, config.patch_size)
  pixels = config.data.batch_size * math.prod(crop_size)
  pixels_per_image = config.patches_per_image * math.prod(config.patch_size)
  images, rest = divmod(pixels, pixels_per_image)
  if rest:
    raise ValueError(
      f"the {pixels} pixels that the variant of whole images sees a step are "
      f"not a multiple of the {pixels_per_image} in patches_per_image = "
      f"{config.patches_per_image} patches of patch_size = "
      f"{config.patch_size}: choose others, such as half the crop_size."
    )
  options = {
    "batch_size": images,
    "sampler": "whole_image",
    "patches": "random",
    "patch_size": config.patch_size,
    "patches_per_image": config.patches_per_image,
  }
  return study_lib.Variant("patches", options)


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, trains what is missing and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = study_lib.parse(PRESETS, NAME, __doc__, arguments)
  folder = {"experiment": NAME, "contents": report.FILES}
  with errors.explained():
    config.check()
    variants = plan(config)
    study_lib.check_folder(config, **folder)
    evaluation = batches.load_split(config.data, config.data.validation_split)
    dataset = batches.load_split(config.data, "train")
    study_lib.check(config, variants, dataset, **folder)
    study_lib.claim(config, **folder)
  study_lib.train(config, variants)
  if processes.is_first():
    print(report.write(config, variants, evaluation))
