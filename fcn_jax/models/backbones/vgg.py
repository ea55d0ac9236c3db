"""VGG backbones: from an image to the features that an FCN scores.

Simonyan and Zisserman (2015), made fully convolutional as in section 3.1 of
the FCN papers: fc6 and fc7 are convolutions.
"""

import dataclasses

import flax.linen as nn

from fcn_jax import geometry
from fcn_jax.models import input_normalization
from fcn_jax.models import layers


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What distinguishes one VGG from another, see `backbones`.

  Attributes:
    depths: convolutions of each block; a 2x2 max-pooling follows each.
    widths: channels of each block.
    fc6_kernel: side of fc6's kernel.
    normalize_head: whether fc6 and fc7 are normalised as well.
  """

  depths: tuple[int, ...]
  widths: tuple[int, ...] = (64, 128, 256, 512, 512)
  head_width: int = 4096
  fc6_kernel: int = 7
  inputs: input_normalization.InputNormalization = input_normalization.CAFFE
  normalization: layers.Normalization = "none"
  normalize_head: bool = True

  @property
  def skips(self) -> tuple[str, ...]:
    """Layers that the skips score."""
    return "pool4", "pool3", "pool2", "pool1", f"conv1_{self.depths[0]}"


def _normalized(depths: tuple[int, ...]) -> Architecture:
  """Torchvision's variant with batch normalisation."""
  return Architecture(
    depths,
    inputs=input_normalization.TORCHVISION,
    normalization="batch",
    normalize_head=False,
  )


# Convolutions of each block of configurations A, B, D and E.
_DEPTHS = {
  "vgg11": (1, 1, 2, 2, 2),
  "vgg13": (2, 2, 2, 2, 2),
  "vgg16": (2, 2, 3, 3, 3),
  "vgg19": (2, 2, 4, 4, 4),
}

ARCHITECTURES = {
  **{name: Architecture(depths) for name, depths in _DEPTHS.items()},
  **{f"{name}_bn": _normalized(depths) for name, depths in _DEPTHS.items()},
  # The same shape, but small enough to train from scratch on two CPU cores.
  "vgg_small": Architecture(
    depths=(1, 1, 2, 2, 2),
    widths=(16, 32, 64, 96, 128),
    head_width=128,
    fc6_kernel=3,
    inputs=input_normalization.FROM_SCRATCH,
  ),
}

PADDINGS = ("same", "caffe", "torchvision")


def layer_list(
  architecture: Architecture, padding: layers.Padding
) -> tuple[geometry.Layer, ...]:
  """The layer list of a VGG backbone, from the image to fc7.

  Args:
    architecture: one of `ARCHITECTURES`.
    padding: see `layers.Padding`.
  """
  caffe = padding == "caffe"
  rounds_up = padding != "torchvision"
  result = []
  for block, depth in enumerate(architecture.depths, start=1):
    for i in range(1, depth + 1):
      pad = 100 if caffe and block == i == 1 else 1
      result.append(geometry.Layer(f"conv{block}_{i}", 3, padding=pad))
    result.append(geometry.Layer(f"pool{block}", 2, 2, ceil_mode=rounds_up))
  kernel = architecture.fc6_kernel
  fc6_padding = 0 if caffe else kernel // 2
  result.append(geometry.Layer("fc6", kernel, padding=fc6_padding))
  result.append(geometry.Layer("fc7", 1))
  return tuple(result)


class Backbone(nn.Module):
  """A VGG backbone, see `backbones`."""

  architecture: Architecture
  settings: layers.Settings

  @nn.compact
  def __call__(self, images, *, train, valid_sizes=None):
    """Features of each pooling layer and of fc7, see `backbones`.

    At stride 1 also those of the last convolution of the first block.
    """
    head_width = self.settings.head_width or self.architecture.head_width
    make = layers.Layers(self.settings, train)
    make_head = make
    if not self.architecture.normalize_head:
      plain = dataclasses.replace(self.settings, normalization="none")
      make_head = dataclasses.replace(make, settings=plain)
    features = {}
    maps = make.begin(images, valid_sizes)
    layer_of = {
      layer.name: layer
      for layer in layer_list(self.architecture, self.settings.padding)
    }
    for name, layer in layer_of.items():
      if name.startswith("fc"):
        maps = make_head.conv(maps, layer, head_width)
        maps = make.dropout(maps, self.settings.dropout_rate, f"{name}_dropout")
      elif name.startswith("conv"):
        block, number = map(int, name.removeprefix("conv").split("_"))
        is_last = number == self.architecture.depths[block - 1]
        pool = layer_of[f"pool{block}"] if is_last else None
        width = self.architecture.widths[block - 1]
        if is_last and block == self.settings.stride == 1:
          maps = make.conv(maps, layer, width)
          features[name] = maps.values
          maps = layers.max_pool(maps, pool)
        else:
          maps = make.conv(maps, layer, width, pool=pool)
        if is_last:
          features[pool.name] = maps.values
    features["fc7"] = maps.values
    return features
