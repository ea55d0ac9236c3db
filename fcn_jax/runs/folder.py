"""The work folder of a run: what it holds, and whether the run may resume.

    config.json     the options, in groups, the id of the run, and a checksum
    starts.jsonl    each start: when, from which step, with which options,
                    versions and devices, at which commit
    metrics.jsonl   training and validation, a record each
    checkpoints/    the newest steps and the best one
    tensorboard/    event files
    summary.json, table.md, curves.png, predictions.png
                    written when the run ends

Studies, which consist of runs, follow the same rules with other contents.

Checkpoints have the options and the id, too: those of another run do not count.
Older runs have neither ids nor checksums of such files, which is no damage.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import secrets
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fcn_jax import holding
from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import environment
from fcn_jax.runs import processes
from fcn_jax.runs import records

CONFIG_FILE = "config.json"
STARTS_FILE = "starts.jsonl"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"
PREDICTIONS_FILE = "predictions.png"
CONTENTS = (
  CONFIG_FILE,
  STARTS_FILE,
  METRICS_FILE,
  CHECKPOINTS,
  TENSORBOARD,
  SUMMARY_FILE,
  TABLE_FILE,
  CURVES_FILE,
  PREDICTIONS_FILE,
)

TRAIN = "train"
# Options that may change when a run resumes: where and how it runs and what it
# reports, but not what it computes. (`steps` of a run may grow, see `check`.)
_MAY_CHANGE = frozenset(
  (
    "workdir",
    "data_dir",
    "prepared_dir",
    "verify",
    "num_threads",
    "num_workers",
    "overwrite",
    "log_every",
    "validate_every",
    "save_every",
    "validation_batch",
    "num_pictures",
    "max_skipped",
    "patience",
    "num_devices",
    "fsdp",
    "row_shards",
    "remat",
    # Of a study, where each of these is a run of its own. There may be more
    # later, see `check`.
    "num_seeds",
    "variants",
    "folds",
    *processes.NAMES,
  )
)
# Of a run only the beginning depends on `init`, and it may grow.
_MAY_CHANGE_OF_RUN = _MAY_CHANGE | {
  "steps",
  "epochs",
  "init",
  "init_hha",
  "init_step",
}

# In config.json, beside the groups of options.
_ID = "id"


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other programs from a folder, from the first check to the end.

  With several processes all call it, and process 0 holds the folder. It is made
  if need be, and what killed programs have left in it is removed.

  Raises:
    ValueError: in all processes, if it is a file, nothing can be written there,
      or another program holds it.
  """
  with contextlib.ExitStack() as resources:
    problem = None
    if processes.is_first():
      try:
        if folder.exists() and not folder.is_dir():
          raise ValueError(f"{folder} is a file; give a folder.")
        resources.enter_context(holding.held(folder))
        writing.remove_left_overs(folder)
      except (ValueError, OSError) as error:
        problem = str(error)
    if problem := processes.gather(problem)[0]:
      raise ValueError(problem)
    yield


def check_results(
  folder: pathlib.Path, names: Sequence[str], *, overwrite: bool, option: str
) -> None:
  """Checks that results can be written, by `writing.together`, to a folder.

  Args:
    folder: where to.
    names: of the files.
    overwrite: whether they may replace others.
    option: that gives the folder.

  Raises:
    ValueError: if results exist and may not be replaced, or `folder` is a file.
  """
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"{folder} is a file; give a folder as {option}.")
  there = [name for name in names if (folder / name).exists()]
  if there and not overwrite and not writing.is_unfinished(folder, names):
    raise ValueError(
      f"{folder} already holds {', '.join(there)}: replace them with "
      f"--overwrite, or give another {option}."
    )


