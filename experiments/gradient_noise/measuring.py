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
from experiments.gradient_noise import estimates

# Samplers of all pixels alike, by name and rate; their steps are timed.
UNIFORM = {
  "places": lambda p: fcn.sampling.places(rate=p),
  "blocks": lambda p: fcn.sampling.bernoulli(rate=p),
  "pixels": lambda p: fcn.sampling.bernoulli(rate=p, unit="pixel"),
}

# Samplers under which the expected loss is not that of whole images.
OWN_OBJECTIVE = ("class-balanced", "hardest")


def samplers_to_compare(
  config: Any, num_classes: int
) -> dict[str, list[fcn.sampling.Sampler]]:
  """By name, a sampler for each share of the pixels."""
  pixels = config.data.batch_size * math.prod(config.augmentation.crop_size)
  classes = {"num_classes": num_classes}
  make = {
    **UNIFORM,
    "random places": lambda p: fcn.sampling.places(
      rate=p, arrangement="random"
    ),
    "one a square": lambda p: fcn.sampling.one_per_square(side=round(p**-0.5)),
    "boundary, 1/q": lambda p: fcn.sampling.importance(
      probabilities=fcn.sampling.boundary_probabilities(
        rate=min(1.0, 2 * p),
        rate_elsewhere=p / 2,
        distance=4,
      ),
    ),
    "classes, 1/q": lambda p: fcn.sampling.importance(
      probabilities=fcn.sampling.class_probabilities(
        count=round(p * pixels), **classes
      ),
    ),
    "class-balanced": lambda p: fcn.sampling.class_balanced(
      count=round(p * pixels), **classes
    ),
    "hardest": lambda p: fcn.sampling.hardest(
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


def measure(
  config: Any,
  model: fcn.models.Network,
  state: fcn.train.TrainState,
  batches: list[fcn.types.Batch],
  samplers: Mapping[str, Sequence[fcn.sampling.Sampler]],
  progress: tqdm.tqdm,
) -> dict[str, Any]:
  """Measures the noise of the gradient at one state.

  Args:
    config: the options of the study.
    model: the network.
    state: its parameters and batch statistics.
    batches: images whose gradients are measured.
    samplers: by name, one for each share of the pixels.
    progress: updated after each batch and each sampler.

  Returns:
    The figures for the report.
  """
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

  sums = np.einsum("rnhw->rn", all_maps)
  # Two equal masks: the mask adds no variance.
  whole = estimates.split(np.stack([sums, sums]), mean_valid)
  result = {
    "whole": estimates.noise(whole),
    "pixels": mean_valid,
    **_correlation(
      all_maps, valid, whole, min(config.augmentation.crop_size) // 2
    ),
    "loss": float(np.concatenate(losses)[valid].mean()),
    "samplers": {},
    "rates": {},
  }

  grid = grid_of(model, variables, batches[0])

  def sums_of(sampler):
    return sample_sums(
      sampler, mask_key, maps, losses, batches, config.num_masks, grid
    )

  for name, by_share in samplers.items():
    result["samplers"][name] = []
    # The mean gradient of the others is that of whole images.
    signal = None if name in OWN_OBJECTIVE else whole.signal
    for sampler in by_share:
      sums, weight, count = sums_of(sampler)
      found = estimates.noise(estimates.split(sums, weight), signal)
      result["samplers"][name].append({"share": count / mean_valid, **found})
      progress.update()
  for name, sampler_of in UNIFORM.items():
    result["rates"][name] = {}
    for rate in config.rates:
      sums, weight, _ = sums_of(sampler_of(rate))
      parts = estimates.split(sums, weight)
      ratio, error = estimates.with_error(
        lambda masks, images: 1 + masks / images, parts.masks, whole.images
      )
      result["rates"][name][str(rate)] = {
        **estimates.noise(parts),
        "ratio": ratio,
        "ratio_error": error,
      }
  return result


def _correlation(
  maps: np.ndarray,
  valid: np.ndarray,
  whole: estimates.Parts,
  max_distance: int,
) -> dict[str, Any]:
  """How alike the gradients of pixels are, with errors."""
  covariance = estimates.covariance_by_distance(maps, valid, max_distance)
  independent = estimates.with_error(
    lambda of_pixels, of_images: of_pixels / of_images,
    maps[:, valid].var(axis=1),
    whole.images,
  )
  by_distance = estimates.with_error(estimates.correlation, covariance)
  length = estimates.with_error(estimates.correlation_length, covariance)
  return {
    "independent_pixels": float(independent[0]),
    "independent_pixels_error": float(independent[1]),
    "correlation": by_distance[0].tolist(),
    "correlation_error": by_distance[1].tolist(),
    "correlation_length": float(length[0]),
    "correlation_length_error": float(length[1]),
  }


def grid_of(
  model: fcn.models.Network, variables: Mapping[str, Any], batch
) -> fcn.types.Grid:
  """Where the cells of the network's score map lie."""
  apply = functools.partial(model.apply, train=False)
  return jax.eval_shape(apply, variables, batch.images).grid


def sample_sums(
  sampler: fcn.sampling.Sampler,
  key: jax.Array,
  maps: Sequence[jax.Array],
  losses: Sequence[jax.Array],
  batches: Sequence[fcn.types.Batch],
  num_masks: int,
  grid: fcn.types.Grid,
) -> tuple[np.ndarray, float, float]:
  """Draws masks and sums the projections under them.

  Returns:
    Sums [M, R, N]; the mean over images of the sum of the weights, and of the
    number of pixels kept.
  """

  @jax.jit
  def draw(key, labels, pixel_losses, projections):
    known = {"grid": grid, "pixel_losses": pixel_losses}
    options = {name: known[name] for name in sampler.needs}
    weights = sampler.draw(key, labels, **options)
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
) -> dict[str, dict[str, float]]:
  """Median seconds an image of a train step, by sampler and rate.

  All take turns.
  """
  key = jax.random.key(config.run.seed)
  steps = {}
  for name, sampler_of in UNIFORM.items():
    for rate in config.rates:
      sampler = fcn.sampling.whole_image() if rate == 1 else sampler_of(rate)
      loss = fcn.losses.make(sampler=sampler)
      steps[name, rate] = fcn.train.make_train_step(model, optimizer, loss)
  # One after the other: a large network has no room for a state of each.
  state = fcn.train.create_state(key, model, optimizer)
  seconds = {variant: [] for variant in steps}
  for _ in range(1 + config.rounds):
    for variant, step in steps.items():
      begin = time.perf_counter()
      state, metrics = step(state, batch, key)
      metrics.loss.block_until_ready()
      seconds[variant].append(time.perf_counter() - begin)
  # The first round compiles.
  return {
    name: {
      str(rate): statistics.median(seconds[name, rate][1:])
      / config.data.batch_size
      for rate in config.rates
    }
    for name in UNIFORM
  }
