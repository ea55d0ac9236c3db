"""Kills a run again and again, and compares it with an undisturbed one.

    python -m experiments.benchmarks.kill_and_resume --kills 10

Trains a small network on generated shapes twice: once to the end, and once with
kills at random moments (SIGKILL, or SIGTERM with --signal SIGTERM), each
followed by the same command again. Prints when the run was killed and from
which step it resumed, and whether all losses and all arrays of the last
checkpoint are identical to the bit. Exits with 1 if they are not.
"""

import dataclasses
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, Literal

import jax
import numpy as np
import tyro

from fcn_jax.cli import errors
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import trained_model


@dataclasses.dataclass(frozen=True)
class Options:
  """What to kill, and how often."""

  workdir: pathlib.Path = pathlib.Path("runs/kill_and_resume")
  """Folder for the two runs; must not exist."""
  kills: int = 10
  """How often the run is killed before it may end."""
  signal: Literal["SIGKILL", "SIGTERM"] = "SIGKILL"
  """Signal that kills it."""
  steps: int = 60
  """Steps of the run."""
  save_every: int = 3
  """Steps between checkpoints; few, so that kills hit saves, too."""
  seed: int = 0
  """Seed of the moments of the kills."""


def command_of(options: Options, workdir: pathlib.Path) -> list[str]:
  """The command that trains; the same at every start."""
  arguments = {
    "dataset": "shapes/tiny",
    "workdir": workdir,
    "steps": options.steps,
    "warmup_steps": 5,
    "batch_size": 4,
    "crop_size": (64, 64),
    "head_width": 16,
    "log_every": 1,
    "save_every": options.save_every,
    "validate_every": 20,
    "ema_decay": 0.9,
    "sampler": "bernoulli",
    "rate": 0.5,
  }
  command = [sys.executable, "-m", "fcn_jax", "train", "shapes"]
  for name, value in arguments.items():
    values = value if isinstance(value, tuple) else (value,)
    command += [f"--{name.replace('_', '-')}", *map(str, values)]
  return command


def start(options: Options, workdir: pathlib.Path) -> subprocess.Popen:
  """Starts or resumes the run."""
  return subprocess.Popen(
    command_of(options, workdir),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen) -> None:
  """Waits for the end of a run that is left alone."""
  _, errors = process.communicate()
  if process.returncode:
    raise RuntimeError(f"training failed: {errors}")


def killed_at(
  process: subprocess.Popen,
  options: Options,
  workdir: pathlib.Path,
  generator: random.Random,
) -> int | None:
  """Kills a run at a random moment of its training.

  Returns:
    The step of the newest record when it was killed; None if it ended before.
  """
  file = workdir / folder.METRICS_FILE
  before = len(records.read_json_lines(file))
  # From the first record of this start on, when it trains and saves.
  while len(records.read_json_lines(file)) <= before + 1:
    if process.poll() is not None:
      finish(process)
      return None
    time.sleep(0.01)
  time.sleep(generator.uniform(0, 1.0))
  process.send_signal(signal.Signals[options.signal])
  process.communicate()
  if process.returncode == 0:
    return None
  return max(one["step"] for one in records.read_json_lines(file))


def losses_of(workdir: pathlib.Path) -> dict[int, float]:
  """The loss of each step, as if the run had never been cut off."""
  training, _ = folder.read_records(workdir)
  return {record["step"]: record["loss"] for record in training}


def final_state(workdir: pathlib.Path) -> dict[str, Any]:
  """All arrays of the newest checkpoint."""
  config = folder.read_config(workdir)
  steps = workdir / folder.CHECKPOINTS
  _, metadata, _ = checkpoints.read_metadata(steps, "latest")
  model = build.model(config, len(metadata["classes"]["names"]))
  optimizer = build.optimizer(config.optimizer)
  template = trained_model.state_template(model, optimizer)
  return checkpoints.read(steps, "latest", template).state


def differing_arrays(one: Any, other: Any) -> int:
  """How many arrays are not the same bytes."""
  return sum(
    np.asarray(a).tobytes() != np.asarray(b).tobytes()
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )


def main(arguments: list[str] | None = None) -> None:
  """Runs both and compares."""
  options = tyro.cli(Options, description=__doc__, args=arguments)
  with errors.explained():
    if options.workdir.exists():
      raise ValueError(f"{options.workdir} exists: give another --workdir.")
  alone, killed = options.workdir / "alone", options.workdir / "killed"
  finish(start(options, alone))
  print(f"left alone: {options.steps} steps")
  generator = random.Random(options.seed)
  for number in range(1, options.kills + 1):
    step = killed_at(start(options, killed), options, killed, generator)
    if step is None:
      print(f"the run ended before kill {number}: give more --steps")
      break
    print(f"kill {number} ({options.signal}): after the record of step {step}")
  finish(start(options, killed))
  starts = records.read_json_lines(killed / folder.STARTS_FILE)
  print("went on from steps", *(one["from_step"] for one in starts))
  same_losses = losses_of(alone) == losses_of(killed)
  differing = differing_arrays(final_state(alone), final_state(killed))
  print(f"losses of all {options.steps} steps identical: {same_losses}")
  print(f"arrays of the last checkpoint that differ: {differing}")
  if not same_losses or differing:
    sys.exit(1)


if __name__ == "__main__":
  main()