def check(
  config: config_lib.Groups,
  *,
  experiment: str = TRAIN,
  contents: Sequence[str] = CONTENTS,
) -> bool:
  """Checks that a run, or a study, can begin or resume in its work folder.

  Args:
    config: its options.
    experiment: what made the folder, as config.json says.
    contents: names of all files and folders that it makes.

  Returns:
    Whether there is a run to resume.

  Raises:
    ValueError: if the folder holds a run of other options, a longer run, a
      damaged one, or other files.
  """
  workdir = config.run.workdir
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"{workdir} is a file; give a folder as --workdir.")
  if not (workdir / CONFIG_FILE).exists():
    _check_no_config(workdir, contents, overwrite=config.run.overwrite)
    return False
  before = read_config(workdir, type(config), experiment=experiment)
  if config.run.overwrite:
    return False
  now, there = config_lib.flat(config), config_lib.flat(before)
  # Runs of a study may not have begun yet.
  may_change = _MAY_CHANGE_OF_RUN if experiment == TRAIN else _MAY_CHANGE
  changed = [
    f"{name} ({value} there, {now[name]} now)"
    for name, value in there.items()
    if name not in may_change and value != now[name]
  ]
  if changed:
    other = "another --workdir"
    if experiment == TRAIN:
      other = (
        f"--init {workdir} --workdir NEW to begin another run with its "
        "parameters"
      )
    raise ValueError(
      f"the run in {workdir} has other options: {', '.join(changed)}. Give the "
      f"same ones to resume it, {other}, or --overwrite to delete it and start "
      "again."
    )
  for name in ("steps", "num_seeds"):
    if name in there and now[name] < there[name]:
      what = name.removeprefix("num_")
      raise ValueError(
        f"the run in {workdir} has {there[name]} {what}; {what} may grow, but "
        f"{now[name]} are fewer: give another --workdir."
      )
  for name in ("variants", "folds"):
    # No variants stand for all of them.
    if not now.get(name):
      continue
    missing = sorted({*there[name]} - {*now[name]})
    if missing or not there[name]:
      raise ValueError(
        f"the run in {workdir} has these {name}: "
        f"{'; '.join(map(str, there[name])) or 'all'}. There may be more now, "
        "but none may be missing: give another --workdir."
      )
  return True


def _check_no_config(
  workdir: pathlib.Path, contents: Sequence[str], *, overwrite: bool
) -> None:
  """Raises a `ValueError` if a folder without config.json is in use."""
  there = os.listdir(workdir) if workdir.exists() else []
  # An earlier version that was killed at the beginning left a partial file.
  found = {
    name.removesuffix(".partial") for name in there if not holding.is_ours(name)
  }
  foreign = sorted(found - {*contents})
  if foreign:
    raise ValueError(
      f"{workdir} holds {foreign[0]}, which is not part of such a run and will "
      "not be touched: give another --workdir."
    )
  parts = sorted(found - {CONFIG_FILE})
  if parts and not overwrite:
    raise ValueError(
      f"{workdir} holds {parts[0]} of a run, but not its {CONFIG_FILE}: "
      "restore that file, delete the rest with --overwrite, or give another "
      "--workdir."
    )


def claim(
  config: config_lib.Groups,
  *,
  experiment: str = TRAIN,
  contents: Sequence[str] = CONTENTS,
  run_id: str | None = None,
) -> None:
  """Makes the work folder and writes the options there, by process 0.

  With --overwrite it first deletes what is there, so check everything else
  before; it waits until all processes have.

  Args:
    config: see `check`.
    experiment: see `check`.
    contents: see `check`.
    run_id: see `read_id`.

  Raises:
    ValueError: if the processes do not share the work folder.
  """
  processes.gather()
  if processes.is_first():
    _claim(config, experiment, contents, run_id)
  processes.check_shared(config.run.workdir / CONFIG_FILE)


def _claim(
  config: config_lib.Groups,
  experiment: str,
  contents: Sequence[str],
  run_id: str | None,
) -> None:
  workdir = config.run.workdir
  if config.run.overwrite:
    # Those of `fcn-jax evaluate` are of the run that is deleted.
    for summary in workdir.glob(f"evaluation-*/{SUMMARY_FILE}"):
      writing.remove(summary.parent)
    # Delete the options last, so that the remains still count as a run.
    ordered = sorted(contents, key=lambda name: name == CONFIG_FILE)
    for path in (workdir / name for name in ordered):
      writing.remove(path)
  workdir.mkdir(parents=True, exist_ok=True)
  there = as_json(config, experiment)
  if run_id is not None:
    there[_ID] = run_id
  records.write_json(workdir / CONFIG_FILE, there)


