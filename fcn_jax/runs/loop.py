"""The loop of a run: steps, records, checkpoints, validation, and guards.

The device does not wait for the host: the host reads and records the numbers of
step n - 1 while step n runs. The exceptions are validation, and copying the
state for a checkpoint.
"""

import collections
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax

from fcn_jax import data
from fcn_jax import models
from fcn_jax import reprs
from fcn_jax import train as train_lib
from fcn_jax import types
from fcn_jax import visualize
from fcn_jax.runs import batches as batches_lib
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints as checkpoints_lib
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import placement
from fcn_jax.runs import processes
from fcn_jax.runs import progress as progress_lib
from fcn_jax.runs import records
from fcn_jax.runs import signals as signals_lib
from fcn_jax.runs import validation

TrainStep = Callable[
  [train_lib.TrainState, types.Batch, jax.Array],
  tuple[train_lib.TrainState, train_lib.StepMetrics],
]


# A loss so many times as large as the median of the latest ones is warned of.
_JUMP = 1000
# Latest losses of the median, and how many there must be.
_NUM_LOSSES, _LEAST_LOSSES = 100, 10


class NonFiniteError(Exception):
  """The loss or the gradient of a step is not finite."""


@dataclasses.dataclass(frozen=True)
class Parts:
  """The parts of a run.

  Attributes:
    model: the network.
    step: the compiled train step.
    schedule: learning rate by the number of the update.
    batches: to train on.
    validation: data set that the network is scored on.
    metadata: what every checkpoint holds beside the arrays.
    batch_sharding: of batches over the devices.
    at_steps: functions to call with the state after these steps, once it is
      saved. A run that resumes from such a step calls the function again.
  """

  model: models.Network
  step: TrainStep
  schedule: optax.Schedule
  batches: batches_lib.TrainingBatches
  validation: data.Dataset
  metadata: dict[str, Any]
  batch_sharding: jax.sharding.Sharding
  at_steps: Mapping[int, Callable[[train_lib.TrainState], None]]


@dataclasses.dataclass
class Window:
  """Sums over the steps since the last record; saved in each checkpoint."""

  num_steps: int = 0
  loss_sum: float = 0.0
  gradient_norm_sum: float = 0.0
  num_sampled: int = 0
  num_dropped: int = 0
  num_skipped: int = 0
  seconds: float = 0.0


@dataclasses.dataclass
class Progress:
  """Counters of a run besides its state; saved in each checkpoint.

  Attributes:
    window: since the last record.
    seconds: of training so far, without validation.
    skipped_in_a_row: number of latest steps whose numbers were not finite.
  """

  window: Window = dataclasses.field(default_factory=Window)
  seconds: float = 0.0
  skipped_in_a_row: int = 0

  @classmethod
  def from_json(cls, values: dict[str, Any]) -> "Progress":
    """Restores it from the mapping that `dataclasses.asdict` made."""
    return cls(**{**values, "window": Window(**values["window"])})


