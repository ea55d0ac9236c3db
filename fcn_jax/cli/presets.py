"""Options and presets of train.py.

Each preset's comment says the command, the hardware, the hours and the score
to expect. Published scores are those of REFERENCES below; what we saw
ourselves is said to be "seen".

REFERENCES
  CVPR 2015, PAMI 2017: the FCN papers, see the README.
  Released nets: the authors' own, scored on the 736 images of VOC 2011's
    validation split that are not in the training set.
"""

import dataclasses
import pathlib
from typing import Literal

import options
from fcn_jax import losses
from fcn_jax.data.pipeline import combining

Sampler = Literal[
  "whole_image",
  "bernoulli",
  "fixed_count",
  "one_per_block",
  "class_balanced",
  "class_weighted",
  "near_boundary",
  "hardest",
]

Inputs = Literal[
  "caffe",
  "pascal_context",
  "sift_flow",
  "nyud_color",
  "nyud_hha",
  "nyud_color_depth",
  "torchvision",
  "inception",
  "from_scratch",
]


@dataclasses.dataclass(frozen=True)
class Train(options.DataOptions):
  """Trains one network, and goes on where it ended."""

  # Data.
  crop_size: tuple[int, int] | None = (96, 96)
  """Height and width of training images; None for whole pictures of all
  sizes, as in the papers."""
  modalities: combining.Modalities = "color"
  """What the network sees of each scene: colours; HHA (three channels made of
  the depth); colours and the logarithm of the depth, in one network; or colours
  and HHA, in two whose scores are averaged (nyudv2)."""
  second_labels: Literal["geometric"] | None = None
  """Further labels of the data set, for a second head (sift_flow); scores are
  those of the first one."""
  validation_split: str = "validation"
  """Split that decides which checkpoint is the best."""
  batch_size: int = 8
  """Images a step, over all devices."""
  flip: bool = True
  """Mirror half of the training images."""
  min_labelled: float = 0.0
  """Share of a crop that is to be labelled, if possible."""
  brightness: float = 0.0
  """Strength of random changes of brightness, 0..1."""
  contrast: float = 0.0
  """Strength of random changes of contrast, 0..1."""
  saturation: float = 0.0
  """Strength of random changes of saturation, 0..1."""
  hue: float = 0.0
  """Strength of random changes of hue, 0..0.5."""
  blur_probability: float = 0.0
  """Share of the training images that are blurred."""
  num_sizes: int = 4
  """Sizes to which whole pictures are padded at most; one compilation each."""
  num_workers: int = 0
  """Processes that load images, with num_threads each; 0 for threads only."""

  # Network.
  network: Literal["fcn", "fcn_resnet"] = "fcn"
  """The papers' FCN on the backbone, or torchvision's on a ResNet."""
  stride: Literal[8, 16, 32] = 8
  """Stride of the score map: FCN-8s, 16s or 32s (fcn)."""
  padding: Literal["same", "caffe", "torchvision"] = "same"
  """Geometry: same, or that of the network that weights are from (fcn)."""
  inputs: Inputs | None = None
  """What is done to the pixels, as the weights ask for; the backbone's own if
  not given."""
  auxiliary: bool = False
  """Add a second head whose loss counts one half, in training (fcn_resnet)."""
  at_once: bool = False
  """Scale pool4 and pool3 so that stride 8 is trained in one go (PAMI)."""
  normalization: Literal["none", "batch", "group"] = "batch"
  """Normalisation between convolution and ReLU; none in the papers, batch in
  ResNets."""
  dropout_rate: float = 0.1
  """Dropout of fc6 and fc7."""
  head_width: int | None = None
  """Channels of fc6 and fc7; the backbone's own if not given."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Number format of the computation; parameters are float32."""
  init: pathlib.Path | None = None
  """Work folder of a run (or of convert_weights.py) whose best parameters are
  the beginning, or the newest if none were validated; with the same backbone
  and normalization. Layers of other shapes, such as a head for fewer classes,
  begin anew. With color_hha, a run on colours."""
  init_hha: pathlib.Path | None = None
  """Work folder of a run on HHA, beside init (color_hha)."""

  # Loss.
  sampler: Sampler = "whole_image"
  """Which pixels enter the loss, see fcn_jax/sampling."""
  rate: float = 1.0
  """Share of the pixels that enter the loss: bernoulli, fixed_count,
  class_balanced, hardest; near a boundary: near_boundary."""
  cell: int | None = None
  """Side in pixels of cells kept together (bernoulli) or of blocks
  (one_per_block); the stride if not given."""
  rate_elsewhere: float = 0.1
  """Share of the pixels away from boundaries (near_boundary)."""
  boundary_distance: int = 8
  """Pixels from a boundary that are near it (near_boundary)."""
  normalize: losses.Normalization = "kept"
  """What the sum of the pixel losses is divided by: kept or valid pixels,
  expected ones, or nothing (sum), as in the papers."""

  # Optimization.
  steps: int = 2000
  """Steps in all; may be raised later, to go on with a finished run. A
  polynomial schedule then ends at the new number."""
  optimizer: Literal["adamw", "sgd"] = "adamw"
  """AdamW, or stochastic gradient descent by Caffe's rules (the papers)."""
  schedule: Literal["polynomial", "constant"] = "polynomial"
  """Learning rate after the warm-up."""
  power: float = 0.9
  """Exponent of the polynomial decay."""
  momentum: float = 0.9
  """Of sgd."""
  weight_decay: float = 1e-4
  """Decay of the kernels; decoupled with adamw, coupled with sgd."""
  clip_norm: float | None = None
  """Largest norm of the gradient; longer ones are scaled down to it."""
  accumulate: int = 1
  """Steps whose gradients are averaged for one update."""
  ema_decay: float | None = None
  """Decay of a moving average of the parameters, such as 0.999, which is then
  what is validated and used for prediction."""
  seed: int = 0
  """Of parameters, data order, masks and dropout."""

  # The run.
  log_every: int = 20
  """Steps between rows of metrics.jsonl, each a mean over that many."""
  validate_every: int = 500
  """Steps between validations; the last step is always validated."""
  save_every: int = 500
  """Steps between checkpoints; also saved: at validations and at the end."""
  validation_batch: int = 8
  """Images a batch in validation; no influence on the scores."""
  num_pictures: int = 4
  """Validation images shown in TensorBoard."""
  max_skipped: int = 0
  """Steps in a row with a loss or gradient that is not finite that are left
  out before the run stops; 0 stops at the first."""
  num_devices: int | None = None
  """Devices that share a batch; all that divide it if not given."""


