"""From the options of train.py to its network, optimizer, sampler and data."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

import class_counts
import command_line
import fcn_jax as fcn
import train_presets
import training


def check_options(config: train_presets.Train) -> None:
  """Raises a `ValueError` for an option out of its range, or superfluous."""
  command_line.check_at_least_one(
    config,
    (
      "steps",
      "batch_size",
      "num_sizes",
      "num_threads",
      "accumulate",
      "log_every",
      "validate_every",
      "save_every",
      "validation_batch",
      "num_pictures",
      "boundary_distance",
    ),
  )
  smallest, largest = config.scale_range
  training.check_conditions(
    config,
    {
      "crop_size": (
        config.crop_size is None or min(config.crop_size) >= 1,
        "at least 1 1, or None for whole pictures",
      ),
      "scale_range": (0 < smallest <= largest, "from small to large, above 0"),
      "resize": (config.resize > 0, "above 0"),
      "learning_rate": (config.learning_rate > 0, "above 0"),
      "weight_decay": (config.weight_decay >= 0, "at least 0"),
      "num_workers": (config.num_workers >= 0, "at least 0"),
      "max_skipped": (config.max_skipped >= 0, "at least 0"),
      "dropout_rate": (0 <= config.dropout_rate < 1, "in 0..1, below 1"),
      "momentum": (0 <= config.momentum < 1, "in 0..1, below 1"),
      "power": (config.power > 0, "above 0"),
      "rate": (
        0 < config.rate <= 1
        and (config.rate == 1 or config.sampler not in _WITHOUT_RATE),
        f"1 with the sampler {config.sampler}"
        if config.sampler in _WITHOUT_RATE
        else "in 0..1, above 0",
      ),
      "rate_elsewhere": (0 <= config.rate_elsewhere <= 1, "in 0..1"),
      "cell": (_at_least_one(config.cell), "at least 1"),
      "num_devices": (_at_least_one(config.num_devices), "at least 1"),
      "clip_norm": (
        config.clip_norm is None or config.clip_norm > 0,
        "above 0",
      ),
      "ema_decay": (
        config.ema_decay is None or 0 <= config.ema_decay < 1,
        "in 0..1, below 1",
      ),
      "modalities": (
        config.modalities != "color_hha" or config.network == "fcn",
        "another with network fcn_resnet, which is one network",
      ),
      "inputs": _inputs_condition(config),
      "second_labels": (
        config.second_labels is None
        or (
          config.modalities != "color_hha"
          and config.network == "fcn"
          and config.sampler not in _WITH_CLASSES
        ),
        "left out with the modalities color_hha, with network fcn_resnet, and "
        f"with the samplers {' and '.join(_WITH_CLASSES)}",
      ),
      "init_hha": (
        (config.init_hha is None)
        == (config.init is None or config.modalities != "color_hha"),
        "given with the modalities color_hha and an init, and only then",
      ),
      "auxiliary": (
        not config.auxiliary or config.network == "fcn_resnet",
        "left out with network fcn, which has no such head",
      ),
      "stride": (
        config.network == "fcn" or config.stride == 8,
        "8 with network fcn_resnet",
      ),
      "padding": (
        config.network == "fcn" or config.padding != "caffe",
        "left out with network fcn_resnet, whose geometry is torchvision's",
      ),
      "head_width": (
        _at_least_one(config.head_width)
        and (config.network == "fcn" or config.head_width is None),
        "at least 1, or left out with network fcn_resnet",
      ),
      "at_once": (
        not config.at_once
        or (
          config.stride == 8
          and config.modalities != "color_hha"
          and config.network == "fcn"
        ),
        f"left out at stride {config.stride}, network {config.network} and "
        f"modalities {config.modalities}, as it scales the skips of one FCN-8s",
      ),
      "accumulate": (
        config.accumulate <= config.steps,
        f"at most the {config.steps} steps",
      ),
      "warmup_steps": (
        0 <= config.warmup_steps // config.accumulate < num_updates(config),
        f"at least 0 and less than the {config.steps} steps",
      ),
      "normalize": (
        config.normalize != "expected" or config.sampler in _WITH_RATE,
        f"another for {config.sampler}: which share of the pixels it keeps is "
        "not known",
      ),
    },
  )
  colors = ("brightness", "contrast", "saturation", "hue", "blur_probability")
  changed = [name for name in colors if getattr(config, name)]
  if changed and config.modalities != "color":
    raise ValueError(
      f"{', '.join(changed)} change colours only: leave them out with the "
      f"modalities {config.modalities}."
    )
  if config.crop_size is None and config.sampler in _WITH_COUNT:
    raise ValueError(
      f"the sampler {config.sampler} keeps a number of pixels, so it needs "
      "images of one size: give a crop_size, or another sampler."
    )


_WITHOUT_RATE = ("whole_image", "one_per_block", "class_weighted")
_WITH_COUNT = ("fixed_count", "class_balanced", "hardest")
_WITH_CLASSES = ("class_balanced", "class_weighted")
_WITH_RATE = ("whole_image", "bernoulli", "fixed_count", "one_per_block")


def _at_least_one(value: int | None) -> bool:
  return value is None or value >= 1


def _inputs_condition(config: train_presets.Train) -> tuple[bool, str]:
  """Whether the inputs are for the channels of the images, and what must be."""
  if config.modalities == "color_hha":
    return (
      config.inputs is None,
      "left out with the modalities color_hha, whose networks have nyud_color "
      "and nyud_hha",
    )
  if (config.modalities == "hha") != (config.inputs == "nyud_hha"):
    return False, (
      "nyud_hha with the modalities hha, and only there: colours have other "
      "means"
    )
  num_channels = 4 if config.modalities == "color_depth" else 3
  # Without a choice they are the backbone's, for colours.
  given = 3 if config.inputs is None else _inputs(config).num_channels
  return (
    given == num_channels,
    f"one for {num_channels} channels with the modalities {config.modalities}"
    + (": nyud_color_depth" if num_channels == 4 else ""),
  )


def _inputs(
  config: train_presets.Train,
) -> fcn.models.input_normalization.InputNormalization | None:
  if config.inputs is None:
    return None
  return getattr(fcn.models.input_normalization, config.inputs.upper())


def heads(
  config: train_presets.Train, num_classes: int
) -> int | Mapping[str, int]:
  """Classes of the network, or those of each of its heads.

  Args:
    config: the options.
    num_classes: of the data set's own labels, which the main head scores.
  """
  if config.second_labels is None:
    return num_classes
  further = fcn.data.pipeline.combining.NUM_CLASSES[config.second_labels]
  # The names that the released networks have.
  return {"semantic": num_classes, config.second_labels: further}


def make_model(
  config: train_presets.Train, num_classes: int
) -> fcn.models.Network:
  """The network; see `heads` for the number of classes."""
  inputs = _inputs(config)
  if config.network == "fcn_resnet":
    return fcn.models.FCNResNet(
      num_classes,
      backbone=config.backbone,
      auxiliary=config.auxiliary,
      inputs=inputs,
      dropout_rate=config.dropout_rate,
      normalization=config.normalization,
      dtype=jnp.dtype(config.dtype),
    )
  if config.modalities == "color_hha":
    return fcn.models.LateFusion(
      num_classes,
      {
        "color": fcn.models.input_normalization.NYUD_COLOR,
        "hha": fcn.models.input_normalization.NYUD_HHA,
      },
      backbone=config.backbone,
      stride=config.stride,
      padding=config.padding,
      head_width=config.head_width,
      dropout_rate=config.dropout_rate,
      normalization=config.normalization,
      dtype=jnp.dtype(config.dtype),
    )
  return fcn.models.FCN(
    heads(config, num_classes),
    backbone=config.backbone,
    inputs=inputs,
    stride=config.stride,
    padding=config.padding,
    skip_scales=(
      fcn.models.fcn.AT_ONCE_SCALES if config.at_once else (1.0, 1.0)
    ),
    head_width=config.head_width,
    dropout_rate=config.dropout_rate,
    normalization=config.normalization,
    dtype=jnp.dtype(config.dtype),
  )


def num_updates(config: train_presets.Train) -> int:
  """Updates of the parameters in the whole run."""
  return config.steps // config.accumulate


def learning_rate(config: train_presets.Train) -> optax.Schedule:
  """The learning rate as a function of the number of the update."""
  warmup = config.warmup_steps // config.accumulate
  if config.schedule == "polynomial":
    return fcn.optimizers.warmup_polynomial(
      config.learning_rate,
      total_steps=num_updates(config),
      warmup_steps=warmup,
      power=config.power,
    )
  if not warmup:
    return optax.constant_schedule(config.learning_rate)
  return optax.linear_schedule(0.0, config.learning_rate, warmup)


def make_optimizer(
  config: train_presets.Train,
) -> optax.GradientTransformation:
  """The optimizer: clipping, recipe, average and accumulation."""
  schedule = learning_rate(config)
  if config.optimizer == "sgd":
    optimizer = fcn.optimizers.caffe_sgd(
      schedule, momentum=config.momentum, weight_decay=config.weight_decay
    )
  else:
    optimizer = optax.adamw(
      schedule,
      weight_decay=config.weight_decay,
      mask=fcn.optimizers.is_kernel,
    )
  if config.clip_norm is not None:
    clip = optax.clip_by_global_norm(config.clip_norm)
    optimizer = optax.chain(clip, optimizer)
  if config.ema_decay is not None:
    optimizer = fcn.optimizers.with_ema(optimizer, decay=config.ema_decay)
  if config.accumulate > 1:
    steps = optax.MultiSteps(optimizer, config.accumulate)
    optimizer = steps.gradient_transformation()
  return optimizer


def make_sampler(
  config: train_presets.Train, dataset: fcn.data.Dataset
) -> fcn.train.Sampler:
  """The sampler, with its options bound.

  Counts the classes of the data set if the sampler needs to know them.
  """
  sampling, cell = fcn.sampling, config.cell or config.stride
  count = 0
  if config.sampler in _WITH_COUNT:
    count = max(1, round(config.rate * math.prod(config.crop_size)))
  match config.sampler:
    case "whole_image":
      return sampling.whole_image
    case "bernoulli":
      return functools.partial(sampling.bernoulli, rate=config.rate, cell=cell)
    case "fixed_count":
      return functools.partial(sampling.fixed_count, count=count)
    case "one_per_block":
      return functools.partial(sampling.one_per_block, block=cell)
    case "hardest":
      return functools.partial(sampling.hardest, count=count)
    case "near_boundary":
      return functools.partial(
        sampling.near_boundary,
        rate=config.rate,
        rate_elsewhere=config.rate_elsewhere,
        distance=config.boundary_distance,
      )
    case "class_balanced":
      return functools.partial(
        sampling.class_balanced,
        count=config.batch_size * count,
        num_classes=dataset.num_classes,
      )
    case "class_weighted":
      frequencies = class_counts.count_classes(dataset)
      weights = class_counts.class_weights(frequencies)
      return functools.partial(
        sampling.class_weighted, class_weights=tuple(weights.tolist())
      )
  raise ValueError(f"there is no sampler {config.sampler!r}.")


def make_train_step(
  config: train_presets.Train,
  model: fcn.models.Network,
  optimizer: optax.GradientTransformation,
  sampler: fcn.train.Sampler,
) -> training.TrainStep:
  """The compiled train step."""
  rate = None
  if config.normalize == "expected":
    cell = config.cell or config.stride
    rates = {"whole_image": 1.0, "one_per_block": 1 / cell**2}
    rate = rates.get(config.sampler, config.rate)
  return fcn.train.make_train_step(
    model,
    optimizer,
    sampler=sampler,
    normalize=config.normalize,
    rate=rate,
    skip_nonfinite=config.max_skipped > 0,
  )


def load_split(config: train_presets.Train, split: str) -> fcn.data.Dataset:
  """One split, with the channels that the network sees, and its main labels.

  Raises:
    ValueError: if the data set lacks a modality, or see `training.load_split`.
    FileNotFoundError: if the folder does not exist.
  """
  extras = fcn.data.pipeline.combining.EXTRAS[config.modalities]
  dataset = training.load_split(config, split, extras=extras)
  return fcn.data.pipeline.combining.with_channels(dataset, config.modalities)


def load_training_split(config: train_presets.Train) -> fcn.data.Dataset:
  """The split to train on: as `load_split`, with the labels of all heads.

  Raises:
    ValueError: if the data set lacks labels, or see `load_split`.
    FileNotFoundError: if the folder does not exist.
  """
  if config.second_labels is None:
    return load_split(config, "train")
  extras = fcn.data.pipeline.combining.EXTRAS[config.modalities]
  dataset = training.load_split(
    config, "train", extras=(*extras, config.second_labels)
  )
  dataset = fcn.data.pipeline.combining.with_channels(
    dataset, config.modalities
  )
  return fcn.data.pipeline.combining.with_labels(dataset, config.second_labels)


class Batches(NamedTuple):
  """The training batches of a run.

  Attributes:
    source: the examples.
    options: arguments of `fcn.data.pipeline.train_batches`.
    fingerprint: of the sequence: batch k of another run with it is the same.
  """

  source: Any
  options: dict[str, Any]
  fingerprint: str

  def starting_at(self, first_batch: int) -> Iterator[fcn.types.Batch]:
    """Endless batches from one on."""
    return fcn.data.train_batches(
      self.source, first_batch=first_batch, **self.options
    )

  def names(self, number: int) -> list[str]:
    """Names of the examples in a batch."""
    indices = fcn.data.pipeline.indices_of_batch(
      len(self.source),
      batch_size=self.options["batch_size"],
      seed=self.options["seed"],
      number=number,
    )
    return [self.source[index].name for index in indices]


def make_batches(
  config: train_presets.Train, dataset: fcn.data.Dataset
) -> Batches:
  """The training batches.

  Raises:
    ValueError: if the data set has fewer examples than a batch.
  """
  training.check_images_per_step({"train": config.batch_size}, dataset)
  image_sizes = None
  if config.crop_size is None:
    image_sizes = fcn.data.pipeline.padding.image_sizes(
      dataset.source, num_threads=config.num_threads
    )
  options = {
    "batch_size": config.batch_size,
    "crop_size": config.crop_size,
    "scale_range": config.scale_range,
    "min_labelled": config.min_labelled,
    "flip": config.flip,
    "brightness": config.brightness,
    "contrast": config.contrast,
    "saturation": config.saturation,
    "hue": config.hue,
    "blur_probability": config.blur_probability,
    "resize_factor": config.resize,
    "num_sizes": config.num_sizes,
    "image_sizes": image_sizes,
    "seed": config.seed,
    "num_classes": heads(config, dataset.num_classes),
    "num_threads": config.num_threads,
    "num_workers": config.num_workers,
  }
  fingerprint = fcn.data.fingerprint(dataset.source, **options)
  return Batches(dataset.source, options, fingerprint)


def validation_batches(config: train_presets.Train, dataset: fcn.data.Dataset):
  """The validation batches, an iterable that can be used again and again."""
  return fcn.data.eval_batches(
    dataset.source,
    batch_size=config.validation_batch,
    num_sizes=config.num_sizes,
    resize_factor=config.resize,
    num_classes=dataset.num_classes,
    num_threads=config.num_threads,
  )


def class_table(dataset: fcn.data.Dataset) -> dict[str, Any]:
  """What the classes are, for checkpoints and other scripts."""
  return {
    "names": list(dataset.class_names),
    "palette": np.asarray(dataset.palette).tolist(),
  }
