"""What all experiment scripts share: presets, errors and the work folder."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fcn_jax import writers

CONFIG_FILE = "config.json"


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


def claim_workdir(
  workdir: pathlib.Path,
  config: Any,
  *,
  resume: bool,
  overwrite: bool,
  contents: Sequence[str],
) -> None:
  """Makes the work folder of a run and writes the run's configuration there.

  Args:
    workdir: the folder.
    config: dataclass; all fields but those that only say where and how to run
      (`workdir`, `resume`, `overwrite`, `num_threads`) must be the same when a
      run is resumed.
    resume: whether to continue the run that is there.
    overwrite: whether to delete the run that is there.
    contents: names of the files and folders that a run makes; all that is
      deleted by `overwrite`.

  Raises:
    ValueError: if the folder holds a run and neither option was given, a run
      of another configuration is to be resumed, or it holds other files.
  """
  settings = _settings(config)
  file = workdir / CONFIG_FILE
  if resume and overwrite:
    raise ValueError("--resume and --overwrite contradict each other.")
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"{workdir} is a file; give a folder as --workdir.")
  if resume:
    _check_same(file, settings)
    return
  if file.exists() and not overwrite:
    raise ValueError(
      f"{workdir} already holds a run. Continue it with --resume, delete it "
      "with --overwrite, or give another --workdir."
    )
  if not file.exists() and workdir.exists() and any(workdir.iterdir()):
    raise ValueError(
      f"{workdir} holds files that are not from a run, and none of them will "
      "be touched: give another --workdir."
    )
  if file.exists():
    for name in contents:
      path = workdir / name
      if path.is_dir():
        shutil.rmtree(path)
      else:
        path.unlink(missing_ok=True)
  workdir.mkdir(parents=True, exist_ok=True)
  writers.write_json(file, settings)


def _settings(config: Any) -> dict[str, Any]:
  settings = dataclasses.asdict(config)
  for name in ("workdir", "resume", "overwrite", "num_threads"):
    settings.pop(name, None)
  return json.loads(json.dumps(settings, default=str))


def _check_same(file: pathlib.Path, settings: dict[str, Any]) -> None:
  if not file.exists():
    raise ValueError(
      f"{file.parent} holds no run to resume: leave --resume out to start one."
    )
  before = json.loads(file.read_text(encoding="utf-8"))
  changed = [
    f"{name} ({before.get(name)} there, {settings.get(name)} now)"
    for name in sorted({*before, *settings})
    if before.get(name) != settings.get(name)
  ]
  if changed:
    raise ValueError(
      f"the run in {file.parent} has other settings: {', '.join(changed)}. "
      "Give the same options to resume it, or another --workdir."
    )
