"""Rare classes: weigh them more, sample them more, or cut patches around them.

    python experiments/class_balance.py shapes
    python experiments/class_balance.py camvid --data-dir DIR

An FCN-8s in six arms, with as many steps, each of the same images, and another
choice of the pixels whose loss counts (sections 3.4 and 4 of the papers):

  plain             all pixels
  p=...             pixels at random, each with this probability
  class weights     all pixels, each with the weight of its class
  balanced pixels   as many pixels of each class that is in the batch
  hard pixels       those of each image with the largest losses
  balanced patches  patches around pixels of each class that is in the image

The loss is a mean over the pixels that are kept. All arms but those that keep
all pixels aim at as many as the patches have, a share p of the images; balanced
pixels are fewer where rare classes have too few, and void counts in none. What
p=... changes against plain is due to sampling, and what the others change
against p=... to their choice; the table has the pixels that were in the loss.

Writes to the work folder: config.json, summary.json, table.md and
class_balance.png; arms/ holds what each finished arm found. Wall time counts
loading, augmentation, cutting and training, but not compilation and evaluation.
"""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Sequence

import jax
import tyro

import arms
import class_balance_report
import class_counts
import command_line
import fcn_jax as fcn
import options
import training

EXPERIMENT = "class_balance"
CONTENTS = (arms.FOLDER, *class_balance_report.FILES)


@dataclasses.dataclass(frozen=True)
class ClassBalance(options.TrainingOptions):
  """Class weights, class-balanced sampling, hard examples, and patches."""

  images_per_step: int = 4
  """Images a step of all arms."""
  patch_size: tuple[int, int] = (48, 48)
  """Height and width of the patches to train on."""
  patches_per_image: int = 1
  """Patches from each image. The arms that sample keep as many pixels as these
  patches have."""


PRESETS = {
  # Hardware: two CPU cores, 5 minutes, a quarter of which is compilation.
  "shapes": (
    "Generated shapes, small backbone: 5 minutes on two CPU cores.",
    ClassBalance(workdir=pathlib.Path("runs/class_balance_shapes"), steps=200),
  ),
  # Hardware: two CPU cores, about 10 minutes.
  "camvid": (
    "CamVid at half size, small backbone: about 10 minutes on two CPU cores.",
    ClassBalance(
      workdir=pathlib.Path("runs/class_balance_camvid"),
      dataset="camvid",
      evaluation_split="test",
      resize=0.5,
      crop_size=(160, 224),
      patch_size=(40, 56),
      patches_per_image=4,
      steps=400,
      num_seeds=1,
    ),
  ),
}


def count_pixels(config: ClassBalance) -> int:
  """Pixels of each image that enter the loss where not all do."""
  return config.patches_per_image * math.prod(config.patch_size)


def plan_arms(
  config: ClassBalance, frequencies: class_counts.Frequencies
) -> list[arms.Arm]:
  """The arms of the training."""
  num_classes = len(frequencies.shares)
  count = count_pixels(config)
  rate = count / math.prod(config.crop_size)
  sampling = fcn.sampling
  samplers = {
    "plain": sampling.whole_image,
    # Pixel by pixel, and not by cells of the score map, as the balanced arm.
    f"p={rate:.3g}": functools.partial(sampling.bernoulli, rate=rate),
    "class weights": functools.partial(
      sampling.class_weighted,
      class_weights=tuple(class_counts.class_weights(frequencies).tolist()),
    ),
    "balanced pixels": functools.partial(
      sampling.class_balanced,
      count=config.images_per_step * count,
      num_classes=num_classes,
    ),
    "hard pixels": functools.partial(sampling.hardest, count=count),
  }
  cut = functools.partial(
    fcn.patches.balanced_patches,
    num_patches=config.patches_per_image,
    size=config.patch_size,
    num_classes=num_classes,
  )
  return [
    *(
      arms.Arm(name, config.images_per_step, sampler)
      for name, sampler in samplers.items()
    ),
    arms.Arm("balanced patches", config.images_per_step, cut=jax.jit(cut)),
  ]


def check_options(config: ClassBalance) -> None:
  """Checks all that can be wrong before the data are there.

  Raises:
    ValueError: for an option out of its range.
  """
  training.check_options(
    config, at_least_one=("images_per_step", "patches_per_image")
  )
  fcn.patches.check_size(config.crop_size, config.patch_size)
  count, pixels = count_pixels(config), math.prod(config.crop_size)
  if count >= pixels:
    raise ValueError(
      f"patches_per_image = {config.patches_per_image} of patch_size = "
      f"{config.patch_size} are {count} pixels, but an image of crop_size = "
      f"{config.crop_size} has {pixels}, which leaves nothing to choose: "
      "choose fewer or smaller patches."
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, trains what is missing, writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = tyro.extras.overridable_config_cli(
    PRESETS, description=__doc__, args=arguments
  )
  with command_line.explained_errors():
    check_options(config)
    command_line.check_workdir(config, EXPERIMENT)
    splits = training.load_data(config)
    training.check_images_per_step(
      {"plain": config.images_per_step}, splits.train
    )
    frequencies = class_counts.count_classes(splits.train)
    planned = plan_arms(config, frequencies)
    command_line.claim_workdir(config, EXPERIMENT, CONTENTS)
  arms.train(config, planned, splits)
  print(
    class_balance_report.write(
      config,
      [arm.name for arm in planned],
      shares=frequencies.shares,
      weights=class_counts.class_weights(frequencies),
      evaluation=splits.evaluation,
    )
  )


if __name__ == "__main__":
  try:
    main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command with --resume continues.")
