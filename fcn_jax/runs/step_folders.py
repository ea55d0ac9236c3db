"""One saved step: a folder of arrays with checksums that reveal damage.

    manifest.json      what each array and each file was, and the caller's facts
    manifest.sha256    the checksum of manifest.json, as `sha256sum` writes it
    params/ ...        arrays: an Orbax checkpoint for each name of the state
    score.json         the mean IU, once it is known, with the checksum of
                       manifest.json and one of its own

The checksums of arrays are computed before the arrays are written, those of
files afterwards. So restored arrays are, to the bit, those that were saved, and
files can be checked without being restored. The manifest holds the number of
the step, so a folder that was renamed is none; the score is that of one
manifest. Steps of earlier versions, whose manifests have no format, have scores
without the manifest's checksum.

Several processes write a step together, each its parts of the arrays. Any
number of processes can read it.
"""

import contextlib
import hashlib
import json
import logging
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fcn_jax import strict_json
from fcn_jax import types
from fcn_jax import writing
from fcn_jax.runs import manifests
from fcn_jax.runs import processes

# Of `processes.gather`, while a step is written.
CHANNEL = "checkpoints"

_MANIFEST = "manifest.json"
_CHECKSUM = "manifest.sha256"
_SCORE = "score.json"
# Since version 2 a score belongs to a manifest.
_FORMAT = 2
# Manifests of the largest networks have less than 1 MB.
_MAX_MANIFEST = 64 << 20
_MAX_SCORE = 4096

# Arrays of one name of the state, by their full names. With several processes
# they are `jax.Array`s in the memory of the hosts, of which each has its parts.
HostArrays = dict[str, np.ndarray | jax.Array]


class DamagedError(ValueError):
  """A step differs from what was written."""


def host_copies(name: str, tree: types.Tree) -> HostArrays:
  """Copies the arrays of a tree to the host.

  Args:
    name: name of the tree in the state. It becomes a folder.
    tree: arrays. With several processes, over the devices of all.

  Returns:
    The copies by their full names, such as `params['score']['kernel']`.

  Raises:
    ValueError: if the name has other characters than letters, digits and _.
  """
  if not name.isidentifier():
    raise ValueError(
      f"{name!r} cannot be a name in a checkpoint: use letters, digits and _."
    )
  named = _named(name, tree)
  if processes.count() > 1:
    copies = {
      key: jax.device_put(leaf, leaf.sharding.with_memory_kind("pinned_host"))
      for key, leaf in named.items()
    }
    return jax.block_until_ready(copies)
  # On a CPU np.asarray gives a view of the device's memory, which changes when
  # that is donated.
  return {key: np.array(leaf, order="C") for key, leaf in named.items()}


def own_parts(
  array: np.ndarray | jax.Array,
) -> list[tuple[list[list[int]], np.ndarray]]:
  """The parts of an array that this process writes, and where they lie in it.

  Returns:
    For each part, the first and the last index plus one on each axis.
  """
  if isinstance(array, np.ndarray):
    return [([[0, side] for side in array.shape], array)]
  return [
    (
      [
        [*span.indices(side)[:2]]
        for span, side in zip(shard.index, array.shape, strict=True)
      ],
      np.asarray(shard.data),
    )
    for shard in array.addressable_shards
    if shard.replica_id == 0
  ]


def write(
  folder: pathlib.Path,
  arrays: Mapping[str, HostArrays],
  facts: Mapping[str, Any],
) -> None:
  """Writes a step to a new folder; it is on the disk when this returns.

  With several processes, all call it, and it is complete in process 0 only.

  Args:
    folder: is made; what a failure left there before is removed.
    arrays: `host_copies` by the names of the state.
    facts: what the manifest is to hold besides, as JSON.
  """
  if processes.is_first():
    writing.remove(folder)
    folder.mkdir()
  own = {
    name: {key: _own_checksums(array) for key, array in named.items()}
    for name, named in arrays.items()
  }
  checksums = processes.gather(own, channel=CHANNEL)
  records = {
    name: {
      key: _array_record(
        array, [x for one in checksums for x in one[name][key]]
      )
      for key, array in named.items()
    }
    for name, named in arrays.items()
  }
  with _checkpointer(range(processes.count())) as checkpointer:
    for name, named in arrays.items():
      # Orbax takes neither arrays without elements nor trees without arrays.
      stored = {key: array for key, array in named.items() if array.size}
      if stored:
        checkpointer.save(folder / name, stored)
  if not processes.is_first():
    return
  written = sorted(folder.rglob("*"))
  files = {
    path.relative_to(folder).as_posix(): _file_record(path)
    for path in written
    if path.is_file()
  }
  manifest = json.dumps(
    {**facts, "format": _FORMAT, "arrays": records, "files": files},
    allow_nan=False,
    indent=1,
  ).encode()
  (folder / _MANIFEST).write_bytes(manifest)
  (folder / _CHECKSUM).write_bytes(_checksum_line(manifest))
  for path in (*written, folder / _MANIFEST, folder / _CHECKSUM, folder):
    writing.sync(path)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """Reads what a step holds.

  Args:
    folder: of the step; its name is the step's number.

  Returns:
    The facts that were given to `write`, and `arrays` and `files`.

  Raises:
    DamagedError: if the manifest cannot be read, is not as it was written, or
      is that of another step.
  """
  manifest, _ = _read_manifest(folder)
  return manifest


