"""Narrow variants of the backbones, and files with random weights for them."""

import dataclasses

import jax
import numpy as np

import fcn_jax as fcn
from fcn_jax.pretrained import caffe_names
from fcn_jax.pretrained import entries
from fcn_jax.pretrained import transplanting
from tests.helpers import caffe_files as written


def backbones(monkeypatch) -> None:
  """Makes VGG16, VGG19, CaffeNet and ResNet-50 narrow while a test runs."""
  models = fcn.models
  for file, name, changes in (
    (
      models.backbones.vgg,
      "vgg16",
      {"widths": (4, 4, 6, 6, 8), "head_width": 16},
    ),
    (
      models.backbones.vgg,
      "vgg19",
      {"widths": (4, 4, 6, 6, 8), "head_width": 16},
    ),
    (
      models.backbones.alexnet,
      "caffenet",
      {"widths": (4, 8, 8, 8, 8), "head_width": 16},
    ),
    (
      models.backbones.resnet,
      "resnet50",
      {"widths": (4, 4, 8, 8), "depths": (1, 1, 2, 1)},
    ),
  ):
    architecture = file.ARCHITECTURES[name]
    monkeypatch.setitem(
      file.ARCHITECTURES, name, dataclasses.replace(architecture, **changes)
    )


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
  written.write(
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
