"""Descriptions of devices that programs can be compiled for without them.

XLA's compilers for TPUs and GPUs are in the packages `libtpu` and
`jax-cuda12-plugin`. They need no device and no driver: shapes that carry a
sharding over the devices of a described topology are compiled for these.
"""

import importlib.util
import math
from typing import Any

import jax
from jax.experimental import topologies

from fcn_jax import sharding

# From NVIDIA's data sheet of the H100 SXM, in the words of XLA.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

# Extras and targets of the Makefile that install them, by package.
_INSTALL = {
  "libtpu": "tpu-compile",
  "jax_cuda12_plugin": "gpu-compile",
}


def mesh(name: str, *, row_shards: int = 1) -> jax.sharding.Mesh:
  """A mesh ("data", "rows") over the devices of a topology.

  Args:
    name: "h100:8" for so many GPUs of a host, or a TPU topology such as
      "v5e:2x2".
    row_shards: how many devices share the rows of an image.

  Raises:
    ModuleNotFoundError: if the package with the compiler is not installed.
  """
  kind, size = name.split(":")
  if kind == "h100":
    check_installed("jax_cuda12_plugin")
    topology = topologies.get_topology_desc(
      platform="cuda",
      topology_name="h100",
      topology=f"1x1x{size}",
      target_config=_H100,
    )
  else:
    check_installed("libtpu")
    options = {}
    if math.prod(map(int, size.split("x"))) == 1:
      # Otherwise a host of 2x2 chips is expected.
      options["chips_per_host_bounds"] = [1, 1, 1]
    topology = topologies.get_topology_desc(
      platform="tpu", topology_name=name, **options
    )
  return sharding.make_mesh(topology.devices, row_shards=row_shards)


def check_installed(package: str) -> None:
  """Raises a `ModuleNotFoundError` that says what to install."""
  if importlib.util.find_spec(package) is None:
    raise ModuleNotFoundError(
      f"{package}, which holds the compiler, is not installed: run make "
      f"{_INSTALL[package]}, or pip install 'fcn_jax[{_INSTALL[package]}]'."
    )


def replicated(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Shapes of arrays that every device holds."""
  return jax.tree.map(lambda x: placed(x, sharding.replicated(mesh)), tree)


def split(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Shapes of arrays that are split over the devices: images, and rows."""

  def split_one(array):
    is_image = len(array.shape) > 2
    of = sharding.of_images if is_image else sharding.of_numbers
    return placed(array, of(mesh))

  return jax.tree.map(split_one, tree)


def placed(
  array: jax.ShapeDtypeStruct, where: jax.sharding.Sharding
) -> jax.ShapeDtypeStruct:
  """The shape of an array, with a sharding."""
  return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where)
