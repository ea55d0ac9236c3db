"""What sampling the loss does to the noise of the gradient.

    python experiments/gradient_noise.py shapes
    python experiments/gradient_noise.py camvid --data-dir DIR

The papers conjecture (section 3.4) that sampling counters the spatial
correlation of a batch, and found no faster convergence. Here the noise is
measured. A network is trained on whole images and stopped at some steps. At
each, the gradients of all pixels' losses are projected onto random directions
v of the parameter space: <g_i, v>, for all pixels of an image in one pass,
whose products have the products of the gradients as their mean over
directions. The sums over pixels below are exact; what is estimated is the mean
over directions, images and masks. (The squared norm of the mean gradient has a
relative standard error of about sqrt(2 / num_directions), and more where the
noise is larger than num_images; that factor is common to all whose signal it
is.)

- the noise of a sampled gradient for each sampler and share of pixels kept:
  the trace of the covariance of one image's gradient, over images and masks,
  divided by the squared norm of the mean gradient. It is the number of images
  in a batch at which noise and signal are equal (the simple noise scale of
  McCandlish et al. 2018, arXiv:1812.06162);
- the correlation of the gradients of two pixels by their distance;
- the effective number of independent pixels in an image: the variance of one
  random pixel's gradient over that of an image's mean gradient;
- with the measured time of a step: the noise at equal numbers of images, of
  loss terms, and at equal time, and the rate p with the least noise for its
  time.

All pixel losses are those of evaluation mode (fixed batch statistics), so that
the gradient of a pixel depends on its own image alone; they are summed and
divided by the expected number of kept pixels of an image, not by the number
drawn.

Writes to the work folder: config.json, summary.json, table.md and
gradient_noise.png.
"""

import dataclasses
import functools
import math
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
import tyro

import command_line
import fcn_jax as fcn
import gradient_noise_report
import options
import training

EXPERIMENT = "gradient_noise"
STRIDE = 8
# Samplers under which the expected loss is not that of whole images.
OWN_OBJECTIVE = ("class-balanced", "hardest")


@dataclasses.dataclass(frozen=True)
class GradientNoise(options.DataOptions):
  """Noise of the gradient by sampler, rate and time."""

  checkpoints: tuple[int, ...] = (20, 200)
  """Steps of training, rising, after which the noise is measured."""
  batch_size: int = 4
  """Images a step of training, and in the timed steps."""

  num_images: int = 48
  """Images whose gradients are measured; a multiple of batch_size."""
  num_directions: int = 16
  """Random directions that gradients are projected onto."""
  num_masks: int = 24
  """Masks drawn for each sampler and share."""
  shares: tuple[float, ...] = (1 / 4, 1 / 16, 1 / 64)
  """Shares of the pixels that samplers keep, about."""
  rates: tuple[float, ...] = (1.0, 0.5, 0.25, 0.05)
  """Rates p of which the time of a step is measured; 1 among them."""
  rounds: int = 7
  """Timings of a step, of which the median counts."""
  seed: int = 0
  """Of parameters, data, directions and masks."""


PRESETS = {
  # Hardware: two CPU cores, under 5 minutes.
  "shapes": (
    "Generated shapes, small backbone: minutes on two CPU cores.",
    GradientNoise(
      workdir=pathlib.Path("runs/gradient_noise_shapes"), warmup_steps=10
    ),
  ),
  # Hardware: two CPU cores, under 10 minutes.
  "camvid": (
    "CamVid at half size, small backbone: under 10 minutes on two CPU cores.",
    GradientNoise(
      workdir=pathlib.Path("runs/gradient_noise_camvid"),
      dataset="camvid",
      resize=0.5,
      crop_size=(160, 224),
      num_images=16,
      warmup_steps=10,
    ),
  ),
}


def check_options(config: GradientNoise) -> None:
  """Raises a `ValueError` for an option out of its range."""
  command_line.check_at_least_one(
    config,
    ("batch_size", "num_directions", "rounds", "num_threads"),
  )
  for rate in (*config.shares, *config.rates):
    fcn.sampling.check_rate(rate)
  steps = config.checkpoints
  conditions = {
    "num_masks": (config.num_masks >= 2, "at least 2, for a variance"),
    "num_images": (
      config.num_images >= 2 and config.num_images % config.batch_size == 0,
      f"a multiple of batch_size = {config.batch_size}, at least 2",
    ),
    "checkpoints": (
      bool(steps) and steps[0] > 0 and sorted(set(steps)) == list(steps),
      "positive and rising",
    ),
    "rates": (1.0 in config.rates, "a list with 1 in it, to compare with"),
    "crop_size": (min(config.crop_size) >= 1, "at least 1 1"),
    "resize": (config.resize > 0, "above 0"),
    "learning_rate": (config.learning_rate > 0, "above 0"),
    "scale_range": (
      0 < config.scale_range[0] <= config.scale_range[1],
      "from small to large, above 0",
    ),
    "shares": (
      min(config.shares) * math.prod(config.crop_size) >= 1,
      "large enough for a pixel of an image",
    ),
  }
  for name, (is_met, condition) in conditions.items():
    if not is_met:
      raise ValueError(
        f"{name} is {getattr(config, name)}; it must be {condition}."
      )


