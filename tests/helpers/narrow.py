"""Narrow variants of the backbones, and files with random weights for them."""

import dataclasses

import jax
import numpy as np
import pytest

from fcn_jax import models
from fcn_jax.models import input_normalization
from fcn_jax.pretrained import caffe_names
from fcn_jax.pretrained import entries
from fcn_jax.pretrained import loading
from fcn_jax.pretrained import transplanting
from tests.helpers import caffe_files

VGG_WIDTHS = (8, 8, 12, 16, 16)
ALEXNET_WIDTHS = (8, 12, 16, 12, 12)
HEAD_WIDTH = 24
GOOGLENET_WIDTH = 1 / 8
RESNET_WIDTHS = (4, 8, 12, 16)


def backbones(monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes all published backbones narrow, under their own names."""
  changes = {
    models.backbones.vgg: {"widths": VGG_WIDTHS, "head_width": HEAD_WIDTH},
    models.backbones.alexnet: {
      "widths": ALEXNET_WIDTHS,
      "head_width": HEAD_WIDTH,
    },
    models.backbones.googlenet: {"width": GOOGLENET_WIDTH},
    models.backbones.resnet: {"widths": RESNET_WIDTHS},
  }
  for file, change in changes.items():
    for name, architecture in file.ARCHITECTURES.items():
      if name not in ("vgg_small", "vgg13_small"):
        narrow = dataclasses.replace(architecture, **change)
        monkeypatch.setitem(file.ARCHITECTURES, name, narrow)
  # Their names are those of the wide ones, so shapes must not be remembered.
  monkeypatch.setattr(loading, "_template", loading._template.__wrapped__)


def inputs(backbone: str) -> input_normalization.InputNormalization:
  """The input normalization of torchvision's weights of a backbone."""
  if backbone == "googlenet_bn":
    return input_normalization.INCEPTION
  return input_normalization.TORCHVISION


def random_variables(model, seed=0):
  """Random parameters and batch statistics of a network, as NumPy arrays."""
  rng = np.random.default_rng(seed)
  images = np.zeros((1, 64, 64, model.num_channels), np.uint8)

  def draw(leaf):
    scale = (2 * leaf.shape[-1] / leaf.size) ** 0.5 if leaf.ndim > 1 else 0.5
    values = rng.normal(0, scale, leaf.shape)
    return (values if leaf.ndim > 1 else abs(values) + 0.5).astype(np.float32)

  template = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  return jax.tree.map(draw, template)


def write_caffemodel(path, model, variables, *, dense=(), **options):
  """Writes the parameters of a network to a .caffemodel.

  Args:
    path: the file.
    model: the network.
    variables: its variables.
    dense: layers to write as dense ones, such as those of a classifier.
    **options: of `caffe_files.write`.
  """
  arrays, layers = dict(transplanting.named(variables)), {}
  for ours, theirs, order in caffe_names.entries(model):
    layer, number = theirs.rsplit("/", 1)
    array = entries.to_theirs(arrays[ours])
    if order is not None:
      array = array[:, list(order)]
    if layer in dense and array.ndim == 4:
      array = array.reshape(len(array), -1)
    layers.setdefault(layer, {})[int(number)] = array
  caffe_files.write(
    path,
    {
      name: (
        "InnerProduct" if name in dense else "Convolution",
        [blobs[i] for i in sorted(blobs)],
      )
      for name, blobs in layers.items()
    },
    **options,
  )
