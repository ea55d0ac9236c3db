"""The papers' patch-sampling experiment (section 3.4 and Figure 5).

    python experiments/loss_sampling.py demo
    python experiments/loss_sampling.py camvid_small --data-dir DIR

An arm for each sampling rate p keeps every cell of the output with probability
p and sees base_batch / p images a step, so that the expected number of loss
terms is the same in all arms. One more arm trains on explicit random patches,
as many pixels of them as the whole-image arm sees. All arms use the same
network, optimizer and number of steps.

Writes to the work folder: config.json, metrics.jsonl (a row every log_every
steps), summary.json, table.md, figure5.png (training loss against iterations,
images and wall time) and predictions.png; arms/ holds what each finished arm
found. Wall time counts loading, augmentation and training, but not
compilation and evaluation.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
import tyro

import command_line
import configs
import fcn_jax as fcn
import report
import training

EXPERIMENT = "loss_sampling"
METRICS_FILE = "metrics.jsonl"
ARMS_FOLDER = "arms"
CONTENTS = (METRICS_FILE, ARMS_FOLDER, *report.FILES)


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way of training.

  Attributes:
    name: for tables, figures and file names.
    images_per_step: images loaded for each step.
    rate: sampling rate.
    patch_size: height and width of explicit patches; None for whole images.
  """

  name: str
  images_per_step: int
  rate: float
  patch_size: tuple[int, int] | None = None


def plan_arms(config: configs.LossSampling) -> list[Arm]:
  """The arms of an experiment.

  Raises:
    ValueError: if an option, or a combination, makes no sense.
  """
  check_options(config)
  arms = []
  for rate in config.rates:
    fcn.sampling.check_rate(rate)
    images = round(config.base_batch / rate)
    if abs(images * rate - config.base_batch) > 1e-6:
      raise ValueError(
        f"base_batch / rate = {config.base_batch} / {rate} is no whole number "
        "of images: choose another rate or base_batch."
      )
    arms.append(Arm(f"p={rate:g}", images, rate))
  if config.patch_size is not None:
    fcn.patches.check_size(config.crop_size, config.patch_size)
    pixels = config.base_batch * math.prod(config.crop_size)
    pixels_per_image = config.patches_per_image * math.prod(config.patch_size)
    images, rest = divmod(pixels, pixels_per_image)
    if rest:
      raise ValueError(
        f"the {pixels} pixels that the whole-image arm sees a step are not a "
        f"multiple of the {pixels_per_image} in patches_per_image = "
        f"{config.patches_per_image} patches of patch_size = "
        f"{config.patch_size}: choose others, such as half the crop_size."
      )
    arms.append(Arm("patches", images, 1.0, config.patch_size))
  if not arms:
    raise ValueError("no rates and no patch_size: there is nothing to train.")
  return arms


def check_options(config: configs.LossSampling) -> None:
  """Raises a `ValueError` for an option out of its range."""
  training.check_options(
    config,
    at_least_one=("base_batch", "patches_per_image", "num_pictures"),
    conditions={
      "dropout_rate": (0 <= config.dropout_rate < 1, "in 0..1, below 1"),
      "cell": (config.cell is None or config.cell >= 1, "at least 1"),
      "rates": (len(set(config.rates)) == len(config.rates), "all different"),
    },
  )


def make_model(
  config: configs.LossSampling, num_classes: int
) -> fcn.models.FCN:
  """The network that all arms train."""
  return fcn.models.FCN(
    num_classes,
    backbone=config.backbone,
    stride=config.stride,
    dropout_rate=config.dropout_rate,
    normalization=config.normalization,
    dtype=jnp.dtype(config.dtype),
  )


def make_optimizer(
  config: configs.LossSampling,
) -> optax.GradientTransformation:
  """The optimizer of all arms."""
  return fcn.optimizers.adamw(
    config.learning_rate,
    total_steps=config.steps,
    warmup_steps=config.warmup_steps,
    weight_decay=config.weight_decay,
  )


