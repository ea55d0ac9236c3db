"""A run of a few steps on a dozen generated images, and what it leaves."""

import pathlib

import jax
import numpy as np

from fcn_jax import runs
from fcn_jax.runs import build
from fcn_jax.runs import folder
from fcn_jax.runs import trained_model

STEPS = 6
NUM_CLASSES = 6

_OPTIONS = {
  "dataset": "shapes/tiny",
  "steps": STEPS,
  "batch_size": 4,
  "crop_size": (64, 64),
  "head_width": 16,
  "warmup_steps": 1,
  "log_every": 1,
  "save_every": 2,
  "validate_every": 3,
  "validation_batch": 4,
  "num_pictures": 1,
  "num_sizes": 1,
  "ema_decay": 0.9,
}


def config(
  workdir: pathlib.Path, prepared_dir: pathlib.Path, **options
) -> runs.Train:
  """Options of the run, with changes."""
  result = runs.Train(run=runs.config.Run(workdir))
  return result.replace(prepared_dir=prepared_dir, **(_OPTIONS | options))


def command(
  workdir: pathlib.Path, prepared_dir: pathlib.Path, *more: str
) -> list[str]:
  """Arguments of `fcn-jax train` for the same run."""
  arguments = [
    "shapes",
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
  ]
  for name, value in _OPTIONS.items():
    values = value if isinstance(value, tuple) else (value,)
    arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
  return [*arguments, *more]


def losses_of(workdir: pathlib.Path) -> dict[int, float]:
  """The loss of each recorded step."""
  training, _ = folder.read_records(workdir)
  return {record["step"]: record["loss"] for record in training}


def state_of(
  workdir: pathlib.Path, which: runs.checkpoints.Which = "latest"
) -> dict:
  """All arrays of a checkpoint."""
  config = folder.read_config(workdir)
  model = build.model(config, NUM_CLASSES)
  optimizer = build.optimizer(config.optimizer)
  template = trained_model.state_template(model, optimizer)
  steps = workdir / folder.CHECKPOINTS
  return runs.checkpoints.read(steps, which, template).state


def assert_same_bits(one, other) -> None:
  """Fails if an array of one tree is not that of the other."""
  jax.tree.map(np.testing.assert_array_equal, one, other)


def files_in(root: pathlib.Path) -> dict[pathlib.Path, bytes]:
  """What is in all files of a folder, but for its lock."""
  return {
    path: path.read_bytes()
    for path in sorted(root.rglob("*"))
    if path.is_file() and path.name != ".lock"
  }
