"""Reads JSON of which nobody knows who wrote it.

Python's reader takes more than JSON: infinities, numbers of any length, two
values of one name. And it raises `RecursionError` for deep nesting, as do
programs later on, which print or compare what was read.
"""

import json
import math
import pathlib
from typing import Any

_DEEPEST = 64
# Of an integer: 128 bits, as the states of random generators have.
_MOST_DIGITS = 40
_MOST_BYTES = 1 << 28


def loads(text: str | bytes) -> Any:
  """Reads a value from JSON.

  Args:
    text: UTF-8 if it is bytes; it may begin with a byte-order mark.

  Raises:
    ValueError: it is not JSON, or has a number that is not finite or is longer
      than 128 bits, a name twice in one object, or more than 64 levels.
  """
  if isinstance(text, bytes):
    text = text.decode("utf-8")
  try:
    value = json.loads(
      text.removeprefix("\ufeff"),
      parse_int=_integer,
      parse_float=_float,
      parse_constant=_constant,
      object_pairs_hook=_object,
    )
  except RecursionError:
    deepest = math.inf
  else:
    deepest = _depth(value)
  if deepest > _DEEPEST:
    raise ValueError(f"it has more than {_DEEPEST} levels, one in another")
  return value


def read(path: pathlib.Path) -> Any:
  """Reads the value in a file.

  Raises:
    ValueError: as `loads`, or the file has more than 256 MB.
    OSError: it cannot be opened.
  """
  with path.open("rb") as file:
    content = file.read(_MOST_BYTES + 1)
  if len(content) > _MOST_BYTES:
    raise ValueError(f"it has more than {_MOST_BYTES} bytes")
  return loads(content)


def _integer(text: str) -> int:
  if len(text) > _MOST_DIGITS:
    raise ValueError(f"it has a number of {len(text)} digits")
  return int(text)


def _float(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f"it has the number {text[:20]}, which is too large")
  return value


def _constant(text: str) -> float:
  raise ValueError(f"it has {text}, which is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  made = {}
  for name, value in pairs:
    if name in made:
      raise ValueError(f"it has {name[:80]!a} twice in one object")
    made[name] = value
  return made


def _depth(value: Any) -> int:
  """How many levels a value has, up to one more than are allowed."""
  level, deepest = [value], 0
  while level and deepest <= _DEEPEST:
    deepest += 1
    level = [
      item
      for one in level
      if isinstance(one, (dict, list))
      for item in (one.values() if isinstance(one, dict) else one)
    ]
  return deepest
