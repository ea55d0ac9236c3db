"""Records of a run, written so that a crash loses none of them.

Each line of a JSON Lines file, and each JSON file, has a checksum as its last
entry, so that a changed number is not taken for another result. Older files
without checksums are read as they are.
"""

import hashlib
import importlib
import json
import math
import os
import pathlib
import re
import socket
import time
import zlib
from collections.abc import Mapping
from typing import Any, Self

import chex
import numpy as np

from fcn_jax import reprs
from fcn_jax import strict_json
from fcn_jax import writing

# At the end of a line, of all that is before it.
_CRC32 = re.compile(rb'(\{.+), "crc32": "([0-9a-f]{8})"\}', re.DOTALL)
_SHA256 = "sha256"


def append_json_line(path: pathlib.Path, record: dict[str, Any]) -> None:
  """Adds one record to a JSON Lines file, on disk when this returns.

  A last line cut off by a crash in mid-write is removed first.

  Args:
    path: the file; made if it is not there.
    record: numbers, strings and lists by name; NaN and infinities are written
      as null.

  Raises:
    ValueError: if the end of the file is damaged.
    WriteError: if it cannot be written.
  """
  text = json.dumps(_without_nan(record), allow_nan=False).encode()[:-1]
  line = text + b', "crc32": "%08x"}\n' % zlib.crc32(text)
  with writing.appending(path) as file:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in (b"", b"\n"):
      file.seek(0)
      content = file.read()
      end = content.rfind(b"\n") + 1
      _check_cut(path, content[end:])
      file.truncate(end)
    file.write(line)


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the records of a JSON Lines file; none if it is not there.

  A last line cut off by a crash in mid-write is left out.

  Raises:
    ValueError: if another line is damaged or no record, naming it.
  """
  if not path.exists():
    return []
  *lines, cut = path.read_bytes().split(b"\n")
  _check_cut(path, cut)
  records, have_checksums = [], False
  for number, line in enumerate(lines, start=1):
    has_checksum = _has_right_checksum(line)
    # A version without checksums may have begun the file.
    if has_checksum is False or (have_checksums and not has_checksum):
      raise ValueError(
        f"{path}, line {number} is not as it was written, as its checksum "
        "shows: bring the file back from a copy, or remove the line."
      )
    have_checksums |= has_checksum is not None
    try:
      record = strict_json.loads(line)
    except ValueError as error:
      raise ValueError(
        f"{path}, line {number} is not JSON ({error}): repair or remove it."
      ) from error
    if not isinstance(record, dict):
      raise ValueError(
        f"{path}, line {number} is no record: repair or remove it."
      )
    record.pop("crc32", None)
    records.append(record)
  return records


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads records that have a kind and a step; see `read_json_lines`.

  Raises:
    ValueError: as `read_json_lines`, or if a record has no kind or no step.
  """
  records = read_json_lines(path)
  for number, record in enumerate(records, start=1):
    kind, step = record.get("kind"), record.get("step")
    if type(kind) is not str or type(step) is not int:
      raise ValueError(
        f"{path}, line {number} is no record (it has no kind or no step):"
        " repair or remove it."
      )
  return records


def _has_right_checksum(line: bytes) -> bool | None:
  """Whether a line is as it was written; None if it has no checksum."""
  parts = _CRC32.fullmatch(line)
  return parts and b"%08x" % zlib.crc32(parts[1]) == parts[2]


def _check_cut(path: pathlib.Path, cut: bytes) -> None:
  """Raises a `ValueError` if something else than a crash ended a line."""
  if _has_right_checksum(cut[:-1]):
    raise ValueError(
      f"{path} is damaged: its last line ends with {cut[-1:]!r} instead of a "
      "line break. Repair that."
    )


