"""The loop of train.py: steps, rows, checkpoints, validation, and guards.

The device never waits for the host: the numbers of step n - 1 are read, and
written down, while step n runs. It waits where the state is copied for a
checkpoint, and during validation.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import tqdm

import fcn_jax as fcn
import recipe
import run_folder
import train_presets
import training


class Interrupted(Exception):
  """A signal asked the run to end; everything is saved.

  Attributes:
    signal_number: of the signal.
  """

  def __init__(self, signal_number: int, step: int):
    name = signal.Signals(signal_number).name
    super().__init__(
      f"stopped by {name} after step {step}, which is saved; the same command "
      "goes on from there."
    )
    self.signal_number = signal_number


class NonFiniteError(Exception):
  """The loss or the gradient of a step is not finite."""


class StopSignals:
  """Turns SIGTERM and SIGINT (Ctrl-C) into a wish to end after this step.

  A second SIGINT ends the program at once.

  Attributes:
    received: number of the signal that came; None before.
  """

  def __init__(self):
    self.received: int | None = None
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "StopSignals":
    for number in (signal.SIGTERM, signal.SIGINT):
      self._before[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _on_signal(self, number, frame):
    del frame
    if self.received is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = number


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a run is made of.

  Attributes:
    model: the network.
    step: the compiled train step.
    schedule: learning rate by the number of the update.
    batches: to train on.
    validation: data set that the network is scored on.
    metadata: what every checkpoint holds beside the arrays.
    batch_sharding: of batches over the devices.
  """

  model: fcn.models.Network
  step: training.TrainStep
  schedule: optax.Schedule
  batches: recipe.Batches
  validation: fcn.data.Dataset
  metadata: dict[str, Any]
  batch_sharding: jax.sharding.Sharding


@dataclasses.dataclass
class Window:
  """Sums over the steps since the last row; a checkpoint holds them, too."""

  num_steps: int = 0
  loss_sum: float = 0.0
  gradient_norm_sum: float = 0.0
  num_sampled: int = 0
  num_dropped: int = 0
  num_skipped: int = 0
  seconds: float = 0.0


@dataclasses.dataclass
class Progress:
  """What a run counts beside the state; saved in each checkpoint.

  Attributes:
    window: since the last row.
    seconds: of training so far, without validation.
    skipped_in_a_row: steps just now whose numbers were not finite.
  """

  window: Window = dataclasses.field(default_factory=Window)
  seconds: float = 0.0
  skipped_in_a_row: int = 0

  @classmethod
  def from_json(cls, values: dict[str, Any]) -> "Progress":
    """What `dataclasses.asdict` made a mapping of."""
    return cls(**{**values, "window": Window(**values["window"])})


