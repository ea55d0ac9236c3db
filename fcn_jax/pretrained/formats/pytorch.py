"""The files of torch.save: dicts of tensors, and where their elements are.

Nothing is unpacked: elements are views of the file in memory.
"""

import functools
import io
import math
import mmap
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fcn_jax.pretrained.formats import other_kinds
from fcn_jax.pretrained.formats import pickled_tensors

# How zip files begin, and torch's magic number as an instruction of pickles.
ZIP = b"PK\x03\x04"
_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
# A tensor takes about 150 bytes; reading this many bytes of instructions takes
# a few seconds at most, whatever they are.
_LONGEST_PICKLE = 2**22

# torch saves an expanded tensor as one element, so a few bytes could claim more
# than any memory holds. Only tensors up to this size may repeat elements.
_MOST_REPEATED = 2**20

AGAIN = "Download it again, and compare its size with the published one"

# From the key of a storage and the type of its elements to the elements.
Find = Callable[[str, np.dtype], np.ndarray]


def open_zip(path: pathlib.Path, content: mmap.mmap) -> tuple[Any, Find]:
  """What torch.save writes since 1.6: `name/data.pkl`, `name/data/0`, ..."""
  try:
    with zipfile.ZipFile(path) as archive:
      listed = archive.infolist()
  # zipfile raises many kinds of errors for damaged files.
  except (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
  ) as error:
    raise ValueError(
      f"its end, with the list of its contents, is missing or damaged. {AGAIN}"
    ) from error
  entries = {entry.filename: entry for entry in listed}
  pickles = [name for name in entries if name.endswith("/data.pkl")]
  if len(pickles) != 1:
    raise ValueError(other_kinds.of_zip(path, entries))
  _check_apart(listed)
  folder = pickles[0].removesuffix("data.pkl")
  if folder + "constants.pkl" in entries:
    raise ValueError(
      "this is a TorchScript program, which contains the parameters. Load it"
      " with torch.jit.load and save its state dict:"
      " torch.save(module.state_dict(), path)"
    )
  # The state dict has each storage under one type.
  dtypes = {}

  def bytes_of(name: str) -> memoryview:
    if folder + name not in entries:
      raise ValueError(f"its entry {name!a} is missing. {AGAIN}")
    return _stored(content, entries[folder + name])

  if folder + "byteorder" in entries and bytes_of("byteorder") != b"little":
    raise ValueError(
      "its numbers are big-endian. Load it with torch on another machine and"
      " save it again"
    )
  pickle = bytes_of("data.pkl")
  if len(pickle) > _LONGEST_PICKLE:
    raise ValueError(
      f"its list of tensors has {len(pickle)} bytes, but no network's has more"
      f" than {_LONGEST_PICKLE}. Save the state dict alone:"
      " torch.save(model.state_dict(), path)"
    )
  loaded, _ = pickled_tensors.load(io.BytesIO(pickle))

  @functools.cache
  def find(key: str, dtype: np.dtype) -> np.ndarray:
    if dtypes.setdefault(key, dtype) != dtype:
      raise ValueError(f"its storage {key!a} has two element types. {AGAIN}")
    return _elements(bytes_of(f"data/{key}"), dtype)

  return loaded, find


def _check_apart(listed: list[zipfile.ZipInfo]) -> None:
  """Raises a `ValueError` if entries share bytes, to be larger than the file.

  An entry begins where its header is and is not compressed, see `_stored`.
  """
  end = 0
  for entry in sorted(listed, key=lambda entry: entry.header_offset):
    if entry.header_offset < end:
      raise ValueError(
        f"its entry {entry.filename[:80]!a} overlaps with another, which"
        f" torch.save never does. {AGAIN}"
      )
    end = entry.header_offset + 30 + entry.compress_size