def as_json(
  config: config_lib.Groups, experiment: str = TRAIN
) -> dict[str, Any]:
  """All options, for `read_config`."""
  options = dataclasses.asdict(config)
  # Whether to delete a run, and who trains it, are no properties of the run.
  del options["run"]["overwrite"], options["processes"]
  options = {"experiment": experiment, **options}
  return json.loads(json.dumps(options, default=str))


def new_id() -> str:
  """A random id for a run; all processes have the same."""
  return processes.gather(secrets.token_hex(8))[0]


def read_id(workdir: pathlib.Path) -> str | None:
  """The id of the run in a folder, which its checkpoints have, too.

  Returns:
    The id; None in folders of earlier versions.

  Raises:
    ValueError: see `read_config`.
  """
  run_id = _read(workdir).get(_ID)
  if not isinstance(run_id, str | None):
    raise ValueError(
      f"{workdir / CONFIG_FILE} is damaged (its {_ID} is no text): repair it."
    )
  return run_id


def check_checkpoint(
  workdir: pathlib.Path,
  step: int,
  metadata: Mapping[str, Any],
  config: config_lib.Train,
) -> None:
  """Checks that a checkpoint is one of the run in a folder.

  Checkpoints of earlier versions say neither the id of their run nor, if
  `fcn-jax convert` made them, its options; then there is nothing to compare.

  Args:
    workdir: the folder.
    step: number of the step.
    metadata: of the checkpoint.
    config: the options of the run.

  Raises:
    ValueError: if it is of another run, or one with other options.
  """
  path = workdir / CHECKPOINTS / f"{step:08d}"
  if "run" in metadata and metadata["run"] != read_id(workdir):
    raise ValueError(
      f"{path} is not of the run in {workdir}, as the id in its manifest and "
      f"that in {CONFIG_FILE} differ: bring the one or the other back from a "
      "copy, or move the step away."
    )
  if "options" not in metadata:
    return
  options = metadata["options"]
  if isinstance(options, dict):
    options = {n: x for n, x in options.items() if n != "experiment"}
  there = config_lib.flat(_typed(options, type(config), path))
  now = config_lib.flat(config)
  changed = [
    f"{name} ({there[name]} in the checkpoint, {now[name]} in {CONFIG_FILE})"
    for name in now
    if name not in _MAY_CHANGE_OF_RUN and there[name] != now[name]
  ]
  if changed:
    raise ValueError(
      f"{path} is of a run with other options than {workdir / CONFIG_FILE} "
      f"says: {', '.join(changed)}. Bring the one or the other back from a "
      "copy."
    )


def read_config(
  workdir: pathlib.Path,
  kind: type = config_lib.Train,
  *,
  experiment: str = TRAIN,
) -> Any:
  """The options of the run or study in a work folder.

  Args:
    workdir: the folder.
    kind: class of the options.
    experiment: see `check`.

  Raises:
    ValueError: if there is none, it is of another kind or version, or its
      file is damaged.
  """
  file, options = workdir / CONFIG_FILE, _read(workdir)
  if options.pop("experiment", None) != experiment:
    raise ValueError(
      f"{file} is not from a run of {experiment}: give the work folder of one, "
      "or another --workdir."
    )
  options.pop(_ID, None)
  if "run" not in options:
    raise ValueError(
      f"{file} is from a version of fcn_jax before 0.2, which had other "
      "options: use the version that made it, or train again in another "
      "--workdir."
    )
  return _typed(options, kind, file)


