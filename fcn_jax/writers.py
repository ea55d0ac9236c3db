"""Records of a run, written so that a crash loses none of them."""

import json
import math
import os
import pathlib
from typing import Any


def append_json_line(path: pathlib.Path, row: dict[str, Any]) -> None:
  """Adds one row to a JSON Lines file, on disk when this returns.

  A last line cut off by a crash in mid-write is removed first.

  Args:
    path: the file; made if it is not there.
    row: numbers, strings and lists; NaN and infinities are written as null.
  """
  line = json.dumps(_without_nan(row), allow_nan=False) + "\n"
  with path.open("a+b") as file:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
    if file.read() not in (b"", b"\n"):
      file.seek(0)
      file.truncate(file.read().rfind(b"\n") + 1)
    file.write(line.encode())
    file.flush()
    os.fsync(file.fileno())


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the rows of a JSON Lines file; none if it is not there.

  A last line cut off by a crash in mid-write is left out.

  Raises:
    ValueError: if another line is damaged, naming it.
  """
  if not path.exists():
    return []
  lines = path.read_text(encoding="utf-8").split("\n")
  rows = []
  for number, line in enumerate(lines[:-1], start=1):
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError as error:
      raise ValueError(
        f"{path}, line {number} is no JSON ({error}): repair or remove it."
      ) from error
  return rows


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file whole or not at all; NaN and infinities become null."""
  partial = path.with_name(path.name + ".partial")
  text = json.dumps(_without_nan(value), indent=2, allow_nan=False)
  with partial.open("w", encoding="utf-8") as file:
    file.write(text + "\n")
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def _without_nan(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _without_nan(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_without_nan(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
