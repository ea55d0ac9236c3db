"""The steps of a run on disk: the latest and the best.

A step is a folder such as `00000123`, which is complete or absent: its parts
are written to a hidden folder and synchronised with the disk, and a rename
comes last. See `step_folders` for what is in it.
"""

import concurrent.futures
import contextlib
import errno
import json
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import holding
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax import writing
from fcn_jax.runs import processes
from fcn_jax.runs import step_folders

Which = Literal["best", "latest"] | int

_PARTIAL = ".partial-"
_REMOVED = ".removed-"
_DAMAGED = "damaged-"


class Restored(NamedTuple):
  """What was saved at a step.

  Attributes:
    step: the step's number.
    state: NumPy arrays in the structure of the template.
    metadata: as it was given to `Checkpoints.save`, by way of JSON.
    mean_iu: the mean IU at this step; None if it was not scored.
  """

  step: int
  state: dict[str, types.Tree]
  metadata: dict[str, Any]
  mean_iu: float | None


class Checkpoints:
  """Writes the steps of a run to a folder, and finds the newest good one.

  Use it as a context manager: leaving the block waits for the save in progress,
  which would otherwise be lost when the program ends. Only one program at a
  time may write to a folder. If there are several processes, all make the same
  calls. Each writes what it has of the arrays, and process 0 the rest.

  Attributes:
    folder: where the steps are, an absolute path.
  """

  def __init__(self, folder: pathlib.Path, *, num_latest: int = 2):
    """Opens the folder for writing, and makes it if it is not there.

    Removes what a killed run has left half written or half deleted.

    Args:
      folder: where the steps are. Only a run writes there.
      num_latest: how many of the newest steps are kept, beside the best one.

    Raises:
      ValueError: if another program is writing to the folder, or if
        `num_latest` is less than 1.
    """
    if num_latest < 1:
      raise ValueError(f"num_latest is {num_latest}; it must be at least 1.")
    self.folder = pathlib.Path(folder).absolute()
    self._num_latest = num_latest
    self._is_writer = processes.is_first()
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._pending: concurrent.futures.Future[None] | None = None
    self._resources = contextlib.ExitStack()
    self._resources.callback(self._thread.shutdown)
    if self._is_writer:
      self.folder.mkdir(parents=True, exist_ok=True)
      self._resources.enter_context(
        holding.held_file(self.folder / writing.LOCK)
      )
      for prefix in (_PARTIAL, _REMOVED):
        for path in self.folder.glob(prefix + "*"):
          writing.remove(path)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def save(
    self,
    step: int,
    state: Mapping[str, types.Tree],
    *,
    metadata: Mapping[str, Any],
  ) -> None:
    """Copies the state, and has it written in the background.

    Waits for the save before this one. When this returns the state may be
    changed or donated. Older steps are removed after this one is in place.

    Args:
      step: number of the step; larger than that of the newest one.
      state: arrays by name, such as those of `TrainState`. A name must be valid
        for a file; random keys are saved as their `jax.random.key_data`.
      metadata: what to keep beside the arrays, as JSON: configuration, class
        table, position in the data.

    Raises:
      ValueError: if an array is not finite, naming it, or if `step` is not
        larger than that of the newest one. Nothing is written then.
      OSError: if the save before this one failed, see `wait`. This step is not
        saved then.
    """
    self.wait()
    newest = max(self.steps(), default=-1)
    if step <= newest:
      raise ValueError(
        f"{self.folder} has step {newest} already, and step {step} is not "
        "after it: save to another folder, or move the newer steps away."
      )
    arrays = {
      name: step_folders.host_copies(name, tree) for name, tree in state.items()
    }
    # Each process sees its own part of the arrays.
    for problem in processes.gather(_not_finite(step, arrays)):
      if problem is not None:
        raise ValueError(problem)
    facts = {
      "step": int(step),
      # This also copies it, and fails now if it is not JSON.
      "metadata": json.loads(json.dumps(metadata, allow_nan=False)),
    }
    self._pending = self._thread.submit(self._save, arrays, facts)

  def score(self, step: int, mean_iu: float) -> None:
    """Scores a saved step; the best one is kept.

    Waits for the save in progress. The score is stored with the step.

    Args:
      step: number of a step that is on disk.
      mean_iu: decides which step is best. NaN is never best.

    Raises:
      ValueError: if there is no such step, or its manifest is damaged.
      OSError: if the save failed, see `wait`, or the score cannot be written.
    """
    self.wait()
    # Another process may not see yet what process 0 has saved.
    if not self._is_writer:
      return
    if step not in self.steps():
      raise ValueError(
        f"{self.folder} has no step {step} to score; there are {self.steps()}."
      )
    if math.isfinite(mean_iu):
      step_folders.write_score(_path(self.folder, step), float(mean_iu))
    self._remove_old()

  def wait(self) -> None:
    """Waits until the last save is on disk.

    Raises:
      OSError: if it failed; the message names the step and the newest good one.
        Earlier steps are unchanged. It is raised only once.
    """
    if self._pending is None:
      return
    concurrent.futures.wait([self._pending])
    pending, self._pending = self._pending, None
    pending.result()

  def close(self) -> None:
    """Waits for the last save, and lets others write to the folder.

    Raises:
      OSError: if the save failed, see `wait`.
    """
    with self._resources:
      self.wait()

  def steps(self) -> tuple[int, ...]:
    """The steps that are on disk now, the newest last."""
    return _steps(self.folder)

  def best(self) -> int | None:
    """The step on disk with the highest mean IU; None if none has one."""
    return _best_of(self._scores())

  def restore_latest(
    self, template: Mapping[str, types.Tree]
  ) -> Restored | None:
    """Restores the newest step that is not damaged.

    Every file of the step is verified. A damaged step is set aside, with a
    warning: its folder is renamed to `damaged-...`, and never removed.

    Args:
      template: arrays or `jax.ShapeDtypeStruct`s like those that were saved,
        under all their names or some.

    Returns:
      The step, or None if none was ever saved here. Its arrays are on the host.

    Raises:
      ValueError: if the template does not fit, naming the arrays, or if all
        steps are damaged.
    """
    self.wait()
    # Process 0 decides, as another may not see all changes of the folder yet.
    steps = processes.gather(self.steps())[0]
    for step in reversed(steps):
      path = _path(self.folder, step)
      restored = damage = None
      try:
        manifest = step_folders.read_manifest(path)
        if self._is_writer:
          step_folders.verify(path, manifest, manifest["arrays"])
        restored = _restored(path, manifest, template)
      except step_folders.DamagedError as error:
        damage = str(error)
      damages = [one for one in processes.gather(damage) if one is not None]
      if not damages:
        mean_iu = processes.gather(restored.mean_iu)[0]
        return restored._replace(mean_iu=mean_iu)
      if self._is_writer:
        aside = self._set_aside(path)
        warnings.warn(
          f"{reprs.printable(damages[0])} It is set aside as {aside.name}, and "
          "the step before it is used.",
          stacklevel=2,
        )
    if steps or any(self.folder.glob(_DAMAGED + "*")):
      raise ValueError(
        f"All steps in {self.folder} are damaged, and set aside as "
        f"{_DAMAGED}...: bring a step back from a copy, or move these away to "
        "start anew."
      )
    return None

  def _save(
    self, arrays: dict[str, step_folders.HostArrays], facts: dict[str, Any]
  ) -> None:
    """Writes a step and removes old ones; runs in the background.

    If it fails in one process, the others wait until `watch` ends them.
    """
    step = facts["step"]
    partial = self.folder / f"{_PARTIAL}{step:08d}"
    try:
      # Orbax would report this at length, from many threads.
      _check_room(self.folder, arrays)
      step_folders.write(partial, arrays, facts)
      if self._is_writer:
        os.rename(partial, _path(self.folder, step))
        writing.sync(self.folder)
      processes.gather(channel=step_folders.CHANNEL)
    # TensorStore has exceptions of several types for a full disk.
    except Exception as error:
      shutil.rmtree(partial, ignore_errors=True)
      newest = max(self.steps(), default="none")
      raise OSError(
        f"Step {step} could not be saved in {self.folder} (newest good step: "
        f"{newest}). Make room if the disk is full, and start again. {error}"
      ) from error
    if self._is_writer:
      self._remove_old()

  def _remove_old(self) -> None:
    """Removes steps that are neither among the newest nor the best."""
    scores = self._scores()
    kept = {*self.steps()[-self._num_latest :], _best_of(scores)}
    for old in sorted(scores.keys() - kept):
      removed = self.folder / f"{_REMOVED}{old:08d}"
      os.rename(_path(self.folder, old), removed)
      shutil.rmtree(removed)

  def _scores(self) -> dict[int, float | None]:
    """Mean IU of each step, without steps whose score is damaged."""
    scores = {}
    for step in self.steps():
      with contextlib.suppress(step_folders.DamagedError):
        scores[step] = step_folders.read_score(_path(self.folder, step))
    return scores

  def _set_aside(self, path: pathlib.Path) -> pathlib.Path:
    """Renames a damaged step, to a name that no other one has."""
    number = 1
    aside = path.with_name(_DAMAGED + path.name)
    while aside.exists():
      number += 1
      aside = path.with_name(f"{_DAMAGED}{path.name}-{number}")
    os.rename(path, aside)
    writing.sync(self.folder)
    return aside


