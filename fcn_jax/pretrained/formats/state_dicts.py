"""State dicts of PyTorch as dicts of arrays, without PyTorch.

Files are recognised by their first bytes: what torch.save writes since version
1.6 (a zip file with a pickle and one entry for each storage), what it wrote
before (pickles, then the storages one after another; most of torchvision's
published files), safetensors, an index of its parts, and the HDF5 files of
Keras. Pickles are not run, see `pickled_tensors`. Files are mapped into memory
and arrays are views of them, so only what is used is read.
"""

import functools
import mmap
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from fcn_jax import writing
from fcn_jax.pretrained.formats import keras
from fcn_jax.pretrained.formats import other_kinds
from fcn_jax.pretrained.formats import pickled_tensors
from fcn_jax.pretrained.formats import pytorch
from fcn_jax.pretrained.formats import safetensors_files

# What torch's DataParallel puts before each name.
_PARALLEL = "module."
# In what the library says of an error of the system.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# How deep in a checkpoint a state dict may be.
_DEPTH = 4
# Largest number of names in a message.
_NUM_SHOWN = 4


class StateDict(NamedTuple):
  """One of the dicts of arrays in a file.

  Attributes:
    arrays: functions that give them, by name.
    others: names of numbers, strings and the like among them.
    foreign: the first object among them of a class that is not known, as its
      name and its class; None if there is none.
  """

  arrays: dict[str, safetensors_files.Lazy]
  others: tuple[str, ...] = ()
  foreign: tuple[str, str] | None = None

  def read(self) -> dict[str, np.ndarray]:
    """Reads the arrays.

    Raises:
      ValueError: if there is anything among them that is not known.
    """
    if self.foreign is not None:
      name, kind = self.foreign
      raise ValueError(
        f"{pickled_tensors.more_than_tensors(kind)} (under {ascii(name)[:80]})"
      )
    return {name: array() for name, array in self.arrays.items()}


class Content(NamedTuple):
  """What is in a file.

  Attributes:
    state_dicts: by their keys; that of a whole file is empty, and those inside
      each other are joined by dots.
    metadata: of a safetensors file.
    is_keras: whether Keras wrote it.
  """

  state_dicts: dict[str, StateDict]
  metadata: Mapping[str, str] = {}
  is_keras: bool = False


def read(
  path: str | os.PathLike, *, key: str | None = None
) -> dict[str, np.ndarray]:
  """Reads the tensors of a file.

  The state dict may be the whole file, or be in it under any key. The prefix
  "module." is removed if all names have it.

  Args:
    path: a .pth, .pt, .safetensors, .safetensors.index.json or .h5 file, under
      any name.
    key: of the state dict, if a checkpoint has several.

  Returns:
    Arrays by name, read-only, with the shapes and dtypes of the file; only
    float16 and bfloat16 become float32. The others are views of the file, of
    any strides and alignment: do not change the file while they are in use.
    Those of Keras are in PyTorch's layout, and are named as layers of PyTorch.

  Raises:
    ValueError: if there is no such file, it is damaged or of another kind,
      holds anything but tensors, or holds several state dicts and no key says
      which.
  """
  found = content(path).state_dicts
  if key is None and len(found) == 1:
    (key,) = found
  if key not in found:
    raise ValueError(f"{path}: {which(found, key)}")
  try:
    return _without_prefix(found[key].read())
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def content(path: str | os.PathLike) -> Content:
  """Lists the state dicts of a file; see `read`."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(
      f"{path} is a folder, not a file. Give the file of weights in it, or the"
      " index of several parts (model.safetensors.index.json)"
    )
  if not path.is_file():
    raise ValueError(f"{path} does not exist, or is not a file. Check the path")
  if not path.stat().st_size:
    raise ValueError(f"{path} is empty. {pytorch.AGAIN}")
  with path.open("rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  try:
    return _content(path, mapped)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def which(keys: Mapping[str, Any], key: str | None) -> str:
  """The message for a file with several state dicts, averages (EMA) first."""
  names = sorted(keys, key=lambda name: "ema" not in name.lower())
  listed = ", ".join(name or "'' (the whole file)" for name in names[:20])
  if key is not None:
    return f"it has no state dict under the key {key!r}, but has {listed}"
  return (
    f"it has several state dicts: {listed}. Choose one by its key:"
    f" --key {names[0]}, or key={names[0]!r} in Python"
  )


def write(
  path: str | os.PathLike,
  arrays: Mapping[str, np.ndarray],
  *,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes arrays to a .safetensors file, whole or not at all.

  Args:
    path: of a new file; its name ends with .safetensors.
    arrays: by name, of any strides.
    metadata: texts to put into the header.

  Raises:
    ValueError: if the file exists, or its name ends otherwise.
  """
  path = pathlib.Path(path)
  if path.suffix != ".safetensors":
    raise ValueError(f"{path}: name it {path.stem}.safetensors, which it is")
  _check_free(path)
  writing.remove_left_overs(path.parent)
  # The library writes to a temporary file of its own beside that, which it
  # leaves if it is killed.
  with (
    writing.explained(path),
    writing.scratch(path.parent, path.name) as folder,
  ):
    new = folder / path.name
    writing.create(new)
    # The library would make the file unreadable for other users.
    permissions = new.stat().st_mode
    try:
      safetensors_numpy.save_file(
        # It writes arrays in the order of memory, whatever their strides.
        {name: np.asarray(array, order="C") for name, array in arrays.items()},
        new,
        # Hugging Face's readers need it.
        metadata={"format": "pt", **(metadata or {})},
      )
    except safetensors.SafetensorError as error:
      if not (number := _OS_ERROR.search(str(error))):
        raise
      raise OSError(int(number[1]), str(error)) from error
    new.chmod(permissions)
    writing.publish(new, path)


