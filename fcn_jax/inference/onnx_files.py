"""Exports a network to an ONNX file, for runtimes other than JAX.

The file runs with ONNX Runtime, TensorRT, OpenVINO and others:

    session = onnxruntime.InferenceSession("network.onnx")
    (classes,) = session.run(["classes"], {"images": pictures})

Input and outputs, for any number N of images of any size H and W:

    images    [N, H, W, 3] uint8, RGB in 0..255
    classes   [N, H, W] uint8, the likeliest class of each pixel
    scores    [N, C, H, W] float32, logits; softmax makes probabilities of them

All images of a call have one size; there is no padding. A network whose own
padding is not "same" needs images of some size, as it does here. Numbers are
float32, whatever the network was trained in. The properties of the file hold
the names and colours of the classes.

The file has a node for each layer, named as the layer, which tools for ONNX
know and fuse; see `onnx_graph`.
"""

import functools
import json
import math
import pathlib
from collections.abc import Sequence
from fractions import Fraction

import jax
import numpy as np

from fcn_jax import geometry
from fcn_jax import models
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax import writing
from fcn_jax.inference import exporting
from fcn_jax.inference import onnx_graph
from fcn_jax.models import layers

# None if it is not installed.
onnx = onnx_graph.onnx

# Protocol buffers, and so files of one part, end at 2^31 bytes; the rest of a
# file has far less than what is left.
_LARGEST = 2**31 - 2**24
# Cells beyond the last one that interpolation may need, see
# `interpolation.covering_cells`.
_AFTER = 2


def export_onnx(
  path: str | pathlib.Path,
  model: models.Network,
  variables: types.Variables,
  *,
  class_names: Sequence[str],
  palette: np.ndarray,
  resize: float = 1.0,
) -> None:
  """Writes a network to an ONNX file, see above.

  Args:
    path: the file to write; it must not exist. It is written completely or not
      at all.
    model: `models.FCN` or `models.FCNResNet`; of several heads the main one.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    class_names: C names.
    palette: [C, 3] uint8, RGB of each class.
    resize: the factor by which pictures were resized for training; a property
      of the file, which callers apply.

  Raises:
    ValueError: as `exporting.export`; also if onnx is not installed, the
      network is of another kind, or its parameters are above 2 GB.
  """
  path = pathlib.Path(path)
  palette = np.asarray(palette)
  exporting.check(path, model, class_names, palette, resize)
  if not isinstance(model, models.FCN | models.FCNResNet):
    raise ValueError(
      f"a {type(model).__name__} cannot be exported to ONNX, only FCN and "
      "FCNResNet."
    )
  check_installed()
  num_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(variables))
  if num_bytes > _LARGEST:
    raise ValueError(
      f"the parameters have {num_bytes / 1e9:.1f} GB; an ONNX file holds 2 GB. "
      "Export for JAX instead, which has no such limit."
    )
  proto = graph_of(model, variables)
  onnx.helper.set_model_props(
    proto,
    {
      "class_names": json.dumps(list(class_names)),
      "palette": json.dumps(palette.tolist()),
      "resize": str(float(resize)),
    },
  )
  onnx.checker.check_model(proto)
  writing.remove_left_overs(path.parent)
  with writing.whole(path) as partial:
    partial.write_bytes(proto.SerializeToString())


def check_installed() -> None:
  """Raises a `ValueError` if onnx is not installed."""
  if onnx is None:
    raise ValueError(
      "onnx is not installed, which writes ONNX files: pip install "
      "'fcn_jax[onnx]'."
    )


def graph_of(
  model: models.FCN | models.FCNResNet, variables: types.Variables
) -> "onnx.ModelProto":
  """The network as an ONNX model, without the properties of the file."""
  graph = onnx_graph.Graph(variables)
  images = onnx_graph.Node("images", 3)
  backbone = model.make_backbone(_layers_of(graph))
  features = backbone.apply({}, images, train=False)
  image_size = graph.add("Shape", images, start=1, end=3)
  if isinstance(model, models.FCN):
    scores = _fused(graph, model, features, image_size)
  else:
    scores = _resized(graph, model, features, image_size)
  graph.add("Identity", scores, name="scores")
  classes = graph.add("ArgMax", scores, axis=1, keepdims=0)
  graph.cast(classes, np.uint8, name="classes")
  return graph.model(scores.channels)