def effective(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The records of a run as if it had never been interrupted.

  A run that resumes from an earlier step than it had reached repeats steps.
  This leaves out their first records.
  """
  kept = []
  for record in records:
    if record["kind"] == "start":
      kept = [one for one in kept if one["step"] <= record["step"]]
    else:
      kept.append(record)
  return kept


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
  """Writes a JSON file whole or not at all, with a checksum.

  Args:
    path: the file, which is replaced.
    values: by name; NaN and infinities become null.
  """
  # What is read back: keys are strings, for example.
  values = json.loads(json.dumps(_without_nan(values), allow_nan=False))
  text = json.dumps({**values, _SHA256: _checksum(values)}, indent=2)
  writing.write_text(path, text + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads what `write_json` has written.

  Raises:
    ValueError: if it is damaged.
  """
  try:
    values = strict_json.read(path)
  except ValueError as error:
    raise ValueError(f"{path} is damaged ({error}): repair it.") from error
  if not isinstance(values, dict):
    raise ValueError(f"{path} is damaged (it is no mapping): repair it.")
  if _SHA256 in values and values.pop(_SHA256) != _checksum(values):
    raise ValueError(
      f"{path} is damaged, as its checksum is that of other values: bring it "
      f"back from a copy. If you have changed it on purpose, remove the entry "
      f"{_SHA256}."
    )
  return values


def _checksum(values: Mapping[str, Any]) -> str:
  """Of values, however they are laid out in a file."""
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def markdown_table(values: Mapping[str, Any]) -> str:
  """Names and values as a Markdown table of two columns.

  Args:
    values: such as the options of a run; mappings in them become rows of
      "name.name".
  """
  rows = "".join(
    f"| {_cell(name)} | {_cell(value)} |\n" for name, value in _flat(values)
  )
  return "| name | value |\n| --- | --- |\n" + rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
  rows = []
  for name, value in values.items():
    if isinstance(value, Mapping):
      rows += _flat(value, f"{prefix}{name}.")
    else:
      rows.append((f"{prefix}{name}", value))
  return rows


def _cell(value: Any) -> str:
  # Of options, which may be long.
  text = str(value).replace("\n", " ").replace("|", "\\|")
  return reprs.shown(text, max_length=None)


class TensorBoard:
  """Writes what TensorBoard shows of a run: numbers, pictures and texts.

  A context manager. Each start writes its own file and leaves the earlier files
  in the folder as they are.

  Records are written by the caller's thread and buffered by the file, so that a
  full disk is an `OSError` here. (The queue of tensorboardX's `SummaryWriter`
  blocks forever once its thread has died of such an error, and two of them that
  start in the same second overwrite each other.)

  Args:
    folder: made if it is not there.
    resumed_step: the step at which a run resumes. Later steps in earlier files
      are hidden, not deleted.
  """

  def __init__(self, folder: pathlib.Path, *, resumed_step: int | None = None):
    # Imported only here, because it imports PyTorch if that is installed.
    self._library = importlib.import_module("tensorboardX")
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files in the order of their names.
    number = len(list(folder.glob("events.out.tfevents.*")))
    name = (
      f"events.out.tfevents.{int(time.time())}.{number:04d}"
      f".{socket.gethostname()}"
    )
    writing.create(folder / name)
    self._file = self._library.RecordWriter(str(folder / name))
    self._write(file_version="brain.Event:2")
    if resumed_step is not None:
      log = self._library.writer.SessionLog
      # The first step that is hidden.
      self._write(step=resumed_step + 1, session_log=log(status=log.START))
    self.flush()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    try:
      self.flush()
    finally:
      self._file.close()

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a point to each of some curves.

    Args:
      step: of training.
      values: by name, of which odd letters are escaped; "group/name" puts
        curves together. On the host: reading an array that is being computed
        would wait for the device.
    """
    summary = self._library.summary.Summary
    self._write(
      step=step,
      summary=summary(
        value=[
          summary.Value(tag=reprs.shown(name), simple_value=float(value))
          for name, value in values.items()
        ]
      ),
    )

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Adds a picture.

    Args:
      step: of training.
      name: of the series of pictures that this one is in.
      image: [H, W, 3] uint8, RGB.
    """
    chex.assert_shape(image, (None, None, 3))
    chex.assert_type(image, np.uint8)
    summary = self._library.summary.image(name, image, dataformats="HWC")
    self._write(step=step, summary=summary)

  def text(self, step: int, name: str, text: str) -> None:
    """Adds a text in Markdown, see `markdown_table`."""
    self._write(step=step, summary=self._library.summary.text(name, text))

  def flush(self) -> None:
    """Waits until everything written is on disk."""
    self._file.flush()

  def _write(self, **fields: Any) -> None:
    event = self._library.writer.Event(wall_time=time.time(), **fields)
    self._file.write(event.SerializeToString())


def _without_nan(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _without_nan(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_without_nan(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