class Loop:
  """A run, from one start to its end or interruption."""

  def __init__(
    self,
    config: config_lib.Train,
    parts: Parts,
    *,
    start: int,
    checkpoints: checkpoints_lib.Checkpoints,
    board: records.TensorBoard | None,
    signals: signals_lib.StopSignals,
    progress: Progress,
  ):
    """Stores what the run needs; does nothing yet.

    Args:
      config: the options.
      parts: the parts made from them.
      start: number of this start.
      checkpoints: where states are saved.
      board: TensorBoard files; None in a process that is to write nothing.
      signals: say whether to end early.
      progress: counts up to here.
    """
    self._config = config
    self._parts = parts
    self._start = start
    self._checkpoints = checkpoints
    self._board = board
    self._signals = signals
    self._progress = progress
    self._metrics_file = config.run.workdir / folder.METRICS_FILE
    self._display: progress_lib.Display | None = None
    # Whether the latest steps were left out as the parameters may be spoiled.
    self._is_spoiled = False
    # Whether a checkpoint, or a validation, waits for a good step.
    self._save_waits = self._validation_waits = False
    # Of the latest steps since this start; and whether the last one jumped.
    self._losses: collections.deque[float] = collections.deque(
      maxlen=_NUM_LOSSES
    )
    self._has_jumped = False
    # Why training ended before the last step.
    self.ended_early: str | None = None
    # The clock runs while steps do, and stands still during validation.
    self._tick = 0.0

  def train(
    self, state: train_lib.TrainState, *, mean_iu: float | None
  ) -> train_lib.TrainState:
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
    _, key, _ = build.random_keys(config.run.seed)
    first = int(state.step)
    from_host = parts.batches.starting_at(first)
    on_device = data.to_device(
      from_host,
      num_classes=max(parts.model.heads.values()),
      sharding=parts.batch_sharding,
    )
    batches = parts.batches.patches_of(
      on_device, first_batch=first, sharding=parts.batch_sharding
    )
    self._display = progress_lib.Display(
      config.run.workdir.name, first=first, last=config.optimizer.steps
    )
    unread = None
    # Closing them lets go of the batches that wait, which an error that ends
    # the run would hold, and then ends the worker processes.
    with (
      self._display,
      contextlib.closing(from_host),
      contextlib.closing(on_device),
      contextlib.closing(batches),
    ):
      self._after(first, state, is_scored=mean_iu is not None)
      last = config.optimizer.steps
      if self._has_lost_patience(first):
        last = first
      for number in range(first + 1, last + 1):
        if number == first + 1:
          self._display.compiling()
        state, metrics = parts.step(state, next(batches), key)
        if number == first + 1:
          # The first call returns when the step is compiled.
          self._display.compiled()
          self._tick = time.perf_counter()
        if unread is not None:
          self._record(*unread)
        unread = number, metrics
        if self._signals.poll() is not None or self._saves(number):
          self._record(*unread)
          unread = None
          self._save_if_good(number, state)
        self._stop_if_asked(self._signals.received, number)
        self._after(number, state)
        if self._has_lost_patience(number):
          break
    return state

  def _after(
    self, number: int, state: train_lib.TrainState, *, is_scored: bool = False
  ) -> None:
    """Validates, and calls the functions for this step, if they are due."""
    if number and self._validates(number) and not is_scored:
      # A step that is not saved cannot be scored.
      self._validation_waits = self._is_spoiled
      if not self._is_spoiled:
        self._validate(number, state)
        self._tick = time.perf_counter()
    if number in self._parts.at_steps:
      self._parts.at_steps[number](state)
      self._tick = time.perf_counter()

  def _validates(self, number: int) -> bool:
    is_last = number == self._config.optimizer.steps
    is_due = number % self._config.run.validate_every == 0
    return is_last or is_due or self._validation_waits

  def _saves(self, number: int) -> bool:
    is_due = number % self._config.run.save_every == 0
    return (
      is_due
      or self._save_waits
      or self._validates(number)
      or number in self._parts.at_steps
    )

  def _save_if_good(self, number: int, state: train_lib.TrainState) -> None:
    """Saves a step, but none in a streak of steps that are not finite.

    The parameters may be what is wrong, even if they are finite.
    """
    self._save_waits = self._is_spoiled
    if not self._is_spoiled:
      self._save(number, state)
    elif number == self._config.optimizer.steps:
      self._checkpoints.wait()
      raise NonFiniteError(
        f"step {number}, the last one, is not finite, like "
        f"{self._progress.skipped_in_a_row - 1} before it, and was left out. "
        f"{self._remedies(number)}"
      )

  def _has_lost_patience(self, number: int) -> bool:
    """Whether to end after this step; says why."""
    patience = self._config.patience
    if patience is None or number == self._config.optimizer.steps:
      return False
    # What is on disk, so that a run that resumes counts on. Process 0 decides,
    # as another may not see all records yet.
    scores = processes.gather(folder.read_scores(self._config.run.workdir))[0]
    if number not in scores:
      return False
    best = max(scores, key=lambda step: (scores[step], -step))
    since = sum(step > best for step in scores)
    if since < patience:
      return False
    self.ended_early = (
      f"ended after step {number} of {self._config.optimizer.steps}: the mean "
      f"IU has not risen in {since} validations. The best is that of step "
      f"{best}, {100 * scores[best]:.1f} %. A larger --patience goes on."
    )
    self._display.write(self.ended_early)
    return True

  def _stop_if_asked(self, signal_number: int | None, number: int) -> None:
    if signal_number is not None:
      self._checkpoints.wait()
      newest = None
      if self._is_spoiled:
        newest = max(self._checkpoints.steps(), default=0)
      raise signals_lib.Interrupted(signal_number, number, newest=newest)

  def _record(self, number: int, metrics: train_lib.StepMetrics) -> None:
    """Counts a step, stops if it is not finite, and writes records when due."""
    metrics = jax.device_get(metrics)
    now = time.perf_counter()
    progress, window = self._progress, self._progress.window
    progress.seconds += now - self._tick
    window.seconds += now - self._tick
    self._tick = now
    window.num_steps += 1
    if metrics.is_finite:
      progress.skipped_in_a_row = 0
      self._is_spoiled = False
      self._warn_of_jump(number, float(metrics.loss))
      window.loss_sum += float(metrics.loss_sum)
      window.gradient_norm_sum += float(metrics.gradient_norm)
      window.num_sampled += int(metrics.num_sampled)
    else:
      self._on_nonfinite(number, metrics)
    window.num_dropped += int(metrics.num_dropped)
    self._display.stepped()
    is_last = number == self._config.optimizer.steps
    if self._config.patience is not None and self._validates(number):
      # It may be the last.
      is_last = True
    if is_last or number % self._config.run.log_every == 0:
      if self._board is not None:
        self._write_record(number)
      progress.window = Window()

  def _on_nonfinite(self, number: int, metrics: train_lib.StepMetrics) -> None:
    self._progress.skipped_in_a_row += 1
    self._progress.window.num_skipped += 1
    # In float16, gradients overflow from time to time, and the loss does not.
    is_half = self._config.network.dtype == "float16"
    if not (is_half and np.isfinite(metrics.loss)):
      self._is_spoiled = True
    names = self._names(number)
    finding = (
      f"step {number}: the loss is {metrics.loss} and the norm of the gradient "
      f"{metrics.gradient_norm}, on the images {names}"
    )
    if self._progress.skipped_in_a_row <= self._config.max_skipped:
      self._display.write(f"{finding}: left out.")
      return
    self._checkpoints.wait()
    raise NonFiniteError(f"{finding}. {self._remedies(number)}")

  def _names(self, number: int) -> str:
    """The images of a step."""
    return reprs.names(self._parts.batches.names(number - 1))

  def _remedies(self, number: int) -> str:
    """What to do after steps that are not finite, up to this one."""
    # The parameters of the step before them led to them: they may be spoiled.
    before = number - self._progress.skipped_in_a_row
    steps = self._checkpoints.steps()
    good = [step for step in steps if step < before]
    if good:
      text = f"The last good checkpoint is step {good[-1]}."
      init = f"--init {self._config.run.workdir} --init-step {good[-1]}"
    else:
      text = "There is no good checkpoint, as none was due."
      init = "the same --init, if any"
    if before in steps:
      text += (
        f" (That of step {before} was saved just before: it is good only if "
        "the images are at fault.)"
      )
    return (
      f"{text} Look at these images, or leave out such steps with "
      "--max-skipped. A lower learning rate or --clip-norm makes it another "
      f"run: give another --workdir, and {init}."
    )

  def _warn_of_jump(self, number: int, loss: float) -> None:
    """Warns of a loss far above the latest ones; once while it stays there."""
    median = statistics.median(self._losses) if self._losses else 0.0
    is_known = len(self._losses) >= _LEAST_LOSSES and median > 0
    if is_known and loss > _JUMP * median:
      if not self._has_jumped:
        names = self._names(number)
        self._display.write(
          f"warning: step {number}: the loss is {loss:.3g}, over {_JUMP} times "
          f"the median of the steps before, {median:.3g}, on the images "
          f"{names}. The parameters may be spoiled: a lower learning rate, a "
          "longer --warmup-steps or --clip-norm helps."
        )
      self._has_jumped = True
      return
    self._has_jumped = False
    self._losses.append(loss)

  def _write_record(self, number: int) -> None:
    config, window = self._config, self._progress.window
    num_finite = window.num_steps - window.num_skipped
    update = (number - 1) // config.optimizer.accumulate
    values = {
      "loss": _ratio(window.loss_sum, window.num_sampled),
      "gradient_norm": _ratio(window.gradient_norm_sum, num_finite),
      "learning_rate": float(self._parts.schedule(update)),
      "images_per_second": _ratio(
        window.num_steps * config.data.batch_size, window.seconds
      ),
    }
    self._board.scalars(number, {f"train/{n}": x for n, x in values.items()})
    counts = ("num_steps", "num_sampled", "num_dropped", "num_skipped")
    self._append(
      "train",
      number,
      seconds=self._progress.seconds,
      **values,
      **{name: getattr(window, name) for name in counts},
    )
    self._display.recorded(
      number, values, seconds_a_step=window.seconds / window.num_steps
    )

  def _append(self, kind: str, number: int, **values: Any) -> None:
    """Adds a record to metrics.jsonl."""
    header = {"kind": kind, "start": self._start, "step": number}
    records.append_json_line(self._metrics_file, {**header, **values})

  def _save(self, number: int, state: train_lib.TrainState) -> None:
    if self._board is not None:
      self._board.flush()
    metadata = {
      **self._parts.metadata,
      "progress": dataclasses.asdict(self._progress),
    }
    try:
      self._checkpoints.save(number, state._asdict(), metadata=metadata)
    # A finite gradient can lead to parameters that are not finite.
    except ValueError as error:
      raise NonFiniteError(str(error)) from error

  def _validate(self, number: int, state: train_lib.TrainState) -> None:
    """Scores the network, and writes scores and pictures."""
    begin = time.perf_counter()
    parts, dataset = self._parts, self._parts.validation
    state = validation.predicting_state(state)
    confusion = validation.evaluate(
      parts.model,
      state,
      self._validation_batches(number),
      row_shards=self._config.run.row_shards,
    )
    scores = validation.scores_by_name(confusion, dataset.class_names)
    pictures = self._pictures(state)
    seconds = time.perf_counter() - begin
    if self._board is not None:
      self._write_validation(number, confusion, scores, pictures, seconds)
    # Last: a step that has a score is not validated again.
    mean_iu = scores["mean_iu"]
    self._checkpoints.score(number, mean_iu)
    self._display.validated(
      number, mean_iu, is_best=self._checkpoints.best() == number
    )
    self._display.resumed()

  def _pictures(self, state: train_lib.TrainState) -> dict[int, np.ndarray]:
    """Pictures by the numbers of their images; all processes make them."""
    dataset = self._parts.validation
    pictures = {}
    for index in batches_lib.shown(self._config, dataset):
      example = validation.resized(self._config.data, dataset.source[index])
      pictures[index] = validation.picture(
        self._parts.model, state, example, dataset
      )
    return pictures

  def _write_validation(
    self,
    number: int,
    confusion: np.ndarray,
    scores: dict[str, Any],
    pictures: Mapping[int, np.ndarray],
    seconds: float,
  ) -> None:
    dataset = self._parts.validation
    class_iu = scores.pop("class_iu")
    self._board.scalars(
      number,
      {
        **{f"validation/{name}": value for name, value in scores.items()},
        **{f"validation_iu/{name}": iu for name, iu in class_iu.items()},
      },
    )
    self._board.image(
      number,
      "validation/confusion_matrix",
      visualize.confusion_matrix_image(confusion, dataset.class_names),
    )
    for index, picture in pictures.items():
      self._board.image(number, f"validation/picture_{index}", picture)
    self._board.flush()
    self._append(
      "evaluation", number, seconds=seconds, **scores, class_iu=class_iu
    )

  def _validation_batches(self, number: int) -> Iterator[types.Batch]:
    """The validation batches; stops between them if a signal came."""
    run = self._config.run
    # Several processes need a batch that all devices share, see `prepare`.
    sharding = placement.of_validation(
      self._parts.batch_sharding, run.validation_batch
    )
    on_host: Iterable[types.Batch] = batches_lib.validation_batches(
      self._config, self._parts.validation, sharding=sharding
    )
    if run.row_shards > 1:
      multiple = run.row_shards * self._parts.model.stride
      on_host = (validation.with_rows(one, multiple) for one in on_host)
    batches: Iterable[types.Batch] = data.to_device(
      on_host,
      num_classes=max(self._parts.model.heads.values()),
      sharding=sharding,
    )
    for batch in batches:
      self._stop_if_asked(self._signals.poll(), number)
      yield batch


def _ratio(total: float, count: float) -> float:
  return total / count if count else float("nan")
