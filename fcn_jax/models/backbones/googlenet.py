"""GoogLeNet backbones (Inception v1), as published for Caffe and torchvision.

Szegedy et al. (2015), made fully convolutional as in section 4.1 of CVPR
2015: the last average pooling slides over the map. `googlenet` is the paper's,
without its auxiliary classifiers. `googlenet_bn` is torchvision's: batch
normalisation instead of local response normalisation, kernels of 3 where the
paper has 5, and a last max-pooling of 2x2.
"""

import dataclasses
import functools

import flax.linen as nn

from fcn_jax import geometry
from fcn_jax.models import input_normalization
from fcn_jax.models import layers

# Channels of the six convolutions of each module: 1x1; 3x3_reduce and 3x3;
# 5x5_reduce and 5x5; pool_proj (Szegedy et al., Table 1).
INCEPTIONS = {
  "inception_3a": (64, 96, 128, 16, 32, 32),
  "inception_3b": (128, 128, 192, 32, 96, 64),
  "inception_4a": (192, 96, 208, 16, 48, 64),
  "inception_4b": (160, 112, 224, 24, 64, 64),
  "inception_4c": (128, 128, 256, 24, 64, 64),
  "inception_4d": (112, 144, 288, 32, 64, 64),
  "inception_4e": (256, 160, 320, 32, 128, 128),
  "inception_5a": (256, 160, 320, 32, 128, 128),
  "inception_5b": (384, 192, 384, 48, 128, 128),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What distinguishes one GoogLeNet from another, see `backbones`.

  Attributes:
    largest_kernel: side of the kernels of the branch called 5x5.
    pool4_kernel: side of the windows of the last max-pooling.
    local_response_norm: whether it follows pool1 and conv2.
    width: factor on the channels of all layers.
  """

  largest_kernel: int
  pool4_kernel: int
  local_response_norm: bool
  inputs: input_normalization.InputNormalization
  normalization: layers.Normalization
  skips: tuple[str, ...] = ("inception_4e", "inception_3b", "conv2", "conv1")
  width: float = 1.0

  def scaled(self, width: int) -> int:
    """Channels of a layer."""
    return max(1, round(self.width * width))


ARCHITECTURES = {
  "googlenet": Architecture(
    largest_kernel=5,
    pool4_kernel=3,
    local_response_norm=True,
    inputs=input_normalization.CAFFE,
    normalization="none",
  ),
  "googlenet_bn": Architecture(
    largest_kernel=3,
    pool4_kernel=2,
    local_response_norm=False,
    inputs=input_normalization.INCEPTION,
    normalization="batch",
  ),
}

PADDINGS = ("same", "caffe", "torchvision")


def layer_list(
  architecture: Architecture, padding: layers.Padding
) -> tuple[geometry.Layer, ...]:
  """The layer list of a GoogLeNet backbone along its widest branches.

  Args:
    architecture: one of `ARCHITECTURES`.
    padding: see `layers.Padding`.

  Returns:
    From the image to pool5, the last average pooling. Layers named as the
    modules are the concatenations at their ends.
  """

  def pool(name, kernel=3):
    # The second half of a window of 2 lies beyond the border, as with one of 3.
    same = padding == "same"
    return geometry.Layer(
      name,
      kernel,
      2,
      padding=1 if same and kernel == 3 else 0,
      ceil_mode=not same or kernel == 2,
    )

  result = [
    geometry.Layer("conv1", 7, 2, padding=100 if padding == "caffe" else 3),
    pool("pool1"),
    geometry.Layer("conv2_reduce", 1),
    geometry.Layer("conv2", 3, padding=1),
    pool("pool2"),
  ]
  kernel = architecture.largest_kernel
  for name in INCEPTIONS:
    result += [
      geometry.Layer(f"{name}_5x5_reduce", 1),
      geometry.Layer(f"{name}_5x5", kernel, padding=kernel // 2),
      geometry.Layer(name, 1),
    ]
    if name == "inception_3b":
      result.append(pool("pool3"))
    if name == "inception_4e":
      result.append(pool("pool4", architecture.pool4_kernel))
  last_padding = 0 if padding == "caffe" else 3
  result.append(geometry.Layer("pool5", 7, padding=last_padding))
  return tuple(result)


class Backbone(nn.Module):
  """A GoogLeNet backbone, see `backbones`."""

  architecture: Architecture
  settings: layers.Settings

  @nn.compact
  def __call__(self, images, *, train, valid_sizes=None):
    """Features of each module, of pool5 and of the stem, see `backbones`."""
    architecture = self.architecture
    make = self.settings.make(
      train,
      epsilon=1e-3,
      use_bias=self.settings.normalization == "none",
    )
    stem = {"conv1": 64, "conv2_reduce": 64, "conv2": 192}
    lrn_after = ()
    if architecture.local_response_norm:
      lrn_after = ("pool1", "conv2")
    features = {}
    maps = make.begin(images, valid_sizes)
    for layer in layer_list(architecture, self.settings.padding):
      if layer.name in stem:
        maps = make.conv(maps, layer, architecture.scaled(stem[layer.name]))
        features[layer.name] = maps.values
      elif layer.name in INCEPTIONS:
        module = functools.partial(_inception, make, architecture, layer.name)
        maps = make.block(self, module, maps)
        features[layer.name] = maps.values
      elif layer.name == "pool5":
        maps = make.average_pool(maps, layer)
      elif layer.name.startswith("pool"):
        maps = make.max_pool(maps, layer)
      if layer.name in lrn_after:
        maps = make.local_response_norm(maps)
    maps = make.dropout(maps, self.settings.dropout_rate, "pool5_dropout")
    features["pool5"] = maps.values
    return features


def _inception(make, architecture, name, maps):
  """One module: four branches, side by side."""
  widths = map(architecture.scaled, INCEPTIONS[name])
  one, reduce3, three, reduce5, five, projection = widths

  def conv(maps, kernel, width, branch):
    layer = geometry.Layer(f"{name}_{branch}", kernel, padding=kernel // 2)
    return make.conv(maps, layer, width)

  largest = architecture.largest_kernel
  pooled = make.max_pool(maps, geometry.Layer("pool", 3, padding=1))
  branches = (
    conv(maps, 1, one, "1x1"),
    conv(conv(maps, 1, reduce3, "3x3_reduce"), 3, three, "3x3"),
    conv(conv(maps, 1, reduce5, "5x5_reduce"), largest, five, "5x5"),
    conv(pooled, 1, projection, "pool_proj"),
  )
  return make.concatenate(branches)
