"""Reads the weights in a .caffemodel file, without Caffe.

Such a file is one message of protocol buffers, `NetParameter`. Only fields with
weights are described here; all others are skipped. The arrays are views of the
file, which is mapped into memory, so reading the 537 MB of a VGG16 takes almost
no time and memory.
"""

import itertools
import math
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fcn_jax.pretrained.formats import protobuf


class _Layer(NamedTuple):
  """Numbers of the fields of a message that describes a layer."""

  name: int
  blobs: int


# All numbers are those of src/caffe/proto/caffe.proto in BVLC Caffe 1.0.
# NetParameter: its name, and its layers as `layers` (V1LayerParameter, until
# 2014) or as `layer` (LayerParameter, since then).
_NET_NAME = 1
_LAYERS = {2: _Layer(name=4, blobs=6), 100: _Layer(name=1, blobs=7)}
# BlobProto: num, channels, height and width are the shape in older files.
_LEGACY_SHAPE = (1, 2, 3, 4)
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
# BlobShape.
_DIM = 1
# Most dimensions of a blob (Caffe's own limit), and most fields of a net, of a
# layer or of a blob: no network has a tenth of that many layers, and Caffe
# packs the values of a blob into one field. A field takes two bytes of the
# file, a microsecond and 200 bytes of memory.
_MOST_DIMS = 32
_MOST_FIELDS = 100_000


def is_caffe(path: str | pathlib.Path) -> bool:
  """Whether a file begins as a .caffemodel does, even if it is truncated."""
  try:
    data = _mapped(path)
    # A safetensors file: the length of its header may look like the first
    # fields of a net.
    if bytes(data[8:9]) == b"{":
      return False
    for number, _ in _net_fields(data):
      if number in _LAYERS:
        return True
  except protobuf.TruncatedError as error:
    return error.number in _LAYERS
  except ValueError:
    pass
  return False


def read(path: str | pathlib.Path) -> dict[str, tuple[np.ndarray, ...]]:
  """Reads the weights in a .caffemodel, of the current or of the V1 format.

  Args:
    path: the file. Do not change it while the arrays are in use.

  Returns:
    The layers that have weights, by name and in the order of the file, each
    with its blobs: float32, read-only, in the shapes of the file. In older
    files all have four dimensions: a bias [1, 1, 1, C], an inner product
    [1, 1, outputs, inputs]. A view may be unaligned.

  Raises:
    ValueError: if there is no such file, or it is not a .caffemodel, or it is
      truncated or damaged, or it has no weights, or has two layers with one
      name.
  """
  layers = {}
  messages = _layer_messages(path, _mapped(path))
  for number, message in messages:
    try:
      name, blobs = _layer(number, message)
    except ValueError as error:
      raise ValueError(
        f"{path} is damaged: in {_label(number, message)}, {error}. Download "
        "or copy it again."
      ) from error
    if not blobs:
      continue
    if name in layers:
      raise ValueError(
        f"{path} has two layers named {name!r} with weights, and it is not "
        "clear which of them to use: save the net again with different names."
      )
    layers[name] = blobs
  if not layers:
    raise ValueError(
      f"{path} has {len(messages)} layers and no weights: give the file that "
      "was saved in training. (Files from before 2014 must be converted by "
      "Caffe's upgrade_net_proto_binary first.)"
    )
  return layers


