"""What a step of train.py costs beside the step itself.

    python experiments/benchmarks/train_overhead.py camvid_small --data-dir DIR
    python experiments/benchmarks/train_overhead.py camvid --data-dir DIR ...

Times three loops by turns in one process: the bare compiled step on a batch
that lies on the device; the step on batches that are loaded and augmented; and
the loop of train.py with rows, TensorBoard files and one checkpoint. Prints the
medians, and what a step loses where checkpoints are as far apart as the preset
says. The preset's options can be changed as in train.py.
"""

import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import tqdm
import tyro

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import command_line
import fcn_jax as fcn
import recipe
import run_folder
import train
import train_loop
import train_presets
import training

ROUNDS = 3
STEPS = 8


class Loops:
  """The three loops, on one compiled step."""

  def __init__(self, config: train_presets.Train):
    self.config = config
    dataset = training.load_split(config, "train")
    self.validation = dataclasses.replace(dataset, source=[dataset.source[0]])
    self.batches = recipe.make_batches(config, dataset)
    self.model = recipe.make_model(config, dataset.num_classes)
    optimizer = recipe.make_optimizer(config)
    sampler = recipe.make_sampler(config, dataset)
    self.step = recipe.make_train_step(config, self.model, optimizer, sampler)
    self.sharding, state_sharding = train.shardings(config)
    _, self.key = train_loop.random_keys(config)
    state, _ = train.initial_state(config, self.model, optimizer)
    self.initial = jax.device_put(state, state_sharding)

  def _from_device(self) -> Iterator[fcn.types.Batch]:
    return fcn.data.to_device(
      self.batches.starting_at(0), sharding=self.sharding
    )

  def _time(self, batches: Iterator[fcn.types.Batch]) -> float:
    """Seconds a step, without rows and checkpoints."""
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
    """Seconds a step of the loop of train.py, with one checkpoint."""
    with tempfile.TemporaryDirectory() as name:
      config = dataclasses.replace(
        self.config,
        workdir=pathlib.Path(name),
        # The checkpoint is written while the second half runs.
        steps=STEPS,
        save_every=STEPS // 2,
        validate_every=STEPS,
        warmup_steps=0,
      )
      run_folder.append_start(config, number=0, from_step=0)
      progress = train_loop.Progress()
      with (
        fcn.runs.checkpoints.Checkpoints(
          config.workdir / run_folder.CHECKPOINTS
        ) as checkpoints,
        fcn.runs.records.TensorBoard(
          config.workdir / run_folder.TENSORBOARD
        ) as board,
        train_loop.StopSignals() as signals,
      ):
        train_loop.Run(
          config,
          train_loop.Parts(
            model=self.model,
            step=self.step,
            schedule=recipe.learning_rate(config),
            batches=self.batches,
            validation=self.validation,
            metadata={},
            batch_sharding=self.sharding,
          ),
          start=0,
          checkpoints=checkpoints,
          board=board,
          signals=signals,
          progress=progress,
        ).train(jax.tree.map(jnp.copy, self.initial), mean_iu=None)
    return progress.seconds / STEPS


def timings(loops: Loops) -> dict[str, list[float]]:
  """Seconds a step of each loop, by turns; a first round is not counted."""
  arms: dict[str, Callable[[], float]] = {
    "bare step": loops.bare,
    "and data": loops.with_data,
    "and rows, one checkpoint": loops.whole,
  }
  found = {name: [] for name in arms}
  for number in tqdm.trange(ROUNDS + 1, unit="round", disable=None):
    for name, arm in arms.items():
      seconds = arm()
      if number:
        found[name].append(seconds)
  return found


def table(config: train_presets.Train, found: dict[str, list[float]]) -> str:
  """What was found, in Markdown."""
  bare, data, whole = (statistics.median(times) for times in found.values())
  # Rows every step count in full; the checkpoint is shared by more steps.
  checkpoint = max(0.0, (whole - data) * STEPS)
  lost = (data - bare) + checkpoint / config.save_every
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
    f"A checkpoint and {STEPS} steps' rows cost {checkpoint:.2f} s. With a "
    f"checkpoint every {config.save_every} steps a step loses "
    f"{100 * lost / bare:.1f} % of {bare:.3f} s. {config.backbone}, batch "
    f"{config.batch_size} of {config.crop_size}; medians of {ROUNDS} rounds of "
    f"{STEPS} steps on {jax.devices()[0].device_kind} with "
    f"{command_line.num_cores()} cores.",
  ]
  return "\n".join(lines)


def main() -> None:
  """Reads the options, times and prints."""
  config = tyro.extras.overridable_config_cli(
    train_presets.PRESETS, description=__doc__
  )
  with command_line.explained_errors():
    recipe.check_options(config)
    loops = Loops(config)
  print(table(config, timings(loops)))


if __name__ == "__main__":
  main()
