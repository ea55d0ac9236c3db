"""Our networks as nets of Caffe: the text of a .prototxt, and the weights.

Kernels, strides, paddings and crops are those of our layer lists; names,
groups, normalisation and how layers are connected are stated anew, after the
nets that were published.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fcn_jax import models
from fcn_jax.models.backbones import googlenet

# The released nets for SIFT Flow.
HEADS = {"": "", "semantic": "_sem", "geometric": "_geo"}


@dataclasses.dataclass
class Net:
  """Layers of a net of Caffe.

  Attributes:
    text: of the .prototxt, a layer after the other.
    layers: kind and blobs of those that have weights, as `caffe_files.write`
      takes them.
  """

  text: list[str]
  layers: dict[str, tuple[str, Sequence[np.ndarray]]]

  def add(
    self,
    name: str,
    kind: str,
    bottoms: str | Sequence[str],
    options: str = "",
    *,
    blobs: Sequence[np.ndarray] = (),
    in_place: bool = False,
  ) -> str:
    """Adds a layer; returns the name of its output."""
    bottoms = [bottoms] if isinstance(bottoms, str) else bottoms
    top = bottoms[0] if in_place else name
    self.text.append(
      f'layer {{ name: "{name}" type: "{kind}" '
      + "".join(f'bottom: "{bottom}" ' for bottom in bottoms)
      + f'top: "{top}" {options} }}'
    )
    if blobs:
      self.layers[name] = (kind, blobs)
    return top


def empty(num_channels: Mapping[str, int]) -> Net:
  """A net of inputs with so many channels each, by name."""
  net = Net([], {})
  for name, number in num_channels.items():
    net.text.append(
      f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param '
      f"{{ shape {{ dim: 1 dim: {number} dim: 64 dim: 64 }} }} }}"
    )
  return net


def fcn(model: models.FCN, params: Mapping[str, Any], *, first: str) -> Net:
  """An FCN.

  Args:
    model: with padding "caffe".
    params: its parameters.
    first: name of the first layer.

  Returns:
    The net, of the input "data" and with outputs "score" or, if there are two
    heads, "score_sem" and "score_geo".
  """
  net = empty({"data": model.num_channels})
  tops = _backbone(net, model, params, "data", first=first)
  for head, suffix in HEADS.items():
    if head in model.heads:
      _head(net, model, params, tops, head, suffix)
  return net


def late_fusion(model: models.LateFusion, params: Mapping[str, Any]) -> Net:
  """The mean of the scores of two FCN-32s; inputs have modalities' names."""
  net = empty({name: one.num_channels for name, one in model.modalities})
  scores = []
  for name, _ in model.modalities:
    ours = params[name]
    tops = _backbone(net, model, ours, name, first="conv1_1", suffix=name)
    top = tops[model.chain().score[-1].name]
    scores.append(_conv(net, f"score_fr{name}", top, ours["score_fr"]))
  fused = net.add(
    "score_fused",
    "Eltwise",
    scores,
    "eltwise_param { operation: SUM coeff: 0.5 coeff: 0.5 }",
  )
  chain = model.chain()
  upscored = _deconv(net, "upscore", fused, chain.upscore[-1], model.heads[""])
  _crop(net, "score", upscored, model.modalities[0][0], *chain.crop_offsets())
  return net


def bilinear(num_channels: int, kernel: int) -> np.ndarray:
  """The weights of the released nets' upsampling [C, C, kernel, kernel]."""
  factor = (kernel + 1) // 2
  centre = factor - 1 if kernel % 2 else factor - 0.5
  tent = 1 - np.abs(np.arange(kernel) - centre) / factor
  weights = np.zeros((num_channels, num_channels, kernel, kernel), np.float32)
  diagonal = range(num_channels)
  weights[diagonal, diagonal] = np.outer(tent, tent)
  return weights


def _head(net, model, params, tops, head, suffix):
  """Scores, skips and upsampling of one head."""
  chain, num_classes = model.chain(), model.heads[head]
  ours = f"_{head}" if head else ""
  *skip_crops, last_crop = chain.crop_offsets()

  def score(name, top):
    conv = params[f"score_{name}{ours}"]
    return _conv(net, f"score_{name}{suffix}", top, conv)

  top = score("fr", tops[chain.score[-1].name])
  upscore = "upscore2" if chain.skips else "upscore"
  for skip, fused, crop, scale in zip(
    chain.skips, chain.fused, skip_crops, model.skip_scales, strict=False
  ):
    name = skip[-1].name
    top = _deconv(net, upscore + suffix, top, fused[-1], num_classes)
    skip_top = tops[name]
    if scale != 1:
      width = params[f"score_{name}{ours}"]["kernel"].shape[2]
      skip_top = net.add(
        f"scale_{name}{suffix}",
        "Scale",
        skip_top,
        blobs=[np.full(width, scale, np.float32)],
      )
    skip_top = score(name, skip_top)
    skip_top = _crop(net, f"score_{name}{suffix}c", skip_top, top, crop)
    top = net.add(
      f"fuse_{name}{suffix}",
      "Eltwise",
      [top, skip_top],
      "eltwise_param { operation: SUM }",
    )
    last = name == chain.skips[-1][-1].name
    upscore = f"upscore{model.stride}" if last else f"upscore_{name}"
  top = _deconv(net, upscore + suffix, top, chain.upscore[-1], num_classes)
  _crop(net, f"score{suffix}", top, "data", last_crop)


