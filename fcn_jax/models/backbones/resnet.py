"""ResNet backbones of bottleneck blocks, as published by torchvision.

He et al. (2016), with the stride of a block in its 3x3 convolution.
"""

import dataclasses
import functools

import flax.linen as nn

from fcn_jax import geometry
from fcn_jax.models import input_normalization
from fcn_jax.models import layers

# Ratio of a block's output channels to those of its 3x3 convolution.
EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What distinguishes one ResNet from another, see `backbones`.

  Attributes:
    depths: blocks of layer1 to layer4.
    widths: channels of the 3x3 convolutions of layer1 to layer4.
    dilated: whether layer3 and layer4 are dilated instead of strided, so that
      the stride is 8 in all of them.
  """

  depths: tuple[int, int, int, int]
  widths: tuple[int, int, int, int] = (64, 128, 256, 512)
  inputs: input_normalization.InputNormalization = (
    input_normalization.TORCHVISION
  )
  normalization: layers.Normalization = "batch"
  skips: tuple[str, ...] = ("layer3", "layer2", "layer1", "conv1")
  dilated: bool = False


ARCHITECTURES = {
  "resnet50": Architecture(depths=(3, 4, 6, 3)),
  "resnet101": Architecture(depths=(3, 4, 23, 3)),
}

# torchvision's geometry is already without waste, so both are the same.
PADDINGS = ("same", "torchvision")


def layer_list(
  architecture: Architecture, padding: layers.Padding = "same"
) -> tuple[geometry.Layer, ...]:
  """The layer list of a ResNet backbone, without its shortcuts.

  Args:
    architecture: one of `ARCHITECTURES`.
    padding: one of `PADDINGS`, which are the same.

  Returns:
    From the image to layer4. Layers named layer1 to layer4 are the sums at the
    ends of these.
  """
  del padding
  result = [
    geometry.Layer("conv1", 7, 2, padding=3),
    geometry.Layer("pool1", 3, 2, padding=1),
  ]
  for number in range(1, 5):
    for name, stride, dilation in _blocks(architecture, number):
      result += _bottleneck(name, stride, dilation)
    result.append(geometry.Layer(f"layer{number}", 1))
  return tuple(result)


def _blocks(architecture, number):
  """Name, stride and dilation of each block of layer1, 2, 3 or 4."""
  stride, dilation, last_dilation = (1 if number == 1 else 2), 1, 1
  if architecture.dilated and number > 2:
    # A first block still has the dilation of the layer before it.
    stride, dilation, last_dilation = 1, 2 ** (number - 3), 2 ** (number - 2)
  for i in range(architecture.depths[number - 1]):
    yield f"layer{number}_{i}", stride, dilation
    stride, dilation = 1, last_dilation


def _bottleneck(name, stride, dilation):
  return (
    geometry.Layer(f"{name}_conv1", 1),
    geometry.Layer(
      f"{name}_conv2", 3, stride, padding=dilation, dilation=dilation
    ),
    geometry.Layer(f"{name}_conv3", 1),
  )


class Backbone(nn.Module):
  """A ResNet backbone, see `backbones`."""

  architecture: Architecture
  settings: layers.Settings

  @nn.compact
  def __call__(self, images, *, train, valid_sizes=None):
    """Features of layer1 to layer4, see `backbones`.

    At stride 2 also those of conv1.
    """
    architecture = self.architecture
    make = self.settings.make(
      train,
      use_bias=self.settings.normalization == "none",
    )
    stem, pool, *_ = layer_list(architecture)
    features = {}
    maps = make.begin(images, valid_sizes)
    if self.settings.stride == 2:
      maps = make.conv(maps, stem, architecture.widths[0])
      features[stem.name] = maps.values
      maps = make.max_pool(maps, pool)
    else:
      maps = make.conv(maps, stem, architecture.widths[0], pool=pool)
    for number, width in enumerate(architecture.widths, start=1):
      for name, stride, dilation in _blocks(architecture, number):
        convs = _bottleneck(name, stride, dilation)
        block = functools.partial(_block, make, convs, width)
        maps = make.block(self, block, maps)
      features[f"layer{number}"] = maps.values
    maps = make.dropout(maps, self.settings.dropout_rate, "layer4_dropout")
    features["layer4"] = maps.values
    return features


def _block(make, convs, width, maps):
  """A bottleneck block: three convolutions beside a shortcut."""
  first, second, third = convs
  residual = make.conv(maps, first, width)
  # Its neighbours are 1x1 convolutions, which are not packed.
  residual = make.conv(residual, second, width, packs=False)
  residual = make.conv(residual, third, EXPANSION * width, relu=False)
  shortcut = maps
  # The first block of each layer changes the channels or the stride.
  if first.name.endswith("_0_conv1"):
    name = first.name.removesuffix("conv1") + "downsample"
    layer = geometry.Layer(name, 1, second.stride)
    shortcut = make.conv(maps, layer, EXPANSION * width, relu=False)
  return make.add(residual, shortcut)
