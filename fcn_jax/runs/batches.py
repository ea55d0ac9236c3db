"""What scripts that train share: options, data, the loop and evaluation."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import command_line
import fcn_jax as fcn

TrainStep = Callable[
  [fcn.train.TrainState, fcn.types.Batch, jax.Array],
  tuple[fcn.train.TrainState, fcn.train.StepMetrics],
]


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


def check_options(
  config: Any,
  *,
  at_least_one: Sequence[str] = (),
  conditions: Mapping[str, tuple[bool, str]] | None = None,
) -> None:
  """Checks the options that all scripts that train have, and more.

  Args:
    config: the options.
    at_least_one: names of a script's own options that count something.
    conditions: by name of another of its options, whether it is as it must be,
      and how that is.

  Raises:
    ValueError: for an option out of its range.
  """
  at_least_one = (
    "steps",
    "num_seeds",
    "log_every",
    "eval_batch",
    "num_threads",
    *at_least_one,
  )
  command_line.check_at_least_one(config, at_least_one)
  smallest, largest = config.scale_range
  conditions = {
    "crop_size": (min(config.crop_size) >= 1, "at least 1 1"),
    "scale_range": (0 < smallest <= largest, "from small to large, above 0"),
    "resize": (config.resize > 0, "above 0"),
    "learning_rate": (config.learning_rate > 0, "above 0"),
    "weight_decay": (config.weight_decay >= 0, "at least 0"),
    "warmup_steps": (
      0 <= config.warmup_steps < config.steps,
      f"at least 0 and less than the {config.steps} steps",
    ),
    **(conditions or {}),
  }
  check_conditions(config, conditions)


def check_conditions(
  config: Any, conditions: Mapping[str, tuple[bool, str]]
) -> None:
  """Checks options against conditions.

  Args:
    config: the options.
    conditions: by name of an option, whether it is as it must be, and how that
      is.

  Raises:
    ValueError: for the first option that is not.
  """
  for name, (is_met, condition) in conditions.items():
    if not is_met:
      raise ValueError(
        f"{name} is {getattr(config, name)}; it must be {condition}."
      )


def data_dir_of(config: Any) -> pathlib.Path | None:
  """The folder of a data set's files, as given, or from the environment.

  Args:
    config: options of which `dataset` and `data_dir` are used.
  """
  named = config.dataset in fcn.data.FROM_FILES and config.dataset != "folder"
  if named and config.data_dir is None:
    # If the data set is prepared already, it can do without.
    folder = os.environ.get(f"{config.dataset.upper()}_DIR")
    return pathlib.Path(folder) if folder else None
  return config.data_dir


def load_split(
  config: Any, split: str, *, extras: Sequence[str] = ()
) -> fcn.data.Dataset:
  """Prepares and opens one split of a data set.

  Args:
    config: options of which `dataset`, `data_dir`, `prepared_dir` and
      `skip_bad` are used.
    split: its name.
    extras: names of further features of its examples.

  Raises:
    ValueError: if there is no such data set, split or feature, its folder is
      needed and not given, or files in it have faults.
    FileNotFoundError: if the folder does not exist.
  """
  return fcn.data.load(
    config.dataset,
    split=split,
    data_dir=data_dir_of(config),
    prepared_dir=config.prepared_dir,
    skip_bad=config.skip_bad,
    extras=extras,
  )


def load_data(config: Any) -> Data:
  """Prepares and opens the data sets.

  Args:
    config: options of which those of `load_split`, `evaluation_split`,
      `eval_batch`, `resize` and `num_threads` are used.

  Raises:
    ValueError: if CamVid's folder is not given or has a fault.
    FileNotFoundError: if it does not exist.
  """
  # The one whose name can be wrong first.
  evaluation = load_split(config, config.evaluation_split)
  train = load_split(config, "train")
  batches = fcn.data.eval_batches(
    evaluation.source,
    batch_size=config.eval_batch,
    resize_factor=config.resize,
    num_classes=evaluation.num_classes,
    num_threads=config.num_threads,
  )
  return Data(train, evaluation, list(batches))


def train_batches(
  config: Any, dataset: fcn.data.Dataset, *, batch_size: int, seed: int
) -> Iterator[fcn.types.Batch]:
  """Endless batches of augmented training images.

  Args:
    config: options of which `crop_size`, `scale_range`, `resize` and
      `num_threads` are used.
    dataset: the split to train on.
    batch_size: images a batch.
    seed: of their order and augmentation.
  """
  return fcn.data.train_batches(
    dataset.source,
    batch_size=batch_size,
    crop_size=config.crop_size,
    scale_range=config.scale_range,
    resize_factor=config.resize,
    seed=seed,
    num_classes=dataset.num_classes,
    num_threads=config.num_threads,
  )


def check_images_per_step(
  images_per_step: Mapping[str, int], dataset: fcn.data.Dataset
) -> None:
  """Raises a `ValueError` if an arm wants more images a step than there are."""
  for name, count in images_per_step.items():
    if count > len(dataset.source):
      raise ValueError(
        f"arm {name} needs {count} images a step, but the data set has "
        f"{len(dataset.source)}: choose options with fewer images a step."
      )


def fit(
  step: TrainStep,
  state: fcn.train.TrainState,
  make_batches: Callable[[], Iterator[fcn.types.Batch]],
  key: jax.Array,
  *,
  num_steps: int,
  log_every: int,
  on_row: Callable[[dict[str, Any]], None],
) -> fcn.train.TrainState:
  """Trains, with a clock that counts loading but not compilation.

  Args:
    step: a compiled train step, see `fcn.train.make_train_step`.
    state: where training begins; it is donated to the first step.
    make_batches: called twice: for a batch to compile the step with, and for
      the batches to train on.
    key: the run's random key, for all steps.
    num_steps: steps to train.
    log_every: steps between rows; a row more at the end if it does not divide
      `num_steps`.
    on_row: called with each row: the `step`, the `seconds` so far, the mean
      `loss` of a pixel over the steps since the row before, the pixels in
      these losses (`num_sampled`), the sampled pixels for which there was no
      room in them (`num_dropped`), and the number of these steps
      (`num_steps`).

  Returns:
    The state after the last step.
  """
  # Compiles before the clock starts; the step taken is thrown away.
  copy = jax.tree.map(jnp.copy, state)
  jax.block_until_ready(step(copy, next(make_batches()), key))

  batches = fcn.data.to_device(make_batches())
  window, begin = [], time.perf_counter()
  for number in range(1, num_steps + 1):
    state, metrics = step(state, next(batches), key)
    window.append(metrics)
    if number % log_every == 0 or number == num_steps:
      sums = jax.tree.map(lambda *values: np.sum(values), *window)
      on_row(
        {
          "step": number,
          "seconds": time.perf_counter() - begin,
          "loss": float(sums.loss_sum / sums.num_sampled),
          "num_sampled": int(sums.num_sampled),
          "num_dropped": int(sums.num_dropped),
          "num_steps": len(window),
        }
      )
      window = []
  return state


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
  """Memory that a function of `jax.jit` needs besides arguments and results.

  Compiles the function for these arguments; calls with such do not again.
  """
  compiled = function.lower(*arguments).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def evaluate(
  model: fcn.models.Network,
  state: fcn.train.TrainState,
  batches: Iterable[fcn.types.Batch],
) -> np.ndarray:
  """Confusion matrix [C, C] of a trained network, in int64."""
  variables = fcn.train.variables(state)
  num_classes = fcn.models.heads.num_classes(model)
  confusion = np.zeros((num_classes,) * 2, np.int64)
  for batch in batches:
    predictions = fcn.inference.predict(
      model, variables, batch.images, batch.valid_sizes
    )
    confusion += np.asarray(
      _confusion_matrix(batch.labels, predictions, num_classes=num_classes)
    )
  return confusion


_confusion_matrix = jax.jit(
  fcn.metrics.confusion_matrix, static_argnames="num_classes"
)


def predict_images(
  model: fcn.models.Network,
  state: fcn.train.TrainState,
  batches: Sequence[fcn.types.Batch],
  indices: Iterable[int],
) -> list[np.ndarray]:
  """Predictions [H, W] uint8 of some images, by their number in the split.

  Void outside an image, if the batches have sizes.
  """
  variables = fcn.train.variables(state)
  results = []
  for index in indices:
    number, row = divmod(index, len(batches[0].images))
    batch = batches[number]
    predictions = fcn.inference.predict(
      model, variables, batch.images, batch.valid_sizes
    )
    results.append(np.asarray(predictions[row], np.uint8))
  return results
