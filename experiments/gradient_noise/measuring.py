"""The noise of the gradient at one state of a network."""

import functools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

import fcn_jax as fcn

# Samplers under which the expected loss is not that of whole images.
OWN_OBJECTIVE = ("class-balanced", "hardest")


def samplers_to_compare(
  config: Any, num_classes: int
) -> dict[str, list[fcn.sampling.Sampler]]:
  """By name, a sampler for each share of the pixels."""
  pixels = config.data.batch_size * math.prod(config.augmentation.crop_size)
  classes = {"num_classes": num_classes}
  make = {
    "pixels": lambda p: functools.partial(fcn.sampling.bernoulli, rate=p),
    "cells of 8": lambda p: functools.partial(
      fcn.sampling.bernoulli, rate=p, cell=8
    ),
    "blocks of 32": lambda p: functools.partial(
      fcn.sampling.bernoulli, rate=p, cell=32
    ),
    "one a block": lambda p: functools.partial(
      fcn.sampling.one_per_block, block=round(p**-0.5)
    ),
    "boundary, 1/q": lambda p: functools.partial(
      fcn.sampling.importance,
      probabilities=functools.partial(
        fcn.sampling.boundary_probabilities,
        rate=min(1.0, 2 * p),
        rate_elsewhere=p / 2,
        distance=4,
      ),
    ),
    "classes, 1/q": lambda p: functools.partial(
      fcn.sampling.importance,
      probabilities=functools.partial(
        fcn.sampling.class_probabilities, count=round(p * pixels), **classes
      ),
    ),
    "class-balanced": lambda p: functools.partial(
      fcn.sampling.class_balanced, count=round(p * pixels), **classes
    ),
    "hardest": lambda p: functools.partial(
      fcn.sampling.hardest,
      count=max(1, round(p * pixels / config.data.batch_size)),
    ),
  }
  return {
    name: [sampler_of(share) for share in config.shares]
    for name, sampler_of in make.items()
  }


@functools.partial(jax.jit, static_argnums=0)
def project_gradients(
  model: fcn.models.Network,
  variables: Mapping[str, Any],
  batch: fcn.types.Batch,
  directions: Any,
) -> tuple[jax.Array, jax.Array]:
  """Projects the gradient of every pixel's loss onto directions.

  Args:
    model: the network.
    variables: its parameters and batch statistics.
    batch: images [N, H, W, 3] and labels [N, H, W].
    directions: trees as the parameters, with R directions along axis 0.

  Returns:
    Pixel losses [N, H, W] in nats, and the projections [R, N, H, W]; both 0
    where void.
  """

  def losses_of(params):
    score_map = model.apply(
      {**variables, "params": params},
      batch.images,
      train=False,
      valid_sizes=batch.valid_sizes,
    )
    logits = fcn.upsampling.to_pixels(score_map)
    return fcn.losses.pixel_cross_entropy(logits, batch.labels)

  losses, pull_back = jax.vjp(losses_of, variables["params"])
  # The fast convolutions have no forward mode; but pull_back is linear, and
  # its transpose is the product of the Jacobian with a direction.
  _, push_forward = jax.vjp(pull_back, jnp.zeros_like(losses))
  return losses, jax.lax.map(lambda v: push_forward((v,))[0], directions)


def random_directions(key: jax.Array, params: Any, count: int) -> Any:
  """Standard normal trees as the parameters, `count` along axis 0."""
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  return structure.unflatten(
    [
      jax.random.normal(key, (count, *leaf.shape))
      for key, leaf in zip(keys, leaves, strict=True)
    ]
  )


def noise_of_sums(
  sums: np.ndarray, scale: float, signal: float | None = None
) -> dict[str, float]:
  """Splits the noise of an image's sampled gradient into its sources.

  Args:
    sums: [M, R, N] weighted sums of projections, over masks, directions and
      images.
    scale: what the sums are divided by, such as the mean number of pixels.
    signal: the squared norm of the mean gradient, where it is known from
      elsewhere; else it is estimated.

  Returns:
    `masks` and `images`, the variances due to the mask and to the choice of
    the image, and `signal`, the squared norm of the mean gradient, all
    estimated without bias; and `noise`, (masks + images) / signal, NaN if
    there are too few images and masks to see a signal.
  """
  num_masks, _, num_images = sums.shape
  if scale == 0:  # No mask kept a pixel.
    return dict.fromkeys(("masks", "images", "signal", "noise"), float("nan"))
  values = np.asarray(sums, np.float64) / scale
  masks = values.var(axis=0, ddof=1).mean()
  of_images = values.mean(axis=0)
  spread = of_images.var(axis=-1, ddof=1).mean()
  images = spread - masks / num_masks
  if signal is None:
    signal = np.mean(of_images.mean(axis=-1) ** 2) - spread / num_images
  noise = (masks + images) / signal if signal > 0 else float("nan")
  return {"masks": masks, "images": images, "signal": signal, "noise": noise}


def correlation_by_distance(
  projections: np.ndarray, valid: np.ndarray, max_distance: int
) -> np.ndarray:
  """Correlation of the gradients of two pixels, by their distance.

  Args:
    projections: [R, N, H, W].
    valid: [N, H, W] bool, pixels that are not void.
    max_distance: in pixels.

  Returns:
    [max_distance + 1]; at d the mean over pairs of valid pixels of an image
    that are d pixels apart, to the nearest pixel.
  """
  mean = projections[:, valid].mean(axis=1)
  centred = np.where(valid, projections - mean[:, None, None, None], 0.0)
  height, width = valid.shape[1:]
  shape = (2 * height, 2 * width)

  def autocorrelation(values):
    return np.fft.irfft2(np.abs(np.fft.rfft2(values, shape)) ** 2, shape)

  products = np.zeros(shape)
  for direction in centred:
    products += autocorrelation(direction).sum(axis=0)
  pairs = len(projections) * autocorrelation(valid).sum(axis=0)
  rows, columns = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in shape)
  distance = np.rint(np.hypot(rows[:, None], columns)).astype(int).ravel()
  sums = np.bincount(distance, products.ravel())[: max_distance + 1]
  counts = np.bincount(distance, pairs.ravel())[: max_distance + 1]
  covariance = sums / np.maximum(np.rint(counts), 1)
  return covariance / covariance[0]


