"""The state of a run on disk, safe from kills and from damaged files.

A step is a folder, `00000123`, which is there whole or not at all:

    manifest.json      step, metadata, mean IU; what each array and file was
    manifest.sha256    the checksum of manifest.json, as `sha256sum` writes it
    params/ ...        arrays, an Orbax checkpoint for each name of the state

Its parts are written to a hidden folder, synchronised with the disk, and given
their name by one rename, the last act. Arrays have their checksum taken before
they are written and files after that, so what a restore accepts is to the bit
what was handed to `Checkpoints.save`.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

Which = Literal["best", "latest"] | int

_MANIFEST = "manifest.json"
_CHECKSUM = "manifest.sha256"
_PARTIAL = ".partial-"
_REMOVED = ".removed-"
_DAMAGED = "damaged-"


class Restored(NamedTuple):
  """What was saved at a step.

  Attributes:
    step: the step's number.
    state: NumPy arrays in the structure of the template.
    metadata: as it was given to `Checkpoints.save`, by way of JSON.
    mean_iu: the mean IU at this step; None if there was none.
  """

  step: int
  state: dict[str, chex.ArrayTree]
  metadata: dict[str, Any]
  mean_iu: float | None


class _DamagedError(ValueError):
  """A step is not what was written."""


class Checkpoints:
  """Writes the steps of a run to a folder, and finds the newest good one.

  Use it as a context manager: leaving the block waits for the save that is
  under way, which otherwise is lost when the program ends. One at a time may
  write to a folder. Of several processes all make the same calls, with arrays
  that are whole on each of them (replicated), and process 0 alone writes.

  Attributes:
    folder: where the steps are, an absolute path.
  """

  def __init__(self, folder: pathlib.Path, *, num_latest: int = 2):
    """Opens the folder for writing, and makes it if it is not there.

    What a killed run has left half written or half removed is removed.

    Args:
      folder: where the steps are. Only a run writes there.
      num_latest: how many of the newest steps are kept, beside the best one.

    Raises:
      ValueError: if another program is writing to the folder, or if
        `num_latest` is less than 1.
    """
    if num_latest < 1:
      raise ValueError(f"num_latest is {num_latest}; it is at least 1.")
    self.folder = pathlib.Path(folder).absolute()
    self._num_latest = num_latest
    self._is_writer = jax.process_index() == 0
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._pending: concurrent.futures.Future[None] | None = None
    self._resources = contextlib.ExitStack()
    self._resources.callback(self._thread.shutdown)
    if self._is_writer:
      self.folder.mkdir(parents=True, exist_ok=True)
      self._resources.enter_context(_lock(self.folder))
      for prefix in (_PARTIAL, _REMOVED):
        for path in self.folder.glob(prefix + "*"):
          shutil.rmtree(path)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def save(
    self,
    step: int,
    state: Mapping[str, chex.ArrayTree],
    *,
    metadata: Mapping[str, Any],
    mean_iu: float | None = None,
  ) -> None:
    """Copies the state, and has it written in the background.

    Waits for the save before this one. When this returns the state may be
    changed or donated. Older steps are removed after this one is in place.

    Args:
      step: number of the step; larger than that of the newest one.
      state: arrays by name, such as those of `TrainState`. A name is one that
        a file may have; random keys are saved as their `jax.random.key_data`.
      metadata: what is to be kept beside the arrays, as JSON: configuration,
        class table, place in the data.
      mean_iu: by which the best step is chosen. None or NaN is never best.

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
    arrays = {name: _host_arrays(name, tree) for name, tree in state.items()}
    _check_finite(step, arrays)
    # As text, so that the caller may change it while the arrays are written.
    manifest = json.dumps(
      {
        "step": int(step),
        "mean_iu": _finite_or_none(mean_iu),
        "metadata": metadata,
      },
      allow_nan=False,
    )
    if self._is_writer:
      self._pending = self._thread.submit(
        self._save, int(step), arrays, json.loads(manifest)
      )

  def wait(self) -> None:
    """Waits until the last save is on disk.

    Raises:
      OSError: if it failed, with the step and the newest good one. It is
        raised once; earlier steps are as they were.
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
    return _best_of(self._mean_ius())

  def restore_latest(
    self, template: Mapping[str, chex.ArrayTree]
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
    steps = self.steps()
    for step in reversed(steps):
      path = _path(self.folder, step)
      try:
        manifest = _read_manifest(path)
        _check_template(path, manifest, template)
        _verify_files(path, manifest, manifest["arrays"])
        return _restore(path, manifest, template)
      except _DamagedError as damage:
        if self._is_writer:
          aside = self._set_aside(path)
          warnings.warn(
            f"{damage} It is set aside as {aside.name}, and the step before "
            "it is used.",
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
    self,
    step: int,
    arrays: dict[str, dict[str, np.ndarray]],
    manifest: dict[str, Any],
  ) -> None:
    """Writes a step and removes old ones; runs in the background."""
    partial = self.folder / f"{_PARTIAL}{step:08d}"
    try:
      _write_step(partial, arrays, manifest)
      os.rename(partial, _path(self.folder, step))
      _sync(self.folder)
    # TensorStore has exceptions of several types for a full disk.
    except Exception as error:
      shutil.rmtree(partial, ignore_errors=True)
      newest = max(self.steps(), default=None)
      raise OSError(
        f"Step {step} could not be saved in {self.folder}: {error} "
        + (
          "No step is saved. "
          if newest is None
          else f"The newest step is {newest}. "
        )
        + "Make room on the disk if it is full, and run again."
      ) from error
    mean_ius = self._mean_ius()
    kept = {*self.steps()[-self._num_latest :], _best_of(mean_ius)}
    for old in sorted(mean_ius.keys() - kept):
      removed = self.folder / f"{_REMOVED}{old:08d}"
      os.rename(_path(self.folder, old), removed)
      shutil.rmtree(removed)

  def _mean_ius(self) -> dict[int, float | None]:
    """Mean IU of each step, without those whose manifest is damaged."""
    mean_ius = {}
    for step in self.steps():
      with contextlib.suppress(_DamagedError):
        mean_ius[step] = _read_manifest(_path(self.folder, step))["mean_iu"]
    return mean_ius

  def _set_aside(self, path: pathlib.Path) -> pathlib.Path:
    """Renames a damaged step, to a name that no other one has."""
    number = 1
    aside = path.with_name(_DAMAGED + path.name)
    while aside.exists():
      number += 1
      aside = path.with_name(f"{_DAMAGED}{path.name}-{number}")
    os.rename(path, aside)
    _sync(self.folder)
    return aside


def read(
  folder: pathlib.Path, which: Which, template: Mapping[str, chex.ArrayTree]
) -> Restored:
  """Reads a step, and changes nothing; a run may be writing meanwhile.

  Args:
    folder: of a `Checkpoints`.
    which: "best" (by mean IU), "latest", or a step's number.
    template: arrays or `jax.ShapeDtypeStruct`s like those that were saved.
      Names that it has not are not read; of those it has, all is verified.

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
      manifest = _read_manifest(path)
      _check_template(path, manifest, template)
      _verify_files(path, manifest, template)
      return _restore(path, manifest, template)
    except ValueError:
      # If a run has removed a step meanwhile, that may be all that is wrong.
      if set(steps) <= set(_steps(folder)):
        raise