def _read(workdir: pathlib.Path) -> dict[str, Any]:
  """What config.json says, if it says what was written."""
  file = workdir / CONFIG_FILE
  if not file.is_file():
    raise ValueError(
      f"{workdir} holds no run ({CONFIG_FILE} is not there): give the work "
      "folder of one."
    )
  return records.read_json(file)


def _typed(value: Any, kind: Any, file: pathlib.Path) -> Any:
  """Converts a value from JSON to the type of its option."""
  if dataclasses.is_dataclass(kind):
    if not isinstance(value, dict):
      raise ValueError(
        f"{file} is damaged ({reprs.shown(repr(value))} is not a group of"
        " options): repair it."
      )
    hints = typing.get_type_hints(kind)
    # This version may have more options than the file; those have defaults.
    unknown = [name[:80] for name in sorted(value.keys() - hints.keys())]
    if unknown:
      raise ValueError(
        f"{file} has options that this version does not know: "
        f"{', '.join(unknown[:8])}. Use the version that made it."
      )
    options = {n: _typed(v, hints[n], file) for n, v in value.items()}
    try:
      return kind(**options)
    except TypeError as error:
      raise ValueError(f"{file} is damaged ({error}): repair it.") from error
  is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
  kinds = typing.get_args(kind) if is_union else (kind,)
  if isinstance(value, str) and pathlib.Path in kinds:
    return pathlib.Path(value)
  if not any(_fits(value, one) for one in kinds):
    raise ValueError(
      f"{file} is damaged ({reprs.shown(repr(value))} is no value of an option"
      f" of the type {kind}): repair it."
    )
  return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, kind: Any) -> bool:
  """Whether a value from JSON can be of a type."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, one) for one in inner)
  if origin is typing.Literal:
    return value in inner
  if origin is tuple:
    if not isinstance(value, list):
      return False
    if inner[-1:] == (...,):
      inner = inner[:1] * len(value)
    return len(value) == len(inner) and all(map(_fits, value, inner))
  if kind is float:
    return type(value) in (int, float)
  # Paths are texts, which are handled before.
  known = (int, str, bool, type(None), pathlib.Path)
  return type(value) is kind if kind in known else True


def append_start(
  config: config_lib.Train,
  *,
  number: int,
  from_step: int,
  devices: Mapping[str, Any],
) -> None:
  """Adds a record to starts.jsonl, and one of kind "start" to metrics.jsonl.

  Args:
    config: the options.
    number: of this start.
    from_step: the step after which it goes on.
    devices: of `processes.describe`.
  """
  workdir, now = config.run.workdir, datetime.datetime.now(datetime.UTC)
  record = {
    "start": number,
    "from_step": from_step,
    "time": now.isoformat(timespec="seconds"),
    "command": sys.argv,
    "options": as_json(config),
    **environment.describe(),
    **devices,
  }
  records.append_json_line(workdir / STARTS_FILE, record)
  records.append_json_line(
    workdir / METRICS_FILE,
    {"kind": "start", "start": number, "step": from_step},
  )


def num_starts(workdir: pathlib.Path) -> int:
  """How often a run was started."""
  return len(records.read_json_lines(workdir / STARTS_FILE))


def read_scores(workdir: pathlib.Path) -> dict[int, float]:
  """The mean IU of each validated step, up to now; without NaN.

  Raises:
    ValueError: if a record has no mean IU, or something else in its place.
  """
  _, evaluations = read_records(workdir)
  scores = {}
  for one in evaluations:
    score = one.get("mean_iu", "nothing")
    if type(score) not in (float, int, type(None)):
      raise ValueError(
        f"{workdir / METRICS_FILE} is damaged (the evaluation of step"
        f" {one['step']} has {str(score)[:80]!a} as mean_iu): repair or remove"
        " the line."
      )
    if score is not None:
      scores[one["step"]] = score
  return scores


def read_records(
  workdir: pathlib.Path,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """The records of training and of validation, without repeated steps."""
  effective = records.effective(records.read_metrics(workdir / METRICS_FILE))
  kinds = ("train", "evaluation")
  return tuple([one for one in effective if one["kind"] == k] for k in kinds)
