"""The few data structures that modules share."""

import dataclasses
import fractions
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import typing_extensions

from fcn_jax import reprs

# The label of void pixels, as in PASCAL VOC and in Caffe's nets.
IGNORE_LABEL = 255

EdgeRule = Literal["zero", "clamp"]

# Nested dicts, tuples and so on of arrays: a pytree of JAX. `help` shows the
# names of these types, not what they stand for.
Tree = typing_extensions.TypeAliasType("Tree", Any)

# The variables of a network by collection: {"params": ...} and, with batch
# normalization, "batch_stats".
Variables = typing_extensions.TypeAliasType("Variables", Mapping[str, Any])


class Batch(NamedTuple):
  """Images with their labels.

  Attributes:
    images: [N, H, W, 3] uint8 or float32, RGB in 0..255. Other channels for
      networks that have others.
    labels: [N, H, W] int32 or uint8, classes 0..C-1 or `IGNORE_LABEL`. For a
      network whose heads have different classes: those of each head, by its
      name.
    valid_sizes: [N, 2] int32, height and width of each image before it was
      padded below and to the right; None if the images fill the batch, or if
      padding may count as part of them.
  """

  images: jax.Array
  labels: jax.Array | Mapping[str, jax.Array]
  valid_sizes: jax.Array | None = None

  def __repr__(self) -> str:
    return reprs.call("Batch", self._asdict())

  def _repr_html_(self) -> str:
    rows = [(name, reprs.value(part)) for name, part in self._asdict().items()]
    return reprs.html_table(rows, caption="Batch")


class Grid(NamedTuple):
  """Where the cells of a map lie in the image.

  Cell i is centred on image coordinate offset + i * stride, in rows and in
  columns.

  Attributes:
    stride: pixels between neighbouring cells.
    offset: image coordinate of the centre of cell (0, 0), see `ScoreMap`.
  """

  stride: int | fractions.Fraction
  offset: float | fractions.Fraction


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScoreMap:
  """Coarse class scores, and where they lie in the image.

  The scores are samples on a square grid: cell (i, j) is centred on the image
  coordinate (offset + i * stride, offset + j * stride), where pixel (0, 0)
  has its centre at (0, 0). Only `scores` is an array; the rest is static.

  Attributes:
    scores: [N, h, w, C] float32.
    stride: pixels between neighbouring cells.
    offset: image coordinate of the centre of cell (0, 0), the same for rows
      and columns. A multiple of one half; negative where the network's
      padding puts cells outside the image.
    image_size: height and width of the image in pixels.
    edge: what interpolation uses beyond the outermost cells: "zero" (nothing,
      as a transposed convolution does) or "clamp" (the outermost cell again).
  """

  scores: jax.Array
  stride: int = dataclasses.field(metadata={"static": True})
  offset: float = dataclasses.field(metadata={"static": True})
  image_size: tuple[int, int] = dataclasses.field(metadata={"static": True})
  edge: EdgeRule = dataclasses.field(metadata={"static": True})

  @property
  def grid(self) -> Grid:
    """Where the cells lie, without the scores."""
    return Grid(self.stride, self.offset)
