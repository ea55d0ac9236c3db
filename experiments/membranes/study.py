"""Membranes in electron microscopy: patchwise and fully convolutional training.

    python -m experiments.membranes compare --data-dir SLICES
    python -m experiments.membranes best --data-dir SLICES

Ciresan et al. (NIPS 2012) found the membranes of neurons by classifying single
pixels: a network saw the patch around each. The FCN papers cite it as patchwise
training. SLICES, or the environment variable MEMBRANES_DIR, is the folder of
that challenge's stack: images/ and masks/, 255 inside cells.

compare: the same backbone, trained

  patches, balanced   around single pixels of both classes alike, whose class
                      is that of the patch
  patches, random     around pixels at random
  crops               all pixels of crops
  crops, short        the same in a fraction of the steps
  whole images        all pixels of whole slices
  blocks, places      a part of the pixels of crops, in blocks as in the FCN
                      papers, or at the same places in all blocks
  balanced            a quarter of the pixels, equally many of both classes
  uncertain           a quarter, mostly those with similar scores of both

and on crops at other strides. Variants of crops take the same number of steps;
whole images have as many pixels as these. The figure shows the error of the
held-out slices against seconds, labelled pixels in the loss, and images, so
variants can be compared at any equal time, or number of pixels.

best: one network in five folds of six neighbouring slices.

Writes to the work folder: config.json, folds/ (copies of the slices), variants/
(a run each, with its evaluation), summary.json, table.md and membranes.png.
Wall time counts loading, augmentation, cutting and training, but not
compilation and evaluation. Needs scikit-image.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import study as study_lib
from experiments.membranes import folds
from experiments.membranes import report
from fcn_jax.cli import errors
from fcn_jax.cli import evaluate
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import watch

NAME = "membranes"
FOLDS = "folds"
# The classes of masks with 0 and 255.
INSIDE = "foreground"
# Of the probability to be inside: a net that has seen more of the inside is
# more often sure of it, so its best threshold lies close to 1.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Membranes(study_lib.Study):
  """Patchwise and fully convolutional training on membranes."""

  variants: tuple[str, ...] = ()
  """Names of variants, as the table prints them. Default: all. A later start
  may name more of them, or more folds, and trains only the new ones."""
  folds: tuple[int, ...] = (4,)
  """Which fifths of the stack are held out, each in runs of its own: 0 to 4."""
  patch_size: int = 65
  """Side of the patches around single pixels."""
  patches_per_image: int = 64
  """Patches from each crop in a step of patches."""
  patch_steps: int = 400
  """Steps of patches."""
  short_steps: int = 150
  """Steps of `crops, short`: about a twentieth of the time of patches."""
  whole_steps: int = 340
  """Steps of `whole images`, a slice each: as many pixels as the crops have in
  600 steps, if slices have 512x512."""

  @property
  def title(self) -> str:
    """Title: the task and the network."""
    network = self.network
    return f"membranes, FCN-{network.stride}s, {network.backbone}"

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    super().check()
    config_lib.at_least_one(
      self,
      "patch_size",
      "patches_per_image",
      "patch_steps",
      "short_steps",
      "whole_steps",
    )
    config_lib.require(
      self,
      folds=(
        self.folds
        and len({*self.folds}) == len(self.folds)
        and {*self.folds} <= {*range(folds.NUM_FOLDS)},
        f"different numbers in 0..{folds.NUM_FOLDS - 1}",
      ),
    )
    if importlib.util.find_spec("skimage") is None:
      raise ValueError(
        "scikit-image is not installed, which finds the segments that are "
        "scored: pip install 'fcn_jax[segments]'."
      )


def _preset(name: str, **options: Any) -> Membranes:
  shared = {
    "dataset": "folder",
    "batch_size": 4,
    "crop_size": (192, 192),
    "stride": 4,
    "scale_range": (1.0, 1.0),
    "quarter_turns": True,
    "elastic_amplitude": 8.0,
    "brightness": 0.2,
    "contrast": 0.2,
    "validation_batch": 2,
  }
  return Membranes.make(name, **shared | options)


PRESETS = {
  "compare": (
    "Ways of training, the last fifth of the slices held out: an hour and a "
    "half on two CPU cores.",
    _preset(
      "membranes",
      steps=600,
      validate_every=30,
      num_seeds=1,
    ),
  ),
  "best": (
    "One network in five folds: an hour and a quarter on two CPU cores.",
    _preset(
      "membranes_best",
      variants=("best",),
      folds=(0, 1, 2, 3, 4),
      backbone="vgg13_small",
      batch_size=8,
      stride=2,
      elastic_amplitude=0.0,
      steps=1000,
      validate_every=250,
      ema_decay=0.99,
      num_seeds=1,
    ),
  ),
}


def ways(config: Membranes) -> Mapping[str, Mapping[str, Any]]:
  """Options of each variant by its name, where they differ."""
  steps, every = config.optimizer.steps, config.run.validate_every

  def part(sampler, rate):
    return {"sampler": sampler, "rate": rate}

  def in_steps(number):
    """As many validations as the others have."""
    return {"steps": number, "validate_every": max(1, number * every // steps)}

  def patches(kind):
    return {
      "patches": kind,
      "patch_size": (config.patch_size,) * 2,
      "patches_per_image": config.patches_per_image,
      "sampler": "center_pixel",
      **in_steps(config.patch_steps),
    }

  return {
    "patches, balanced": patches("balanced"),
    "patches, random": patches("random"),
    "crops": {},
    "crops, short": in_steps(config.short_steps),
    "whole images": {
      "crop_size": None,
      "batch_size": 1,
      **in_steps(config.whole_steps),
    },
    "blocks, p=0.25": part("bernoulli", 1 / 4),
    "blocks, p=0.0625": part("bernoulli", 1 / 16),
    "places, p=0.25": part("places", 1 / 4),
    "places, p=0.0625": part("places", 1 / 16),
    "balanced": part("class_balanced", 1 / 4),
    "uncertain": part("uncertain", 1 / 4),
    "stride 8": {"stride": 8},
    "stride 2": {"stride": 2},
    "best": {},
  }


def plan(config: Membranes) -> list[study_lib.Variant]:
  """The variants of all folds.

  Raises:
    ValueError: if a name is not that of a variant.
  """
  all_ways = ways(config)
  names = config.variants or [name for name in all_ways if name != "best"]
  for name in names:
    if name not in all_ways:
      raise ValueError(
        f"there is no variant {name!r}: choose from {'; '.join(all_ways)}."
      )
  return [
    study_lib.Variant(
      f"{name}, fold {fold}",
      {"data_dir": fold_dir(config, fold), **all_ways[name]},
    )
    for name in names
    for fold in config.folds
  ]


def fold_dir(config: Membranes, fold: int) -> pathlib.Path:
  """The folder of a fold's slices."""
  return config.run.workdir / FOLDS / str(fold)


