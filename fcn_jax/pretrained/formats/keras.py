"""The HDF5 files of Keras, such as the published VGGs, in PyTorch's layout.

A file has a group for each layer, whose attribute `weight_names` lists its
arrays: a kernel, [rows, columns, inputs, outputs] or [inputs, outputs], and a
bias. (keras.io/api/applications; the format is that of `save_weights` of Keras
1 and 2.) It needs h5py, the extra `keras`.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = b"\x89HDF\r\n\x1a\n"
Lazy = Callable[[], np.ndarray]


def read(path: pathlib.Path) -> dict[str, Lazy]:
  """The arrays of a file by names such as "block1_conv1.weight".

  Kernels are [outputs, inputs, rows, columns] or [outputs, inputs]. Arrays that
  are neither kernels nor biases are left out.

  Raises:
    ValueError: if h5py is not installed, or the file is damaged or of another
      program.
  """
  if importlib.util.find_spec("h5py") is None:
    raise ValueError(
      "this is an HDF5 file, such as those of Keras, and reading it needs"
      " h5py: run pip install h5py"
    )
  import h5py

  try:
    with h5py.File(path, "r") as file:
      return _arrays(h5py, file, path)
  # h5py raises many kinds of errors for damaged files.
  except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"this HDF5 file is damaged ({str(error)[:120]}). Download it again, and"
      " compare its size with the published one"
    ) from error


def _arrays(h5py: Any, file: Any, path: pathlib.Path) -> dict[str, Lazy]:
  # `save` puts the weights beside the state of the optimizer.
  group = file.get("model_weights", file)
  if "layer_names" not in group.attrs:
    raise ValueError(
      "this HDF5 file is not one of Keras's with layers by name. In Keras, save"
      ' the weights as model.save_weights("vgg16.h5"), or give the file of'
      " Keras Applications (vgg16_weights_tf_dim_ordering_tf_kernels.h5)"
    )
  arrays, num_bytes = {}, 0
  for layer in map(_text, group.attrs["layer_names"]):
    for name in map(_text, group[layer].attrs["weight_names"]):
      dataset = _own(h5py, group, f"{layer}/{name}")
      kind = {4: "weight", 2: "weight", 1: "bias"}.get(dataset.ndim)
      num_bytes += dataset.size * dataset.dtype.itemsize
      if num_bytes > path.stat().st_size:
        raise ValueError(
          "its arrays are larger than the file, so they are compressed or made"
          " up. Save the weights with Keras again"
        )
      if kind and dataset.dtype.kind == "f":
        arrays[f"{layer}.{kind}"] = functools.partial(
          _to_torch, np.asarray(dataset)
        )
  return arrays


def _own(h5py: Any, group: Any, name: str) -> Any:
  """A dataset whose elements are in this file, not in another one."""
  parts = name.split("/")
  for end in range(1, len(parts) + 1):
    link = group.get("/".join(parts[:end]), getlink=True)
    if not isinstance(link, h5py.HardLink):
      raise ValueError(f"its array {name[:80]!a} is in another file")
  dataset = group[name]
  if (
    not isinstance(dataset, h5py.Dataset)
    or dataset.external
    or dataset.is_virtual
  ):
    raise ValueError(f"its array {name[:80]!a} is not in this file")
  return dataset


def _text(name: bytes | str) -> str:
  return name.decode(errors="replace") if isinstance(name, bytes) else name


def _to_torch(array: np.ndarray) -> np.ndarray:
  array = array.astype(np.float32, copy=False)
  axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
  return array.transpose(axes)
