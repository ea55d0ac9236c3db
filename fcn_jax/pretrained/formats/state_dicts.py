"""State dicts of PyTorch as dicts of arrays, without PyTorch.

Three kinds of file are read, recognised by their first bytes: what torch.save
writes since version 1.6 (a zip file with a pickle and one entry for each
storage), what it wrote before (pickles, then the storages one after another;
most of torchvision's published files), and safetensors. Pickles are not run,
see `pickled_tensors`. Files are mapped into memory and arrays are views of
them, so only what is used is read.
"""

import mmap
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from fcn_jax.pretrained.formats import pickled_tensors
from fcn_jax.pretrained.formats import pytorch

# Keys under which training scripts put the state dict.
_WRAPPERS = ("model", "state_dict", "model_state_dict")
# What torch's DataParallel puts before each name.
_PARALLEL = "module."

_SAFETENSORS_DTYPES = {
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


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the tensors of a file.

  The state dict may be the whole file, or be in it under "model", "state_dict"
  or "model_state_dict". The prefix "module." is removed if all names have it.

  Args:
    path: a .pth, .pt or .safetensors file, under any name.

  Returns:
    Arrays by name, read-only, with the shapes and dtypes of the file; only
    float16 and bfloat16 become float32. The others are views of the file, of
    any strides and alignment: do not change the file while they are in use.

  Raises:
    ValueError: if there is no such file, it is damaged or of another kind, or
      holds anything but tensors.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"{path} does not exist, or is not a file. Check the path")
  if not path.stat().st_size:
    raise ValueError(f"{path} is empty. {pytorch.AGAIN}")
  with path.open("rb") as file:
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  try:
    arrays = _read(path, content)
    if not arrays:
      raise ValueError(f"there are no tensors in it. {pytorch.AGAIN}")
    return _without_prefix(arrays)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays to a .safetensors file, whole or not at all.

  Args:
    path: of a new file; its name ends with .safetensors.
    arrays: by name, of any strides.

  Raises:
    ValueError: if the file exists, or its name ends otherwise.
  """
  path = pathlib.Path(path)
  if path.suffix != ".safetensors":
    raise ValueError(f"{path}: name it {path.stem}.safetensors, which it is")
  _check_free(path)
  partial = path.with_name(path.name + ".partial")
  _check_free(partial)
  try:
    # The library would make the file unreadable for other users.
    partial.touch()
    permissions = partial.stat().st_mode
    # The library writes arrays in the order of memory, whatever their strides.
    safetensors_numpy.save_file(
      {name: np.asarray(array, order="C") for name, array in arrays.items()},
      partial,
      # Hugging Face's readers need it.
      metadata={"format": "pt"},
    )
    partial.chmod(permissions)
    _check_free(path)
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def _check_free(path: pathlib.Path) -> None:
  if path.exists():
    raise ValueError(f"{path} exists already. Remove it, or choose a name")


def _read(path: pathlib.Path, content: mmap.mmap) -> dict[str, np.ndarray]:
  start = content[:512]
  if start.startswith(pytorch.ZIP):
    return _state_dict(*pytorch.open_zip(path, content))
  if pytorch.is_legacy(start):
    return _state_dict(*pytorch.open_legacy(content))
  if start.startswith(b"version https://git-lfs"):
    raise ValueError(
      "this is a Git LFS pointer, not the file itself. Fetch the file with: git"
      " lfs pull"
    )
  if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
    raise ValueError(
      "this is a web page, not the file. Open the address in a browser to see"
      " what it says, and download the file itself"
    )
  # safetensors: its header follows the length of the header.
  if start[8:9] == b"{":
    return _read_safetensors(path, content)
  raise ValueError(
    "this is neither a file of torch.save (from torch 0.1.2 or newer) nor a"
    f" safetensors file, or only a few bytes of one. {pytorch.AGAIN}"
  )


def _state_dict(content: Any, find: pytorch.Find) -> dict[str, np.ndarray]:
  """Converts the content of a pickle to arrays by name."""
  if type(content) is dict:
    wrapped = [content[key] for key in _WRAPPERS if key in content]
    if wrapped and type(wrapped[0]) is dict:
      content = wrapped[0]
  if type(content) is not dict:
    raise ValueError(
      f"it holds {_kind(content)}, not a state dict. Save the state dict alone:"
      " torch.save(model.state_dict(), path)"
    )
  arrays = {}
  for name, tensor in content.items():
    if type(tensor) is pickled_tensors.Parameter:
      tensor = tensor.tensor
    if type(name) is not str or type(tensor) is not pickled_tensors.Tensor:
      raise ValueError(
        f"it holds {_kind(tensor)} under {ascii(name)[:80]}, and not only"
        " tensors by name. Save the state dict alone:"
        " torch.save(model.state_dict(), path)"
      )
    arrays[name] = pytorch.view(tensor, find)
  return arrays


def _kind(value: Any) -> str:
  return f"something of type {type(value).__name__}"


def _read_safetensors(
  path: pathlib.Path, content: mmap.mmap
) -> dict[str, np.ndarray]:
  """Views of the file; the library would make copies.

  The library reads the header, and refuses files whose tensors do not fill the
  file without gaps after the header. So order and sizes tell where they are.
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
  except safetensors.SafetensorError as error:
    raise ValueError(
      f"this is not a safetensors file, or only a part of one ({error})."
      f" {pytorch.AGAIN}"
    ) from error
  for name, kind, shape in shapes:
    if kind not in _SAFETENSORS_DTYPES:
      raise ValueError(
        f"{ascii(name)[:80]} is of type {kind}, which cannot be read."
        f" Save it as one of {', '.join(_SAFETENSORS_DTYPES)}"
      )
    dtype = _SAFETENSORS_DTYPES[kind]
    arrays[name] = pytorch.widened(np.ndarray(shape, dtype, content, start))
    start += arrays[name].size * dtype.itemsize
  return arrays


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  if not all(name.startswith(_PARALLEL) for name in arrays):
    return arrays
  return {name.removeprefix(_PARALLEL): array for name, array in arrays.items()}
