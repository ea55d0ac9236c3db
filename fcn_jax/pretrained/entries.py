"""Matches arrays of files with those of networks, and converts layouts."""

from typing import NamedTuple

import numpy as np

from fcn_jax.pretrained import transplanting


class Entry(NamedTuple):
  """One array, in a network of this package and in a file.

  Attributes:
    ours: its path in the variables, such as `params/fc6/kernel`.
    theirs: its name in the file.
    order: for a first layer's kernel, the image channels in the order of the
      file (`InputNormalization.order`); None elsewhere.
  """

  ours: str
  theirs: str
  order: tuple[int, ...] | None = None


def to_ours(
  array: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...] | None
) -> np.ndarray | None:
  """Converts an array to Flax's layout.

  Caffe and PyTorch have kernels [outputs, inputs, rows, columns], and flatten
  maps channel by channel before a dense layer, whose weights are [outputs,
  inputs * rows * columns].

  Args:
    array: as a file has it.
    shape: of the array in the network; [rows, columns, inputs, outputs] for a
      kernel.
    order: see `Entry`.

  Returns:
    A view of the array or a copy. It has `shape`, unless the file has other
    numbers of inputs or outputs. None if the array cannot belong to this layer
    at all.
  """
  if len(shape) != 4:
    # Old Caffe files have 1, 1, 1, C.
    is_vector = array.size == max(array.shape, default=0)
    return array.reshape(-1) if is_vector else None
  rows, columns, num_inputs, _ = shape
  if array.ndim == 4 and array.shape[2:] == (rows, columns):
    kernel = array.transpose(2, 3, 1, 0)
  elif (
    array.ndim >= 2
    and array.size == array.shape[-1] * array.shape[-2]
    and array.shape[-1] == rows * columns * num_inputs
  ):
    kernel = transplanting.dense_to_convolution(
      array.reshape(array.shape[-2:]).T,
      (rows, columns),
      flattening="channels_first",
    )
  else:
    return None
  if order is None or kernel.shape[2] > len(order):
    return kernel
  # If the file has fewer channels than the network: those it has, in order.
  present = [channel for channel in order if channel < kernel.shape[2]]
  return kernel[:, :, np.argsort(present)]


def to_theirs(array: np.ndarray) -> np.ndarray:
  """Converts a kernel [rows, columns, inputs, outputs] or a vector for PyTorch.

  Args:
    array: of a network of this package.

  Returns:
    [outputs, inputs, rows, columns], or the vector; contiguous.
  """
  if array.ndim == 4:
    array = array.transpose(3, 2, 0, 1)
  return np.ascontiguousarray(array)
