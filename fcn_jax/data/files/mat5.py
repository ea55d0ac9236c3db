"""Reads matrices of numbers from MATLAB files of version 5 (and 6, and 7).

SciPy reads more, and trusts the file: one wrong byte can end the process, cells
in cells use up the stack, and a small file unpacks to any size. This reader
knows matrices of numbers and structures of them, which is what label maps are.
All else is passed over by its size. Nothing here calls itself.

The format: "MAT-File Format", MathWorks, chapter 1.
"""

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

_LENGTH_OF_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
# Types of elements.
_TYPES = {
  1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8",
  12: "i8", 13: "u8",
}  # fmt: skip
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15
_TEXTS = (1, 2, 16)
# Classes of matrices: structures, and all numbers from double to uint64.
_STRUCTURE, _NUMBERS = 2, range(6, 16)
_IS_COMPLEX = 0x0800

# The label maps of data sets have a twentieth of it.
_MOST_BYTES = 1 << 26
_MOST_VARIABLES = 1000
_MOST_DIMENSIONS = 32
_MOST_FIELDS = 1000
# MATLAB's longest name has 63 characters.
_LONGEST_NAME = 64
# All that stands before the numbers or fields of a matrix.
_LONGEST_START = 512


class Matrix(NamedTuple):
  """A matrix, as it lies in its file.

  Attributes:
    name: of the variable; empty for a field.
    shape: two numbers or more.
    kind: the number of its class.
    is_complex: whether it has an imaginary part.
    rest: what follows the name; the numbers, or the fields.
    order: of the bytes, "<" or ">".
  """

  name: str
  shape: tuple[int, ...]
  kind: int
  is_complex: bool
  rest: memoryview
  order: str


def find(content: bytes, variable: str) -> Matrix | None:
  """Finds a variable; None if there is no such variable.

  Args:
    content: the bytes of a file.
    variable: its name.

  Raises:
    ValueError: the file is of another kind, damaged, or too large.
  """
  order = _ORDERS.get(content[126:_LENGTH_OF_HEADER])
  if order is None:
    raise ValueError("it has no header of version 5")
  place, file = _LENGTH_OF_HEADER, memoryview(content)
  for _ in range(_MOST_VARIABLES):
    if place == len(file):
      return None
    kind, size = _unpack(order + "II", file, place)
    element = file[place + 8 : place + 8 + size]
    if len(element) < size:
      raise ValueError("it ends in the middle of a variable")
    if kind == _COMPRESSED:
      start, size = _start_of(element, order)
    elif kind == _MATRIX:
      start = element[:_LONGEST_START]
    else:
      raise ValueError(f"it has a variable of the unknown kind {kind}")
    if _header(start, order).name == variable:
      if size > _MOST_BYTES:
        raise ValueError(
          f"{variable} has {size} bytes, and no label map has more than"
          f" {_MOST_BYTES}"
        )
      if kind == _COMPRESSED:
        element = _unpacked(element, size)
      return _header(element, order)
    place += 8 + len(element)
  raise ValueError(f"it has more than {_MOST_VARIABLES} variables")


def fields(matrix: Matrix) -> dict[str, Matrix]:
  """The fields of a structure; none for another matrix, or for several.

  Raises:
    ValueError: the structure is damaged.
  """
  if matrix.kind != _STRUCTURE or math.prod(matrix.shape) != 1:
    return {}
  rest, order = matrix.rest, matrix.order
  kind, length, place = _element(rest, 0, order)
  if kind != _INT32 or len(length) != 4:
    raise ValueError("a structure has no length of names")
  (size,) = struct.unpack(order + "i", length)
  kind, names, place = _element(rest, place, order)
  if kind not in _TEXTS or not 1 <= size <= _LONGEST_NAME or len(names) % size:
    raise ValueError("a structure has no names of fields")
  if len(names) > size * _MOST_FIELDS:
    raise ValueError(f"a structure has more than {_MOST_FIELDS} fields")
  found = {}
  for start in range(0, len(names), size):
    name = _text(names[start : start + size])
    if name in found:
      raise ValueError(f"a structure has two fields {name!a}")
    kind, element, place = _element(rest, place, order)
    if kind != _MATRIX:
      raise ValueError(f"the field {name!a} is no matrix")
    found[name] = _header(element, order)
  return found


