"""Presets of the experiments, as frozen dataclasses."""

import dataclasses
import pathlib
from typing import Literal

import options


@dataclasses.dataclass(frozen=True)
class LossSampling(options.TrainingOptions):
  """Loss sampling against whole images and explicit patches."""

  stride: Literal[8, 16, 32] = 8
  """Stride of the score map: FCN-8s, 16s or 32s."""
  normalization: Literal["none", "batch", "group"] = "batch"
  """Normalisation between convolution and ReLU."""
  dropout_rate: float = 0.1
  """Dropout of fc6 and fc7."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Number format of the computation; parameters are float32."""

  rates: tuple[float, ...] = (1.0, 0.5, 0.25)
  """Sampling rates p, an arm each; 1 is whole-image training."""
  base_batch: int = 4
  """Images a step at p = 1; an arm sees base_batch / p, so that the expected
  number of loss terms is the same."""
  cell: int | None = None
  """Side in pixels of the cells that are kept or dropped together; the stride
  of the score map if not given."""
  patch_size: tuple[int, int] | None = (48, 48)
  """Height and width of the patches of the explicit-patchwise arm, which sees
  as many pixels a step as the whole-image arm; None leaves the arm out."""
  patches_per_image: int = 1
  """Random patches cut from each image in the explicit-patchwise arm."""

  num_pictures: int = 4
  """Images of the evaluation split shown in predictions.png."""


LOSS_SAMPLING = {
  # Hardware: two CPU cores, 5 minutes.
  # Seen: mean IU 0.656 and 0.674 for whole images (seeds 0 and 1).
  "demo": (
    "Generated shapes, small backbone: minutes on two CPU cores.",
    LossSampling(workdir=pathlib.Path("runs/demo")),
  ),
  # Hardware: two CPU cores, 40 to 55 minutes.
  # Seen: mean IU 0.438 for whole images on the test split, 0.463 at p = 0.25.
  "camvid_small": (
    "CamVid at half size, small backbone: under an hour on two CPU cores.",
    LossSampling(
      workdir=pathlib.Path("runs/camvid_small"),
      dataset="camvid",
      evaluation_split="test",
      resize=0.5,
      crop_size=(160, 224),
      patch_size=(80, 112),
      base_batch=4,
      steps=1400,
      num_seeds=1,
      warmup_steps=50,
    ),
  ),
  # Hardware: one GPU with 40 GB or a TPU; hours. Not run by us yet.
  "camvid": (
    "CamVid at full size, VGG16 from scratch: for a GPU or TPU.",
    LossSampling(
      workdir=pathlib.Path("runs/camvid"),
      dataset="camvid",
      evaluation_split="test",
      backbone="vgg16",
      dropout_rate=0.5,
      dtype="bfloat16",
      crop_size=(352, 480),
      patch_size=(176, 240),
      base_batch=4,
      steps=20_000,
      num_seeds=3,
      learning_rate=1e-3,
      warmup_steps=500,
      log_every=50,
      num_threads=8,
    ),
  ),
}