def _papers_voc(name: str, **changes) -> Train:
  """A net of the papers on PASCAL VOC: whole pictures, one a step."""
  settings = {
    "workdir": pathlib.Path("runs", name),
    "dataset": "voc2012",
    "backbone": "vgg16",
    "stride": 32,
    "padding": "caffe",
    "normalization": "none",
    "dropout_rate": 0.5,
    "crop_size": None,
    "scale_range": (1.0, 1.0),
    "flip": False,
    "batch_size": 1,
    "normalize": "sum",
    "optimizer": "sgd",
    "schedule": "constant",
    "momentum": 0.99,
    "weight_decay": 5e-4,
    "learning_rate": 1e-10,
    "warmup_steps": 0,
    "steps": 100_000,
    "validate_every": 4000,
    "save_every": 1000,
    "validation_batch": 1,
    "num_threads": 8,
    **changes,
  }
  return Train(**settings)


def _papers_context(
  name: str, stride: int, learning_rate: float, init: pathlib.Path
) -> Train:
  """A net of the papers on PASCAL-Context."""
  return _papers_voc(
    name,
    dataset="pascal_context",
    inputs="pascal_context",
    stride=stride,
    learning_rate=learning_rate,
    init=init,
  )


def _papers_nyud(name: str, **changes) -> Train:
  """A net of the papers on NYUDv2."""
  return _papers_voc(name, dataset="nyudv2", **changes)


