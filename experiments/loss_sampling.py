"""The papers' patch-sampling experiment (section 3.4 and Figure 5).

    python experiments/loss_sampling.py demo
    python experiments/loss_sampling.py camvid_small --source-dir DIR

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
import os
import sys
import time
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


@dataclasses.dataclass(frozen=True)
class Data:
  """The data of an experiment.

  Attributes:
    train: the split to train on.
    evaluation: the split to score on.
    batches: all of the evaluation split; each image is in there exactly once.
  """

  train: fcn.data.Dataset
  evaluation: fcn.data.Dataset
  batches: list[fcn.types.Batch]


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
  at_least_one = (
    "base_batch",
    "steps",
    "num_seeds",
    "log_every",
    "eval_batch",
    "patches_per_image",
    "num_pictures",
    "num_threads",
  )
  for name in at_least_one:
    if getattr(config, name) < 1:
      raise ValueError(f"{name} is {getattr(config, name)}; it must be >= 1.")
  smallest, largest = config.scale_range
  conditions = {
    "crop_size": (min(config.crop_size) >= 1, "at least 1 1"),
    "scale_range": (0 < smallest <= largest, "from small to large, above 0"),
    "resize": (config.resize > 0, "above 0"),
    "dropout_rate": (0 <= config.dropout_rate < 1, "in 0..1, below 1"),
    "learning_rate": (config.learning_rate > 0, "above 0"),
    "weight_decay": (config.weight_decay >= 0, "at least 0"),
    "cell": (config.cell is None or config.cell >= 1, "at least 1"),
    "warmup_steps": (
      0 <= config.warmup_steps < config.steps,
      f"at least 0 and less than the {config.steps} steps",
    ),
    "rates": (len(set(config.rates)) == len(config.rates), "all different"),
  }
  for name, (is_met, condition) in conditions.items():
    if not is_met:
      raise ValueError(
        f"{name} is {getattr(config, name)}; it must be {condition}."
      )


def load_data(config: configs.LossSampling) -> Data:
  """Prepares and opens the data sets.

  Raises:
    ValueError: if CamVid's folder is not given or has a fault.
    FileNotFoundError: if it does not exist.
  """
  source_dir = config.source_dir
  if config.dataset == "camvid" and source_dir is None:
    # If the data set is prepared already, it can do without.
    source_dir = os.environ.get("CAMVID_DIR") or None
  load = functools.partial(
    fcn.data.load,
    config.dataset,
    data_dir=config.data_dir,
    source_dir=source_dir,
  )
  # The one whose name can be wrong first.
  evaluation, train = load(split=config.evaluation_split), load(split="train")
  batches = fcn.data.pipeline.eval_batches(
    evaluation.source,
    batch_size=config.eval_batch,
    resize_factor=config.resize,
    num_classes=evaluation.num_classes,
    num_threads=config.num_threads,
  )
  return Data(train, evaluation, list(batches))


def check_batches(arms: list[Arm], splits: Data) -> None:
  """Raises a `ValueError` if an arm wants more images a step than there are."""
  num_images = len(splits.train.source)
  for arm in arms:
    if arm.images_per_step > num_images:
      raise ValueError(
        f"arm {arm.name} needs {arm.images_per_step} images a step, but the "
        f"data set has {num_images}: choose a smaller base_batch."
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
    splits: Data,
    *,
    model: fcn.models.FCN,
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
    # Compiles before the clock starts; the step taken is thrown away.
    first = next(self._batches(seed, patch_key))
    copy = jax.tree.map(jnp.copy, state)
    jax.block_until_ready(self._train_step(copy, first, step_key))

    batches = self._batches(seed, patch_key)
    window, begin = [], time.perf_counter()
    for step in range(1, self._config.steps + 1):
      state, metrics = self._train_step(state, next(batches), step_key)
      window.append(metrics)
      if step % self._config.log_every == 0 or step == self._config.steps:
        sums = jax.tree.map(lambda *values: np.sum(values), *window)
        log(
          {
            "step": step,
            "images": step * self._arm.images_per_step,
            "seconds": time.perf_counter() - begin,
            "loss": float(sums.loss_sum / sums.num_sampled),
            "num_sampled": int(sums.num_sampled),
            "num_steps": len(window),
          }
        )
        window = []
    return state

  def _batches(self, seed: int, patch_key) -> Iterator[fcn.types.Batch]:
    batches = fcn.data.pipeline.train_batches(
      self._data.train.source,
      batch_size=self._arm.images_per_step,
      crop_size=self._config.crop_size,
      scale_range=self._config.scale_range,
      resize_factor=self._config.resize,
      seed=seed,
      num_classes=self._data.train.num_classes,
      num_threads=self._config.num_threads,
    )
    for step, batch in enumerate(batches):
      if self._arm.patch_size is not None:
        batch = self._cut(jax.random.fold_in(patch_key, step), batch)
      yield batch

  def evaluate(
    self, state: fcn.train.TrainState, shown: list[int]
  ) -> tuple[np.ndarray, list[np.ndarray]]:
    """Confusion matrix [C, C], and the predictions of the images shown."""
    variables = fcn.train.variables(state)
    confusion = np.zeros((self._model.num_classes,) * 2, np.int64)
    shown_predictions = {}
    for number, batch in enumerate(self._data.batches):
      predictions = fcn.inference.predict(self._model, variables, batch.images)
      confusion += np.asarray(
        _confusion_matrix(
          batch.labels, predictions, num_classes=self._model.num_classes
        )
      )
      for index in shown:
        if index // self._config.eval_batch == number:
          row = index % self._config.eval_batch
          shown_predictions[index] = np.asarray(predictions[row], np.uint8)
    return confusion, [shown_predictions[index] for index in shown]


_confusion_matrix = jax.jit(
  fcn.metrics.confusion_matrix, static_argnames="num_classes"
)


def run(
  config: configs.LossSampling,
  arms: list[Arm],
  splits: Data,
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
          fcn.writers.append_json_line(metrics_file, {**labels, **row})
          progress.set_postfix(loss=f"{row['loss']:.3f}")
          progress.update(row["num_steps"])

        state = trainer.train(seed, log)
        confusion, predictions = trainer.evaluate(state, shown)
        mean_iu = fcn.metrics.scores(confusion).mean_iu
        progress.write(f"{arm.name}, seed {seed}: mean IU {mean_iu:.3f}")
        np.savez_compressed(
          result_file.with_suffix(".npz"),
          **{str(i): p for i, p in zip(shown, predictions, strict=True)},
        )
        # Written last: this file says that the arm is finished.
        fcn.writers.write_json(
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
    earlier = fcn.writers.read_json_lines(config.workdir / METRICS_FILE)
    splits = load_data(config)
    check_batches(arms, splits)
    command_line.claim_workdir(config, EXPERIMENT, CONTENTS)
  run(config, arms, splits, earlier if config.resume else [])
  names = [arm.name for arm in arms]
  print(report.write(config, names, splits.evaluation, splits.batches))


if __name__ == "__main__":
  try:
    main()
  except KeyboardInterrupt:
    sys.exit("interrupted; the same command with --resume continues.")