def _stored(content: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
  """The bytes of an entry, without a copy."""
  name, start = entry.filename, entry.header_offset
  if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
    raise ValueError(
      f"its entry {name!a} is compressed or encrypted, which torch.save never"
      " does. Take the file as torch.save wrote it"
    )
  if entry.file_size != entry.compress_size:
    raise ValueError(f"its entry {name!a} has two sizes. {AGAIN}")
  # The header before the bytes ends with two strings of these lengths.
  header = content[start : start + 30]
  if start < 0 or not header.startswith(ZIP) or len(header) < 30:
    raise ValueError(f"its entry {name!a} is not where it should be. {AGAIN}")
  start += 30 + sum(struct.unpack("<HH", header[26:]))
  found = memoryview(content)[start : start + entry.file_size]
  # torch.save writes 0 if it was told to compute none.
  if entry.CRC and zlib.crc32(found) != entry.CRC:
    raise ValueError(
      f"its entry {name!a} is damaged: its checksum is another. {AGAIN}"
    )
  return found


def is_legacy(start: bytes) -> bool:
  """Whether a file with this start is one of torch.save before 1.6."""
  return start.startswith(b"\x80") and _MAGIC in start[:32]


def open_legacy(content: mmap.mmap) -> tuple[Any, Find]:
  """What torch.save wrote before 1.6: five pickles, then the storages."""
  position = 0

  def load() -> tuple[Any, dict[str, pickled_tensors.Storage]]:
    nonlocal position
    stream = io.BytesIO(content[position : position + _LONGEST_PICKLE])
    loaded = pickled_tensors.load(stream)
    position += stream.tell()
    return loaded

  # The magic number, which `is_legacy` has checked.
  load()
  protocol, _ = load()
  system, _ = load()
  if type(system) is dict:
    for value in system.values():
      if type(value) is pickled_tensors.Foreign:
        raise ValueError(pickled_tensors.more_than_tensors(value.name))
  if (
    type(protocol) is not int
    or protocol != 1001
    or type(system) is not dict
    or system.get("little_endian") is not True
  ):
    raise ValueError(
      "it has another version of the format, or is from a big-endian machine."
      " Load it with torch and save it again"
    )
  state_dict, storages = load()
  keys, _ = load()
  if type(keys) is not list or not all(type(key) is str for key in keys):
    raise ValueError(f"its list of storages is damaged. {AGAIN}")
  found = {}
  for key in keys:
    size = int.from_bytes(content[position : position + 8], "little")
    if key not in storages:
      # Elements of a type that is not known, so neither is where they end.
      break
    end = position + 8 + size * storages[key].dtype.itemsize
    if end > len(content):
      raise ValueError(f"it is cut off. {AGAIN}")
    found[key] = memoryview(content)[position + 8 : end]
    position = end

  @functools.cache
  def find(key: str, dtype: np.dtype) -> np.ndarray:
    if key not in found:
      raise ValueError(
        "its list of storages is damaged, or has elements of a type that"
        f" networks here do not use. {AGAIN}"
      )
    return _elements(found[key], dtype)

  return state_dict, find


def view(tensor: pickled_tensors.Tensor, find: Find) -> np.ndarray:
  """The array of a tensor.

  Args:
    tensor: from `pickled_tensors.load`.
    find: of the same file.

  Returns:
    A view of the elements from `find`, which tensors may share.

  Raises:
    ValueError: if the tensor has elements outside its storage, or the storage
      outside the file.
  """
  (key, dtype, start, size), offset, shape, strides = tensor
  elements = find(key, dtype)
  if start + size > elements.size:
    raise ValueError(f"a storage has fewer elements than it should. {AGAIN}")
  elements = elements[start : start + size]
  numbers = (offset, *shape, *strides)
  # The last element has the largest index, as no stride is negative.
  last = offset + sum(
    (length - 1) * stride for length, stride in zip(shape, strides, strict=True)
  )
  count = math.prod(shape)
  if (
    not all(0 <= number < 2**63 for number in numbers)
    or (count and last >= elements.size)
    or count > max(elements.size, _MOST_REPEATED)
  ):
    raise ValueError(
      f"a tensor of shape {shape}, strides {strides} and offset {offset} does"
      f" not fit its {elements.size} elements. " + AGAIN
    )
  if not count:
    return elements[:0].reshape(shape)
  # The stride of an axis of size 1 may be any number.
  steps = [
    stride * elements.itemsize if length > 1 else 0
    for length, stride in zip(shape, strides, strict=True)
  ]
  return np.ndarray(
    shape, elements.dtype, elements, offset * elements.itemsize, steps
  )


def _elements(content: memoryview, dtype: np.dtype) -> np.ndarray:
  return widened(np.ndarray(len(content) // dtype.itemsize, dtype, content))


def widened(array: np.ndarray) -> np.ndarray:
  """The array itself, or as float32 if it has 16-bit floats."""
  if array.dtype in (np.float16, jnp.bfloat16):
    array = array.astype(np.float32)
    array.flags.writeable = False
  return array
