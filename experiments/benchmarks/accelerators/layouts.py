"""Memory and exchanged bytes of train steps, by how devices share the work."""

from collections.abc import Iterator
from typing import NamedTuple

import fcn_jax as fcn
from experiments.benchmarks.accelerators import analysis
from experiments.benchmarks.accelerators import programs
from experiments.benchmarks.accelerators import topologies

# Bytes a second that a chip sends to all its neighbours together: 1,600 Gbit/s
# (https://docs.cloud.google.com/tpu/docs/v5e, "Interchip Interconnect BW per
# chip").
ICI_BYTES_PER_SECOND = {"v5e": 1600e9 / 8}


class Layout(NamedTuple):
  """How devices share a train step.

  Attributes:
    name: as the table prints it.
    fsdp: whether they share the state.
    by_rows: whether all share the rows of each image, or each has images.
    remat: what is computed again.
  """

  name: str
  fsdp: bool = False
  by_rows: bool = False
  remat: str = "none"


LAYOUTS = (
  Layout("data-parallel"),
  Layout("data-parallel, remat", remat="blocks"),
  Layout("FSDP", fsdp=True),
  Layout("rows", by_rows=True),
  Layout("rows, remat", by_rows=True, remat="blocks"),
  Layout("rows, FSDP, remat", fsdp=True, by_rows=True, remat="blocks"),
)


def lines(
  device: str,
  model: fcn.models.Network,
  *,
  num_images: int,
  image_size: int,
  wanted: tuple[str, ...] = (),
) -> Iterator[str]:
  """Compiles a train step in all layouts; yields the lines of a table.

  Args:
    device: a TPU topology.
    model: the network.
    num_images: on all devices.
    image_size: height and width in pixels.
    wanted: names of the layouts; all if empty.
  """
  for layout in LAYOUTS:
    if wanted and layout.name not in wanted:
      continue
    num_devices = topologies.mesh(device).size
    if not layout.by_rows and num_images % num_devices:
      continue
    mesh = topologies.mesh(
      device, row_shards=num_devices if layout.by_rows else 1
    )
    compiled = programs.train_step(
      mesh,
      model.clone(remat=layout.remat),
      fcn.sampling.whole_image(),
      num_images=num_images,
      image_size=image_size,
      fsdp=layout.fsdp,
    )
    found = analysis.read(compiled.as_text(), platform="tpu")
    memory = compiled.memory_analysis()
    exchanged = ", ".join(
      f"{found.collectives[kind]} {kind} {num_bytes / 1e6:.1f}"
      for kind, num_bytes in found.exchanged.items()
    )
    seconds = sum(found.exchanged.values()) / ICI_BYTES_PER_SECOND["v5e"]
    alone, beside = efficiency(found.seconds, seconds)
    yield (
      f"| {num_images} x {image_size} | {layout.name} "
      f"| {memory.argument_size_in_bytes / 1e6:.1f} "
      f"| {memory.temp_size_in_bytes / 1e6:.1f} | {exchanged or 'none'} "
      f"| {1e3 * found.seconds:.2f} | {1e3 * seconds:.2f} "
      f"| {alone:.0%} | {beside:.0%} |"
    )


HEADER = (
  "| images | layout | state and batch MB a chip | temporary MB a chip "
  "| exchanges, MB a chip | compute ms | exchange ms "
  "| efficiency | with overlap |\n"
  "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |"
)


def efficiency(compute: float, exchange: float) -> tuple[float, float]:
  """The share of the time that a chip computes.

  Args:
    compute: seconds of computation.
    exchange: seconds of exchange.

  Returns:
    If one waits for the other, and if both run at the same time.
  """
  return compute / (compute + exchange), compute / max(compute, exchange)
