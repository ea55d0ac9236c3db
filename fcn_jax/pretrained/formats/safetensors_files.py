"""Safetensors files: views of their arrays, whole or in several parts."""

import functools
import mmap
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from fcn_jax import strict_json
from fcn_jax.pretrained.formats import pytorch

Lazy = Callable[[], np.ndarray]

DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(jnp.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")
_LONGEST_INDEX = 2**24


def is_one(start: bytes) -> bool:
  """Whether a file with this start is one: the length of a header, the header.

  An index begins with a brace itself.
  """
  return start[8:9] == b"{" and start[:1] != b"{"


def read(
  path: pathlib.Path, content: mmap.mmap
) -> tuple[dict[str, Lazy], dict[str, str]]:
  """The arrays by name, and the metadata of the file.

  The arrays are views of the file; the library would make copies. It reads the
  header, and refuses files whose tensors do not fill the file without gaps
  after the header. So order and sizes tell where they are.

  Raises:
    ValueError: if the file is damaged, or has arrays of other types.
  """
  arrays = {}
  start = 8 + int.from_bytes(content[:8], "little")
  try:
    with safetensors.safe_open(path, framework="np") as file:
      tensors = [(name, file.get_slice(name)) for name in file.offset_keys()]
      shapes = [
        (name, tensor.get_dtype(), tuple(tensor.get_shape()))
        for name, tensor in tensors
      ]
      metadata = file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise ValueError(
      f"this is not a safetensors file, or only a part of one ({error})."
      f" {pytorch.AGAIN}"
    ) from error
  for name, kind, shape in shapes:
    if kind not in DTYPES:
      raise ValueError(
        f"{ascii(name)[:80]} is of type {kind}, which cannot be read."
        f" Save it as one of {', '.join(DTYPES)}"
      )
    array = np.ndarray(shape, DTYPES[kind], content, start)
    arrays[name] = functools.partial(pytorch.widened, array)
    start += array.nbytes
  return arrays, metadata


def check_whole(path: pathlib.Path) -> None:
  """Raises a `ValueError` if a file is one of several parts, by its name."""
  if part := _PART.fullmatch(path.name):
    index = path.with_name(f"{part[1]}.safetensors.index.json")
    raise ValueError(
      f"this is one of several parts. Give {index}, which lists them, with all"
      " parts in the same folder"
    )


def read_index(path: pathlib.Path) -> dict[str, Lazy]:
  """The arrays of all parts that an index lists.

  Raises:
    ValueError: if it is no index, or a part is missing, damaged, in another
      folder, or has not the arrays that the index says.
  """
  weight_map = _weight_map(path)
  arrays = {}
  for part in sorted(set(weight_map.values())):
    file = path.with_name(part)
    if pathlib.PurePath(part).name != part or not file.is_file():
      raise ValueError(
        f"its part {part[:80]!a} is not in the folder of the index. Download"
        " all parts into one folder"
      )
    with file.open("rb") as stream:
      content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
      found, _ = read(file, content)
    except ValueError as error:
      raise ValueError(f"its part {part}: {error}") from error
    listed = {name for name, other in weight_map.items() if other == part}
    if found.keys() != listed:
      raise ValueError(
        f"its part {part} has other arrays than the index says, such as"
        f" {sorted(found.keys() ^ listed)[0]!a}. Download all of them again"
      )
    arrays |= found
  return arrays


def _weight_map(path: pathlib.Path) -> dict[str, str]:
  try:
    if path.stat().st_size > _LONGEST_INDEX:
      raise ValueError("it is too long")
    index: Any = strict_json.read(path)
    weight_map = index["weight_map"]
    # No file system has longer names.
    if not weight_map or not all(
      type(value) is str and 0 < len(value.encode()) < 256
      for value in weight_map.values()
    ):
      raise ValueError("its weight_map is not one of names")
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      "this is a text file, and not an index of the parts of a safetensors file"
      " (model.safetensors.index.json)"
    ) from error
  return weight_map
