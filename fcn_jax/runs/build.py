"""Makes the network, optimizer and loss of a run from its options."""

import functools
import math
import sys
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fcn_jax import data
from fcn_jax import losses
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import patches
from fcn_jax import reprs
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.data.pipeline import combining
from fcn_jax.models import fcn
from fcn_jax.models import input_normalization
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import processes
from fcn_jax.sampling import uniform


def random_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Random keys of the initial parameters, of all steps, and of patches."""
  return tuple(jax.random.split(jax.random.key(seed), 3))


def heads(
  options: config_lib.Data, num_classes: int
) -> int | Mapping[str, int]:
  """Classes of the network, or those of each of its heads.

  Args:
    options: of the data.
    num_classes: of the data set's own labels, which the main head scores.
  """
  if options.second_labels is None:
    return num_classes
  further = combining.NUM_CLASSES[options.second_labels]
  # The names in the released networks.
  return {"semantic": num_classes, options.second_labels: further}


def cut(
  options: config_lib.Patches, num_classes: int
) -> Callable[[jax.Array, types.Batch], types.Batch] | None:
  """Cuts a batch into patches, with a random key; None without patches.

  Args:
    options: which patches.
    num_classes: of the labels.
  """
  size, number = options.patch_size, options.patches_per_image
  match options.patches:
    case "none":
      return None
    case "random":
      return functools.partial(
        patches.sample_patches, num_patches=number, size=size
      )
    case "balanced":
      return functools.partial(
        patches.balanced_patches,
        num_patches=number,
        size=size,
        num_classes=num_classes,
      )
  grid = {"size": size, "stride": options.grid_stride}
  if number is None:
    return lambda key, batch: patches.grid_patches(batch, **grid)
  return functools.partial(
    patches.sample_grid_patches, num_patches=number, **grid
  )


def model(config: config_lib.Groups, num_classes: int) -> models.Network:
  """The network; see `heads` for the number of classes."""
  network = config.network
  shared = {
    "backbone": network.backbone,
    "dropout_rate": network.dropout_rate,
    "normalization": network.normalization,
    "dtype": jnp.dtype(network.dtype),
    "remat": config.run.remat,
    "frozen": network.frozen,
    "frozen_statistics": network.freezes_statistics,
  }
  if network.inputs is not None:
    shared["inputs"] = getattr(input_normalization, network.inputs.upper())
  if network.architecture == "fcn_resnet":
    return models.FCNResNet(num_classes, auxiliary=network.auxiliary, **shared)
  shared |= {
    "stride": network.stride,
    "padding": network.padding,
    "head_width": network.head_width,
  }
  if config.data.modalities == "color_hha":
    modalities = {
      "color": input_normalization.NYUD_COLOR,
      "hha": input_normalization.NYUD_HHA,
    }
    return models.LateFusion(num_classes, modalities, **shared)
  scales = fcn.AT_ONCE_SCALES if network.at_once else (1.0, 1.0)
  classes = heads(config.data, num_classes)
  return models.FCN(classes, skip_scales=scales, **shared)


def schedule(options: config_lib.Optimizer) -> optax.Schedule:
  """The learning rate as a function of the number of the update."""
  warmup = options.warmup_steps // options.accumulate
  if options.schedule == "polynomial":
    return optimizers.warmup_polynomial(
      options.learning_rate,
      total_steps=options.num_updates,
      warmup_steps=warmup,
      power=options.power,
    )
  if not warmup:
    return optax.constant_schedule(options.learning_rate)
  return optax.linear_schedule(0.0, options.learning_rate, warmup)


def optimizer(options: config_lib.Optimizer) -> optax.GradientTransformation:
  """The optimizer: clipping, recipe, average and accumulation."""
  rate, of_biases = schedule(options), options.bias_multiplier
  if options.optimizer == "sgd":
    multiplier = {} if of_biases is None else {"bias_multiplier": of_biases}
    result = optimizers.caffe_sgd(
      rate,
      momentum=options.momentum,
      weight_decay=options.weight_decay,
      **multiplier,
    )
  else:
    result = optax.adamw(
      rate, weight_decay=options.weight_decay, mask=optimizers.is_kernel
    )
    if of_biases is not None:
      result = _scaled(result, of_biases, optimizers.is_bias)
  if options.backbone_multiplier != 1:
    # Updates are proportional to the learning rate, those of momentum too.
    in_backbone = models.freezing.in_backbone
    result = _scaled(result, options.backbone_multiplier, in_backbone)
  if options.clip_norm is not None:
    result = optax.chain(optax.clip_by_global_norm(options.clip_norm), result)
  if options.ema_decay is not None:
    result = optimizers.with_ema(result, decay=options.ema_decay)
  if options.accumulate > 1:
    steps = optax.MultiSteps(result, options.accumulate)
    result = steps.gradient_transformation()
  return result


def _scaled(optimizer, multiplier, mask):
  """An optimizer whose updates of some parameters are scaled."""
  return optax.chain(optimizer, optax.masked(optax.scale(multiplier), mask))


def loss(
  config: config_lib.Train, dataset: data.Dataset
) -> losses.Loss | losses.Schedule:
  """The loss at the sampled pixels.

  Counts the classes of the data set if a weight needs their numbers, and notes
  those without a pixel.

  Raises:
    ValueError: if the data set has no pixel of any class.
  """
  options = config.loss
  of_pixel = None
  if options.pixel_loss != "none":
    of_pixel = pixel_loss(options)
    if options.class_weights != "none":
      frequencies = _frequencies(dataset)
      weights = class_weights(frequencies, options.class_weights)
      of_pixel = losses.class_weighted(of_pixel, class_weights=weights.tolist())
  if options.initial_rate is None:
    return loss_of(config, of_pixel, sampler(config, dataset))
  rate = optax.linear_schedule(
    options.initial_rate, options.rate, options.rate_steps
  )
  return losses.Schedule(
    lambda step: loss_of(config, of_pixel, sampler_of_rate(config, rate(step)))
  )


def loss_of(
  config: config_lib.Train,
  of_pixel: losses.PixelLoss | None,
  sampler: sampling.Sampler,
) -> losses.Loss:
  """The loss of pixels, of regions, or both, at the sampled pixels."""
  options, terms = config.loss, []
  make = functools.partial(
    losses.make, sampler=sampler, row_shards=config.run.row_shards
  )
  if of_pixel is not None:
    terms.append((1.0, make(of_pixel, normalize=options.normalize)))
  if options.region_loss == "lovasz_softmax":
    of_regions = losses.lovasz_softmax(sampler=sampler)
    terms.append((options.region_weight, of_regions))
  elif options.region_loss != "none":
    of_regions = make(region_loss(options))
    terms.append((options.region_weight, of_regions))
  if len(terms) == 1 and of_pixel is not None:
    return terms[0][1]
  return losses.weighted_sum(*terms)


def region_loss(options: config_lib.Loss) -> losses.RegionLoss:
  """The loss of regions."""
  match options.region_loss:
    case "dice":
      return losses.dice()
    case "jaccard":
      return losses.jaccard()
    case "tversky":
      return losses.tversky(
        alpha=options.false_positives, beta=options.false_negatives
      )
  raise ValueError(f"there is no region_loss {options.region_loss!r}.")


def pixel_loss(options: config_lib.Loss) -> losses.PixelLoss:
  """The loss of a pixel."""
  match options.pixel_loss:
    case "cross_entropy" if options.label_smoothing == 0:
      return losses.cross_entropy
    case "cross_entropy":
      return losses.smoothed_cross_entropy(smoothing=options.label_smoothing)
    case "focal":
      return losses.focal(gamma=options.gamma)
    case "symmetric_cross_entropy":
      return losses.symmetric_cross_entropy()
    case "generalized_cross_entropy":
      return losses.generalized_cross_entropy()


def sampler(
  config: config_lib.Train, dataset: data.Dataset
) -> sampling.Sampler:
  """Which pixels enter the loss.

  Raises:
    ValueError: see `loss`.
  """
  options = config.loss
  count = of_batch = 0
  if config.seen_size is not None:
    count = max(1, round(options.rate * math.prod(config.seen_size)))
    of_batch = (config.num_seen or 0) * count
  match options.sampler:
    case "whole_image":
      return sampling.whole_image()
    case "places" | "bernoulli" if options.rate == 1:
      return sampling.whole_image()
    case "places":
      return sampling.places(rate=options.rate, arrangement=options.arrangement)
    case "bernoulli":
      return sampling.bernoulli(rate=options.rate, unit=options.unit)
    case "fixed_count":
      return sampling.fixed_count(count=count)
    case "fixed_count_in_batch":
      return sampling.fixed_count_in_batch(count=of_batch)
    case "one_per_square":
      side = options.side or config.network.stride
      return sampling.one_per_square(side=side)
    case "center_pixel":
      return sampling.center_pixel()
    case "hardest":
      return sampling.hardest(count=count)
    case "harder_than":
      return sampling.harder_than(threshold=options.threshold, min_count=count)
    case "uncertain":
      return sampling.uncertain(
        count=count,
        oversample=options.oversample,
        importance=options.importance,
      )
    case "uncertain_weighted":
      return sampling.uncertain_weighted(
        count=count,
        oversample=options.oversample,
        importance=options.importance,
      )
    case "near_boundary":
      probabilities = sampling.boundary_probabilities(
        rate=options.rate,
        rate_elsewhere=options.rate_elsewhere,
        distance=options.boundary_distance,
      )
      return _independent(probabilities, unbiased=options.unbiased)
    case "class_balanced":
      probabilities = sampling.class_probabilities(
        count=of_batch,
        num_classes=dataset.num_classes,
        min_probability=options.min_probability,
        redistribute=options.redistribute,
      )
      return _independent(probabilities, unbiased=options.unbiased)
    case "class_weighted":
      weights = class_weights(_frequencies(dataset))
      return sampling.class_weighted(class_weights=tuple(weights.tolist()))
  raise ValueError(f"there is no sampler {options.sampler!r}.")


def _independent(
  probabilities: sampling.Probabilities, *, unbiased: bool
) -> sampling.Sampler:
  if unbiased:
    return sampling.importance(probabilities=probabilities)
  return uniform.independently(probabilities)


def sampler_of_rate(
  config: config_lib.Train, rate: jax.Array
) -> sampling.Sampler:
  """The sampler at a rate that changes from step to step."""
  options = config.loss
  most = max(options.initial_rate, options.rate)
  match options.sampler:
    case "bernoulli":
      return sampling.bernoulli(rate=rate, unit=options.unit, max_rate=most)
    case "fixed_count":
      pixels = math.prod(config.seen_size)
      count = jnp.maximum(1, jnp.round(rate * pixels).astype(jnp.int32))
      return sampling.fixed_count(
        count=count, max_count=max(1, math.ceil(most * pixels))
      )
  raise ValueError(f"the sampler {options.sampler} has no schedule.")


def _frequencies(dataset: data.Dataset) -> data.Frequencies:
  """How common the classes are; notes those that do not occur."""
  frequencies = data.class_frequencies(dataset)
  absent = [
    name
    for name, share in zip(dataset.class_names, frequencies.shares, strict=True)
    if not share
  ]
  if absent and processes.is_first():
    print(
      f"note: no pixel to train on has the class {reprs.names(absent)}: its "
      "weight is 0.",
      file=sys.stderr,
    )
  return frequencies


def class_weights(
  frequencies: data.Frequencies,
  kind: config_lib.ClassWeights = "median_frequency",
) -> np.ndarray:
  """Weights of the classes [C], scaled: the mean weight of a pixel is 1.

  A class without a pixel has the weight 0.

  The loss is divided by the number of pixels, not by the sum of their weights.
  With this scale, the loss and the learning rate mean the same as without
  weights.
  """
  occurs = frequencies.shares > 0
  weights = np.zeros(len(occurs), np.float32)
  if kind == "median_frequency":
    weights[occurs] = sampling.median_frequency_weights(
      frequencies.shares_where_present[occurs]
    )
  else:
    weights[occurs] = sampling.inverse_frequency_weights(
      frequencies.shares[occurs]
    )
  return weights / np.sum(frequencies.shares * weights)