def _layers_of(graph):
  return functools.partial(onnx_graph.Layers, graph=graph)


def _score(graph, model, name, features):
  num_classes = models.heads.num_classes(model)
  return onnx_graph.conv(graph, features, geometry.Layer(name, 1), num_classes)


def _fused(graph, model, features, image_size):
  """Scores of the pixels of an `FCN`; see `models.fcn`."""
  main = models.heads.main_head(model)
  suffix = f"_{main}" if main else ""
  chain = model.chain()
  name = chain.score[-1].name
  scores = _score(graph, model, f"score_fr{suffix}", features[name])
  grid = geometry.grid(chain.score)
  for layer_list, scale in zip(
    chain.skips, (*model.skip_scales, 1.0, 1.0, 1.0), strict=False
  ):
    name = layer_list[-1].name
    skip = features[name]
    if scale != 1:
      skip = graph.add("Mul", skip, graph.constant(scale, dtype=np.float32))
    skip = _score(graph, model, f"score_{name}{suffix}", skip)
    scores, grid = _added(
      graph, scores, grid, skip, geometry.grid(layer_list), model.edge
    )
  return _interpolated(
    graph,
    scores,
    int(grid.stride),
    grid.offset,
    image_size,
    model.edge,
  )


def _added(graph, coarse, coarse_grid, skip, skip_grid, edge):
  """The sum of coarse scores and a skip; see `upsampling.add_skip`."""
  factor, offset, start = upsampling.skip_grid(coarse_grid, skip_grid)
  reach = graph.add("Shape", coarse, start=2, end=4)
  reach = graph.add("Mul", reach, graph.constant([factor] * 2))
  reach = graph.add("Add", reach, graph.constant([math.ceil(offset)] * 2))
  there = graph.add("Shape", skip, start=2, end=4)
  stop = graph.add("Min", reach, there)
  size = graph.add("Sub", stop, graph.constant([start] * 2))
  upsampled = _interpolated(graph, coarse, factor, offset - start, size, edge)
  cropped = graph.cut(skip, start, stop)
  grid = skip_grid._replace(offset=skip_grid.offset + start * skip_grid.stride)
  return graph.add("Add", upsampled, cropped), grid


def _interpolated(graph, values, factor, offset, size, edge):
  """Both axes of `interpolation.interpolate_axis`.

  Resize has two grids that fit: cells at multiples of the factor, and cells in
  the middle of as many outputs.
  """
  before = max(0, math.ceil(Fraction(offset) / factor))
  values = graph.add(
    "Pad",
    values,
    graph.constant([0, 0, before, before, 0, 0, _AFTER, _AFTER]),
    mode="edge" if edge == "clamp" else "constant",
  )
  # The first of the cells, counted in outputs.
  first = Fraction(offset) - before * factor
  if first.denominator == 1:
    mode, start = "asymmetric", -first
  else:
    mode, start = "half_pixel", Fraction(factor - 1, 2) - first
  if factor > 1:
    values = graph.add(
      "Resize",
      values,
      "",
      graph.constant([1, 1, factor, factor], dtype=np.float32),
      mode="linear",
      coordinate_transformation_mode=mode,
    )
  stop = graph.add("Add", size, graph.constant([int(start)] * 2))
  return graph.cut(values, int(start), stop)


def _resized(graph, model, features, image_size):
  """Scores of the pixels of an `FCNResNet`, resized as PyTorch does."""
  width = features["layer4"].channels // model.head_divisor
  make = model.make_backbone(_layers_of(graph)).settings.make(False)
  maps = make.conv(
    layers.Maps(features["layer4"], None),
    geometry.Layer("classifier_conv", 3, padding=1),
    width,
  )
  scores = _score(graph, model, "score_classifier", maps.values)
  number = graph.add("Shape", scores, start=0, end=2)
  shape = graph.add("Concat", number, image_size, axis=0)
  return graph.add(
    "Resize",
    scores,
    "",
    "",
    shape,
    mode="linear",
    coordinate_transformation_mode="half_pixel",
    channels=scores.channels,
  )
