"""The reader of MATLAB files against SciPy's, and against hostile files."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from fcn_jax.data.files import mat5
from fcn_jax.data.files import matlab

DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def saved(*, compressed=True, **variables):
  buffer = io.BytesIO()
  scipy.io.savemat(buffer, variables, do_compression=compressed)
  return buffer.getvalue()


def values(dtype, shape):
  generator = np.random.default_rng(0)
  if np.dtype(dtype).kind == "f":
    return generator.normal(size=shape).astype(dtype)
  limits = np.iinfo(dtype)
  return generator.integers(
    limits.min, limits.max, size=shape, dtype=dtype, endpoint=True
  )


def scipys(content, name):
  return scipy.io.loadmat(io.BytesIO(content))[name]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 4), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_scipy(dtype, shape, compressed):
  expected = values(dtype, shape)
  content = saved(
    compressed=compressed, before="text", x=expected, after=[[1.0]]
  )
  found = mat5.numbers(mat5.find(content, "x"))
  np.testing.assert_array_equal(found, scipys(content, "x"), strict=True)
  np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("compressed", [False, True])
def test_fields_are_found_behind_cells_and_structures(compressed):
  cells = np.array([[np.eye(2), "text"], [{"a": 1}, 3j]], object)
  expected = values("u1", (4, 6))
  content = saved(
    compressed=compressed,
    S={"cells": cells, "inner": {"map": 1}, "map": expected, "empty": []},
  )
  found = mat5.fields(mat5.find(content, "S"))
  assert [*found] == [*scipys(content, "S").dtype.names]
  np.testing.assert_array_equal(mat5.numbers(found["map"]), expected)
  assert mat5.numbers(found["cells"]) is None
  assert mat5.fields(found["map"]) == {}


def test_logical_maps_are_read():
  content = saved(x=np.eye(3, dtype=bool))
  found = mat5.numbers(mat5.find(content, "x"))
  np.testing.assert_array_equal(found, scipys(content, "x"), strict=True)


def element(kind, data, order="<"):
  return (
    struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
  )


def matrix(
  data, *, order="<", name=b"x", kind=9, shape=(2, 3), flags=0, dims=None
):
  parts = element(6, struct.pack(order + "II", kind | flags, 0), order)
  dims = struct.pack(f"{order}{len(shape)}i", *shape) if dims is None else dims
  parts += element(5, dims, order) + element(1, name, order) + data
  return element(14, parts, order)


def file(*parts, order="<"):
  mark = b"IM" if order == "<" else b"MI"
  head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 256)
  return head + mark + b"".join(parts)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_big_endian_files_are_read(dtype, compressed):
  expected = values(dtype, (2, 3))
  data = expected.astype(">" + dtype).tobytes(order="F")
  number = {value: key for key, value in mat5._TYPES.items()}[dtype]
  # MATLAB stores doubles as integers where it can.
  part = matrix(element(number, data, ">"), order=">", kind=6)
  if compressed:
    packed = zlib.compress(part)
    part = struct.pack(">II", 15, len(packed)) + packed
  content = file(part, order=">")
  found = mat5.numbers(mat5.find(content, "x"))
  np.testing.assert_array_equal(found, scipys(content, "x"))
  np.testing.assert_array_equal(found, expected, strict=True)


def nested(depth):
  """Cells in cells."""
  start = matrix(b"", kind=1, shape=(1, 1))[8:]
  sizes = range(depth * (8 + len(start)), 0, -8 - len(start))
  return b"".join(struct.pack("<II", 14, size - 8) + start for size in sizes)


def packed(content, size=None):
  data = zlib.compress(content, 9)
  return struct.pack("<II", 15, len(data) if size is None else size) + data


def bomb(size, claimed):
  start = matrix(struct.pack("<II", 2, claimed), shape=(1, claimed))[8:]
  whole = struct.pack("<II", 14, claimed + len(start)) + start + bytes(size)
  return packed(whole)


SIX = element(2, bytes(6))
STRUCTURE = element(5, struct.pack("<i", 4))
HOSTILE = {
  "other order": (file(matrix(SIX))[:126] + b"XX", "no header of version 5"),
  "version 4": (struct.pack("<5i", 0, 2, 2, 0, 2) + b"x\0", "no header of ver"),
  "cut": (file(matrix(SIX))[:-8], "ends in the middle of a variable"),
  "cut tag": (file(matrix(SIX)) [:132], "ends in the middle of a variable"),
  "kind": (file(element(99, b"")), "of the unknown kind 99"),
  "no flags": (file(element(14, element(5, b""))), "has no flags"),
  "no sizes": (file(matrix(SIX, dims=b"")), "has no sizes"),
  "dimensions": (file(matrix(SIX, shape=(1,) * 33)), "has no sizes"),
  "60,000": (file(matrix(SIX, shape=(1,) * 60_000)), "middle of an element"),
  "negative": (file(matrix(SIX, shape=(-2, -3))), "has a negative size"),
  "huge": (file(matrix(SIX, shape=(2**31 - 1,) * 9)), "6 bytes in place of 1"),
  "name": (file(matrix(SIX, name=b"x" * 99)), "has no name"),
  "few": (file(matrix(element(2, bytes(5)))), "5 bytes in place of 1 for each"),
  "type": (file(matrix(element(99, bytes(6)))), "of the unknown type 99"),
  "past": (
    file(matrix(struct.pack("<II", 2, 2**32 - 1))),
    "middle of an element",
  ),
  "small": (
    file(matrix(struct.pack("<II", (9 << 16) + 2, 0))),
    "more than four bytes",
  ),
  "damaged": (
    file(packed(matrix(SIX))[:-1] + b"\xff"),
    "incorrect data check",
  ),
  "no zlib": (file(element(15, b"12345678")), "incorrect header check"),
  "longer": (file(packed(matrix(SIX) + bytes(9))), "another size than it says"),
  "bomb": (file(bomb(900_000_000, 900_000_000)), "no label map has more than"),
  "hidden bomb": (file(bomb(900_000_000, 99)), "another size than it says"),
  "many": (file(*[matrix(SIX, name=b"y")] * 1001), "more than 1000 variables"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_little_time_and_memory(case):
  content, message = HOSTILE[case]
  tracemalloc.start()
  start = time.process_time()
  with pytest.raises(ValueError, match=message) as raised:
    matlab.decode_ids(content, "x")
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert "cannot be read as a MATLAB file" in str(raised.value)
  assert peak < 10_000_000 and time.process_time() - start < 2


STRUCTURES = {
  "no length": (SIX, "no length of names"),
  "length": (
    element(5, struct.pack("<i", 0)) + element(1, b""),
    "no names of fields",
  ),
  "many": (
    STRUCTURE + element(1, b"a\0\0\0" * 1001),
    "more than 1000 fields",
  ),
  "twice": (
    STRUCTURE + element(1, b"a\0\0\0" * 2) + element(14, b"") * 2,
    "two fields 'a'",
  ),
  "no matrix": (STRUCTURE + element(1, b"a\0\0\0") + SIX, "'a' is no matrix"),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_hostile_structures_are_refused(case):
  data, message = STRUCTURES[case]
  content = file(matrix(data, kind=2, shape=(1, 1)))
  with pytest.raises(ValueError, match=message):
    matlab.decode_ids(content, "x", field="a")


def test_twenty_thousand_nested_cells_are_passed_over():
  """They end the process where SciPy reads them."""
  content = file(nested(20_000), matrix(SIX, name=b"y"))
  assert matlab.decode_ids(content, "y").shape == (2, 3)
  with pytest.raises(ValueError, match="something other than numbers in x"):
    matlab.decode_ids(content, "x")


@pytest.mark.parametrize("compressed", [False, True])
def test_any_byte_that_is_wrong_is_refused_or_read_as_numbers(compressed):
  content = saved(
    compressed=compressed,
    S={"cells": np.array([["a", 1]], object), "map": [[7]]},
  )
  right = 0
  for place in range(128, len(content)):
    for byte in (0x00, 0x7F, 0xFF, content[place] ^ 1):
      damaged = bytearray(content)
      damaged[place] = byte
      try:
        found = matlab.decode_ids(bytes(damaged), "S", field="map")
      except ValueError:
        continue
      right += 1
      # Compressed, there is a checksum.
      assert found.dtype == np.int32 and (not compressed or found == 7)
  assert right
