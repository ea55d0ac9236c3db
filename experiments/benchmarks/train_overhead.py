"""Measures what `fcn-jax train` adds to the cost of a step.

    python -m experiments.benchmarks.train_overhead camvid_small \\
      --data-dir CAMVID
    python -m experiments.benchmarks.train_overhead camvid --data-dir CAMVID

Times three loops by turns in one process: the bare compiled step on a batch
that lies on the device; the step on batches that are loaded and augmented; and
the whole loop with records, TensorBoard files and one checkpoint. Prints the
medians, and the time that a step loses with the preset's interval between
checkpoints. All options of the preset can be changed.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import tqdm
import tyro

from fcn_jax import data
from fcn_jax import types
from fcn_jax.cli import errors
from fcn_jax.cli import presets
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints as checkpoints_lib
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import environment
from fcn_jax.runs import folder
from fcn_jax.runs import initial_state
from fcn_jax.runs import loop
from fcn_jax.runs import records
from fcn_jax.runs import signals as signals_lib
from fcn_jax.runs import training

ROUNDS = 3
STEPS = 8


class Loops:
  """The three loops, on one compiled step."""

  def __init__(self, config: config_lib.Train):
    self.config = config
    parts, optimizer, state_sharding = training.make_parts(config)
    one_image = [parts.validation.source[0]]
    validation = dataclasses.replace(parts.validation, source=one_image)
    self.parts = dataclasses.replace(parts, validation=validation, metadata={})
    self.step, self.sharding = parts.step, parts.batch_sharding
    _, self.key, _ = build.random_keys(config.run.seed)
    state, _ = initial_state.make(config, parts.model, optimizer)
    self.initial = jax.device_put(state, state_sharding)

  def _from_device(self) -> Iterator[types.Batch]:
    on_device = data.to_device(
      self.parts.batches.starting_at(0),
      num_classes=max(self.parts.model.heads.values()),
      sharding=self.sharding,
    )
    return self.parts.batches.patches_of(
      on_device, first_batch=0, sharding=self.sharding
    )

  def _time(self, batches: Iterator[types.Batch]) -> float:
    """Seconds a step, without records and checkpoints."""
    state = jax.tree.map(jnp.copy, self.initial)
    batch = next(batches)
    state, metrics = jax.block_until_ready(self.step(state, batch, self.key))
    begin = time.perf_counter()
    for _ in range(STEPS):
      state, metrics = self.step(state, next(batches), self.key)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - begin) / STEPS

  def bare(self) -> float:
    """Seconds a step on a batch that is there."""
    batch = next(self._from_device())
    return self._time(iter(lambda: batch, None))

  def with_data(self) -> float:
    """Seconds a step on batches from the pipeline."""
    return self._time(self._from_device())

  def whole(self) -> float:
    """Seconds a step of the whole loop, with one checkpoint."""
    with tempfile.TemporaryDirectory() as name:
      config = self.config.replace(
        workdir=pathlib.Path(name),
        # The checkpoint is written while the second half runs.
        steps=STEPS,
        save_every=STEPS // 2,
        validate_every=STEPS,
        warmup_steps=0,
      )
      folder.append_start(config, number=0, from_step=0, devices={})
      progress = loop.Progress()
      with (
        checkpoints_lib.Checkpoints(
          config.run.workdir / folder.CHECKPOINTS
        ) as checkpoints,
        records.TensorBoard(config.run.workdir / folder.TENSORBOARD) as board,
        signals_lib.StopSignals() as signals,
      ):
        loop.Loop(
          config,
          self.parts,
          start=0,
          checkpoints=checkpoints,
          board=board,
          signals=signals,
          progress=progress,
        ).train(jax.tree.map(jnp.copy, self.initial), mean_iu=None)
    return progress.seconds / STEPS


def timings(loops: Loops) -> dict[str, list[float]]:
  """Seconds a step of each loop, by turns; a first round is not counted."""
  loops_by_name: dict[str, Callable[[], float]] = {
    "bare step": loops.bare,
    "and data": loops.with_data,
    "and records, one checkpoint": loops.whole,
  }
  found = {name: [] for name in loops_by_name}
  for number in tqdm.trange(ROUNDS + 1, unit="round", disable=None):
    for name, seconds_of in loops_by_name.items():
      seconds = seconds_of()
      if number:
        found[name].append(seconds)
  return found


def table(config: config_lib.Train, found: dict[str, list[float]]) -> str:
  """What was found, in Markdown."""
  bare, data, whole = (statistics.median(times) for times in found.values())
  # Records every step count in full; the checkpoint is shared by more steps.
  checkpoint = max(0.0, (whole - data) * STEPS)
  lost = (data - bare) + checkpoint / config.run.save_every
  lines = [
    "| loop | s a step | range | beside the bare step |",
    "| --- | ---: | ---: | ---: |",
  ]
  for name, times in found.items():
    median = statistics.median(times)
    lines.append(
      f"| {name} | {median:.3f} | {min(times):.3f}-{max(times):.3f} "
      f"| {100 * (median / bare - 1):+.1f} % |"
    )
  lines += [
    "",
    f"A checkpoint and {STEPS} steps' records cost {checkpoint:.2f} s. With a "
    f"checkpoint every {config.run.save_every} steps a step loses "
    f"{100 * lost / bare:.1f} % of {bare:.3f} s. {config.network.backbone}, "
    f"batch {config.data.batch_size} of {config.augmentation.crop_size}; "
    f"medians of {ROUNDS} rounds of "
    f"{STEPS} steps on {jax.devices()[0].device_kind} with "
    f"{environment.num_cores()} cores.",
  ]
  return "\n".join(lines)


def main() -> None:
  """Reads the options, times and prints."""
  config = tyro.extras.overridable_config_cli(
    presets.PRESETS,
    description=__doc__,
    config=(tyro.conf.OmitArgPrefixes,),
  )
  with errors.explained():
    config.check()
    loops = Loops(config)
  print(table(config, timings(loops)))


if __name__ == "__main__":
  main()