class Run:
  """A run from one start to the next end."""

  def __init__(
    self,
    config: train_presets.Train,
    parts: Parts,
    *,
    start: int,
    checkpoints: fcn.runs.checkpoints.Checkpoints,
    board: fcn.runs.records.TensorBoard,
    signals: StopSignals,
    progress: Progress,
  ):
    """Takes what the run needs, and does nothing yet.

    Args:
      config: the options.
      parts: made of them.
      start: number of this start.
      checkpoints: where states are saved.
      board: for people to look at.
      signals: whether to end early.
      progress: counts up to here.
    """
    self._config = config
    self._parts = parts
    self._start = start
    self._checkpoints = checkpoints
    self._board = board
    self._signals = signals
    self._progress = progress
    self._metrics_file = config.workdir / run_folder.METRICS_FILE
    self._bar: tqdm.tqdm | None = None
    self._shown: dict[str, str] = {}
    # The clock runs while steps do, and stands still during validation.
    self._tick = 0.0

  def train(
    self, state: fcn.train.TrainState, *, mean_iu: float | None
  ) -> fcn.train.TrainState:
    """Trains to the last step.

    Args:
      state: where training stands.
      mean_iu: of this state, if it was validated.

    Raises:
      Interrupted: if a signal came; the state is saved.
      NonFiniteError: if a loss or gradient is not finite.
      OSError: if something could not be written.
    """
    config, parts = self._config, self._parts
    _, key = random_keys(config)
    first = int(state.step)
    from_host = parts.batches.starting_at(first)
    batches = fcn.data.to_device(from_host, sharding=parts.batch_sharding)
    self._bar = tqdm.tqdm(
      total=config.steps * config.batch_size,
      initial=first * config.batch_size,
      unit="image",
      disable=None,
      dynamic_ncols=True,
    )
    unread = None
    # Closing the batches ends their worker processes.
    with self._bar, contextlib.closing(from_host):
      if first and self._validates(first) and mean_iu is None:
        self._validate(first, state)
      for number in range(first + 1, config.steps + 1):
        state, metrics = parts.step(state, next(batches), key)
        if number == first + 1:
          # The first call returns when the step is compiled.
          self._tick = time.perf_counter()
        if unread is not None:
          self._record(*unread)
        unread = number, metrics
        saves = self._validates(number) or number % config.save_every == 0
        if saves or self._signals.received is not None:
          self._record(*unread)
          unread = None
          self._save(number, state)
        if self._signals.received is not None:
          self._checkpoints.wait()
          raise Interrupted(self._signals.received, number)
        if self._validates(number):
          self._validate(number, state)
          self._tick = time.perf_counter()
    return state

  def _validates(self, number: int) -> bool:
    return (
      number % self._config.validate_every == 0 or number == self._config.steps
    )

  def _record(self, number: int, metrics: fcn.train.StepMetrics) -> None:
    """Counts a step, stops if it is not finite, and writes a row when due."""
    metrics = jax.device_get(metrics)
    now = time.perf_counter()
    progress, window = self._progress, self._progress.window
    progress.seconds += now - self._tick
    window.seconds += now - self._tick
    self._tick = now
    window.num_steps += 1
    if metrics.is_finite:
      progress.skipped_in_a_row = 0
      window.loss_sum += float(metrics.loss_sum)
      window.gradient_norm_sum += float(metrics.gradient_norm)
      window.num_sampled += int(metrics.num_sampled)
    else:
      self._on_nonfinite(number, metrics)
    window.num_dropped += int(metrics.num_dropped)
    self._bar.update(self._config.batch_size)
    if number % self._config.log_every == 0 or number == self._config.steps:
      self._write_row(number)
      progress.window = Window()

  def _on_nonfinite(self, number: int, metrics: fcn.train.StepMetrics) -> None:
    self._progress.skipped_in_a_row += 1
    self._progress.window.num_skipped += 1
    names = ", ".join(self._parts.batches.names(number - 1))
    finding = (
      f"step {number}: the loss is {metrics.loss} and the norm of the gradient "
      f"{metrics.gradient_norm}, on the images {names}"
    )
    if self._progress.skipped_in_a_row <= self._config.max_skipped:
      self._bar.write(f"{finding}: left out.")
      return
    self._checkpoints.wait()
    steps = self._checkpoints.steps()
    good = f"step {steps[-1]}" if steps else "none, as none was due"
    raise NonFiniteError(
      f"{finding}. The last good checkpoint is {good}. Look at these images, "
      "or leave out such steps with --max-skipped. A lower learning rate or "
      "--clip-norm make another run: give another --workdir, and --init to "
      "begin with this one's best parameters."
    )

  def _write_row(self, number: int) -> None:
    config, window = self._config, self._progress.window
    num_finite = window.num_steps - window.num_skipped
    update = (number - 1) // config.accumulate
    row = {
      "loss": _ratio(window.loss_sum, window.num_sampled),
      "gradient_norm": _ratio(window.gradient_norm_sum, num_finite),
      "learning_rate": float(self._parts.schedule(update)),
      "images_per_second": _ratio(
        window.num_steps * config.batch_size, window.seconds
      ),
    }
    self._board.scalars(
      number, {f"train/{name}": value for name, value in row.items()}
    )
    fcn.runs.records.append_json_line(
      self._metrics_file,
      {
        "kind": "train",
        "start": self._start,
        "step": number,
        "seconds": self._progress.seconds,
        **row,
        "num_steps": window.num_steps,
        "num_sampled": window.num_sampled,
        "num_dropped": window.num_dropped,
        "num_skipped": window.num_skipped,
      },
    )
    self._show(loss=f"{row['loss']:.3f}")

  def _show(self, **values: str) -> None:
    """Changes what stands behind the progress bar."""
    self._shown.update(values)
    self._bar.set_postfix(self._shown)

  def _save(self, number: int, state: fcn.train.TrainState) -> None:
    self._board.flush()
    metadata = {
      **self._parts.metadata,
      "progress": dataclasses.asdict(self._progress),
    }
    try:
      self._checkpoints.save(number, state._asdict(), metadata=metadata)
    # A finite gradient can make parameters that are not.
    except ValueError as error:
      raise NonFiniteError(str(error)) from error

  def _validate(self, number: int, state: fcn.train.TrainState) -> None:
    """Scores the network and writes what people look at."""
    begin = time.perf_counter()
    parts, dataset = self._parts, self._parts.validation
    state = predicting_state(state)
    confusion = training.evaluate(
      parts.model, state, self._until_stopped(number)
    )
    scores = fcn.metrics.scores(confusion)
    seconds = time.perf_counter() - begin
    class_iu = dict(
      zip(dataset.class_names, scores.class_iu.tolist(), strict=True)
    )
    values = {
      "mean_iu": scores.mean_iu,
      "pixel_accuracy": scores.pixel_accuracy,
      "mean_accuracy": scores.mean_accuracy,
      "frequency_weighted_iu": scores.frequency_weighted_iu,
    }
    self._board.scalars(
      number,
      {
        **{f"validation/{name}": value for name, value in values.items()},
        **{f"validation_iu/{name}": iu for name, iu in class_iu.items()},
      },
    )
    self._board.image(
      number,
      "validation/confusion_matrix",
      fcn.visualize.confusion_matrix_image(confusion, dataset.class_names),
    )
    for index in pictures_to_show(self._config, dataset):
      picture = self._picture(state, index)
      self._board.image(number, f"validation/picture_{index}", picture)
    self._board.flush()
    fcn.runs.records.append_json_line(
      self._metrics_file,
      {
        "kind": "evaluation",
        "start": self._start,
        "step": number,
        "seconds": seconds,
        **values,
        "class_iu": class_iu,
      },
    )
    # Last: a step that has a score is not validated again.
    self._checkpoints.score(number, scores.mean_iu)
    self._show(mean_iu=f"{scores.mean_iu:.3f}")
    best = self._checkpoints.best()
    self._bar.write(
      f"step {number}: mean IU {scores.mean_iu:.3f}"
      + (", the best so far" if best == number else "")
    )

  def _until_stopped(self, number: int) -> Iterator[fcn.types.Batch]:
    """The validation batches; stops between them if a signal came."""
    for batch in self._validation_batches():
      if self._signals.received is not None:
        self._checkpoints.wait()
        raise Interrupted(self._signals.received, number)
      yield batch

  def _validation_batches(self) -> Iterable[fcn.types.Batch]:
    batches = recipe.validation_batches(self._config, self._parts.validation)
    sharding = self._parts.batch_sharding
    if self._config.validation_batch % sharding.num_devices:
      sharding = None
    return fcn.data.to_device(batches, sharding=sharding)

  def _picture(self, state: fcn.train.TrainState, index: int) -> np.ndarray:
    """An image, its labels and its prediction, side by side."""
    dataset = self._parts.validation
    example = dataset.source[index]
    image, label = fcn.data.pipeline.transforms.rescale(
      example.image, example.label, factor=self._config.resize
    )
    classes = fcn.inference.predict(
      self._parts.model, fcn.train.variables(state), image[None]
    )
    image = fcn.data.pipeline.combining.picture_of(image)
    overlays = [
      fcn.visualize.overlay(image, labels, dataset.palette)
      for labels in (label, np.asarray(classes[0]))
    ]
    return np.concatenate([image, *overlays], axis=1)


def pictures_to_show(
  config: train_presets.Train, dataset: fcn.data.Dataset
) -> list[int]:
  """Numbers of the validation images that TensorBoard shows, evenly spread."""
  length = len(dataset.source)
  count = min(config.num_pictures, length)
  return [int(i) for i in (np.arange(count) + 0.5) * length / count]


def predicting_state(state: fcn.train.TrainState) -> fcn.train.TrainState:
  """The state with the averaged parameters, if the run keeps them."""
  average = fcn.optimizers.ema_of(state.opt_state)
  return state if average is None else state._replace(params=average)


def random_keys(
  config: train_presets.Train,
) -> tuple[jax.Array, jax.Array]:
  """Random keys of the initial parameters, and of all steps."""
  init_key, step_key = jax.random.split(jax.random.key(config.seed))
  return init_key, step_key


def _ratio(total: float, count: float) -> float:
  return total / count if count else float("nan")
