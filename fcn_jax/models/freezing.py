"""Which layers of a network are frozen: they keep the values that they have.

A network is frozen from the image up to a named layer or block, or its whole
backbone. Layers that score are never frozen. Frozen batch normalization uses
its running statistics, also in training, and does not change them.

`train` does the rest: it takes no gradient of frozen parameters, and optimizers
do not see them.
"""

import dataclasses
from collections.abc import Sequence

import jax

from fcn_jax import geometry
from fcn_jax import types

# How the names of layers begin that are not of the backbone.
_HEADS = ("score_", "classifier_", "aux_classifier_")
BACKBONE = "backbone"


@dataclasses.dataclass(frozen=True)
class Freezing:
  """What is frozen in a network.

  Attributes:
    layers: names of the backbone's layers, in order.
    number: so many of them, the first ones, are frozen.
    statistics: whether all batch statistics are frozen, those of trained layers
      too.
  """

  layers: tuple[str, ...] = ()
  number: int = 0
  statistics: bool = False

  def holds(self, name: str) -> bool:
    """Whether a layer is frozen, or the normalization of one (`..._norm`)."""
    if not self.number or is_head(name):
      return False
    return self.layers.index(place(name, self.layers)) < self.number

  def holds_statistics(self, name: str) -> bool:
    """Whether the batch statistics of a layer are frozen."""
    return self.statistics or self.holds(name)

  def is_trained(self, params: types.Tree) -> types.Tree:
    """Marks the parameters that are not frozen: a bool for each array."""
    return jax.tree_util.tree_map_with_path(
      lambda path, _: not self.holds(_layer_of(path)), params
    )


def up_to(
  last: str | None,
  layer_list: Sequence[geometry.Layer],
  *,
  statistics: bool = False,
) -> Freezing:
  """Freezes the layers up to a named one.

  Args:
    last: name of the last frozen layer, or of a block of layers, such as
      "conv3" and "layer2_0"; "backbone" for all; None for none.
    layer_list: of the backbone.
    statistics: see `Freezing`.

  Raises:
    ValueError: if there is no such layer.
  """
  names = tuple(layer.name for layer in layer_list)
  if last is None:
    return Freezing(names, 0, statistics)
  if last == BACKBONE:
    return Freezing(names, len(names), statistics)
  found = [i for i, name in enumerate(names) if _is_part(name, last)]
  if not found:
    raise ValueError(_unknown(last, names))
  return Freezing(names, found[-1] + 1, statistics)


def in_backbone(params: types.Tree) -> types.Tree:
  """Marks the parameters of the backbone; a mask for optax.

  The others are those of the heads, which score.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: not is_head(_layer_of(path)), params
  )


def is_head(name: str) -> bool:
  """Whether a layer scores, or is another layer of a head."""
  return name.startswith(_HEADS)


def place(name: str, layers: Sequence[str]) -> str:
  """The layer at whose place in the image a named layer is.

  The layer itself, or the last one of its block; a score layer is where the
  features that it scores are.

  Args:
    name: of a layer, or of its normalization.
    layers: names of a layer list.
  """
  block = name.removeprefix("score_")
  while block:
    of_block = [layer for layer in layers if _is_part(layer, block)]
    if of_block:
      return block if block in layers else of_block[-1]
    block = block.rpartition("_")[0]
  return layers[-1]


def _is_part(name: str, block: str) -> bool:
  return f"{name}_".startswith(f"{block}_")


def _layer_of(path: tuple[jax.tree_util.DictKey, ...]) -> str:
  """The name of the layer of an array, whose path may begin with a network."""
  return path[-2].key


def _unknown(last: str, names: Sequence[str]) -> str:
  outer = [
    name
    for name in names
    if not any(_is_part(name, other) for other in names if other != name)
  ]
  inner = [name for name in names if name not in outer]
  parts = f", or a part of one, such as {inner[0]}" if inner else ""
  return (
    f"there is no layer {last!r} up to which to freeze: give {BACKBONE}, or "
    f"one of {', '.join(outer)}{parts}."
  )