def samplers_to_compare(
  config: GradientNoise, num_classes: int
) -> dict[str, list[fcn.train.Sampler]]:
  """By name, a sampler for each share of the pixels."""
  pixels = config.batch_size * config.crop_size[0] * config.crop_size[1]
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
      count=max(1, round(p * pixels / config.batch_size)),
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
  config: GradientNoise,
  model: fcn.models.Network,
  state: fcn.train.TrainState,
  batches: list[fcn.types.Batch],
  samplers: Mapping[str, Sequence[fcn.train.Sampler]],
  progress: tqdm.tqdm,
) -> dict[str, Any]:
  """Everything about the noise of the gradient at one state."""
  direction_key, mask_key = jax.random.split(jax.random.key(config.seed + 1))
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
      all_maps, valid, max_distance=min(config.crop_size) // 2
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
      row = noise_of_sums(sums, weight, signal)
      result["samplers"][name].append({"share": count / mean_valid, **row})
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
  sampler: fcn.train.Sampler,
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
  asks = fcn.train.asks_for_losses(sampler)

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
  config: GradientNoise,
  model: fcn.models.Network,
  optimizer: Any,
  batch: fcn.types.Batch,
) -> dict[str, float]:
  """Median seconds an image of a train step at each rate, taking turns."""
  key = jax.random.key(config.seed)
  steps, states = {}, {}
  for rate in config.rates:
    sampler = fcn.sampling.whole_image
    if rate < 1:
      sampler = functools.partial(fcn.sampling.bernoulli, rate=rate)
    steps[rate] = fcn.train.make_train_step(model, optimizer, sampler=sampler)
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
    str(rate): statistics.median(values) / config.batch_size
    for rate, values in seconds.items()
  }


def run(config: GradientNoise, dataset: fcn.data.Dataset) -> dict[str, Any]:
  """Trains, stops at the checkpoints and measures; the summary."""
  model = fcn.models.FCN(
    dataset.num_classes,
    backbone=config.backbone,
    stride=STRIDE,
    normalization="batch",
    dropout_rate=0.0,
  )
  optimizer = fcn.optimizers.adamw(
    config.learning_rate,
    total_steps=config.checkpoints[-1] + 1,
    warmup_steps=min(config.warmup_steps, config.checkpoints[-1]),
  )
  batches = training.train_batches(
    config, dataset, batch_size=config.batch_size, seed=config.seed
  )
  measured = training.train_batches(
    config, dataset, batch_size=config.batch_size, seed=config.seed + 1
  )
  measured = [
    jax.device_put(next(measured))
    for _ in range(config.num_images // config.batch_size)
  ]
  samplers = samplers_to_compare(config, dataset.num_classes)
  init_key, step_key = jax.random.split(jax.random.key(config.seed))
  state = fcn.train.create_state(init_key, model, optimizer)
  step = fcn.train.make_train_step(model, optimizer)
  results = {}
  work = len(measured) + len(samplers) * len(config.shares)
  progress = tqdm.tqdm(
    total=config.checkpoints[-1] + work * len(config.checkpoints),
    disable=None,
  )
  with progress:
    for number in range(1, config.checkpoints[-1] + 1):
      progress.set_description(f"training, step {number}")
      state, _ = step(state, next(batches), step_key)
      progress.update()
      if number in config.checkpoints:
        progress.set_description(f"noise after {number} steps")
        results[str(number)] = measure(
          config, model, state, measured, samplers, progress
        )
  return {
    "checkpoints": results,
    "seconds_an_image": time_steps(config, model, optimizer, measured[0]),
    "device": jax.devices()[0].device_kind,
    "cores": command_line.num_cores(),
    "jax": jax.__version__,
  }


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, measures and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = tyro.extras.overridable_config_cli(
    PRESETS, description=__doc__, args=arguments
  )
  with command_line.explained_errors():
    check_options(config)
    command_line.check_workdir(config, EXPERIMENT)
    dataset = training.load_split(config, "train")
    training.check_images_per_step({"training": config.batch_size}, dataset)
  summary = run(config, dataset)
  # Only now, so that nothing is deleted or claimed by a run that is cut off.
  command_line.claim_workdir(config, EXPERIMENT, gradient_noise_report.FILES)
  title = f"{config.dataset}, FCN-{STRIDE}s, {config.backbone}"
  print(gradient_noise_report.write(config.workdir, summary, title))


if __name__ == "__main__":
  try:
    main()
  except KeyboardInterrupt:
    raise SystemExit("interrupted; nothing was written.") from None
