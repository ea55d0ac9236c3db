"""The options of a run, in groups.

Each group checks itself; `Train.check` also checks how they go together. The
docstring below a field is its text in `fcn-jax train PRESET --help`. Names of
options are unique over all groups, so the command line needs no prefixes.
"""

import dataclasses
import pathlib
from typing import Any, Literal, Self, get_args

from fcn_jax import patches as patches_lib
from fcn_jax import sampling
from fcn_jax.data.pipeline import augmentation as augmentation_lib
from fcn_jax.data.pipeline import combining
from fcn_jax.losses import normalization
from fcn_jax.losses import rows
from fcn_jax.runs import processes as processes_lib

Backbone = Literal[
  "vgg_small",
  "vgg13_small",
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
  "fcn_basic",
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

Remat = Literal["none", "blocks"]

PatchKind = Literal["none", "random", "grid", "balanced"]

Sampler = Literal[
  "whole_image",
  "places",
  "bernoulli",
  "fixed_count",
  "fixed_count_in_batch",
  "one_per_square",
  "center_pixel",
  "class_balanced",
  "class_weighted",
  "near_boundary",
  "hardest",
  "harder_than",
  "uncertain",
  "uncertain_weighted",
]

PixelLoss = Literal[
  "cross_entropy",
  "focal",
  "symmetric_cross_entropy",
  "generalized_cross_entropy",
  "none",
]

RegionLoss = Literal["none", "dice", "jaccard", "tversky", "lovasz_softmax"]

ClassWeights = Literal["none", "median_frequency", "inverse_frequency"]

# Of `Network.freeze`.
FREEZE_STATISTICS = "batch_statistics"

# Samplers by what they need, or cannot use.
_WITHOUT_RATE = (
  "whole_image",
  "one_per_square",
  "center_pixel",
  "class_weighted",
)
_WITH_COUNT = (
  "fixed_count",
  "fixed_count_in_batch",
  "class_balanced",
  "hardest",
  "harder_than",
  "uncertain",
  "uncertain_weighted",
)
_WITH_COUNT_OF_BATCH = ("fixed_count_in_batch", "class_balanced")
_WITH_CLASSES = ("class_balanced", "class_weighted")
# Backbones without fc6 and fc7.
_WITHOUT_HEAD = (
  "googlenet",
  "googlenet_bn",
  "resnet50",
  "resnet101",
  "fcn_basic",
)
# AlexNets are small.
_WITHOUT_BLOCKS = ("caffenet", "alexnet")
# Samplers that look at each pixel, or block of pixels, by itself.
_BY_ROWS = (
  "whole_image",
  "places",
  "bernoulli",
  "class_weighted",
  "near_boundary",
)
_WITH_PROBABILITIES = ("class_balanced", "near_boundary")
_BY_LOSSES = ("hardest", "harder_than")
_WITH_SCHEDULE = ("bernoulli", "fixed_count")
# Samplers without an expected sum, and with weights that are not 0 and 1.
_WRONG_DIVISORS = {
  "hardest": ("expected",),
  "harder_than": ("expected",),
  "uncertain": ("expected",),
  "uncertain_weighted": ("kept",),
}


@dataclasses.dataclass(frozen=True)
class Data:
  """What is trained and scored on."""

  dataset: str = "shapes"
  """Data set: shapes (generated; shapes/tiny has a dozen images), folder
  (pictures and masks of your own), camvid, voc2012, pascal_context, sift_flow,
  nyudv2, cityscapes, ade20k, oxford_pets, or tfds:NAME."""
  data_dir: pathlib.Path | None = None
  """Folder of the data set's own files or archives. Not needed once the data
  set is prepared. Default: an environment variable such as CAMVID_DIR."""
  batch_size: int = 8
  """Images per step, over all devices."""
  resize: float = 1.0
  """Factor on the size of images and labels, in training and evaluation."""
  validation_split: str = "validation"
  """Split that decides which checkpoint is the best."""
  skip_bad: bool = False
  """Leave out examples with faulty files; otherwise they are an error."""
  group_by: str | None = None
  """Regular expression for groups of pictures that belong into one split, such
  as the same patient (folder). The first parentheses match the part of the
  name, without suffix, that is the group: '^([^_]+)_'."""
  verify: bool = False
  """Read all files again even if their sizes and times have not changed since
  they were prepared (folder)."""
  modalities: combining.Modalities = "color"
  """What the network sees (nyudv2): colours; HHA (three channels made from the
  depth); colours and the logarithm of the depth, in one network; or colours and
  HHA, in two networks whose scores are averaged."""
  second_labels: Literal["geometric"] | None = None
  """Labels for a second head (sift_flow). Scores are those of the first
  head."""
  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept. Default: TFDS's own folder."""
  num_threads: int = 2
  """Threads that load and augment images, in each process."""
  num_workers: int = 0
  """Processes that load images; 0 loads them in threads of this process."""

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    at_least_one(self, "batch_size", "num_threads")
    require(
      self,
      resize=(self.resize > 0, "above 0"),
      num_workers=(self.num_workers >= 0, "at least 0"),
    )


@dataclasses.dataclass(frozen=True)
class Network:
  """The network and its first parameters."""

  backbone: Backbone = "vgg_small"
  """Network that the FCN is made of."""
  stride: Literal[1, 2, 4, 8, 16, 32] = 8
  """Pixels between scores: FCN-8s, 16s or 32s; finer ones for thin structures,
  where the backbone has them (fcn)."""
  init: pathlib.Path | None = None
  """Run whose parameters to begin with: the best, or the newest if it was never
  validated. Or published weights by name, such as vgg16_imagenet, which are
  downloaded; `fcn-jax convert` makes a run of a file. It must have the same
  backbone and normalization. Layers whose shapes differ, such as
  a head for other classes, keep their initial values. With color_hha: a run on
  colours."""
  init_hha: pathlib.Path | None = None
  """Run on HHA to begin with, in addition to init (color_hha)."""
  init_step: int | None = None
  """Step of the run to begin with. Default: the best, or the newest if none has
  a score."""
  freeze: tuple[str, ...] = ()
  """What is not trained: the backbone; or all layers up to a named layer or
  block, such as pool3, conv3 or layer2; and, or instead, batch_statistics. The
  statistics of frozen layers are frozen, too."""
  architecture: Literal["fcn", "fcn_resnet"] = "fcn"
  """The papers' FCN, or torchvision's FCN on a ResNet."""
  normalization: Literal["none", "batch", "group"] = "batch"
  """Normalization between convolution and ReLU. The papers use none, ResNets
  use batch."""
  dropout_rate: float = 0.1
  """Dropout rate of fc6 and fc7; of the last features where there are none."""
  head_width: int | None = None
  """Channels of fc6 and fc7. Default: the backbone's own."""
  padding: Literal["same", "caffe", "torchvision"] = "same"
  """Geometry: same, or that of the published weights (fcn)."""
  inputs: Inputs | None = None
  """How pixels are normalized, as the weights need it. Default: the backbone's
  own."""
  auxiliary: bool = False
  """Train a second head, whose loss counts one half (fcn_resnet)."""
  at_once: bool = False
  """Scale pool4 and pool3, to train stride 8 in one go (PAMI 2017)."""
  dtype: Literal["float32", "bfloat16", "float16"] = "float32"
  """Number format of the computation. Parameters are float32. float16 is for
  GPUs without bfloat16, such as the T4."""
  matmul_precision: Literal["default", "high", "highest"] = "default"
  """Precision of products and convolutions of float32 in training: by default,
  TPUs round their factors to bfloat16 and GPUs to TF32, highest does not round
  them. For other commands, set JAX_DEFAULT_MATMUL_PRECISION."""

  @property
  def frozen(self) -> str | None:
    """The last frozen layer or block, see `models.FCN`."""
    names = [name for name in self.freeze if name != FREEZE_STATISTICS]
    return names[0] if names else None

  @property
  def freezes_statistics(self) -> bool:
    """Whether all batch statistics are frozen."""
    return FREEZE_STATISTICS in self.freeze

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    is_fcn = self.architecture == "fcn"
    require(
      self,
      init_step=(
        self.init_step is None
        or (self.init is not None and self.init_hha is None),
        "left out without init, and with init_hha",
      ),
      freeze=(
        len({*self.freeze} - {FREEZE_STATISTICS}) <= 1
        and (not self.freezes_statistics or self.normalization == "batch"),
        f"one layer, up to which all are frozen, and, or instead, "
        f"{FREEZE_STATISTICS}, which the normalization batch has",
      ),
      dropout_rate=(0 <= self.dropout_rate < 1, "in 0..1, below 1"),
      auxiliary=(
        not self.auxiliary or not is_fcn,
        "left out with architecture fcn, which has no such head",
      ),
      stride=(is_fcn or self.stride == 8, "8 with architecture fcn_resnet"),
      padding=(
        is_fcn or self.padding != "caffe",
        "left out with architecture fcn_resnet, whose geometry is "
        "torchvision's",
      ),
      head_width=(
        (self.head_width is None or self.head_width >= 1)
        and (
          self.head_width is None
          or (is_fcn and self.backbone not in _WITHOUT_HEAD)
        ),
        "at least 1, or left out with architecture fcn_resnet and with "
        f"{', '.join(_WITHOUT_HEAD)}, which have no fc6 and fc7",
      ),
      at_once=(
        not self.at_once
        or (self.stride == 8 and is_fcn and self.backbone != "fcn_basic"),
        f"left out at stride {self.stride} with architecture "
        f"{self.architecture} and backbone {self.backbone}: it scales the two "
        "skips of FCN-8s",
      ),
    )


@dataclasses.dataclass(frozen=True)
class Patches:
  """Explicit patches to train on, which are cut from the images of a batch."""

  patches: PatchKind = "none"
  """Train on patches of the crops (or whole pictures): at random places; of a
  regular grid; or balanced, around pixels of all classes in the image equally.
  For crops that hold a class of the data set, see --foreground-share."""
  patch_size: tuple[int, int] | None = None
  """Height and width of a patch."""
  patches_per_image: int | None = None
  """Patches of each image. A step has batch_size times as many. From a grid,
  each is drawn at most once; the default there is all of them."""
  patch_stride: tuple[int, int] | None = None
  """Rows and columns between neighbouring patches of a grid, at most
  patch_size. Default: a third of patch_size."""

  @property
  def grid_stride(self) -> tuple[int, int]:
    """Distance of the patches of a grid."""
    if self.patch_stride is not None:
      return self.patch_stride
    return tuple(max(1, side // 3) for side in self.patch_size)

  def check(self) -> None:
    """Raises a `ValueError` for an option out of range or without effect."""
    kinds = get_args(PatchKind)
    require(
      self,
      patches=(
        self.patches in kinds,
        f"one of {', '.join(kinds)}; for crops that hold a class, give a "
        "foreground_share",
      ),
    )
    size, number = self.patch_size, self.patches_per_image
    is_grid = self.patches == "grid"
    if self.patches == "none":
      require(
        self,
        patch_size=(size is None, "left out without patches"),
        patches_per_image=(number is None, "left out without patches"),
      )
    else:
      require(
        self,
        patch_size=(size is not None, "given with patches"),
        patches_per_image=(
          is_grid if number is None else number >= 1,
          f"at least 1 with {self.patches} patches",
        ),
      )
    require(
      self,
      patch_stride=(
        self.patch_stride is None or is_grid,
        "left out, or given with patches of a grid",
      ),
    )

  def number_of(self, size: tuple[int, int] | None) -> int | None:
    """Patches of an image of a size; None if all of a grid, and not known."""
    if self.patches_per_image is not None:
      return self.patches_per_image
    return None if size is None else self._grid_number(size)

  def _grid_number(self, size):
    return len(
      patches_lib.grid_corners(size, self.patch_size, self.grid_stride)
    )

  def check_image(self, size: tuple[int, int]) -> None:
    """Raises a `ValueError` unless an image of a size has such patches."""
    if self.patches == "none":
      return
    patches_lib.check_size(size, self.patch_size)
    if self.patches != "grid":
      return
    count = self._grid_number(size)
    wanted = self.patches_per_image or count
    if wanted > count:
      raise ValueError(
        f"patches_per_image is {wanted}, but the grid has {count} patches of "
        f"{self.patch_size} pixels in an image of {size}: choose fewer, or a "
        "smaller patch_stride."
      )


@dataclasses.dataclass(frozen=True)
class Loss:
  """The loss of a pixel, which pixels enter the loss, and its divisor."""

  sampler: Sampler = "places"
  """Which pixels enter the loss; see fcn_jax/sampling."""
  rate: float = 1.0
  """Share of the pixels that enter the loss. For near_boundary: of those near a
  boundary. For harder_than: the least share."""
  initial_rate: float | None = None
  """Share at the first step (bernoulli, fixed_count); from there it goes to
  rate in rate_steps steps, linearly. Default: rate."""
  rate_steps: int = 1000
  """Steps from initial_rate to rate."""
  arrangement: sampling.Arrangement = "even"
  """Which pixels of each block are kept (places): far from one another, or
  random."""
  unit: sampling.Unit = "block"
  """What is kept or dropped as a whole (bernoulli): the pixels between four
  cells of the score map, as in the papers, or single pixels."""
  side: int | None = None
  """Side in pixels of the squares (one_per_square). Default: the stride."""
  rate_elsewhere: float = 0.1
  """Share of the pixels away from boundaries that enter the loss
  (near_boundary)."""
  boundary_distance: int = 8
  """Distance in pixels up to which a pixel is near a boundary
  (near_boundary)."""
  min_probability: float = 0.0
  """Floor of the probability of keeping a pixel (class_balanced), for all
  classes."""
  redistribute: bool = False
  """Let the other classes share what a class with too few pixels leaves over
  (class_balanced)."""
  unbiased: bool = False
  """Divide the loss of a kept pixel by its probability (class_balanced,
  near_boundary): the expected gradient of the pixel loss is then that of all
  pixels."""
  threshold: float = 0.36
  """Loss above which a pixel is kept (harder_than), in nats; 0.36 is that of a
  probability of 0.7."""
  oversample: float = 3.0
  """Candidates for each kept pixel (uncertain, uncertain_weighted)."""
  importance: float = 0.75
  """Share of the kept pixels that are kept because the network is uncertain
  (uncertain, uncertain_weighted)."""
  pixel_loss: PixelLoss = "cross_entropy"
  """Loss of a pixel; none is for a loss of regions alone."""
  region_loss: RegionLoss = "none"
  """Loss of whole regions to add to that of the pixels."""
  region_weight: float = 1.0
  """Factor of the loss of regions."""
  false_positives: float = 0.3
  """Weight of false positives (tversky)."""
  false_negatives: float = 0.7
  """Weight of false negatives (tversky)."""
  class_weights: ClassWeights = "none"
  """Factor of the loss of a pixel by its class: the median share of the classes
  over that of the class, or one over its share."""
  label_smoothing: float = 0.0
  """Share of the target that is spread over all classes (cross_entropy)."""
  gamma: float = 2.0
  """The larger, the less count the pixels that are classified well (focal)."""
  normalize: normalization.Normalization = "kept"
  """Divide the weighted sum of the pixel losses by the number of kept pixels or
  of valid pixels, by the expected sum of the weights, or by nothing (sum, as in
  the papers)."""

  def check(self) -> None:
    """Raises a `ValueError` for an option out of range or without effect."""
    at_least_one(self, "boundary_distance", "rate_steps")
    self._check_use()
    has_rate = self.sampler not in _WITHOUT_RATE
    require(
      self,
      rate=(
        0 < self.rate <= 1
        and (has_rate or self.rate == 1)
        and (self.rate < 1 or self.sampler != "harder_than"),
        "in 0..1, above 0"
        if has_rate and self.sampler != "harder_than"
        else "in 0..1, above 0 and below 1, with harder_than"
        if has_rate
        else f"1 with the sampler {self.sampler}",
      ),
      label_smoothing=(0 <= self.label_smoothing < 1, "in 0..1, below 1"),
      gamma=(self.gamma >= 0, "at least 0"),
      rate_elsewhere=(
        0 <= self.rate_elsewhere <= 1
        and (
          self.rate_elsewhere > 0
          or not self.unbiased
          or self.sampler != "near_boundary"
        ),
        "in 0..1, and above 0 with near_boundary and unbiased",
      ),
      min_probability=(0 <= self.min_probability <= 1, "in 0..1"),
      side=(self.side is None or self.side >= 1, "at least 1"),
      normalize=(
        self.normalize not in _WRONG_DIVISORS.get(self.sampler, ())
        and (
          self.normalize != "kept"
          or not self.unbiased
          or self.pixel_loss == "none"
        ),
        f"another for {self.sampler}, whose pixels have weights: expected"
        if self.normalize == "kept"
        else f"another for {self.sampler}, which states no expectation",
      ),
      initial_rate=(
        self.initial_rate is None
        or (0 < self.initial_rate <= 1 and self.sampler in _WITH_SCHEDULE),
        "in 0..1, above 0"
        if self.sampler in _WITH_SCHEDULE
        else f"left out with {self.sampler}: {' and '.join(_WITH_SCHEDULE)} "
        "have such a rate",
      ),
      threshold=(self.threshold >= 0, "at least 0"),
      oversample=(self.oversample >= 1, "at least 1"),
      importance=(
        0 <= self.importance <= 1
        and (self.importance < 1 or self.sampler != "uncertain_weighted"),
        "in 0..1, and below 1 with uncertain_weighted",
      ),
      pixel_loss=(
        self.pixel_loss != "none" or self.region_loss != "none",
        "another where region_loss is none",
      ),
      region_loss=(
        self.region_loss == "none" or self.sampler not in _BY_LOSSES,
        f"none with {self.sampler}, which keeps pixels by their own losses",
      ),
      region_weight=(self.region_weight > 0, "above 0"),
      false_positives=(
        self.false_positives >= 0
        and self.false_positives + self.false_negatives > 0,
        "at least 0, and above 0 where false_negatives is 0",
      ),
      false_negatives=(self.false_negatives >= 0, "at least 0"),
      class_weights=(
        self.class_weights == "none"
        or (self.sampler != "class_weighted" and self.pixel_loss != "none"),
        "none with the sampler class_weighted, whose weights it would repeat, "
        "and where pixel_loss is none",
      ),
    )

  def _check_use(self) -> None:
    """Raises a `ValueError` for an option that nothing uses."""
    is_uncertain = self.sampler in ("uncertain", "uncertain_weighted")
    is_used = {
      "gamma": self.pixel_loss == "focal",
      "label_smoothing": self.pixel_loss == "cross_entropy",
      "region_weight": self.region_loss != "none",
      "false_positives": self.region_loss == "tversky",
      "false_negatives": self.region_loss == "tversky",
      "rate_steps": self.initial_rate is not None,
      "min_probability": self.sampler == "class_balanced",
      "redistribute": self.sampler == "class_balanced",
      "unbiased": self.sampler in _WITH_PROBABILITIES,
      "threshold": self.sampler == "harder_than",
      "oversample": is_uncertain,
      "importance": is_uncertain,
    }
    for name, used in is_used.items():
      is_default = getattr(self, name) == getattr(Loss, name)
      require(
        self,
        **{
          name: (
            used or is_default,
            f"left out with sampler {self.sampler}, pixel_loss "
            f"{self.pixel_loss}, region_loss {self.region_loss} and "
            f"initial_rate {self.initial_rate}, which do not use it",
          )
        },
      )


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """How parameters are updated."""

  steps: int = 2000
  """Total number of steps. Raise it to continue a finished run; a polynomial
  schedule then ends at the new number."""
  learning_rate: float = 3e-3
  """Highest learning rate."""
  warmup_steps: int = 20
  """Steps in which the learning rate rises from 0."""
  optimizer: Literal["adamw", "sgd"] = "adamw"
  """AdamW, or stochastic gradient descent by Caffe's rules (the papers)."""
  schedule: Literal["polynomial", "constant"] = "polynomial"
  """Learning rate after the warm-up."""
  power: float = 0.9
  """Exponent of the polynomial decay."""
  momentum: float = 0.9
  """Momentum of sgd."""
  weight_decay: float = 1e-4
  """Decay of the kernels; decoupled with adamw, coupled with sgd."""
  backbone_multiplier: float = 1.0
  """Learning rate of the backbone relative to that of the head, such as 0.1. To
  leave the backbone as it is, see freeze."""
  bias_multiplier: float | None = None
  """Learning rate of the biases, and of the scales and shifts of
  normalizations, relative to that of the kernels. They are never decayed.
  Default: 2 with sgd, as in the papers, 1 with adamw."""
  clip_norm: float | None = None
  """Largest norm of the gradient. Longer gradients are scaled down to it."""
  accumulate: int = 1
  """Number of steps whose gradients are averaged for one update. With
  --normalize kept this is a mean of the steps' means. With expected, all pixels
  count the same if all steps have equally many valid ones."""
  ema_decay: float | None = None
  """Decay of a moving average (EMA) of the parameters, such as 0.999.
  Validation and prediction then use the average."""

  @property
  def num_updates(self) -> int:
    """Updates of the parameters in the whole run."""
    return self.steps // self.accumulate

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    at_least_one(self, "steps", "accumulate")
    require(
      self,
      learning_rate=(self.learning_rate > 0, "above 0"),
      weight_decay=(self.weight_decay >= 0, "at least 0"),
      momentum=(0 <= self.momentum < 1, "in 0..1, below 1"),
      power=(self.power > 0, "above 0"),
      backbone_multiplier=(
        self.backbone_multiplier > 0,
        "above 0; to leave the backbone as it is, give --freeze backbone",
      ),
      bias_multiplier=(
        self.bias_multiplier is None or self.bias_multiplier > 0,
        "above 0",
      ),
      clip_norm=(self.clip_norm is None or self.clip_norm > 0, "above 0"),
      ema_decay=(
        self.ema_decay is None or 0 <= self.ema_decay < 1,
        "in 0..1, below 1",
      ),
      accumulate=(
        self.accumulate <= self.steps,
        f"at most the {self.steps} steps",
      ),
      warmup_steps=(
        0 <= self.warmup_steps // self.accumulate < self.num_updates,
        f"at least 0 and less than the {self.steps} steps",
      ),
    )


@dataclasses.dataclass(frozen=True)
class Run:
  """Where the run is kept, and how often it reports and saves."""

  workdir: pathlib.Path
  """Folder for the run; made if it does not exist. If it holds this run, the
  command resumes it."""
  overwrite: bool = False
  """Delete the run in workdir and start again. Leave this out to resume."""
  seed: int = 0
  """Seed of parameters, data order, masks and dropout."""
  log_every: int = 20
  """Steps between records in metrics.jsonl; each is a mean over these steps."""
  validate_every: int = 500
  """Steps between validations. The last step is always validated."""
  save_every: int = 500
  """Steps between checkpoints. One is also saved at each validation."""
  validation_batch: int = 8
  """Images per batch in validation; it does not change the scores."""
  num_pictures: int = 4
  """Number of images shown with their predictions."""
  max_skipped: int = 0
  """How many steps in a row may be skipped because the loss or gradient is not
  finite. 0 stops at the first."""
  num_devices: int | None = None
  """Number of devices that share a batch. Default: all. Several processes use
  all devices of all."""
  fsdp: bool = False
  """Share out parameters and optimizer state over the devices (FSDP), instead
  of a copy on each: less memory, and more to exchange."""
  row_shards: int = 1
  """Number of devices that share the rows of each image, for images too large
  for one device. The batch is split over groups of so many."""
  remat: Remat = "none"
  """blocks: compute the layers of each block of the network again in the
  backward pass, instead of keeping them in memory."""

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    at_least_one(
      self,
      "log_every",
      "validate_every",
      "save_every",
      "validation_batch",
      "num_pictures",
    )
    require(
      self,
      max_skipped=(self.max_skipped >= 0, "at least 0"),
      num_devices=(
        self.num_devices is None or self.num_devices >= 1,
        "at least 1",
      ),
      row_shards=(self.row_shards >= 1, "at least 1"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
  """The groups that runs and studies share."""

  data: Data = Data()
  run: Run
  network: Network = Network()
  optimizer: Optimizer = Optimizer()
  augmentation: augmentation_lib.Augmentation = augmentation_lib.Augmentation(
    crop_size=(96, 96), scale_range=(0.75, 1.33)
  )
  processes: processes_lib.Processes = processes_lib.Processes()

  def replace(self, **options: Any) -> Self:
    """Returns a copy with other values, by the names of the options.

    Raises:
      TypeError: if a group is given, or there is no such option.
    """
    if any(dataclasses.is_dataclass(value) for value in options.values()):
      raise TypeError(
        "replace takes options, not groups: use dataclasses.replace."
      )
    changes = {}
    for group, value in groups_of(self).items():
      mine = {name: options.pop(name) for name in names(value) & set(options)}
      if mine:
        changes[group] = dataclasses.replace(value, **mine)
    return dataclasses.replace(self, **changes, **options)

  def check(self) -> None:
    """Raises a `ValueError` for an option out of its range."""
    for group in groups_of(self).values():
      group.check()
    check_colors(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Groups):
  """Trains one network, and resumes its run."""

  patches: Patches = Patches()
  loss: Loss = Loss()
  epochs: float | None = None
  """Passes over the training split, instead of steps."""
  patience: int | None = None
  """End before the last step if the mean IU of the validation split has not
  risen in so many validations. Default: never."""

  def check(self) -> None:
    """Raises a `ValueError` for an option out of range or superfluous."""
    super().check()
    require(
      self,
      epochs=(self.epochs is None or self.epochs > 0, "above 0"),
      patience=(self.patience is None or self.patience >= 1, "at least 1"),
    )
    network, data = self.network, self.data
    fuses_late = data.modalities == "color_hha"
    is_fcn = network.architecture == "fcn"
    require(
      data,
      modalities=(
        not fuses_late or is_fcn,
        "another with architecture fcn_resnet, which is one network",
      ),
      second_labels=(
        data.second_labels is None
        or (not fuses_late and is_fcn)
        and self.loss.sampler not in _WITH_CLASSES
        and self.loss.class_weights == "none",
        "left out with the modalities color_hha, with architecture fcn_resnet, "
        f"with the samplers {' and '.join(_WITH_CLASSES)}, and with "
        "class_weights",
      ),
    )
    require(
      network,
      inputs=_inputs_condition(data.modalities, network.inputs),
      init_hha=(
        (network.init_hha is None) == (network.init is None or not fuses_late),
        "given with the modalities color_hha and an init, and only then",
      ),
      at_once=(
        not network.at_once or not fuses_late,
        "left out with the modalities color_hha: it scales the skips of one "
        "FCN-8s",
      ),
    )
    require(
      self.run,
      remat=(
        self.run.remat == "none" or network.backbone not in _WITHOUT_BLOCKS,
        f"none with the backbone {network.backbone}, which has no blocks",
      ),
    )
    self._check_sizes()
    if self.run.row_shards > 1:
      self._check_rows()

  def _check_rows(self) -> None:
    """Raises a `ValueError` if devices cannot share the rows of the images."""
    crop_size, loss = self.augmentation.crop_size, self.loss
    require(
      self.run,
      row_shards=(
        self.patches.patches == "none",
        "1 with patches, which are cut from whole images",
      ),
    )
    require(
      loss,
      sampler=(
        loss.sampler in _BY_ROWS,
        f"one of {', '.join(_BY_ROWS)} with row_shards; others compare the "
        "pixels of a whole image",
      ),
      region_loss=(
        loss.region_loss != "lovasz_softmax",
        "another with row_shards: it sorts the pixels of all devices",
      ),
    )
    if crop_size is None:
      raise ValueError(
        f"row_shards is {self.run.row_shards}, for which images need a number "
        "of rows that the devices can share: give a crop_size."
      )
    try:
      rows.check_height(crop_size[0], self.run.row_shards, self.network.stride)
    except ValueError as error:
      raise ValueError(f"crop_size is {crop_size}, but {error}") from error

  def _check_sizes(self) -> None:
    """Raises a `ValueError` for patches or samplers that images do not suit."""
    crop_size, patches = self.augmentation.crop_size, self.patches
    require(
      patches,
      patches=(
        patches.patches == "none" or self.data.second_labels is None,
        "none with second_labels, which are not cut",
      ),
    )
    if crop_size is not None:
      patches.check_image(crop_size)
    require(
      self.loss,
      sampler=(
        self.loss.sampler != "center_pixel" or patches.patches != "none",
        "another without patches: it keeps one pixel of each",
      ),
    )
    if self.seen_size is None and self.loss.sampler in _WITH_COUNT:
      raise ValueError(
        f"the sampler {self.loss.sampler} keeps a number of pixels, so it "
        "needs images of one size: give a crop_size, or another sampler."
      )
    if self.num_seen is None and self.loss.sampler in _WITH_COUNT_OF_BATCH:
      raise ValueError(
        f"the sampler {self.loss.sampler} keeps a number of pixels of the "
        "batch, but the grids of whole pictures have as many patches as these "
        "are large: give patches_per_image, a crop_size, or another sampler."
      )

  @property
  def max_skipped(self) -> int:
    """How many steps in a row may be skipped.

    In float16 a gradient that overflows halves the scale of the loss: from its
    beginning, 2^16, to 1 in as many steps.
    """
    least = 16 if self.network.dtype == "float16" else 0
    return max(self.run.max_skipped, least)

  @property
  def seen_size(self) -> tuple[int, int] | None:
    """Height and width of what the network sees; None if they vary."""
    if self.patches.patches != "none":
      return self.patches.patch_size
    return self.augmentation.crop_size

  @property
  def num_seen(self) -> int | None:
    """How many patches or images a batch has; None if their number varies."""
    of_image = 1
    if self.patches.patches != "none":
      of_image = self.patches.number_of(self.augmentation.crop_size)
    return None if of_image is None else self.data.batch_size * of_image


def groups_of(config: Any) -> dict[str, Any]:
  """The groups of options by name."""
  values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
  return {n: v for n, v in values.items() if dataclasses.is_dataclass(v)}


def names(group: Any) -> set[str]:
  """Names of the options of a group."""
  return {field.name for field in dataclasses.fields(group)}


def flat(config: Any) -> dict[str, Any]:
  """All options by name, whatever their group."""
  groups = groups_of(config)
  options = {
    name: getattr(group, name)
    for group in groups.values()
    for name in [field.name for field in dataclasses.fields(group)]
  }
  own = [f.name for f in dataclasses.fields(config) if f.name not in groups]
  return options | {name: getattr(config, name) for name in own}


def at_least_one(config: Any, *options: str) -> None:
  """Raises a `ValueError` if one of these options is less than 1."""
  for name in options:
    if getattr(config, name) < 1:
      raise ValueError(f"{name} is {getattr(config, name)}; it must be >= 1.")


def require(config: Any, **conditions: tuple[bool, str]) -> None:
  """Checks options against conditions.

  Args:
    config: has the options as attributes.
    **conditions: for each option by name: whether it is valid, and what it must
      be.

  Raises:
    ValueError: for the first option that is not.
  """
  for name, (is_met, condition) in conditions.items():
    if not is_met:
      raise ValueError(
        f"{name} is {getattr(config, name)}; it must be {condition}."
      )


def check_colors(config: Groups) -> None:
  """Raises a `ValueError` for changes of colour where channels are others."""
  options = (
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "gamma_range",
    "blur_probability",
    "noise",
  )
  group = config.augmentation
  changed = [
    name
    for name in options
    if getattr(group, name) != getattr(type(group), name)
  ]
  if changed and config.data.modalities != "color":
    raise ValueError(
      f"{', '.join(changed)} change colours only: leave them out with the "
      f"modalities {config.data.modalities}."
    )


def _inputs_condition(modalities: str, inputs: str | None) -> tuple[bool, str]:
  """Whether inputs fit the channels of the images, and what they must be."""
  if modalities == "color_hha":
    return inputs is None, (
      "left out with the modalities color_hha, whose networks have nyud_color "
      "and nyud_hha"
    )
  if (modalities == "hha") != (inputs == "nyud_hha"):
    return False, (
      "nyud_hha with the modalities hha, and only there: colours have other "
      "means"
    )
  has_depth = modalities == "color_depth"
  return has_depth == (inputs == "nyud_color_depth"), (
    f"one for {4 if has_depth else 3} channels with the modalities {modalities}"
    + (": nyud_color_depth" if has_depth else "")
  )
