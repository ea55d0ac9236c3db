"""Records of a run, written so that a crash loses none of them."""

import importlib
import json
import math
import os
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any, Self

import chex
import numpy as np

from fcn_jax import strict_json
from fcn_jax import writing


def append_json_line(path: pathlib.Path, record: dict[str, Any]) -> None:
  """Adds one record to a JSON Lines file, on disk when this returns.

  A last line cut off by a crash in mid-write is removed first.

  Args:
    path: the file; made if it is not there.
    record: numbers, strings and lists; NaN and infinities are written as null.
  """
  line = json.dumps(_without_nan(record), allow_nan=False) + "\n"
  with writing.appending(path) as file:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in (b"", b"\n"):
      file.seek(0)
      file.truncate(file.read().rfind(b"\n") + 1)
    file.write(line.encode())


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the records of a JSON Lines file; none if it is not there.

  A last line cut off by a crash in mid-write is left out.

  Raises:
    ValueError: if another line is damaged or no record, naming it.
  """
  if not path.exists():
    return []
  records = []
  for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
    try:
      record = strict_json.loads(line)
      if not isinstance(record, dict):
        raise ValueError("it has no names")
    except ValueError as error:
      raise ValueError(
        f"{path}, line {number} is not JSON ({error}): repair or remove it."
      ) from error
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


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file whole or not at all; NaN and infinities become null."""
  text = json.dumps(_without_nan(value), indent=2, allow_nan=False)
  writing.write_text(path, text + "\n")


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
  # A bar would end the cell, and a line break would end the row.
  return str(value).replace("|", "\\|").replace("\n", " ")


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
      values: by name; "group/name" puts curves together. On the host: reading
        an array that is being computed would wait for the device.
    """
    summary = self._library.summary.Summary
    self._write(
      step=step,
      summary=summary(
        value=[
          summary.Value(tag=name, simple_value=float(value))
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