def score(config: config_lib.Train) -> None:
  """Scores a run that has ended, once, on the held-out slices."""
  out = config.run.workdir / report.EVALUATION
  if out.exists():
    return
  evaluate.main(
    [
      *("--workdir", str(config.run.workdir)),
      *("--checkpoint", "latest"),
      *("--scores", "all"),
      *("--segments", INSIDE),
      *("--segment-thresholds", *map(str, THRESHOLDS)),
      "--flip",
      *("--out", str(out)),
    ]
  )


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, trains and scores what is missing, writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = study_lib.parse(PRESETS, NAME, __doc__, arguments)
  folder = {"experiment": NAME, "contents": (*report.FILES, FOLDS)}
  with errors.explained():
    study_lib.check_is_alone()
    config.check()
    source = folds.find(config.data.data_dir)
    variants = plan(config)
    study_lib.check_folder(config, **folder)
    study_lib.claim(config, **folder)
    (config.run.workdir / FOLDS).mkdir(exist_ok=True)
    for fold in config.folds:
      folds.make(source, fold_dir(config, fold), fold)
    first = study_lib.run_config(config, variants[0], 0)
    dataset = batches.load_split(first.data, "train")
    study_lib.check(config, variants, dataset, **folder)
  for variant in variants:
    study_lib.train(config, [variant])
    for seed in range(config.num_seeds):
      score(study_lib.run_config(config, variant, seed))
  print(report.write(config, variants))
