"""The options that the experiments share; each adds its own to one of these."""

import dataclasses
import pathlib
from typing import Literal

Backbone = Literal[
  "vgg_small",
  "vgg11",
  "vgg13",
  "vgg16",
  "vgg19",
  "vgg11_bn",
  "vgg13_bn",
  "vgg16_bn",
  "vgg19_bn",
  "caffenet",
  "alexnet",
  "googlenet",
  "googlenet_bn",
  "resnet50",
  "resnet101",
]


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """Where data come from and results go to."""

  workdir: pathlib.Path
  """Folder for the results; made if it is not there."""
  dataset: str = "shapes"
  """Data set: shapes (generated; shapes/tiny has a dozen images), folder
  (pictures and masks of your own), camvid, voc2012, pascal_context, sift_flow,
  nyudv2, cityscapes, ade20k, oxford_pets, or tfds:NAME."""
  data_dir: pathlib.Path | None = None
  """Folder of the data set's own files or archives, until it is prepared; if
  not given, that of an environment variable such as CAMVID_DIR."""
  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept; TFDS's default if not given."""
  skip_bad: bool = False
  """Leave out examples whose files have a fault, instead of refusing."""
  resize: float = 1.0
  """Factor on the size of images and labels, in training and evaluation."""
  crop_size: tuple[int, int] = (96, 96)
  """Height and width of training images."""
  scale_range: tuple[float, float] = (0.75, 1.33)
  """Range of the random scale of training images."""
  num_threads: int = 2
  """Threads that load and augment images."""
  backbone: Backbone = "vgg_small"
  """Backbone of the network."""
  learning_rate: float = 3e-3
  """Peak learning rate of AdamW."""
  warmup_steps: int = 20
  """Steps of linear increase of the learning rate."""
  overwrite: bool = False
  """Delete the run in workdir and start anew; leave it out to go on."""


@dataclasses.dataclass(frozen=True)
class TrainingOptions(DataOptions):
  """How networks are trained and scored."""

  evaluation_split: Literal["validation", "test"] = "validation"
  """Split on which the trained networks are scored."""
  steps: int = 250
  """Iterations of each arm."""
  num_seeds: int = 2
  """Seeds 0, 1, ...: parameters, data order and masks change with each."""
  weight_decay: float = 1e-4
  """Decoupled weight decay of the kernels."""
  log_every: int = 10
  """Steps between points of the loss curves, each a mean over that many."""
  eval_batch: int = 8
  """Images a batch in evaluation; no influence on the scores."""
  resume: bool = False
  """Continue the run in workdir: what is finished is kept, what was cut off
  starts again."""
