"""Where batches and the state of training lie on several devices.

Functions from a mesh and shapes to `jax.sharding.NamedSharding`s; the compiler
(GSPMD) makes the rest of them. A mesh has two axes: images are split over
"data", and their rows over "rows".
"""

from collections.abc import Sequence

import jax
import numpy as np

from fcn_jax import types

DATA, ROWS = "data", "rows"

# To exchange fewer elements takes no less time.
_MIN_ELEMENTS = 2**12


def make_mesh(
  devices: Sequence[jax.Device] | None = None, *, row_shards: int = 1
) -> jax.sharding.Mesh:
  """A mesh ("data", "rows") over devices.

  Neighbouring devices share the rows of an image.

  Args:
    devices: all of this program if None.
    row_shards: how many devices share an image.

  Raises:
    ValueError: if the number of devices is not a multiple of `row_shards`.
  """
  devices = jax.devices() if devices is None else devices
  check_row_shards(len(devices), row_shards)
  return jax.sharding.Mesh(
    np.asarray(devices, object).reshape(-1, row_shards), (DATA, ROWS)
  )


def check_row_shards(num_devices: int, row_shards: int) -> None:
  """Raises a `ValueError` unless groups of so many devices share images."""
  if row_shards < 1 or num_devices % row_shards:
    raise ValueError(
      f"row_shards is {row_shards}, but there are {num_devices} devices: "
      "choose a number that divides them."
    )


def of_images(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Of arrays [N, H, W, ...]: images and, where devices share them, rows."""
  return jax.sharding.NamedSharding(mesh, jax.P(DATA, ROWS))


def of_numbers(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Of arrays [N, ...] without rows of pixels, such as `Batch.valid_sizes`."""
  return jax.sharding.NamedSharding(mesh, jax.P(DATA))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Of arrays that every device holds."""
  return jax.sharding.NamedSharding(mesh, jax.P())


def fully_sharded(
  mesh: jax.sharding.Mesh,
  state: types.Tree,
  *,
  min_elements: int = _MIN_ELEMENTS,
) -> types.Tree:
  """Of parameters and optimizer state that all devices share (FSDP).

  As ZeRO, stage 3 (Rajbhandari et al., 2020): each array is split along its
  largest axis that the number of devices divides, the last one if several are
  equally large. Arrays without such an axis, and small ones, are on every
  device.

  Args:
    mesh: from `make_mesh`.
    state: arrays, or their shapes.
    min_elements: of the arrays that are split.

  Returns:
    A `NamedSharding` for each array.
  """

  def of_array(array):
    shape = array.shape
    axes = [axis for axis, side in enumerate(shape) if side % mesh.size == 0]
    if not axes or array.size < min_elements:
      return replicated(mesh)
    largest = max(axes, key=lambda axis: (shape[axis], axis))
    spec = [None] * largest + [mesh.axis_names]
    return jax.sharding.NamedSharding(mesh, jax.P(*spec))

  return jax.tree.map(of_array, state)
