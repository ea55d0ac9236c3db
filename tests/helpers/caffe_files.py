"""Writing .caffemodel files, as Caffe saves them (without the layers' options).

The numbers are those of src/caffe/proto/caffe.proto in BVLC Caffe.
"""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# V1LayerParameter.LayerType, for the layers with weights that it had.
V1_TYPES = {"Convolution": 4, "Deconvolution": 39, "InnerProduct": 14}

# A message, or a value, in parts that are never put together in memory.
Parts = list[bytes | np.ndarray]


def varint(value: int) -> bytes:
  """An unsigned integer, or a negative int64."""
  value %= 1 << 64
  encoded = bytearray()
  while value > 0x7F:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*encoded, value])


def integer(number: int, value: int) -> Parts:
  return [varint(number << 3), varint(value)]


def delimited(number: int, value: Parts | bytes) -> Parts:
  """A field that is a string, an array of values, or a message."""
  parts = [value] if isinstance(value, bytes) else value
  size = sum(memoryview(part).nbytes for part in parts)
  return [varint(number << 3 | 2), varint(size), *parts]


def blob(array: np.ndarray, *, legacy_shape: bool = False) -> Parts:
  """The fields of a `BlobProto`; the older form has four dimensions."""
  data = delimited(5, [np.ascontiguousarray(array, "<f4").reshape(-1)])
  if not legacy_shape:
    dims = b"".join(varint(size) for size in np.shape(array))
    return data + delimited(7, delimited(1, dims))
  sizes = (1,) * (4 - array.ndim) + array.shape
  fields = [integer(1 + axis, size) for axis, size in enumerate(sizes)]
  return [*itertools.chain(*fields), *data]


def layer(
  name: str,
  kind: str | int,
  blobs: Sequence[np.ndarray],
  *,
  v1: bool = False,
  legacy_shape: bool = False,
) -> Parts:
  """The field of a `NetParameter` that has one layer."""
  encoded = [blob(array, legacy_shape=legacy_shape) for array in blobs]
  if v1:
    message = delimited(4, name.encode())
    message += integer(5, V1_TYPES.get(kind, kind))
    return delimited(2, message + _repeated(6, encoded))
  message = delimited(1, name.encode()) + delimited(2, kind.encode())
  return delimited(100, message + _repeated(7, encoded))


def write(
  path: str | pathlib.Path,
  layers: Mapping[str, tuple[str | int, Sequence[np.ndarray]]],
  *,
  v1: bool = False,
  legacy_shape: bool = False,
) -> None:
  """Writes a net's weights.

  Args:
    path: the file.
    layers: type and blobs of each layer, by name, blobs in Caffe's layout:
      [outputs, inputs / groups, height, width] and [outputs].
    v1: whether to write layers as until 2014. Types are those of `V1_TYPES`,
      or a number of V1LayerParameter.LayerType.
    legacy_shape: whether to write shapes as until 2014, in four dimensions:
      [1, 1, 1, outputs] for a bias. At most four dimensions.
  """
  parts = delimited(1, b"a net")
  for name, (kind, blobs) in layers.items():
    parts += layer(name, kind, blobs, v1=v1, legacy_shape=legacy_shape)
  with open(path, "wb") as file:
    file.writelines(parts)


def _repeated(number: int, messages: Iterable[Parts]) -> Parts:
  fields = (delimited(number, message) for message in messages)
  return [*itertools.chain.from_iterable(fields)]