def read(
  folder: pathlib.Path, which: Which, template: Mapping[str, types.Tree]
) -> Restored:
  """Reads a step, and changes nothing; a run may be writing meanwhile.

  Args:
    folder: of a `Checkpoints`.
    which: "best" (by mean IU), "latest", or a step's number.
    template: arrays or `jax.ShapeDtypeStruct`s like those that were saved. Only
      the names in it are read, and all their files are verified.

  Returns:
    The step. Its arrays are on the host.

  Raises:
    ValueError: if there is no such step, if it is damaged, or if the template
      does not fit, naming the arrays.
  """
  folder = pathlib.Path(folder).absolute()
  while True:
    steps = _steps(folder)
    try:
      path = _path(folder, _choose(folder, which))
      manifest = step_folders.read_manifest(path)
      step_folders.verify(path, manifest, template)
      return _restored(path, manifest, template)
    except ValueError:
      # Perhaps nothing is wrong except that a run has just removed the step.
      if set(steps) <= set(_steps(folder)):
        raise


def read_metadata(
  folder: pathlib.Path, which: Which
) -> tuple[int, dict[str, Any], float | None]:
  """Reads all of a step except its arrays.

  Args:
    folder: see `read`.
    which: see `read`.

  Returns:
    Number, metadata and mean IU of the step.

  Raises:
    ValueError: if there is no such step, or its manifest is damaged.
  """
  restored = read(folder, which, {})
  return restored.step, restored.metadata, restored.mean_iu


