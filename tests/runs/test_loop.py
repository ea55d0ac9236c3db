"""The loop of a run: signals, guards, and what is called at a step."""

import collections
import dataclasses
import json
import os
import signal
import threading
import time
import types

import jax
import pytest

from fcn_jax import data
from fcn_jax import runs
from fcn_jax.runs import folder
from fcn_jax.runs import loop
from fcn_jax.runs import records
from fcn_jax.runs import signals
from fcn_jax.runs import training
from tests.helpers import tiny_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = tiny_runs.STEPS


def saved_steps(workdir):
  return sorted(int(p.name) for p in (workdir / "checkpoints").glob("0*"))


# Runs that are cut off.


@pytest.mark.slow
@pytest.mark.parametrize(
  ("number", "log_every"),
  [
    pytest.param(signal.SIGTERM, 1, marks=pytest.mark.long),
    (signal.SIGINT, STEPS),
  ],
)
def test_a_signal_saves_and_going_on_changes_no_bit(
  tmp_path, finished_run, prepared_dir, number, log_every
):
  workdir = tmp_path / "stopped"
  config = tiny_runs.config(workdir, prepared_dir, log_every=log_every)

  def stop():
    file = workdir / folder.METRICS_FILE
    while len(records.read_json_lines(file)) < 2:
      time.sleep(0.001)
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=stop)
  thread.start()
  with pytest.raises(
    signals.Interrupted, match="continues from there"
  ) as ended:
    runs.train(config)
  thread.join()
  assert ended.value.signal_number == number
  assert saved_steps(workdir)[-1] < STEPS
  runs.train(config)
  tiny_runs.assert_same_bits(
    tiny_runs.state_of(workdir), tiny_runs.state_of(finished_run)
  )
  if log_every == 1:
    assert tiny_runs.losses_of(workdir) == tiny_runs.losses_of(finished_run)
    return
  # The steps before the signal are in the record after it.
  [record], _ = folder.read_records(workdir)
  alone, _ = folder.read_records(finished_run)
  assert record["num_steps"] == STEPS
  assert record["num_sampled"] == sum(one["num_sampled"] for one in alone)
  loss_sum = sum(one["loss"] * one["num_sampled"] for one in alone)
  assert record["loss"] == pytest.approx(loss_sum / record["num_sampled"])


def test_the_counts_of_a_run_survive_a_checkpoint_to_the_bit():
  progress = loop.Progress(
    window=loop.Window(num_steps=3, loss_sum=0.1 + 0.2), seconds=1 / 3
  )
  as_json = json.loads(json.dumps(dataclasses.asdict(progress)))
  assert loop.Progress.from_json(as_json) == progress


def test_signals_are_those_of_before_when_a_run_has_ended():
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with signals.StopSignals() as stop:
    assert stop.poll() is None
    signal.raise_signal(signal.SIGINT)
    assert stop.poll() == stop.received == signal.SIGINT
    # The second Ctrl-C does not wait.
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  assert after == before


# Guards.


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_with_the_images_names(
  tmp_path, prepared_dir
):
  workdir = tmp_path / "run"
  config = tiny_runs.config(
    workdir, prepared_dir, learning_rate=1e30, save_every=1
  )
  with pytest.raises(loop.NonFiniteError) as ended:
    runs.train(config)
  message = str(ended.value)
  number = int(message.split("step ")[1].split(":")[0])
  # The step before led to it: its parameters may be spoiled.
  *_, good, newest = saved_steps(workdir)
  assert newest == number - 1
  assert f"The last good checkpoint is step {good}." in message
  assert f"That of step {newest} was saved just before" in message
  assert f"--init {workdir} --init-step {good}" in message
  source = data.load(
    "shapes/tiny", split="train", prepared_dir=prepared_dir
  ).source
  indices = data.pipeline.indices_of_batch(
    len(source), batch_size=4, seed=0, number=number - 1
  )
  names = ", ".join(source[index].name for index in indices)
  assert f"on the images {names}." in message


@pytest.mark.slow
def test_steps_that_are_not_finite_can_be_left_out_so_many_in_a_row(
  tmp_path, prepared_dir
):
  workdir = tmp_path / "run"
  config = tiny_runs.config(
    workdir, prepared_dir, learning_rate=1e30, max_skipped=2, validate_every=6
  )
  with pytest.raises(loop.NonFiniteError, match="the loss is nan"):
    runs.train(config)
  training, _ = folder.read_records(workdir)
  assert sum(record["num_skipped"] for record in training) == 2


@pytest.mark.slow
def test_nothing_is_saved_while_steps_are_not_finite(tmp_path, prepared_dir):
  workdir = tmp_path / "run"
  config = tiny_runs.config(
    workdir, prepared_dir, learning_rate=1e30, max_skipped=100, save_every=1
  )
  with pytest.raises(loop.NonFiniteError, match="the last one, is not finite"):
    runs.train(config)
  training_records, _ = folder.read_records(workdir)
  skipped = [one["step"] for one in training_records if one["num_skipped"]]
  assert skipped[-1] == STEPS
  assert max(saved_steps(workdir)) < skipped[0]


@pytest.mark.long
def test_a_run_without_patience_ends_and_goes_on_with_more(
  tmp_path, prepared_dir
):
  workdir = tmp_path / "run"
  # Its scores do not change.
  options = {"learning_rate": 1e-30, "weight_decay": 0.0, "ema_decay": None}
  options |= {"normalization": "none", "validate_every": 1}
  options |= {"dropout_rate": 0.0}
  config = tiny_runs.config(workdir, prepared_dir, **options, patience=2)
  runs.train(config)
  assert saved_steps(workdir)[-1] == 3
  summary = json.loads((workdir / folder.SUMMARY_FILE).read_text())
  assert "has not risen in 2 validations" in json.dumps(summary)
  assert "The best is that of step 1" in json.dumps(summary)
  # The same command does not train any more; a larger patience goes on.
  runs.train(config)
  assert saved_steps(workdir)[-1] == 3
  runs.train(config.replace(patience=4))
  assert saved_steps(workdir)[-1] == 5


def test_a_loss_that_jumps_is_warned_of_once():
  class Display:
    def __init__(self):
      self.lines = []

    def write(self, line):
      self.lines.append(line)

  class Batches:
    def names(self, number):
      return [f"picture {number}"]

  one = loop.Loop.__new__(loop.Loop)
  one._losses, one._has_jumped = collections.deque(maxlen=100), False
  one._display, one._parts = Display(), types.SimpleNamespace(batches=Batches())
  for number, loss in enumerate([*[2.0] * 10, 1999.0, 2001.0, 3e9, 2.0]):
    one._warn_of_jump(number, loss)
  (line,) = one._display.lines
  assert "step 11: the loss is 2e+03, over 1000 times" in line
  assert "picture 10" in line


# Callbacks.


@pytest.mark.long
def test_a_run_calls_back_with_the_saved_state_and_again_if_it_goes_on_there(
  run_copy, finished_run, prepared_dir
):
  called = []

  def note(state):
    called.append(jax.device_get(state._asdict()))

  # It ended at this step; the callback may have been cut off.
  config = tiny_runs.config(run_copy, prepared_dir, steps=STEPS + 1)
  at_steps = {STEPS: note, STEPS + 1: note}
  training.run(training.prepare(config, at_steps=at_steps))
  assert [int(state["step"]) for state in called] == [STEPS, STEPS + 1]
  for state in called:
    saved = tiny_runs.state_of(run_copy, int(state["step"]))
    tiny_runs.assert_same_bits(state, saved)