def measure(
  config: Any,
  model: fcn.models.Network,
  state: fcn.train.TrainState,
  batches: list[fcn.types.Batch],
  samplers: Mapping[str, Sequence[fcn.sampling.Sampler]],
  progress: tqdm.tqdm,
) -> dict[str, Any]:
  """Everything about the noise of the gradient at one state."""
  direction_key, mask_key = jax.random.split(
    jax.random.key(config.run.seed + 1)
  )
  directions = random_directions(
    direction_key, state.params, config.num_directions
  )
  variables = fcn.train.variables(state)
  maps, losses = [], []
  for batch in batches:
    pixel_losses, projections = project_gradients(
      model, variables, batch, directions
    )
    maps.append(projections)
    losses.append(pixel_losses)
    progress.update()
  labels = np.concatenate([batch.labels for batch in batches])
  valid = labels != fcn.types.IGNORE_LABEL
  all_maps = np.concatenate([np.asarray(each) for each in maps], axis=1)
  mean_valid = valid.sum() / len(labels)

  whole = np.einsum("rnhw->rn", all_maps)
  pixel_variance = all_maps[:, valid].var(axis=1).mean()
  # Two equal masks: the mask adds no variance.
  whole_noise = noise_of_sums(np.stack([whole, whole]), mean_valid)
  result = {
    "whole": whole_noise,
    "pixels": mean_valid,
    "independent_pixels": pixel_variance / whole_noise["images"],
    "correlation": correlation_by_distance(
      all_maps, valid, max_distance=min(config.augmentation.crop_size) // 2
    ).tolist(),
    "loss": float(np.concatenate(losses)[valid].mean()),
    "samplers": {},
  }
  for name, by_share in samplers.items():
    result["samplers"][name] = []
    for sampler in by_share:
      sums, weight, count = sample_sums(
        sampler, mask_key, maps, losses, batches, config.num_masks
      )
      # The mean gradient of the others is that of whole images.
      own = name in OWN_OBJECTIVE
      signal = None if own else whole_noise["signal"]
      found = noise_of_sums(sums, weight, signal)
      result["samplers"][name].append({"share": count / mean_valid, **found})
      progress.update()
  result["rates"] = {
    str(rate): noise_of_sums(
      sample_sums(
        functools.partial(fcn.sampling.bernoulli, rate=rate),
        mask_key, maps, losses, batches, config.num_masks,
      )[0],
      rate * mean_valid,
    )
    for rate in config.rates
  }  # fmt: skip
  return result


def sample_sums(
  sampler: fcn.sampling.Sampler,
  key: jax.Array,
  maps: Sequence[jax.Array],
  losses: Sequence[jax.Array],
  batches: Sequence[fcn.types.Batch],
  num_masks: int,
) -> tuple[np.ndarray, float, float]:
  """Draws masks and sums the projections under them.

  Returns:
    Sums [M, R, N]; the mean over images of the sum of the weights, and of the
    number of pixels kept.
  """
  asks = fcn.sampling.asks_for_losses(sampler)

  @jax.jit
  def draw(key, labels, pixel_losses, projections):
    options = {"pixel_losses": pixel_losses} if asks else {}
    weights = sampler(key, labels, **options)
    sums = jnp.einsum("nhw,rnhw->rn", weights, projections)
    return sums, jnp.sum(weights), jnp.sum(weights != 0)

  num_images = sum(len(batch.labels) for batch in batches)
  sums, total, count = [], 0.0, 0
  for mask in range(num_masks):
    parts = [
      draw(jax.random.fold_in(key, mask * len(batches) + i), *arrays)
      for i, arrays in enumerate(
        zip([b.labels for b in batches], losses, maps, strict=True)
      )
    ]
    sums.append(np.concatenate([np.asarray(part[0]) for part in parts], axis=1))
    total += sum(float(part[1]) for part in parts)
    count += sum(int(part[2]) for part in parts)
  scale = num_masks * num_images
  return np.stack(sums), total / scale, count / scale


def time_steps(
  config: Any,
  model: fcn.models.Network,
  optimizer: Any,
  batch: fcn.types.Batch,
) -> dict[str, float]:
  """Median seconds an image of a train step at each rate, taking turns."""
  key = jax.random.key(config.run.seed)
  steps, states = {}, {}
  for rate in config.rates:
    sampler = fcn.sampling.whole_image
    if rate < 1:
      sampler = functools.partial(fcn.sampling.bernoulli, rate=rate)
    loss = fcn.losses.make(sampler=sampler)
    steps[rate] = fcn.train.make_train_step(model, optimizer, loss)
    states[rate] = fcn.train.create_state(key, model, optimizer)
    states[rate], _ = steps[rate](states[rate], batch, key)
  seconds = {rate: [] for rate in config.rates}
  for _ in range(config.rounds):
    for rate, step in steps.items():
      begin = time.perf_counter()
      states[rate], metrics = step(states[rate], batch, key)
      metrics.loss.block_until_ready()
      seconds[rate].append(time.perf_counter() - begin)
  return {
    str(rate): statistics.median(values) / config.data.batch_size
    for rate, values in seconds.items()
  }