def _papers_sift_flow(
  name: str, stride: int, learning_rate: float, init: pathlib.Path
) -> Train:
  """A net of the papers on SIFT Flow, which has no validation split."""
  return _papers_voc(
    name,
    dataset="sift_flow",
    second_labels="geometric",
    validation_split="test",
    inputs="sift_flow",
    stride=stride,
    learning_rate=learning_rate,
    init=init,
  )


# ImageNet classifiers, made by convert_weights.py of the files named in the
# README.
_VGG16 = pathlib.Path("runs/vgg16_imagenet")
_CAFFENET = pathlib.Path("runs/caffenet_imagenet")
_RESNET50 = pathlib.Path("runs/resnet50_imagenet")

PRESETS = {
  # Command: python experiments/train.py shapes
  # Hardware: two CPU cores, 2 minutes.
  "shapes": (
    "Generated shapes, small backbone: two minutes on two CPU cores.",
    Train(
      workdir=pathlib.Path("runs/shapes"),
      steps=300,
      validate_every=100,
      save_every=50,
      log_every=10,
    ),
  ),
  # Command: python experiments/train.py folder --data-dir PICTURES
  # Hardware: any; on two CPU cores a step is as large as one of camvid_small.
  # Expected: depends on the pictures; raise crop_size and steps on a GPU.
  "folder": (
    "Pictures and masks of your own, small backbone, from scratch.",
    Train(
      workdir=pathlib.Path("runs/folder"),
      dataset="folder",
      crop_size=(192, 192),
      brightness=0.2,
      contrast=0.2,
      saturation=0.2,
      ema_decay=0.99,
    ),
  ),
  # Command: python experiments/train.py camvid_small --data-dir CAMVID
  # Hardware: two CPU cores, 20 minutes to an hour.
  # Seen: mean IU on the test split at native size 46.0 (best by validation),
  # 47.6 (last), 49.5 (last, three scales and mirrored).
  "camvid_small": (
    "CamVid at half size, small backbone: under an hour on two CPU cores.",
    Train(
      workdir=pathlib.Path("runs/camvid_small_train"),
      dataset="camvid",
      resize=0.5,
      crop_size=(160, 224),
      scale_range=(0.75, 1.5),
      brightness=0.2,
      contrast=0.2,
      saturation=0.2,
      # Of classes that have more than 1 / 22 of the pixels a part is drawn.
      sampler="class_balanced",
      rate=0.5,
      steps=4000,
      learning_rate=4e-3,
      warmup_steps=100,
      ema_decay=0.99,
      validate_every=500,
      save_every=250,
    ),
  ),
  # Command: python experiments/train.py camvid --data-dir CAMVID
  # Hardware: one GPU with 40 GB; hours. Not run by us yet.
  # Expected: mean IU 50 to 55 on the test split (published, without
  # pretraining: 52.1 for a reproduction of ENet).
  "camvid": (
    "CamVid at full size, VGG16 with batch norm from scratch: a GPU.",
    Train(
      workdir=pathlib.Path("runs/camvid_vgg16"),
      dataset="camvid",
      backbone="vgg16",
      head_width=1024,
      dropout_rate=0.5,
      dtype="bfloat16",
      crop_size=(352, 480),
      scale_range=(0.5, 2.0),
      brightness=0.3,
      contrast=0.3,
      saturation=0.3,
      learning_rate=1e-3,
      warmup_steps=500,
      weight_decay=1e-3,
      clip_norm=5.0,
      ema_decay=0.999,
      steps=20_000,
      validate_every=1000,
      save_every=500,
      log_every=50,
      num_threads=8,
    ),
  ),
  # Command: python experiments/train.py voc_fcn32s --data-dir VOC
  # Hardware: one GPU with 12 GB; days on the papers' own. Not run by us.
  # Expected (released nets): mean IU 63.6.
  "voc_fcn32s": (
    "The papers' FCN-32s on VOC, from VGG16.",
    _papers_voc("voc_fcn32s", init=_VGG16),
  ),
  # Command: python experiments/train.py voc_fcn16s --data-dir VOC
  # Hardware: as voc_fcn32s, which comes first.
  # Expected (released nets): mean IU 65.0.
  "voc_fcn16s": (
    "The papers' FCN-16s on VOC, from a trained FCN-32s.",
    _papers_voc(
      "voc_fcn16s",
      stride=16,
      learning_rate=1e-12,
      init=pathlib.Path("runs/voc_fcn32s"),
    ),
  ),
  # Command: python experiments/train.py voc_fcn8s --data-dir VOC
  # Hardware: as voc_fcn16s, which comes first.
  # Expected (released nets): mean IU 65.5.
  "voc_fcn8s": (
    "The papers' FCN-8s on VOC, from a trained FCN-16s.",
    _papers_voc(
      "voc_fcn8s",
      stride=8,
      learning_rate=1e-14,
      init=pathlib.Path("runs/voc_fcn16s"),
    ),
  ),
  # Command: python experiments/train.py voc_fcn8s_at_once --data-dir VOC
  # Hardware: as voc_fcn32s. Expected (released nets): mean IU 65.4.
  "voc_fcn8s_at_once": (
    "The papers' FCN-8s on VOC in one go, from VGG16.",
    _papers_voc("voc_fcn8s_at_once", stride=8, at_once=True, init=_VGG16),
  ),
  # Command: python experiments/train.py voc_fcn32s_accumulated --data-dir VOC
  # Hardware: as voc_fcn32s. PAMI's comparison of recipes: 20 images an update.
  "voc_fcn32s_accumulated": (
    "The papers' FCN-32s, 20 images an update, from VGG16.",
    _papers_voc(
      "voc_fcn32s_accumulated", momentum=0.9, accumulate=20, init=_VGG16
    ),
  ),
  # Command: python experiments/train.py voc_fcn32s_online --data-dir VOC
  # Hardware: as voc_fcn32s. PAMI's comparison of recipes: momentum 0.9.
  "voc_fcn32s_online": (
    "The papers' FCN-32s on VOC, online, momentum 0.9, from VGG16.",
    _papers_voc("voc_fcn32s_online", momentum=0.9, init=_VGG16),
  ),
  # Command: python experiments/train.py voc_fcn_alexnet --data-dir VOC
  # Hardware: one GPU with 12 GB. Not run by us.
  # Expected (released nets): mean IU 48.0. There the backbone's biases have the
  # learning rate and decay of its kernels.
  "voc_fcn_alexnet": (
    "The papers' FCN-AlexNet on VOC, 20 images an update, from CaffeNet.",
    _papers_voc(
      "voc_fcn_alexnet",
      backbone="caffenet",
      normalize="valid",
      learning_rate=1e-4,
      momentum=0.9,
      accumulate=20,
      init=_CAFFENET,
    ),
  ),
  # Commands: python experiments/train.py pascal_context_fcn32s
  #   --data-dir CONTEXT, then pascal_context_fcn16s and pascal_context_fcn8s
  # Hardware: as voc_fcn32s. Not run by us.
  # Expected (CVPR 2015, best FCN, 59 classes): mean IU 35.1.
  "pascal_context_fcn32s": (
    "The papers' FCN-32s on PASCAL-Context, from VGG16.",
    _papers_context("pascal_context_fcn32s", 32, 1e-10, _VGG16),
  ),
  "pascal_context_fcn16s": (
    "The papers' FCN-16s on PASCAL-Context, from a trained FCN-32s.",
    _papers_context(
      "pascal_context_fcn16s",
      16,
      1e-12,
      pathlib.Path("runs/pascal_context_fcn32s"),
    ),
  ),
  "pascal_context_fcn8s": (
    "The papers' FCN-8s on PASCAL-Context, from a trained FCN-16s.",
    _papers_context(
      "pascal_context_fcn8s",
      8,
      1e-14,
      pathlib.Path("runs/pascal_context_fcn16s"),
    ),
  ),
  # Command: python experiments/train.py nyud_fcn32s_color --data-dir NYUD
  # Hardware: as voc_fcn32s. Not run by us.
  # Expected: below 34.0, the mean IU of the best FCN of CVPR 2015 there, which
  # sees the depth as well.
  "nyud_fcn32s_color": (
    "The papers' FCN-32s on NYUDv2, colour only, from VGG16.",
    _papers_nyud("nyud_fcn32s_color", inputs="nyud_color", init=_VGG16),
  ),
  # Command: python experiments/train.py nyud_fcn32s_hha --data-dir NYUD
  # Hardware: as voc_fcn32s. Not run by us: the data are needed. There the three
  # channels begin with the kernels of blue, green and red; here with those of
  # red, green and blue.
  # Expected: below 34.0, see nyud_fcn32s_color; the papers train on the
  # validation split as well.
  "nyud_fcn32s_hha": (
    "The papers' FCN-32s on NYUDv2, HHA only, from VGG16.",
    _papers_nyud(
      "nyud_fcn32s_hha", modalities="hha", inputs="nyud_hha", init=_VGG16
    ),
  ),
  # Command: python experiments/train.py nyud_fcn32s_color_d --data-dir NYUD
  # Hardware: as voc_fcn32s. Not run by us: the data are needed.
  # Expected: below 34.0, see nyud_fcn32s_color.
  "nyud_fcn32s_color_d": (
    "The papers' early fusion on NYUDv2, colour and depth, from VGG16.",
    _papers_nyud(
      "nyud_fcn32s_color_d",
      modalities="color_depth",
      inputs="nyud_color_depth",
      init=_VGG16,
    ),
  ),
  # Command: python experiments/train.py nyud_fcn32s_color_hha --data-dir NYUD
  # Hardware: one GPU with 24 GB; after nyud_fcn32s_color and nyud_fcn32s_hha.
  # Not run by us: the data are needed.
  # Expected: at most 34.0, the mean IU of the best FCN of CVPR 2015 there.
  "nyud_fcn32s_color_hha": (
    "The papers' late fusion on NYUDv2, from trained nets for colour and HHA.",
    _papers_nyud(
      "nyud_fcn32s_color_hha",
      modalities="color_hha",
      learning_rate=1e-12,
      init=pathlib.Path("runs/nyud_fcn32s_color"),
      init_hha=pathlib.Path("runs/nyud_fcn32s_hha"),
    ),
  ),
  # Commands: python experiments/train.py siftflow_fcn32s --data-dir SIFTFLOW,
  #   then siftflow_fcn16s and siftflow_fcn8s
  # Hardware: as voc_fcn32s. Not run by us: the data are needed.
  # Expected (CVPR 2015, best FCN): mean IU 39.5, and geometric accuracy 94.3,
  # which evaluate.py does not measure: it scores the main head.
  "siftflow_fcn32s": (
    "The papers' two-headed FCN-32s on SIFT Flow, from VGG16.",
    _papers_sift_flow("siftflow_fcn32s", 32, 1e-10, _VGG16),
  ),
  "siftflow_fcn16s": (
    "The papers' two-headed FCN-16s on SIFT Flow, from a trained FCN-32s.",
    _papers_sift_flow(
      "siftflow_fcn16s", 16, 1e-12, pathlib.Path("runs/siftflow_fcn32s")
    ),
  ),
  "siftflow_fcn8s": (
    "The papers' two-headed FCN-8s on SIFT Flow, from a trained FCN-16s.",
    _papers_sift_flow(
      "siftflow_fcn8s", 8, 1e-12, pathlib.Path("runs/siftflow_fcn16s")
    ),
  ),
  # Command: python experiments/train.py folder_fcn_resnet50
  #   --data-dir PICTURES
  # Hardware: one GPU with 16 GB. Not run by us at this size.
  # Expected: depends on the pictures.
  "folder_fcn_resnet50": (
    "Pictures and masks of your own, torchvision's FCN from ResNet-50.",
    Train(
      workdir=pathlib.Path("runs/folder_fcn_resnet50"),
      dataset="folder",
      network="fcn_resnet",
      backbone="resnet50",
      auxiliary=True,
      crop_size=(480, 480),
      scale_range=(0.5, 2.0),
      brightness=0.2,
      contrast=0.2,
      saturation=0.2,
      learning_rate=1e-4,
      warmup_steps=200,
      clip_norm=5.0,
      ema_decay=0.99,
      steps=5000,
      num_threads=8,
      init=_RESNET50,
    ),
  ),
}