def _backbone(net, model, params, top, *, first, suffix=""):
  """The features of a backbone by our names: names of the net's outputs."""
  groups, normalized = {}, ()
  if model.backbone == "caffenet":
    groups = {"conv2": 2, "conv4": 2, "conv5": 2}
    normalized = ("pool1", "pool2")
  if model.backbone == "googlenet":
    normalized = ("pool1", "conv2")
  stem = {"conv1": "conv1/7x7_s2", "conv2_reduce": "conv2/3x3_reduce"}
  stem |= {"conv2": "conv2/3x3"}
  theirs = stem if model.backbone == "googlenet" else {}
  tops = {}
  layers = model.chain().score
  for layer in layers:
    name = theirs.get(layer.name, layer.name)
    if layer == layers[0] and model.backbone != "googlenet":
      name = first
    if layer.name in googlenet.INCEPTIONS:
      top = _inception(net, params, layer.name, top)
    elif layer.name.startswith("inception"):
      # The widest branch, for the geometry.
      continue
    elif layer.name == "pool5" and model.backbone == "googlenet":
      top = _pool(net, name, top, layer, kind="AVE")
    elif layer.name.startswith("pool"):
      top = _pool(net, name + suffix, top, layer)
    else:
      # Files have the channels of the first layer in another order.
      order = None
      if layer == layers[0]:
        by_name = dict(getattr(model, "modalities", ()))
        order = (by_name[suffix] if suffix else model.inputs).order
      top = _conv(
        net,
        name + suffix,
        top,
        params[layer.name],
        layer,
        group=groups.get(layer.name, 1),
        order=order,
      )
      net.add(f"relu_{name}{suffix}", "ReLU", top, in_place=True)
    tops[layer.name] = top
    if layer.name in normalized:
      options = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
      top = net.add(f"norm_{layer.name}{suffix}", "LRN", top, options)
  return tops


def _inception(net, params, name, top):
  """One module of GoogLeNet."""

  def conv(branch, top, padding=0):
    ours = params[f"{name}_{branch}"]
    top = _conv(net, f"{name}/{branch}", top, ours, padding=padding)
    net.add(f"{name}/relu_{branch}", "ReLU", top, in_place=True)
    return top

  options = "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }"
  pooled = net.add(f"{name}/pool", "Pooling", top, options)
  branches = (
    conv("1x1", top),
    conv("3x3", conv("3x3_reduce", top), 1),
    conv("5x5", conv("5x5_reduce", top), 2),
    conv("pool_proj", pooled),
  )
  return net.add(f"{name}/output", "Concat", branches)


def _conv(net, name, top, ours, layer=None, *, group=1, order=None, padding=0):
  kernel = np.asarray(ours["kernel"])
  if order is not None:
    kernel = kernel[:, :, list(order)]
  kernel = kernel.transpose(3, 2, 0, 1)
  stride = 1
  if layer is not None:
    stride, padding = layer.stride, layer.padding
    assert kernel.shape[2:] == (layer.kernel, layer.kernel)
  options = (
    f"convolution_param {{ num_output: {kernel.shape[0]} kernel_size: "
    f"{kernel.shape[2]} stride: {stride} pad: {padding} group: {group} }}"
  )
  blobs = [kernel, np.asarray(ours["bias"])]
  return net.add(name, "Convolution", top, options, blobs=blobs)


def _pool(net, name, top, layer, *, kind="MAX"):
  # Caffe's poolings round up.
  assert layer.ceil_mode or layer.stride == 1
  options = (
    f"pooling_param {{ pool: {kind} kernel_size: {layer.kernel} stride: "
    f"{layer.stride} pad: {layer.padding} }}"
  )
  return net.add(name, "Pooling", top, options)


def _deconv(net, name, top, layer, num_classes):
  assert layer.transposed and not layer.padding
  options = (
    f"convolution_param {{ num_output: {num_classes} kernel_size: "
    f"{layer.kernel} stride: {layer.stride} bias_term: false }}"
  )
  blobs = [bilinear(num_classes, layer.kernel)]
  return net.add(name, "Deconvolution", top, options, blobs=blobs)


def _crop(net, name, top, reference, offset):
  options = f"crop_param {{ axis: 2 offset: {offset} }}"
  return net.add(name, "Crop", [top, reference], options)