def numbers(matrix: Matrix) -> np.ndarray | None:
  """The numbers of a matrix, of the type in which they are stored.

  Returns:
    An array of the matrix's shape, read-only; None if the matrix has something
    other than real numbers.

  Raises:
    ValueError: the matrix is damaged.
  """
  if matrix.kind not in _NUMBERS or matrix.is_complex:
    return None
  kind, values, _ = _element(matrix.rest, 0, matrix.order)
  if kind not in _TYPES:
    raise ValueError(f"it has numbers of the unknown type {kind}")
  dtype = np.dtype(matrix.order + _TYPES[kind])
  if math.prod(matrix.shape) * dtype.itemsize != len(values):
    raise ValueError(
      f"it has {len(values)} bytes in place of {dtype.itemsize} for each of"
      f" {' x '.join(map(str, matrix.shape))}"
    )
  found = np.frombuffer(values, dtype).reshape(matrix.shape, order="F")
  return found.astype(dtype.newbyteorder("="), copy=False)


def _start_of(packed: memoryview, order: str) -> tuple[memoryview, int]:
  """The start of a matrix that is compressed, and the size of the whole."""
  try:
    start = zlib.decompressobj().decompress(packed, 8 + _LONGEST_START)
  except zlib.error as error:
    raise ValueError(str(error)) from error
  kind, size = _unpack(order + "II", start, 0)
  if kind != _MATRIX:
    raise ValueError(f"it has a compressed variable of the kind {kind}")
  return memoryview(start)[8 : 8 + size], size


def _unpacked(packed: memoryview, size: int) -> memoryview:
  """All of a matrix that is compressed, if it has the size that it says."""
  stream = zlib.decompressobj()
  try:
    # One byte more would show that there is more; the end has a checksum.
    whole = stream.decompress(packed, 8 + size + 1)
  except zlib.error as error:
    raise ValueError(str(error)) from error
  if len(whole) != 8 + size or not stream.eof:
    raise ValueError("a compressed variable has another size than it says")
  return memoryview(whole)[8:]


def _header(matrix: memoryview, order: str) -> Matrix:
  """What stands before the numbers or fields of a matrix."""
  # MATLAB writes empty fields so.
  if not len(matrix):
    return Matrix("", (0, 0), _NUMBERS[0], False, matrix, order)
  kind, flags, place = _element(matrix, 0, order)
  if kind != _UINT32 or len(flags) != 8:
    raise ValueError("a matrix has no flags")
  (flags,) = struct.unpack_from(order + "I", flags)
  kind, sizes, place = _element(matrix, place, order)
  count = len(sizes) // 4
  if kind != _INT32 or not 2 <= count <= _MOST_DIMENSIONS or len(sizes) % 4:
    raise ValueError("a matrix has no sizes")
  shape = struct.unpack(f"{order}{count}i", sizes)
  if min(shape) < 0:
    raise ValueError("a matrix has a negative size")
  kind, name, place = _element(matrix, place, order)
  if kind not in _TEXTS or len(name) > _LONGEST_NAME:
    raise ValueError("a matrix has no name")
  is_complex = bool(flags & _IS_COMPLEX)
  return Matrix(
    _text(name), shape, flags & 255, is_complex, matrix[place:], order
  )


def _element(
  parts: memoryview, place: int, order: str
) -> tuple[int, memoryview, int]:
  """The type and the bytes of an element, and the place of the next one."""
  (kind,) = _unpack(order + "I", parts, place)
  if kind >> 16:
    # Up to four bytes lie beside the type.
    size, kind = kind >> 16, kind & 0xFFFF
    start, end = place + 4, place + 8
    if size > 4:
      raise ValueError("a small element has more than four bytes")
  else:
    _, size = _unpack(order + "II", parts, place)
    start = place + 8
    # Filled up to eight bytes.
    end = start + size + -size % 8
  if start + size > len(parts):
    raise ValueError("a matrix ends in the middle of an element")
  return kind, parts[start : start + size], end


def _unpack(
  layout: str, parts: bytes | memoryview, place: int
) -> tuple[int, ...]:
  try:
    return struct.unpack_from(layout, parts, place)
  except struct.error as error:
    raise ValueError("it ends in the middle of a variable") from error


def _text(name: memoryview) -> str:
  return bytes(name).partition(b"\0")[0].decode("ascii", errors="replace")