def _read_manifest(folder: pathlib.Path) -> tuple[dict[str, Any], str]:
  """The manifest, and its checksum."""
  content = _content(folder / _MANIFEST, _MAX_MANIFEST)
  if _content(folder / _CHECKSUM, _MAX_SCORE) != _checksum_line(content):
    raise DamagedError(
      f"{folder} is damaged: {_MANIFEST} and {_CHECKSUM} do not agree."
    )
  try:
    manifest = strict_json.loads(content)
    manifests.check(manifest)
  except ValueError as error:
    raise DamagedError(f"{folder} is damaged: {_MANIFEST}: {error}.") from error
  name = f"{manifest['step']:08d}"
  if folder.name != name:
    raise DamagedError(
      f"{folder} is damaged: {_MANIFEST} is that of step {manifest['step']}, "
      f"so the folder was renamed or copied; its name was {name}."
    )
  return manifest, hashlib.sha256(content).hexdigest()


def _content(path: pathlib.Path, max_size: int) -> bytes:
  """The bytes of a file that is not large."""
  try:
    with path.open("rb") as file:
      content = file.read(max_size + 1)
  except OSError as error:
    raise DamagedError(f"{path.parent} is damaged: {error}.") from error
  if len(content) > max_size:
    raise DamagedError(
      f"{path.parent} is damaged: {path.name} has more than {max_size} bytes."
    )
  return content


def write_score(folder: pathlib.Path, mean_iu: float) -> None:
  """Adds the mean IU to a step, whole or not at all.

  Raises:
    DamagedError: if the step's manifest is damaged.
    OSError: if it cannot be written.
  """
  text = _score_text(mean_iu, _of_score(*_read_manifest(folder)))
  writing.write_text(folder / _SCORE, text)


def read_score(folder: pathlib.Path) -> float | None:
  """Reads the mean IU of a step; None if it was not scored.

  Raises:
    DamagedError: if it is not as it was written, is that of another step, or
      the step's manifest is damaged.
  """
  if not folder.exists():
    raise DamagedError(f"{folder} has been removed.")
  of_step = _of_score(*_read_manifest(folder))
  if not (folder / _SCORE).exists():
    return None
  content = _content(folder / _SCORE, _MAX_SCORE)
  try:
    score = strict_json.loads(content)
    manifests.check_score(score)
  except ValueError as error:
    raise DamagedError(f"{folder} is damaged: {_SCORE}: {error}.") from error
  if content != _score_text(score["mean_iu"], of_step).encode():
    raise DamagedError(
      f"{folder} is damaged: {_SCORE} is not as written for this step."
    )
  return score["mean_iu"]


def verify(
  folder: pathlib.Path, manifest: Mapping[str, Any], names: Iterable[str]
) -> None:
  """Compares the files of some names of the state with the manifest.

  Raises:
    DamagedError: naming a file that is not as it was written.
  """
  names = set(names)
  for file, record in manifest["files"].items():
    if file.split("/")[0] not in names:
      continue
    try:
      found = _file_record(folder / file)
    except OSError as error:
      raise DamagedError(f"{folder} is damaged: {error}.") from error
    if found["size"] != record["size"]:
      raise DamagedError(
        f"{folder} is damaged: {file} has {found['size']} bytes instead of "
        f"{record['size']}."
      )
    if found != record:
      raise DamagedError(
        f"{folder} is damaged: the bytes of {file} are not those written."
      )


def restore(
  folder: pathlib.Path,
  manifest: Mapping[str, Any],
  template: Mapping[str, types.Tree],
) -> dict[str, types.Tree]:
  """Reads the arrays of a step whose files are verified.

  Args:
    folder: of the step.
    manifest: its manifest.
    template: arrays or `jax.ShapeDtypeStruct`s like those that were saved;
      only the names that it has are read.

  Returns:
    NumPy arrays in the structure of the template.

  Raises:
    ValueError: if the template does not fit, or Orbax cannot read the files.
    DamagedError: if an array is not the one that was to be saved.
  """
  _check_template(folder, manifest, template)
  state = {}
  with _checkpointer([processes.index()]) as checkpointer:
    for name, tree in template.items():
      records = manifest["arrays"].get(name, {})
      arrays = _read_arrays(checkpointer, folder / name, records)
      state[name] = jax.tree.unflatten(
        jax.tree.structure(tree), [arrays[key] for key in _named(name, tree)]
      )
  return state