def read_metadata(
  folder: pathlib.Path, which: Which
) -> tuple[int, dict[str, Any], float | None]:
  """Reads what is beside the arrays of a step, and none of the arrays.

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


def num_bytes(state: chex.ArrayTree) -> int:
  """Bytes of all arrays together; on disk a step is about as large."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
  return folder / f"{step:08d}"


def _steps(folder: pathlib.Path) -> tuple[int, ...]:
  """The steps in a folder, sorted; none if there is no such folder."""
  names = os.listdir(folder) if folder.is_dir() else ()
  steps = [int(name) for name in names if name.isdecimal()]
  return tuple(sorted(x for x in steps if _path(folder, x).name in names))


def _best_of(mean_ius: Mapping[int, float | None]) -> int | None:
  """The step with the highest mean IU, the newest one if there are several."""
  scored = [(x, step) for step, x in mean_ius.items() if x is not None]
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
    best = _best_of(
      {step: _read_manifest(_path(folder, step))["mean_iu"] for step in steps}
    )
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


def _host_arrays(name: str, tree: chex.ArrayTree) -> dict[str, np.ndarray]:
  """Copies of arrays by their full names, `params['score']['kernel']`."""
  # They become folders, beside the manifest.
  if not name.isidentifier():
    raise ValueError(
      f"{name!r} cannot be a name in a checkpoint: use letters, digits and _."
    )
  # A view of a device's memory, as np.asarray gives it on a CPU, would change
  # when the memory is donated.
  return {
    key: np.array(leaf, order="C") for key, leaf in _named(name, tree).items()
  }


