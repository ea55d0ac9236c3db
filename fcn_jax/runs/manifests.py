"""The form of what a step's JSON files say, whoever wrote them.

A checksum shows that a file is as it was written, and not that it makes sense.
"""

import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from fcn_jax import reprs

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMATS = (2,)
# Of NumPy.
_MAX_DIMENSIONS = 64


def check(manifest: Any) -> None:
  """Checks the form of a manifest.

  Raises:
    ValueError: naming what is not as it must be, to be read after its file.
  """
  _check_mapping("it", manifest, "step", "metadata", "arrays", "files")
  if "format" in manifest:
    _require(
      "format", manifest["format"], lambda x: x in _FORMATS, "that of a version"
    )
  _require("step", manifest["step"], _is_count, "a number of a step")
  _check_mapping("metadata", manifest["metadata"])
  _check_mapping("arrays", manifest["arrays"])
  for name, named in manifest["arrays"].items():
    _check_mapping(f"arrays, {reprs.shown(repr(name))}", named)
    for key, record in named.items():
      _check_array(f"the array {reprs.shown(repr(key))}", record)
  _check_mapping("files", manifest["files"])
  for name, record in manifest["files"].items():
    title = f"the file {reprs.shown(repr(name))}"
    _require(title, name, _is_within, "one in the step's folder")
    _check_mapping(title, record, "size", "sha256")
    _require(f"size of {title}", record["size"], _is_count, "bytes")
    _check_sha256(title, record)


def check_score(score: Any) -> None:
  """Checks the form of a score.

  Raises:
    ValueError: see `check`.
  """
  _check_mapping("it", score, "mean_iu", "sha256")
  _require("mean_iu", score["mean_iu"], _is_score, "a finite number")


def _check_array(title: str, record: Any) -> None:
  _check_mapping(title, record, "shape", "dtype")
  _require(f"shape of {title}", record["shape"], _is_shape, "a list of sides")
  _require(f"dtype of {title}", record["dtype"], _is_dtype, "a type of numbers")
  if "parts" not in record:
    _check_sha256(title, record)
    return
  _require(f"parts of {title}", record["parts"], _is_list, "a list")
  for part in record["parts"]:
    _check_mapping(f"a part of {title}", part, "part", "sha256")
    _check_sha256(title, part)
    _require(
      f"a part of {title}",
      part["part"],
      lambda spans: _are_spans(spans, record["shape"]),
      "a range on each axis",
    )


def _check_sha256(title: str, record: Mapping[str, Any]) -> None:
  if "sha256" not in record:
    raise ValueError(f"{title} has no sha256")
  _require(f"sha256 of {title}", record["sha256"], _is_sha256, "64 digits")


def _check_mapping(title: str, value: Any, *keys: str) -> None:
  _require(title, value, lambda x: isinstance(x, dict), "a mapping")
  missing = [key for key in keys if key not in value]
  if missing:
    raise ValueError(f"{title} has no {', '.join(missing)}")


def _require(
  title: str, value: Any, is_met: Callable[[Any], bool], condition: str
) -> None:
  if not is_met(value):
    raise ValueError(
      f"{title} is {reprs.shown(repr(value))} and not {condition}"
    )


def _is_list(value: Any) -> bool:
  return isinstance(value, list)


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 1 << 63


def _is_score(value: Any) -> bool:
  return type(value) is float and math.isfinite(value)


def _is_shape(value: Any) -> bool:
  return (
    isinstance(value, list)
    and len(value) <= _MAX_DIMENSIONS
    and all(map(_is_count, value))
  )


def _is_dtype(value: Any) -> bool:
  if not isinstance(value, str):
    return False
  try:
    dtype = jnp.dtype(value)
  except TypeError:
    return False
  # Arrays of Python objects are none of ours.
  is_number = jnp.issubdtype(dtype, jnp.number) or dtype == jnp.bool_
  return is_number and dtype.name == value


def _is_sha256(value: Any) -> bool:
  return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _are_spans(value: Any, shape: list[int]) -> bool:
  return (
    isinstance(value, list)
    and len(value) == len(shape)
    and all(
      _is_shape(span) and len(span) == 2 and span[0] <= span[1] <= side
      for span, side in zip(value, shape, strict=True)
    )
  )


def _is_within(name: str) -> bool:
  path = pathlib.PurePosixPath(name)
  return "\0" not in name and not path.is_absolute() and ".." not in path.parts