def _read_arrays(
  checkpointer: ocp.Checkpointer,
  path: pathlib.Path,
  records: Mapping[str, Any],
) -> HostArrays:
  """The arrays of one name of the state, each checked against its record."""
  # Orbax writes no array without elements.
  arrays = {
    key: np.zeros(record["shape"], record["dtype"])
    for key, record in records.items()
    if not math.prod(record["shape"])
  }
  if len(arrays) < len(records):
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    try:
      arrays |= checkpointer.restore(
        path,
        # Whole, however many devices have written them.
        restore_args={key: as_numpy for key in records.keys() - arrays.keys()},
      )
    # Errors of any type. The files are verified, so the step is not at fault.
    except Exception as error:
      raise ValueError(
        f"{path.parent} is as it was written, but Orbax cannot read it "
        f"({error}): use the version of orbax-checkpoint that wrote it."
      ) from error
  for key, record in records.items():
    if not _is_as_recorded(arrays[key], record):
      raise DamagedError(
        f"{path.parent} is damaged: {key} is not the array that was saved."
      )
  return arrays


def _check_template(
  folder: pathlib.Path,
  manifest: Mapping[str, Any],
  template: Mapping[str, types.Tree],
) -> None:
  """Raises if the arrays that are wanted are not those that were saved."""
  problems = []
  for name, tree in template.items():
    saved = {
      key: f"{record['dtype']}{record['shape']}"
      for key, record in manifest["arrays"].get(name, {}).items()
    }
    wanted = {
      key: f"{leaf.dtype}{list(leaf.shape)}"
      for key, leaf in _named(name, tree).items()
    }
    problems += [
      f"{key} is {saved.get(key, 'missing')} there and "
      f"{wanted.get(key, 'missing')} here"
      for key in (saved | wanted)
      if saved.get(key) != wanted.get(key)
    ]
  if problems:
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise ValueError(
      f"{folder} is of another network or optimizer: "
      f"{'; '.join(problems[:5])}{more}. Make both as they were when it was "
      "saved."
    )


def _named(name: str, tree: types.Tree) -> dict[str, Any]:
  """Leaves of a tree by their full names, in the order of the tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {name + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@contextlib.contextmanager
def _checkpointer(indices: Iterable[int]) -> Iterator[ocp.Checkpointer]:
  """Orbax for some processes, which wait for each other and for no others.

  Args:
    indices: of the processes. Named even if they are all: otherwise Orbax lets
      their devices wait for each other, in the midst of training.
  """
  first, *others = indices
  options = ocp.options.MultiprocessingOptions(
    primary_host=first,
    active_processes={first, *others},
    barrier_sync_key_prefix=f"process_{first}_of_{1 + len(others)}",
  )
  # Compression makes weights only 8 % smaller, and doubles the time.
  handler = ocp.PyTreeCheckpointHandler(
    use_compression=False, multiprocessing_options=options
  )
  # It also prints hundreds of lines about each error that it raises.
  logger = logging.getLogger("absl")
  logger.addFilter(_is_not_from_orbax)
  try:
    with ocp.Checkpointer(handler, multiprocessing_options=options) as orbax:
      yield orbax
  finally:
    logger.removeFilter(_is_not_from_orbax)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  return "orbax" not in record.pathname


def _own_checksums(array: np.ndarray | jax.Array) -> list[dict[str, Any]]:
  return [
    {"part": place, "sha256": _checksum(part)}
    for place, part in own_parts(array)
  ]


def _array_record(
  array: np.ndarray | jax.Array, checksums: list[dict[str, Any]]
) -> dict[str, Any]:
  record = {"shape": list(array.shape), "dtype": str(array.dtype)}
  if len(checksums) == 1:
    return record | {"sha256": checksums[0]["sha256"]}
  return record | {"parts": checksums}


def _is_as_recorded(array: np.ndarray, record: Mapping[str, Any]) -> bool:
  whole = [{"part": [[0, side] for side in record["shape"]], **record}]
  return (
    [*array.shape] == record["shape"]
    and all(
      _checksum(array[tuple(slice(*span) for span in one["part"])])
      == one["sha256"]
      for one in record.get("parts", whole)
    )
    and str(array.dtype) == record["dtype"]
  )


def _checksum(array: np.ndarray) -> str:
  # As bytes, because hashlib does not take bfloat16.
  content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
  return hashlib.sha256(content).hexdigest()


def _file_record(path: pathlib.Path) -> dict[str, Any]:
  with path.open("rb") as file:
    checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": file.tell(), "sha256": checksum}


def _of_score(manifest: Mapping[str, Any], checksum: str) -> str | None:
  """The checksum of a manifest, if scores of such a step have it."""
  return checksum if "format" in manifest else None


def _score_text(mean_iu: float, manifest: str | None) -> str:
  """The content of a score's file.

  Args:
    mean_iu: the score.
    manifest: the checksum of the step's manifest; None as in earlier versions.
  """
  score = {"mean_iu": mean_iu}
  hashed = json.dumps(mean_iu)
  if manifest is not None:
    score["manifest"] = manifest
    hashed = json.dumps(score)
  checksum = hashlib.sha256(hashed.encode()).hexdigest()
  return json.dumps({**score, "sha256": checksum}) + "\n"


def _checksum_line(manifest: bytes) -> bytes:
  return f"{hashlib.sha256(manifest).hexdigest()}  {_MANIFEST}\n".encode()