def _mapped(path: str | pathlib.Path) -> memoryview:
  """The bytes of a file, read from disk only when they are used."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"There is no file {path}: give a .caffemodel.")
  if not path.stat().st_size:
    raise ValueError(f"{path} is empty: download or copy it again.")
  return memoryview(np.memmap(path, np.uint8, mode="r"))


def _fields(
  message: memoryview,
) -> Iterator[tuple[int, int | memoryview]]:
  """The fields of a message; ValueError if there are very many."""
  for count, field in enumerate(protobuf.fields(message)):
    if count == _MOST_FIELDS:
      raise ValueError(f"it has more than {_MOST_FIELDS} fields")
    yield field


def _net_fields(
  data: memoryview,
) -> Iterator[tuple[int, int | memoryview]]:
  """The fields of the net; ValueError if it is a message of another kind."""
  num_names = 0
  for number, value in _fields(data):
    num_names += number == _NET_NAME
    if num_names > 1:
      # A graph of TensorFlow has its nodes there.
      raise ValueError("it has several names, which no net has")
    if isinstance(value, int) and (number == _NET_NAME or number in _LAYERS):
      raise ValueError(f"field {number} is a number, which no net has")
    yield number, value


def _layer_messages(
  path: str | pathlib.Path, data: memoryview
) -> list[tuple[int, memoryview]]:
  """The layers in a file, each with the number of its field."""
  layers = []
  try:
    for number, value in _net_fields(data):
      if number in _LAYERS:
        layers.append((number, value))
  except protobuf.TruncatedError as error:
    if error.number in _LAYERS:
      where = f"in the middle of {_label(error.number, error.rest)}"
    elif layers:
      where = f"after {_label(*layers[-1])}"
    else:
      raise ValueError(_other_kind(path, data)) from error
    raise ValueError(
      f"{path} is truncated: it has {len(data)} bytes and ends {where}. "
      "Download or copy it again, and compare its size with the original's."
    ) from error
  except ValueError as error:
    if layers:
      raise ValueError(
        f"{path} is damaged: after {_label(*layers[-1])}, {error}. Download "
        "or copy it again."
      ) from error
    raise ValueError(_other_kind(path, data)) from error
  if not layers:
    raise ValueError(_other_kind(path, data))
  return layers


def _other_kind(path: str | pathlib.Path, data: memoryview) -> str:
  """The message for a file that is not a .caffemodel."""
  start = bytes(data[:1024]).lstrip()
  if start.lower().startswith((b"<!doctype", b"<html", b"<?xml")):
    return (
      f"{path} is a web page, not a .caffemodel: the link led to a page that "
      "links to the file, or to an error. Download the file itself."
    )
  if all(byte >= 0x20 or byte in b"\t\n\r" for byte in start):
    return (
      f"{path} is a text file, not a .caffemodel: a .prototxt only lists the "
      "layers of a net. Give the binary file that has its weights."
    )
  return (
    f"{path} is not a .caffemodel, or damaged from its first bytes on: give a "
    "file of weights that Caffe saved (not a .solverstate, a .binaryproto or "
    "an .h5)."
  )


def _label(number: int, message: memoryview) -> str:
  """The name of a layer whose message may be cut or damaged."""
  try:
    for field, value in _fields(message):
      if field == _LAYERS[number].name:
        return f"layer {_text(value)!r}"
  except ValueError:
    pass
  return "a layer whose name is lost"


def _layer(
  number: int, message: memoryview
) -> tuple[str, tuple[np.ndarray, ...]]:
  """The name and the blobs of a layer."""
  name, blobs = "", []
  for field, value in _fields(message):
    if field == _LAYERS[number].name:
      name = _text(value)
    elif field == _LAYERS[number].blobs:
      try:
        blobs.append(_blob(_part(value)))
      except ValueError as error:
        raise ValueError(f"in blob {len(blobs)}, {error}") from error
  return name, tuple(blobs)


def _blob(message: memoryview) -> np.ndarray:
  """A `BlobProto` as an array, float32."""
  parts = {_DATA: [], _DOUBLE_DATA: []}
  legacy_shape, shape = {}, []
  for field, value in _fields(message):
    if field in parts:
      # Packed, all values are one part; unpacked, each is its own.
      parts[field].append(_part(value))
    elif field == _SHAPE:
      shape.extend(itertools.islice(_dims(_part(value)), _MOST_DIMS + 1))
      if len(shape) > _MOST_DIMS:
        raise ValueError(f"it has more than {_MOST_DIMS} dimensions")
    elif field in _LEGACY_SHAPE and isinstance(value, int):
      legacy_shape[field] = protobuf.signed(value)
  # If a blob has both, do the same as Caffe's Blob::FromProto.
  if legacy_shape:
    shape = [legacy_shape.get(field, 0) for field in _LEGACY_SHAPE]
  values = _values(parts[_DATA], "<f4")
  if parts[_DOUBLE_DATA]:
    values = _values(parts[_DOUBLE_DATA], "<f8")
  if min(shape, default=1) < 1 or math.prod(shape) != len(values):
    raise ValueError(
      f"there are {len(values)} values, which do not fit its shape {shape}"
    )
  return values.astype(np.float32, copy=False).reshape(shape)


def _dims(message: memoryview) -> Iterator[int]:
  """The dimensions in a `BlobShape`."""
  for field, value in protobuf.fields(message):
    if field == _DIM:
      packed = not isinstance(value, int)
      for dim in protobuf.packed_varints(value) if packed else (value,):
        yield protobuf.signed(dim)


def _values(parts: list[memoryview], dtype: str) -> np.ndarray:
  """The values in the parts of a field; a view if there is only one."""
  data = parts[0] if len(parts) == 1 else b"".join(parts)
  return np.frombuffer(data, dtype)


def _part(value: int | memoryview) -> memoryview:
  """A value that is not a varint."""
  if isinstance(value, int):
    raise ValueError(f"there is a number, {value}, in place of data")
  return value


def _text(value: int | memoryview) -> str:
  """A string, with replacement characters for bytes that are not UTF-8."""
  return bytes(_part(value)).decode(errors="replace")
