"""Changes of a file, as damage and as attackers make them."""

import copy
import json
from typing import Any

import numpy as np

_SIZES = (1, 2, 4, 8)
_TEXTS = (
  b"null", b"NaN", b"1e999", b"-1", b"9" * 5000, b"[" * 500, b'{"a":' * 200,
  b'""', b"{}", b"[]", b"true", b"0", b"\\ud800", b"\x1b[31m", b"a" * 10_000,
)  # fmt: skip


def mutated(
  content: bytes, rng: np.random.Generator, *, others: list[bytes], text: bool
) -> bytes:
  """One to four changes of a file.

  Args:
    content: the file.
    rng: draws the changes.
    others: files of which pieces may be taken.
    text: whether to put values of JSON into it as well.
  """
  data = bytearray(content)
  for _ in range(int(rng.choice([1, 1, 2, 4]))):
    place = int(rng.integers(len(data) + 1))
    length = int(min(rng.geometric(0.1), len(data)))
    match rng.integers(8 if text else 7):
      case 0 if place < len(data):  # A bit.
        data[place] ^= 1 << int(rng.integers(8))
      case 1:  # Bytes.
        data[place : place + length] = rng.bytes(length)
      case 2:  # A cut, of the end or of a piece.
        del data[place : None if rng.random() < 0.5 else place + length]
      case 3:  # A piece of the same file or another.
        other = [content, *others][int(rng.integers(1 + len(others)))]
        start = int(rng.integers(len(other) + 1))
        piece = other[start : start + int(rng.geometric(0.02))]
        data[place : place + len(piece) * int(rng.integers(2))] = piece
      case 4 | 5:  # A number that may be a length, a place or a count.
        _change_number(data, place, rng)
      case 6:  # A piece many times.
        piece = data[place : place + length]
        data[place:place] = piece * int(rng.integers(1, 200))
      case 7:  # A value.
        piece = _TEXTS[int(rng.integers(len(_TEXTS)))]
        end = place
        while rng.random() < 0.5 and end < len(data):
          end += 1
          if data[end - 1] in b",:]}\n":
            break
        data[place:end] = piece
  return bytes(data)


def _change_number(data: bytearray, place: int, rng: np.random.Generator):
  size = int(rng.choice(_SIZES))
  order = str(rng.choice(["little", "big"]))
  place -= place % int(rng.choice([1, size]))
  old = int.from_bytes(data[place : place + size], order)
  most = (1 << 8 * size) - 1
  number = int(
    rng.choice(
      np.array(
        [0, 1, most, most >> 1, (most >> 1) + 1, old + 1, old - 1, old * 2,
         len(data), 1 << int(rng.integers(8 * size))], object,
      )
    )
  )  # fmt: skip
  data[place : place + size] = (number & most).to_bytes(size, order)


_VALUES = (
  None, True, 0, 1, -1, 0.5, 2**63, 10**30, -1e300, "", "a", "../../a", "\0",
  "a" * 5000, "\ud800", "\x1b[31m", [], {}, [[]], [None], {"a": {}}, [0] * 999,
)  # fmt: skip


def with_other_value(content: bytes, rng: np.random.Generator) -> bytes:
  """Changes, adds or removes a value in JSON, or in a line of JSON Lines."""
  lines = content.splitlines(keepends=True)
  try:
    values, ends = [json.loads(content)], [b""]
  except ValueError:
    values, ends = [json.loads(line) for line in lines], [b"\n"] * len(lines)
  for _ in range(int(rng.choice([1, 1, 2]))):
    places = list(_places(values))
    container, key = places[int(rng.integers(len(places)))]
    odd = copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])
    match rng.integers(4):
      case 0:
        del container[key]
      case 1:
        other, other_key = places[int(rng.integers(len(places)))]
        container[key] = copy.deepcopy(
          other.get(other_key)
          if isinstance(other, dict)
          else (other[other_key : other_key + 1] or [None])[0]
        )
      case 2 if isinstance(container, dict):
        container[str(odd)] = container.pop(key)
      case _:
        container[key] = odd
    if not values:
      break
  ends += [b"\n"] * len(values)
  return b"".join(
    json.dumps(value).encode() + end
    for value, end in zip(values, ends, strict=False)
  )


def _places(value: Any):
  """All containers in a value, each with each of its keys."""
  stack = [value]
  while stack:
    one = stack.pop()
    if isinstance(one, (dict, list)):
      for key in one if isinstance(one, dict) else range(len(one)):
        yield one, key
        stack.append(one[key])
