"""AlexNet backbones, as published for Caffe and for torchvision.

Krizhevsky et al. (2012), made fully convolutional as in section 4.1 of CVPR
2015. `caffenet` is the backbone of the released FCN-AlexNet: normalised after
pooling, with convolutions in two groups. `alexnet` is torchvision's, after
Krizhevsky (2014), with no such normalisation and no groups.
"""

import dataclasses

import flax.linen as nn

from fcn_jax import geometry
from fcn_jax.models import input_normalization
from fcn_jax.models import layers


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What distinguishes one AlexNet from another, see `backbones`.

  Attributes:
    widths: channels of conv1 to conv5.
    groups: number of groups in conv1 to conv5.
    local_response_norm: whether it follows pool1 and pool2.
  """

  widths: tuple[int, int, int, int, int]
  groups: tuple[int, int, int, int, int]
  local_response_norm: bool
  inputs: input_normalization.InputNormalization
  head_width: int = 4096
  normalization: layers.Normalization = "none"
  skips: tuple[str, ...] = ("pool2", "pool1", "conv1")


ARCHITECTURES = {
  "caffenet": Architecture(
    widths=(96, 256, 384, 384, 256),
    groups=(1, 2, 1, 2, 2),
    local_response_norm=True,
    inputs=input_normalization.CAFFE,
  ),
  "alexnet": Architecture(
    widths=(64, 192, 384, 256, 256),
    groups=(1, 1, 1, 1, 1),
    local_response_norm=False,
    inputs=input_normalization.TORCHVISION,
  ),
}

PADDINGS = ("same", "caffe", "torchvision")


def layer_list(
  architecture: Architecture, padding: layers.Padding
) -> tuple[geometry.Layer, ...]:
  """The layer list of an AlexNet backbone, from the image to fc7.

  Args:
    architecture: one of `ARCHITECTURES`; all have the same layers.
    padding: see `layers.Padding`.
  """
  first = {"same": 5, "caffe": 100, "torchvision": 2}[padding]
  # The kernel of fc6 is even, so it has one output more or fewer than inputs.
  fc6 = {"same": 3, "caffe": 0, "torchvision": 2}[padding]

  def pool(name):
    return geometry.Layer(
      name,
      3,
      2,
      padding=1 if padding == "same" else 0,
      ceil_mode=padding == "caffe",
    )

  return (
    geometry.Layer("conv1", 11, 4, padding=first),
    pool("pool1"),
    geometry.Layer("conv2", 5, padding=2),
    pool("pool2"),
    geometry.Layer("conv3", 3, padding=1),
    geometry.Layer("conv4", 3, padding=1),
    geometry.Layer("conv5", 3, padding=1),
    pool("pool5"),
    geometry.Layer("fc6", 6, padding=fc6),
    geometry.Layer("fc7", 1),
  )


class Backbone(nn.Module):
  """An AlexNet backbone, see `backbones`."""

  architecture: Architecture
  settings: layers.Settings

  @nn.compact
  def __call__(self, images, *, train, valid_sizes=None):
    """Features of each layer but fc6, see `backbones`."""
    architecture = self.architecture
    head_width = self.settings.head_width or architecture.head_width
    make = self.settings.make(train)
    features = {}
    maps = make.begin(images, valid_sizes)
    for layer in layer_list(architecture, self.settings.padding):
      kind, number = layer.name[:-1], int(layer.name[-1])
      if kind == "pool":
        maps = make.max_pool(maps, layer)
        features[layer.name] = maps.values
        if architecture.local_response_norm and number < 5:
          maps = make.local_response_norm(maps)
      elif kind == "conv":
        maps = make.conv(
          maps,
          layer,
          architecture.widths[number - 1],
          groups=architecture.groups[number - 1],
        )
        features[layer.name] = maps.values
      else:
        maps = make.conv(maps, layer, head_width)
        maps = make.dropout(
          maps, self.settings.dropout_rate, f"{layer.name}_dropout"
        )
    features["fc7"] = maps.values
    return features
