"""Presets of the experiments, as frozen dataclasses."""

import dataclasses
import pathlib
from typing import Literal


@dataclasses.dataclass(frozen=True)
class LossSampling:
  """Loss sampling against whole images and explicit patches."""

  workdir: pathlib.Path
  """Folder for the results; made if it is not there."""
  dataset: Literal["shapes", "shapes/tiny", "camvid"] = "shapes"
  """Data set to train and evaluate on; shapes/tiny has a dozen images."""
  data_dir: pathlib.Path | None = None
  """Folder of the original CamVid files; if not given, that of the environment
  variable CAMVID_DIR."""
  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept; TFDS's default if not given."""
  evaluation_split: Literal["validation", "test"] = "validation"
  """Split on which the trained networks are scored."""
  resize: float = 1.0
  """Factor on the size of images and labels, in training and evaluation."""

  backbone: Literal["vgg16", "vgg_small"] = "vgg_small"
  """Trunk of the network."""
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

  crop_size: tuple[int, int] = (96, 96)
  """Height and width of training images."""
  scale_range: tuple[float, float] = (0.75, 1.33)
  """Range of the random scale of training images."""
  steps: int = 250
  """Iterations of each arm."""
  num_seeds: int = 2
  """Seeds 0, 1, ...: parameters, data order and masks change with each."""
  learning_rate: float = 3e-3
  """Peak learning rate of AdamW."""
  warmup_steps: int = 20
  """Steps of linear increase of the learning rate."""
  weight_decay: float = 1e-4
  """Decoupled weight decay of the kernels."""

  log_every: int = 10
  """Steps between rows of metrics.jsonl, each a mean over that many steps."""
  eval_batch: int = 8
  """Images a batch in evaluation; no influence on the scores."""
  num_threads: int = 2
  """Threads that load and augment images."""
  num_pictures: int = 4
  """Images of the evaluation split shown in predictions.png."""
  resume: bool = False
  """Continue the run in workdir: finished arms are kept, the one that was cut
  off starts again."""
  overwrite: bool = False
  """Delete the run in workdir and start anew."""


LOSS_SAMPLING = {
  # Hardware: two CPU cores, 5 minutes.
  # Seen: mean IU 0.656 and 0.674 for whole images (seeds 0 and 1).
  "demo": (
    "Generated shapes, small trunk: minutes on two CPU cores.",
    LossSampling(workdir=pathlib.Path("runs/demo")),
  ),
  # Hardware: two CPU cores, 40 to 55 minutes.
  # Seen: mean IU 0.438 for whole images on the test split, 0.463 at p = 0.25.
  "camvid_small": (
    "CamVid at half size, small trunk: under an hour on two CPU cores.",
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
