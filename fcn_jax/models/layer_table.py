"""A table of the layers of a network: sizes, parameters, geometry, work."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fcn_jax import checks
from fcn_jax import geometry
from fcn_jax import reprs
from fcn_jax.models import freezing as freezing_lib


class Row(NamedTuple):
  """A layer, with its normalization.

  Attributes:
    name: of the layer; of several networks, after the name of its network.
    kernel: side of its kernel.
    output: height, width and, of a convolution, channels.
    num_parameters: numbers of its kernel, bias and normalization.
    stride: pixels between its cells.
    receptive_field: side in pixels of the square that a cell sees.
    flops: two for each multiplication and addition of its convolution.
    is_frozen: whether its parameters are not trained.
  """

  name: str
  kernel: int
  output: tuple[int, ...]
  num_parameters: int
  stride: int
  receptive_field: int
  flops: int
  is_frozen: bool = False


_HEADER = (
  "layer",
  "kernel",
  "output (H x W x C)",
  "parameters",
  "stride",
  "field",
  "MFLOP",
)


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
  """What `summary` returns: shows itself as a table.

  Attributes:
    network: its class and what it is made of.
    image_size: height and width of the image that the outputs are for.
    rows: of the layers, in the order of computation.
  """

  network: str
  image_size: tuple[int, int]
  rows: tuple[Row, ...]

  @property
  def num_parameters(self) -> int:
    """Numbers of all layers, trained and frozen."""
    return sum(row.num_parameters for row in self.rows)

  @property
  def num_frozen(self) -> int:
    """Numbers of the frozen layers."""
    return sum(row.num_parameters for row in self.rows if row.is_frozen)

  @property
  def flops(self) -> int:
    """Two for each multiplication and addition of the convolutions."""
    return sum(row.flops for row in self.rows)

  def __repr__(self) -> str:
    cells = [_HEADER, *map(_cells, self.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
      "  ".join(
        cell.rjust(width) if number else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(line, widths, strict=True))
      )
      for line in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([self._caption(), "", *lines])

  def _repr_html_(self) -> str:
    return reprs.html_table(
      map(_cells, self.rows), header=_HEADER, caption=self._caption()
    )

  def _caption(self) -> str:
    height, width = self.image_size
    frozen = f", {self.num_frozen:,} of them frozen" if self.num_frozen else ""
    return (
      f"{self.network}: {self.num_parameters:,} parameters "
      f"({reprs.size(4 * self.num_parameters)} in float32){frozen}, "
      f"{self.flops / 1e9:.3g} GFLOP for {height} x {width} pixels"
    )


def _cells(row: Row) -> tuple[str, ...]:
  return (
    row.name,
    f"{row.kernel} x {row.kernel}",
    " x ".join(map(str, row.output)),
    _num_parameters(row),
    f"{row.stride}",
    f"{row.receptive_field}",
    f"{row.flops / 1e6:,.1f}" if row.flops else "",
  )


def _num_parameters(row: Row) -> str:
  if not row.num_parameters:
    return ""
  return f"{row.num_parameters:,}" + (" (frozen)" if row.is_frozen else "")


def summary(
  model: Any, *, image_size: tuple[int, int] | int = (224, 224)
) -> Summary:
  """A table of the layers of a network, without making its parameters.

      print(fcn.summary(model))

  A layer has the parameters of its normalization, too. Layers in branches have
  the stride and the receptive field at the end of their block. Work is that of
  the convolutions, up to borders: XLA's count without norms and interpolation.

  Args:
    model: one of `models.Network`.
    image_size: height and width of the image, or one number for a square.

  Raises:
    ValueError: if the image is too small for the network.
  """
  image_size = checks.size(image_size, "image_size")
  images = jax.ShapeDtypeStruct((1, *image_size, model.num_channels), jnp.uint8)
  initialize = functools.partial(model.init, train=False)
  variables = jax.eval_shape(initialize, jax.random.key(0), images)
  network = type(model).__name__
  backbone = getattr(model, "backbone", None)
  return Summary(
    f"{network} of {backbone}" if backbone else network,
    image_size,
    tuple(
      _rows(model.chain(), model.freezing, variables["params"], image_size)
    ),
  )


def _rows(
  chain: geometry.Chain,
  freezing: freezing_lib.Freezing,
  params: Mapping[str, Any],
  image_size: tuple[int, int],
  prefix: str = "",
) -> Iterator[Row]:
  """The rows of one network, or of several side by side."""
  if not any("kernel" in group for group in params.values()):
    for name, of_network in params.items():
      yield from _rows(chain, freezing, of_network, image_size, f"{name}/")
    return
  stacks = {
    layer.name: chain.score[: number + 1]
    for number, layer in enumerate(chain.score)
  }
  parts: dict[str, list[str]] = {}
  for name in params:
    parts.setdefault(name.removesuffix("_norm"), []).append(name)
  at: dict[str, list[str]] = {}
  for name in parts:
    at.setdefault(freezing_lib.place(name, list(stacks)), []).append(name)
  for end, stack in stacks.items():
    sides = tuple(geometry.output_size(stack, side) for side in image_size)
    stride = int(geometry.grid(stack).stride)
    field = geometry.receptive_field(stack)
    if end not in parts and stack[-1].stride > 1:
      yield Row(prefix + end, stack[-1].kernel, sides, 0, stride, field, 0)
    for name in at.get(end, ()):
      kernel = params[name]["kernel"]
      arrays = jax.tree.leaves([params[part] for part in parts[name]])
      yield Row(
        prefix + name,
        kernel.shape[0],
        (*sides, kernel.shape[-1]),
        sum(array.size for array in arrays),
        stride,
        field,
        2 * kernel.size * math.prod(sides),
        freezing.holds(name),
      )
