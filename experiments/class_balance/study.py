"""Rare classes: weigh them more, sample them more, or cut patches around them.

    python -m experiments.class_balance shapes
    python -m experiments.class_balance camvid --data-dir CAMVID

Trains an FCN-8s in variants, with the same steps. They differ in the pixels
that enter the loss (sections 3.4 and 4 of the papers), in the loss, or in the
crops:

  plain             all pixels
  p=...             pixels at random, each with this probability
  class weights     all pixels, each with the weight of its class
  balanced pixels   as many pixels of each class that is in the batch
  hard pixels       those of each image with the largest losses
  uncertain pixels  those with the most similar scores of two classes, mostly
  focal             all pixels, by the focal loss
  with Dice         all pixels, cross-entropy and the Dice loss; with Tversky
                    and with Lovasz likewise
  forced crops      half of the crops hold a pixel of a class drawn at random
  balanced patches  patches around pixels of each class that is in the image

The loss is the mean over the kept pixels. Most variants keep all of them. Those
of pixels aim at as many pixels as the patches have, a share p of the images.
Balanced pixels are fewer if rare classes have too few; void pixels never count.
Compare p=... with plain to see what sampling changes, and the others with p=...
to see what their choice of pixels changes. The table says how many pixels were
in the loss.

Writes to the work folder: config.json, variants/ (a run each), summary.json,
table.md and class_balance.png. Wall time counts loading, augmentation, cutting
and training, but not compilation and evaluation.
"""

import dataclasses
import math
from collections.abc import Sequence

from experiments.class_balance import report
from experiments.common import study as study_lib
from fcn_jax import data
from fcn_jax import patches
from fcn_jax.cli import errors
from fcn_jax.runs import batches
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import processes
from fcn_jax.runs import watch

NAME = "class_balance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassBalance(study_lib.Study):
  """Class weights, sampling, losses, crops and patches for rare classes."""

  patch_size: tuple[int, int] = (48, 48)
  """Height and width of the patches to train on."""
  patches_per_image: int = 1
  """Patches from each image. The variants that sample keep as many pixels as
  these patches have."""

  @property
  def num_pixels(self) -> int:
    """Pixels of each image that enter the loss, in variants that sample."""
    return self.patches_per_image * math.prod(self.patch_size)

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    super().check()
    config_lib.at_least_one(self, "patches_per_image")
    crop_size = self.augmentation.crop_size
    patches.check_size(crop_size, self.patch_size)
    if self.num_pixels >= math.prod(crop_size):
      raise ValueError(
        f"patches_per_image = {self.patches_per_image} of patch_size = "
        f"{self.patch_size} are {self.num_pixels} pixels, but an image of "
        f"crop_size = {crop_size} has {math.prod(crop_size)}, which leaves "
        "nothing to choose: choose fewer or smaller patches."
      )


PRESETS = {
  # Two CPU cores, 12 minutes, a quarter of which is compilation.
  "shapes": (
    "Generated shapes, small backbone: 12 minutes on two CPU cores.",
    ClassBalance.make("class_balance_shapes", batch_size=4, steps=200),
  ),
  # Two CPU cores, about 10 minutes.
  "camvid": (
    "CamVid at half size, small backbone: about 25 minutes on two CPU cores.",
    ClassBalance.make(
      "class_balance_camvid",
      dataset="camvid",
      validation_split="test",
      resize=0.5,
      crop_size=(160, 224),
      patch_size=(40, 56),
      patches_per_image=4,
      batch_size=4,
      steps=400,
      num_seeds=1,
    ),
  ),
}


def plan(config: ClassBalance) -> list[study_lib.Variant]:
  """The variants."""
  rate = config.num_pixels / math.prod(config.augmentation.crop_size)
  patches_of_image = {
    "patches": "balanced",
    "patch_size": config.patch_size,
    "patches_per_image": config.patches_per_image,
  }
  variant = study_lib.Variant
  pixels = {"sampler": "bernoulli", "rate": rate, "unit": "pixel"}
  return [
    variant("plain", {}),
    # Single pixels, and not blocks, as the balanced ones.
    variant(f"p={rate:.3g}", pixels),
    variant("class weights", {"sampler": "class_weighted"}),
    variant("balanced pixels", {"sampler": "class_balanced", "rate": rate}),
    variant("hard pixels", {"sampler": "hardest", "rate": rate}),
    variant("uncertain pixels", {"sampler": "uncertain", "rate": rate}),
    variant("focal", {"pixel_loss": "focal"}),
    variant("with Dice", {"region_loss": "dice"}),
    variant("with Tversky", {"region_loss": "tversky"}),
    variant("with Lovasz", {"region_loss": "lovasz_softmax"}),
    variant("forced crops", {"foreground_share": 0.5}),
    variant("balanced patches", patches_of_image),
  ]


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, trains what is missing, writes the report.

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
    frequencies = data.class_frequencies(dataset)
    study_lib.check(config, variants, dataset, **folder)
    study_lib.claim(config, **folder)
  study_lib.train(config, variants)
  if not processes.is_first():
    return
  print(
    report.write(
      config,
      variants,
      shares=frequencies.shares,
      weights=build.class_weights(frequencies),
      evaluation=evaluation,
    )
  )