class Trainer:
  """Trains one arm; compiles once for all seeds."""

  def __init__(
    self,
    config: configs.LossSampling,
    arm: Arm,
    splits: training.Data,
    *,
    model: fcn.models.Network,
    optimizer: optax.GradientTransformation,
  ):
    self._config = config
    self._arm = arm
    self._data = splits
    self._model = model
    self._optimizer = optimizer
    self._train_step = fcn.train.make_train_step(
      model,
      optimizer,
      sampler=functools.partial(
        fcn.sampling.bernoulli,
        rate=arm.rate,
        cell=config.cell or config.stride,
      ),
      normalize="kept",
    )
    self._cut = jax.jit(
      functools.partial(
        fcn.patches.sample_patches,
        num_patches=config.patches_per_image,
        size=arm.patch_size,
      )
    )

  def train(
    self, seed: int, log: Callable[[dict[str, Any]], None]
  ) -> fcn.train.TrainState:
    """Trains with one seed and logs a row every `log_every` steps."""
    init_key, step_key, patch_key = jax.random.split(jax.random.key(seed), 3)
    state = fcn.train.create_state(init_key, self._model, self._optimizer)
    return training.fit(
      self._train_step,
      state,
      functools.partial(self._batches, seed, patch_key),
      step_key,
      num_steps=self._config.steps,
      log_every=self._config.log_every,
      on_row=lambda row: log(
        {"images": row["step"] * self._arm.images_per_step, **row}
      ),
    )

  def _batches(self, seed: int, patch_key) -> Iterator[fcn.types.Batch]:
    batches = training.train_batches(
      self._config,
      self._data.train,
      batch_size=self._arm.images_per_step,
      seed=seed,
    )
    for step, batch in enumerate(batches):
      if self._arm.patch_size is not None:
        batch = self._cut(jax.random.fold_in(patch_key, step), batch)
      yield batch


def run(
  config: configs.LossSampling,
  arms: list[Arm],
  splits: training.Data,
  earlier: list[dict[str, Any]],
) -> None:
  """Trains and evaluates all arms that are not finished yet.

  Args:
    config: the experiment.
    arms: its arms.
    splits: its data.
    earlier: rows of metrics.jsonl from before the run was resumed.
  """
  shown = report.pictures_to_show(len(splits.evaluation.source), config)
  folder = config.workdir / ARMS_FOLDER
  folder.mkdir(exist_ok=True)
  metrics_file = config.workdir / METRICS_FILE
  progress = tqdm.tqdm(
    total=len(arms) * config.num_seeds * config.steps,
    unit="step",
    disable=None,
  )
  model = make_model(config, splits.train.num_classes)
  optimizer = make_optimizer(config)
  with progress:
    for arm in arms:
      trainer = Trainer(config, arm, splits, model=model, optimizer=optimizer)
      for seed in range(config.num_seeds):
        result_file = folder / f"{arm.name}-seed{seed}.json"
        if result_file.exists():
          progress.update(config.steps)
          continue
        attempts = {
          row["attempt"]
          for row in earlier
          if (row["arm"], row["seed"]) == (arm.name, seed)
        }
        labels = {
          "arm": arm.name, "seed": seed, "attempt": len(attempts)
        }  # fmt: skip
        progress.set_description(f"{arm.name}, seed {seed}")

        def log(row, labels=labels):
          fcn.runs.records.append_json_line(metrics_file, {**labels, **row})
          progress.set_postfix(loss=f"{row['loss']:.3f}")
          progress.update(row["num_steps"])

        state = trainer.train(seed, log)
        confusion = training.evaluate(model, state, splits.batches)
        predictions = training.predict_images(
          model, state, splits.batches, shown
        )
        mean_iu = fcn.metrics.scores(confusion).mean_iu
        progress.write(f"{arm.name}, seed {seed}: mean IU {mean_iu:.3f}")
        np.savez_compressed(
          result_file.with_suffix(".npz"),
          **{str(i): p for i, p in zip(shown, predictions, strict=True)},
        )
        # Written last: this file says that the arm is finished.
        fcn.runs.records.write_json(
          result_file, {**labels, "confusion": confusion.tolist()}
        )


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, trains what is missing and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = tyro.extras.overridable_config_cli(
    configs.LOSS_SAMPLING, description=__doc__, args=arguments
  )
  with command_line.explained_errors():
    arms = plan_arms(config)
    command_line.check_workdir(config, EXPERIMENT)
    earlier = fcn.runs.records.read_json_lines(config.workdir / METRICS_FILE)
    splits = training.load_data(config)
    training.check_images_per_step(
      {arm.name: arm.images_per_step for arm in arms}, splits.train
    )
    command_line.claim_workdir(config, EXPERIMENT, CONTENTS)
  run(config, arms, splits, earlier if config.resume else [])
  names = [arm.name for arm in arms]
  print(report.write(config, names, splits.evaluation, splits.batches))


if __name__ == "__main__":
  try:
    main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command with --resume continues.")