def scores(folder: pathlib.Path) -> dict[int, float | None]:
  """The mean IU of each step in a folder, None where it was not scored.

  Args:
    folder: see `read`.

  Raises:
    ValueError: if a score is damaged, or the manifest of a step.
  """
  folder = pathlib.Path(folder).absolute()
  return {
    step: step_folders.read_score(_path(folder, step))
    for step in _steps(folder)
  }


def num_bytes(state: types.Tree) -> int:
  """Bytes of all arrays together; on disk a step is about as large."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
  return folder / f"{step:08d}"


def _steps(folder: pathlib.Path) -> tuple[int, ...]:
  """The steps in a folder, sorted; none if there is no such folder."""
  names = os.listdir(folder) if folder.is_dir() else ()
  steps = [int(name) for name in names if name.isdecimal()]
  return tuple(sorted(x for x in steps if _path(folder, x).name in names))


def _best_of(scores: Mapping[int, float | None]) -> int | None:
  """The step with the highest mean IU, the newest one if there are several."""
  scored = [(x, step) for step, x in scores.items() if x is not None]
  return max(scored)[1] if scored else None


def _choose(folder: pathlib.Path, which: Which) -> int:
  """The number of the step that is asked for."""
  steps = _steps(folder)
  if not steps:
    raise ValueError(
      f"{folder} has no step: give the checkpoints' folder of a run that has "
      "saved one."
    )
  if which == "latest":
    return steps[-1]
  if which == "best":
    best = _best_of(scores(folder))
    if best is None:
      raise ValueError(
        f"No step in {folder} has a mean IU, so none is the best: ask for "
        f'"latest", or one of {steps}.'
      )
    return best
  if which not in steps:
    raise ValueError(
      f'{folder} has no step {which!r}: ask for "best", "latest", or one of '
      f"{steps}."
    )
  return which


def _restored(
  path: pathlib.Path,
  manifest: Mapping[str, Any],
  template: Mapping[str, types.Tree],
) -> Restored:
  return Restored(
    step=manifest["step"],
    state=step_folders.restore(path, manifest, template),
    metadata=manifest["metadata"],
    mean_iu=step_folders.read_score(path),
  )


def _not_finite(
  step: int, arrays: Mapping[str, step_folders.HostArrays]
) -> str | None:
  """What is wrong if an array is not finite, as far as this process has it."""
  for named in arrays.values():
    for name, array in named.items():
      if not jnp.issubdtype(array.dtype, jnp.inexact):
        continue
      parts = step_folders.own_parts(array)
      if not all(np.isfinite(part).all() for _, part in parts):
        return (
          f"{name} is not finite at step {step}, so this step is not saved: "
          "continue from an earlier step, with a lower learning rate or with "
          "clipped gradients."
        )
  return None


def _check_room(
  folder: pathlib.Path, arrays: Mapping[str, step_folders.HostArrays]
) -> None:
  needed, free = num_bytes(arrays), shutil.disk_usage(folder).free
  if free < needed:
    raise OSError(
      errno.ENOSPC,
      f"No space left on device: {needed / 1e6:.1f} MB are needed, and "
      f"{free / 1e6:.1f} MB free",
    )