def _check_free(path: pathlib.Path) -> None:
  if path.exists():
    raise ValueError(f"{path} exists already. Remove it, or choose a name")


def _content(path: pathlib.Path, content: mmap.mmap) -> Content:
  start = content[:512]
  if start.startswith(pytorch.ZIP):
    return _state_dicts(*pytorch.open_zip(path, content))
  if pytorch.is_legacy(start):
    return _state_dicts(*pytorch.open_legacy(content))
  if start.startswith(keras.MAGIC):
    return Content({"": StateDict(keras.read(path))}, is_keras=True)
  if safetensors_files.is_one(start):
    safetensors_files.check_whole(path)
    arrays, metadata = safetensors_files.read(path, content)
    if not arrays:
      raise ValueError(f"there are no tensors in it. {pytorch.AGAIN}")
    return Content({"": StateDict(arrays)}, metadata)
  if start.lstrip().startswith(b"{"):
    return Content({"": StateDict(safetensors_files.read_index(path))})
  raise ValueError(
    other_kinds.of(path, start)
    or "this is neither a file of torch.save (from torch 0.1.2 or newer) nor a"
    f" safetensors file, or only a few bytes of one. {pytorch.AGAIN}"
  )


def _state_dicts(loaded: Any, find: pytorch.Find) -> Content:
  """The dicts with tensors in the content of a pickle."""
  if type(loaded) is not dict:
    raise ValueError(_no_dict(loaded))
  found, seen, foreign = {}, set(), []
  # Breadth first, and each dict once, whatever its depth in the file.
  level = [("", loaded)]
  for _ in range(_DEPTH):
    below = []
    for key, values in level:
      if id(values) in seen:
        continue
      seen.add(id(values))
      if (state_dict := _state_dict(values, find)).arrays:
        found[key] = state_dict
      elif state_dict.foreign:
        foreign.append(state_dict.foreign)
      below += [
        (f"{key}.{name}" if key else name, value)
        for name, value in values.items()
        if type(name) is str and type(value) is dict
      ]
    level = below
  if not found:
    if foreign:
      name, kind = foreign[0]
      raise ValueError(
        f"{pickled_tensors.more_than_tensors(kind)} (under {ascii(name)[:80]})"
      )
    shown = ", ".join(ascii(name)[:80] for name in [*loaded][:_NUM_SHOWN])
    raise ValueError(
      f"it holds no tensors by name, but {shown or 'nothing'}: there are no"
      " tensors in it. Save the state dict alone:"
      " torch.save(model.state_dict(), path)"
    )
  return Content(found)


def _state_dict(values: dict[Any, Any], find: pytorch.Find) -> StateDict:
  arrays, others, foreign = {}, [], None
  for name, tensor in values.items():
    if type(tensor) is pickled_tensors.Parameter:
      tensor = tensor.tensor
    if type(name) is str and type(tensor) is pickled_tensors.Tensor:
      arrays[name] = functools.partial(pytorch.view, tensor, find)
    elif type(tensor) is pickled_tensors.Foreign:
      foreign = foreign or (str(name), tensor.name)
    else:
      others.append(str(name))
  return StateDict(arrays, tuple(others), foreign)


def _no_dict(loaded: Any) -> str:
  if type(loaded) is not pickled_tensors.Foreign:
    return (
      f"it holds something of type {type(loaded).__name__}, not a state dict."
      " Save the state dict alone: torch.save(model.state_dict(), path)"
    )
  return (
    f"{pickled_tensors.more_than_tensors(loaded.name)}. A whole model was"
    " saved, which only its own program can load"
  )


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  if not all(name.startswith(_PARALLEL) for name in arrays):
    return arrays
  return {name.removeprefix(_PARALLEL): array for name, array in arrays.items()}