def _named(name: str, tree: chex.ArrayTree) -> dict[str, Any]:
  """Leaves of a tree by their full names, in the order of the tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {name + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _check_finite(
  step: int, arrays: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
  for named in arrays.values():
    for name, array in named.items():
      is_inexact = jnp.issubdtype(array.dtype, jnp.inexact)
      if is_inexact and not np.isfinite(array).all():
        raise ValueError(
          f"{name} is not finite at step {step}, which is therefore not saved: "
          "go on from an earlier step, with a lower learning rate or with "
          "clipped gradients."
        )


def _finite_or_none(value: float | None) -> float | None:
  if value is None or not math.isfinite(value):
    return None
  return float(value)


def _write_step(
  folder: pathlib.Path,
  arrays: Mapping[str, Mapping[str, np.ndarray]],
  manifest: Mapping[str, Any],
) -> None:
  """Writes all parts of a step to a new folder, and waits for the disk."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  array_records = {
    name: {key: _array_record(array) for key, array in named.items()}
    for name, named in arrays.items()
  }
  with _checkpointer() as checkpointer:
    for name, named in arrays.items():
      # Orbax takes neither empty arrays nor empty trees.
      stored = {key: array for key, array in named.items() if array.size}
      if stored:
        checkpointer.save(folder / name, stored)
  paths = sorted(folder.rglob("*"))
  manifest = {
    **manifest,
    "arrays": array_records,
    "files": {
      path.relative_to(folder).as_posix(): _file_record(path)
      for path in paths
      if path.is_file()
    },
  }
  text = json.dumps(manifest, allow_nan=False, indent=1).encode()
  (folder / _MANIFEST).write_bytes(text)
  (folder / _CHECKSUM).write_bytes(_checksum_line(text))
  for path in (*paths, folder / _MANIFEST, folder / _CHECKSUM, folder):
    _sync(path)


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
  """What a step's manifest says, once it is verified."""
  try:
    text = (path / _MANIFEST).read_bytes()
    checksum = (path / _CHECKSUM).read_bytes()
  except OSError as error:
    raise _DamagedError(f"{path} is damaged: {error}.") from error
  if checksum != _checksum_line(text):
    raise _DamagedError(
      f"{path} is damaged: {_MANIFEST} does not have the checksum that "
      f"{_CHECKSUM} says."
    )
  return json.loads(text)


def _check_template(
  path: pathlib.Path,
  manifest: Mapping[str, Any],
  template: Mapping[str, chex.ArrayTree],
) -> None:
  """Raises if the arrays that are wanted are not those that were saved."""
  problems = []
  for name, tree in template.items():
    saved = {
      key: (tuple(record["shape"]), record["dtype"])
      for key, record in manifest["arrays"].get(name, {}).items()
    }
    wanted = {
      key: (tuple(leaf.shape), str(leaf.dtype))
      for key, leaf in _named(name, tree).items()
    }
    for key in sorted(saved.keys() | wanted.keys()):
      if saved.get(key) != wanted.get(key):
        problems.append(
          f"{key} is {_describe(saved.get(key))} there and "
          f"{_describe(wanted.get(key))} here"
        )
  if problems:
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise ValueError(
      f"{path} is of another network or optimizer: "
      f"{'; '.join(problems[:5])}{more}. Build them as they were for the run; "
      "its configuration is in the metadata."
    )


