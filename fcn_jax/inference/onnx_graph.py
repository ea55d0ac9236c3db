"""Draws a network as a graph of ONNX, with the code of the network itself.

`Layers` takes the place of `models.layers.Layers`, and adds nodes where that
computes.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from fcn_jax import geometry
from fcn_jax import types
from fcn_jax.models import layers

try:
  import onnx
except ModuleNotFoundError:
  onnx = None

# The first with GroupNormalization as Flax has it.
OPSET = 21


class Node(NamedTuple):
  """What a node of the graph computes.

  Attributes:
    name: of the value.
    channels: C of maps [N, C, h, w]; without meaning for heights and widths,
      which are [2] int64.
  """

  name: str
  channels: int


class Graph:
  """Nodes and constants, as they are added."""

  def __init__(self, variables: types.Variables):
    self._params = variables["params"]
    self._statistics = variables.get("batch_stats", {})
    self._nodes = []
    self._constants = {}

  def array(self, layer: str, name: str) -> np.ndarray | None:
    """A parameter or statistic of a layer in float32, if it has it."""
    for tree in (self._params, self._statistics):
      if name in tree.get(layer, {}):
        return np.asarray(tree[layer][name], np.float32)
    return None

  def constant(self, value, name: str | None = None, dtype=None) -> str:
    """The name of a constant; a number without a name may be used again."""
    value = np.asarray(value, dtype)
    if name is None:
      name = f"{value.dtype}_{value.ravel().tolist()}_{value.ndim}"
    self._constants[name] = value
    return name

  def add(
    self,
    op: str,
    first: Node,
    *others: Node | str,
    name: str | None = None,
    channels: int | None = None,
    **attributes,
  ) -> Node:
    """Adds a node.

    Args:
      op: an operation of ONNX.
      first: its first input.
      *others: its other inputs; strings are names of values.
      name: of the node and of its value.
      channels: of the value, if they are not those of the first input.
      **attributes: of the operation.
    """
    name = name or f"{op}_{len(self._nodes)}"
    inputs = [one.name if isinstance(one, Node) else one for one in others]
    self._nodes.append(
      onnx.helper.make_node(
        op, [first.name, *inputs], [name], name=name, **attributes
      )
    )
    return Node(name, channels or first.channels)

  def cast(self, node: Node, dtype, name: str | None = None) -> Node:
    """The values of a node in another dtype."""
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return self.add("Cast", node, to=to, name=name)

  def cut(self, node: Node, start: int, stop: Node) -> Node:
    """Rows and columns from `start` to `stop` - 1."""
    return self.add(
      "Slice",
      node,
      self.constant([start] * 2),
      stop,
      self.constant([2, 3]),
    )

  def model(self, num_classes: int) -> "onnx.ModelProto":
    """The model of all nodes, from images to classes and scores."""
    helper, kinds = onnx.helper, onnx.TensorProto
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
      self._nodes,
      "fcn_jax",
      [value("images", kinds.UINT8, ["N", "H", "W", 3])],
      [
        value("classes", kinds.UINT8, ["N", "H", "W"]),
        value("scores", kinds.FLOAT, ["N", num_classes, "H", "W"]),
      ],
      [
        onnx.numpy_helper.from_array(array, name)
        for name, array in self._constants.items()
      ],
    )
    return helper.make_model(
      graph,
      producer_name="fcn_jax",
      opset_imports=[helper.make_opsetid("", OPSET)],
      # The newest that readers of this opset know.
      ir_version=10,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers(layers.Layers):
  """Adds the nodes of layers to a graph; see the methods of the base class."""

  graph: Graph

  def begin(self, images, valid_sizes):
    """Nodes of the input normalization, from [N, H, W, 3] uint8."""
    graph, inputs = self.graph, self.settings.inputs
    values = graph.cast(images, np.float32)
    values = graph.add("Transpose", values, perm=[0, 3, 1, 2])
    mean, scale = (
      graph.constant(np.reshape(numbers, (1, -1, 1, 1)), name, np.float32)
      for numbers, name in ((inputs.mean, "mean"), (inputs.scale, "scale"))
    )
    values = graph.add("Mul", graph.add("Sub", values, mean), scale)
    return layers.Maps(values, valid_sizes)

  def block(self, module, function, maps):
    """The layers of a block."""
    return function(maps)

  def conv(
    self, maps, layer, width, *, groups=1, relu=True, pool=None, packs=True
  ):
    """Nodes Conv, normalization, Relu and MaxPool."""
    del packs
    values = conv(self.graph, maps.values, layer, width, groups)
    values = self._normalized(values, layer.name)
    if relu:
      values = self.graph.add("Relu", values)
    maps = maps._replace(values=values)
    return maps if pool is None else self.max_pool(maps, pool)

  def _normalized(self, values, layer_name):
    name = f"{layer_name}_norm"
    kind = self.settings.normalization

    def constants(*names):
      return (
        self.graph.constant(self.graph.array(name, one), f"{name}/{one}")
        for one in names
      )

    if kind == "batch":
      return self.graph.add(
        "BatchNormalization",
        values,
        *constants("scale", "bias", "mean", "var"),
        name=name,
        epsilon=self.epsilon,
      )
    if kind == "group":
      return self.graph.add(
        "GroupNormalization",
        values,
        *constants("scale", "bias"),
        name=name,
        epsilon=1e-6,
        num_groups=values.channels // 8,
      )
    return values

  def dropout(self, maps, rate, name):
    """The same maps: the graph is not for training."""
    del rate, name
    return maps

  def add(self, maps, shortcut):
    """Nodes Add and Relu."""
    values = self.graph.add("Add", maps.values, shortcut.values)
    return maps._replace(values=self.graph.add("Relu", values))

  def max_pool(self, maps, layer):
    """A node MaxPool."""
    return self._pool("MaxPool", maps, layer)

  def average_pool(self, maps, layer):
    """A node AveragePool."""
    return self._pool("AveragePool", maps, layer, count_include_pad=0)

  def _pool(self, op, maps, layer, **attributes):
    values = self.graph.add(
      op,
      maps.values,
      kernel_shape=[layer.kernel] * 2,
      strides=[layer.stride] * 2,
      pads=[layer.padding] * 4,
      ceil_mode=int(layer.ceil_mode),
      **attributes,
    )
    return maps._replace(values=values)

  def local_response_norm(self, maps, *, size=5, alpha=1e-4, beta=0.75):
    """A node LRN."""
    values = self.graph.add(
      "LRN", maps.values, size=size, alpha=alpha, beta=beta, bias=1.0
    )
    return maps._replace(values=values)

  def concatenate(self, branches):
    """A node Concat."""
    values = [one.values for one in branches]
    channels = sum(one.channels for one in values)
    return branches[0]._replace(
      values=self.graph.add("Concat", *values, axis=1, channels=channels)
    )


def conv(
  graph: Graph,
  values: Node,
  layer: geometry.Layer,
  width: int,
  groups: int = 1,
) -> Node:
  """A node Conv with the parameters of a layer; see `Layers.conv`."""
  kernel = graph.array(layer.name, "kernel").transpose(3, 2, 0, 1)
  inputs = [graph.constant(kernel, f"{layer.name}/kernel")]
  bias = graph.array(layer.name, "bias")
  if bias is not None:
    inputs.append(graph.constant(bias, f"{layer.name}/bias"))
  return graph.add(
    "Conv",
    values,
    *inputs,
    name=layer.name,
    channels=width,
    kernel_shape=[layer.kernel] * 2,
    strides=[layer.stride] * 2,
    pads=[layer.padding] * 4,
    dilations=[layer.dilation] * 2,
    group=groups,
  )
