"""The work folder of train.py: what is in it, and whether a run may go on.

config.json     the options, exactly
starts.jsonl    each start: when, from which step, with which options,
                versions and devices, at which commit
metrics.jsonl   training and validation, a row each
checkpoints/    the newest steps and the best one
tensorboard/    event files
summary.json, table.md, curves.png    written when the run ends
"""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import typing
from typing import Any

import jax

import command_line
import fcn_jax as fcn
import train_presets

CONFIG_FILE = command_line.CONFIG_FILE
STARTS_FILE = "starts.jsonl"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"
CONTENTS = (
  CONFIG_FILE,
  STARTS_FILE,
  METRICS_FILE,
  CHECKPOINTS,
  TENSORBOARD,
  SUMMARY_FILE,
  TABLE_FILE,
  CURVES_FILE,
)

_EXPERIMENT = "train"
# Options that may change when a run goes on: where and how it runs and what it
# tells; not what it computes. (`steps` may grow, see `check`.)
_MAY_CHANGE = (
  "workdir",
  "data_dir",
  "prepared_dir",
  "num_threads",
  "num_workers",
  "overwrite",
  "steps",
  "log_every",
  "validate_every",
  "save_every",
  "validation_batch",
  "num_pictures",
  "max_skipped",
  "num_devices",
  # Only a run's beginning depends on it.
  "init",
  "init_hha",
)
_PACKAGES = ("fcn_jax", "jax", "jaxlib", "flax", "optax", "numpy", "grain")


def check(config: train_presets.Train) -> bool:
  """Checks that a run can begin or go on in its work folder.

  Returns:
    Whether there is a run to go on with.

  Raises:
    ValueError: if the folder holds a run of other options, a longer run, a
      damaged one, or other files.
  """
  workdir = config.workdir
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"{workdir} is a file; give a folder as --workdir.")
  if not (workdir / CONFIG_FILE).exists():
    there = list(workdir.iterdir()) if workdir.exists() else []
    # A run that was killed at its very beginning leaves a partial file.
    names = {path.name.removesuffix(".partial") for path in there}
    foreign = sorted(names - {*CONTENTS})
    if foreign:
      raise ValueError(
        f"{workdir} holds {foreign[0]}, which is not from a run of train.py, "
        "and will not be touched: give another --workdir."
      )
    parts = sorted(names - {CONFIG_FILE})
    if parts and not config.overwrite:
      raise ValueError(
        f"{workdir} holds {parts[0]} of a run, but not its {CONFIG_FILE}: "
        "bring that back, delete the rest with --overwrite, or give another "
        "--workdir."
      )
    return False
  before = read_config(workdir)
  if config.overwrite:
    return False
  now = dataclasses.asdict(config)
  changed = [
    f"{name} ({value} there, {now[name]} now)"
    for name, value in dataclasses.asdict(before).items()
    if name not in _MAY_CHANGE and value != now[name]
  ]
  if changed:
    raise ValueError(
      f"the run in {workdir} has other options: {', '.join(changed)}. Give the "
      "same ones to go on with it, another --workdir, or --overwrite to delete "
      "it and start anew."
    )
  if config.steps < before.steps:
    raise ValueError(
      f"the run in {workdir} is one of {before.steps} steps; steps may grow, "
      f"but {config.steps} are fewer: give another --workdir."
    )
  return True


def claim(config: train_presets.Train) -> None:
  """Makes the work folder and writes the options there.

  Deletes the run that is there if that was asked for: check all else first.
  """
  if config.overwrite:
    # The options last: what is left of a run is known as such till the end.
    for name in reversed(CONTENTS):
      path = config.workdir / name
      if path.is_dir():
        shutil.rmtree(path)
      else:
        path.unlink(missing_ok=True)
  config.workdir.mkdir(parents=True, exist_ok=True)
  fcn.runs.records.write_json(config.workdir / CONFIG_FILE, as_json(config))


def as_json(config: train_presets.Train) -> dict[str, Any]:
  """All options, for `read_config`."""
  options = dataclasses.asdict(config)
  # Whether to delete a run is not a trait of it.
  del options["overwrite"]
  options = {"experiment": _EXPERIMENT, **options}
  return json.loads(json.dumps(options, default=str))


def read_config(workdir: pathlib.Path) -> train_presets.Train:
  """The options of the run in a work folder.

  Raises:
    ValueError: if there is none, it is of another script or version, or its
      file is damaged.
  """
  file = workdir / CONFIG_FILE
  if not file.is_file():
    raise ValueError(
      f"{workdir} holds no run of train.py ({CONFIG_FILE} is not there): give "
      "the work folder of one."
    )
  try:
    options = json.loads(file.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{file} is damaged ({error}): repair it.") from error
  if not isinstance(options, dict) or options.get("experiment") != _EXPERIMENT:
    raise ValueError(
      f"{file} is not from a run of train.py: give the work folder of one."
    )
  del options["experiment"]
  types = typing.get_type_hints(train_presets.Train)
  # A later version may have options more; these have their defaults.
  unknown = sorted(options.keys() - types.keys())
  if unknown:
    raise ValueError(
      f"{file} has options that this version does not know: "
      f"{', '.join(unknown)}. Use the version that made it."
    )
  values = {name: _typed(value, types[name]) for name, value in options.items()}
  return train_presets.Train(**values)


def _typed(value: Any, kind: Any) -> Any:
  """A value read from JSON, as the option's type has it."""
  kinds = typing.get_args(kind) or (kind,)
  if isinstance(value, str) and pathlib.Path in kinds:
    return pathlib.Path(value)
  return tuple(value) if isinstance(value, list) else value


def append_start(
  config: train_presets.Train, *, number: int, from_step: int
) -> None:
  """Adds a row to starts.jsonl, and one of kind "start" to metrics.jsonl."""
  row = {
    "start": number,
    "from_step": from_step,
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "command": sys.argv,
    "options": as_json(config),
    **environment(),
  }
  fcn.runs.records.append_json_line(config.workdir / STARTS_FILE, row)
  fcn.runs.records.append_json_line(
    config.workdir / METRICS_FILE,
    {"kind": "start", "start": number, "step": from_step},
  )


def num_starts(workdir: pathlib.Path) -> int:
  """How often a run was started."""
  return len(fcn.runs.records.read_json_lines(workdir / STARTS_FILE))


def environment() -> dict[str, Any]:
  """Versions, devices and commit."""
  devices = jax.devices()
  return {
    "python": platform.python_version(),
    "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    "platform": platform.platform(),
    "device": f"{len(devices)} x {devices[0].device_kind}",
    "cores": command_line.num_cores(),
    "commit": commit(),
  }


def commit() -> str | None:
  """Commit of the code, with "+changes" if it was changed; None if unknown."""
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    return subprocess.run(
      ["git", *arguments],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  try:
    head = git("rev-parse", "HEAD")
    return head + ("+changes" if git("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.CalledProcessError):
    # No git here, or an installed package.
    return None


def effective_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The rows of a run as if it had never been cut off.

  A run that goes on from an earlier step than it had reached repeats steps:
  the rows of these from before are left out.
  """
  kept = []
  for row in rows:
    if row["kind"] == "start":
      kept = [one for one in kept if one["step"] <= row["step"]]
    else:
      kept.append(row)
  return kept