def _describe(shape_and_dtype: tuple[tuple[int, ...], str] | None) -> str:
  if shape_and_dtype is None:
    return "absent"
  shape, dtype = shape_and_dtype
  return f"{dtype} {list(shape)}"


def _verify_files(
  path: pathlib.Path, manifest: Mapping[str, Any], names: Iterable[str]
) -> None:
  """Raises if a file under one of the names is not as it was written."""
  names = set(names)
  for file, record in manifest["files"].items():
    if file.split("/")[0] not in names:
      continue
    try:
      found = _file_record(path / file)
    except OSError as error:
      raise _DamagedError(f"{path} is damaged: {error}.") from error
    if found != record:
      raise _DamagedError(
        f"{path} is damaged: {file} has {found['size']} bytes, and not the "
        f"{record['size']} bytes that were written, or others than these."
      )


def _restore(
  path: pathlib.Path,
  manifest: Mapping[str, Any],
  template: Mapping[str, chex.ArrayTree],
) -> Restored:
  """Reads the template's arrays, once the files are verified."""
  state = {}
  with _checkpointer() as checkpointer:
    for name, tree in template.items():
      records = manifest["arrays"].get(name, {})
      arrays = {
        key: np.zeros(record["shape"], record["dtype"])
        for key, record in records.items()
        if not math.prod(record["shape"])
      }
      if len(arrays) < len(records):
        try:
          arrays.update(checkpointer.restore(path / name))
        # Of many types. The files are whole, so the step is not to blame.
        except Exception as error:
          raise ValueError(
            f"{path} is as it was written, but Orbax cannot read it: {error}. "
            "Use the version of orbax-checkpoint that it was written with."
          ) from error
      for key, record in records.items():
        if _array_record(arrays[key]) != record:
          raise _DamagedError(
            f"{path} is damaged: {key} is not the array that was saved."
          )
      state[name] = jax.tree.unflatten(
        jax.tree.structure(tree), [arrays[key] for key in _named(name, tree)]
      )
  return Restored(
    manifest["step"], state, manifest["metadata"], manifest["mean_iu"]
  )


def _checkpointer() -> ocp.Checkpointer:
  """Orbax for this process alone: it shall not wait for the others."""
  process = jax.process_index()
  options = ocp.options.MultiprocessingOptions(
    primary_host=process,
    active_processes={process},
    barrier_sync_key_prefix=f"process_{process}",
  )
  return ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
    multiprocessing_options=options,
  )


def _array_record(array: np.ndarray) -> dict[str, Any]:
  return {
    "shape": list(array.shape),
    "dtype": str(array.dtype),
    # bfloat16 has no buffer of its own that hashlib would take.
    "sha256": hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest(),
  }


def _file_record(path: pathlib.Path) -> dict[str, Any]:
  with path.open("rb") as file:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": file.tell(), "sha256": sha256}


def _checksum_line(manifest: bytes) -> bytes:
  """What `sha256sum manifest.json` prints."""
  return f"{hashlib.sha256(manifest).hexdigest()}  {_MANIFEST}\n".encode()


def _sync(path: pathlib.Path) -> None:
  """Waits until a file or a folder's list of names is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other programs from writing; ends with the program, however."""
  with (folder / ".lock").open("w") as file:
    try:
      # Not flock, which a killed run's worker processes would go on holding.
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
      raise ValueError(
        f"Another program is writing to {folder}: wait for it, or choose "
        "another folder."
      ) from error
    # On file systems without locks it is up to the user.
    except OSError:
      pass
    yield
