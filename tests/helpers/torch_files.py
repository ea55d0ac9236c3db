"""Writing .pth files as torch.save does, without torch.

Python's own pickler writes them, with modules and classes of torch's names in
place of torch's while it does.
"""

import collections
import io
import pathlib
import pickle
import sys
import types
import zipfile
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
SYSTEM = {
  "protocol_version": PROTOCOL_VERSION,
  "little_endian": True,
  "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def _named(module: str, name: str) -> type:
  return type(name, (), {"__module__": module})


STORAGES = {
  np.dtype(dtype): _named("torch", f"{name}Storage")
  for name, dtype in {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": jnp.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
  }.items()
}
FUNCTIONS = {
  name: _named("torch._utils", name)
  for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
}
PARAMETER = _named("torch.nn.parameter", "Parameter")


def _modules() -> dict[str, types.ModuleType]:
  modules = {}
  named = [*STORAGES.values(), *FUNCTIONS.values(), PARAMETER]
  for value in named:
    module = value.__module__
    modules.setdefault(module, types.ModuleType(module))
    setattr(modules[module], value.__name__, value)
  return modules


class Parameter:
  """An array that is saved as a torch.nn.Parameter."""

  def __init__(self, array: np.ndarray):
    self.array = array


class OldParameter(Parameter):
  """The same, as torch 0.1 saved it."""


class OldTensor(Parameter):
  """An array that is saved as torch 0.3 saved tensors."""


class Call:
  """A call that is made where the file is unpickled."""

  def __init__(self, function: Any, *arguments: Any):
    self.function = function
    self.arguments = arguments

  def __reduce__(self):
    return self.function, self.arguments


class PersistentId:
  """Something that the file names by `identity`."""

  def __init__(self, identity: Any):
    self.identity = identity


class _Storage:
  def __init__(self, array: np.ndarray):
    self.array = array


class _Pickler(pickle.Pickler):
  """Arrays become tensors: views of the arrays that own their memory."""

  def __init__(self, stream, *, protocol: int, legacy: bool):
    super().__init__(stream, protocol)
    self.legacy = legacy
    self.storages = {}

  def persistent_id(self, value):
    if isinstance(value, PersistentId):
      return value.identity
    if not isinstance(value, _Storage):
      return None
    array = value.array
    keys = [key for key, known in self.storages.items() if known is array]
    key = keys[0] if keys else str(len(self.storages))
    self.storages[key] = array
    identity = ("storage", STORAGES[array.dtype], key, "cpu", array.size)
    return (*identity, None) if self.legacy else identity

  def reducer_override(self, value):
    if isinstance(value, OldParameter):
      state = (value.array, None, {}, True, False)
      return PARAMETER, (), state
    if isinstance(value, OldTensor):
      arguments = self._arguments(value.array)[:4]
      return FUNCTIONS["_rebuild_tensor"], arguments
    if isinstance(value, Parameter):
      arguments = (value.array, True, collections.OrderedDict())
      return FUNCTIONS["_rebuild_parameter"], arguments
    if isinstance(value, np.ndarray):
      return FUNCTIONS["_rebuild_tensor_v2"], self._arguments(value)
    return NotImplemented

  def _arguments(self, array: np.ndarray):
    owner = array
    while isinstance(owner.base, np.ndarray):
      owner = owner.base
    size = array.itemsize
    return (
      _Storage(owner),
      (array.ctypes.data - owner.ctypes.data) // size,
      array.shape,
      tuple(stride // size for stride in array.strides),
      False,
      collections.OrderedDict(),
    )


def pickled(
  content: Any, *, protocol: int = 2, legacy: bool = False
) -> tuple[bytes, dict[str, np.ndarray]]:
  """The pickle of what is saved, and the storages that it names."""
  stream = io.BytesIO()
  with mock.patch.dict(sys.modules, _modules()):
    pickler = _Pickler(stream, protocol=protocol, legacy=legacy)
    pickler.dump(content)
  return stream.getvalue(), pickler.storages


def zip_entries(content: Any, *, protocol: int = 2) -> dict[str, bytes]:
  """The files in the zip file that torch.save writes since 1.6."""
  data, storages = pickled(content, protocol=protocol)
  return {
    "data.pkl": data,
    "byteorder": b"little",
    **{f"data/{key}": array.tobytes() for key, array in storages.items()},
    "version": b"3\n",
  }


def write_zip(
  path: pathlib.Path,
  entries: dict[str, bytes],
  *,
  compression: int = zipfile.ZIP_STORED,
) -> None:
  with zipfile.ZipFile(path, "w", compression) as file:
    for name, data in entries.items():
      file.writestr(f"archive/{name}", data)


def legacy_parts(content: Any) -> list[bytes]:
  """What torch.save wrote before 1.6, in its parts."""
  data, storages = pickled(content, legacy=True)
  return [
    pickle.dumps(MAGIC_NUMBER, 2),
    pickle.dumps(PROTOCOL_VERSION, 2),
    pickle.dumps(SYSTEM, 2),
    data,
    pickle.dumps(list(storages), 2),
    *(
      array.size.to_bytes(8, "little") + array.tobytes()
      for array in storages.values()
    ),
  ]


def save(path: pathlib.Path, content: Any, *, legacy: bool = False) -> None:
  """Saves nested dicts and lists with arrays, as torch.save does."""
  if legacy:
    path.write_bytes(b"".join(legacy_parts(content)))
  else:
    write_zip(path, zip_entries(content))
