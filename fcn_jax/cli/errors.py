"""What all experiment scripts share: errors and the work folder."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fcn_jax.runs import records

CONFIG_FILE = "config.json"

# What only says where and how to run; all else must stay when a run resumes.
_NOT_SETTINGS = (
  "workdir",
  "data_dir",
  "prepared_dir",
  "num_threads",
  "resume",
  "overwrite",
)


@contextlib.contextmanager
def explained_errors() -> Iterator[None]:
  """Ends the script with the message of a user's error, not a traceback.

  Wrap only what looks at the user's input in it: anywhere else, such an error
  is a bug, whose traceback is wanted.
  """
  try:
    yield
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1) from error


def num_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # Not on macOS.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def free_bytes(folder: pathlib.Path) -> int:
  """Room on the disk where a folder is, or is going to be."""
  folder = folder.absolute()
  while not folder.exists():
    folder = folder.parent
  return shutil.disk_usage(folder).free


def check_at_least_one(config: Any, names: Sequence[str]) -> None:
  """Raises a `ValueError` if one of these options is less than 1."""
  for name in names:
    if getattr(config, name) < 1:
      raise ValueError(f"{name} is {getattr(config, name)}; it must be >= 1.")


def check_workdir(config: Any, experiment: str) -> None:
  """Checks that a run can begin or continue in its work folder.

  Args:
    config: dataclass of the run with the fields `workdir`, `overwrite`
      (whether to delete the run that is there) and, if the script can do that,
      `resume` (whether to continue it).
    experiment: name of the script.

  Raises:
    ValueError: if the folder holds a run and neither option was given, the
      run to resume is missing or has other settings, or the folder holds
      other files.
  """
  workdir = config.workdir
  resume = getattr(config, "resume", False)
  if resume and config.overwrite:
    raise ValueError("--resume and --overwrite contradict each other.")
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"{workdir} is a file; give a folder as --workdir.")
  before = _read_settings(workdir / CONFIG_FILE, experiment)
  if resume:
    _check_same(workdir, before, _settings(config, experiment))
  elif before is not None and not config.overwrite:
    remedy = "Delete it with --overwrite, or give another --workdir."
    if hasattr(config, "resume"):
      remedy = (
        "Continue it with --resume, delete it with --overwrite, or give "
        "another --workdir. (Through make: ARGS=--resume.)"
      )
    raise ValueError(f"{workdir} already holds a run. {remedy}")
  elif before is None and workdir.exists() and any(workdir.iterdir()):
    raise ValueError(
      f"{workdir} holds files that are not from a run of {experiment}, and "
      "none of them will be touched: give another --workdir."
    )


def claim_workdir(
  config: Any, experiment: str, contents: Sequence[str]
) -> None:
  """Makes the work folder and writes the run's settings there.

  Call `check_workdir` first; everything else that can be wrong with the
  options should have been checked, too, as `overwrite` deletes here.

  Args:
    config: see `check_workdir`.
    experiment: name of the script.
    contents: names of the files and folders that a run makes; all that
      `overwrite` deletes.
  """
  if getattr(config, "resume", False):
    return
  for name in contents:
    path = config.workdir / name
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink(missing_ok=True)
  config.workdir.mkdir(parents=True, exist_ok=True)
  settings = _settings(config, experiment)
  records.write_json(config.workdir / CONFIG_FILE, settings)


def _settings(config: Any, experiment: str) -> dict[str, Any]:
  settings = {"experiment": experiment, **dataclasses.asdict(config)}
  for name in _NOT_SETTINGS:
    settings.pop(name, None)
  # As they will be read again: tuples become lists.
  return json.loads(json.dumps(settings))


def _read_settings(
  file: pathlib.Path, experiment: str
) -> dict[str, Any] | None:
  """Settings of the run that a folder holds; None if it holds none."""
  if not file.exists():
    return None
  try:
    settings = json.loads(file.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{file} is damaged ({error}): repair it, or give another --workdir."
    ) from error
  ours = isinstance(settings, dict) and settings.get("experiment") == experiment
  return settings if ours else None


def _check_same(
  workdir: pathlib.Path, before: dict[str, Any] | None, now: dict[str, Any]
) -> None:
  if before is None:
    raise ValueError(
      f"{workdir} holds no run to resume: leave --resume out to start one."
    )
  changed = [
    f"{name} ({before.get(name)} there, {now.get(name)} now)"
    for name in sorted({*before, *now})
    if before.get(name) != now.get(name)
  ]
  if changed:
    raise ValueError(
      f"the run in {workdir} has other settings: {', '.join(changed)}. Give "
      "the same options to resume it, or another --workdir."
    )
