"""VGG backbones: from an image to the features that an FCN scores.

Simonyan and Zisserman (2015), made fully convolutional as in section 3.1 of
the FCN papers: fc6 and fc7 are convolutions.
"""

import dataclasses
import functools

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


def _small(depths: tuple[int, ...]) -> Architecture:
  """A VGG with few channels."""
  return Architecture(
    depths,
    widths=(16, 32, 64, 96, 128),
    head_width=128,
    fc6_kernel=3,
    inputs=input_normalization.FROM_SCRATCH,
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
  # For training from scratch on two CPU cores. The first sees 3x3 pixels before
  # pool1, the second 5x5: features good enough for scores at strides 2 and 1.
  "vgg_small": _small(_DEPTHS["vgg11"]),
  "vgg13_small": _small(_DEPTHS["vgg13"]),
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
    make = self.settings.make(train)
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
    architecture = self.architecture
    sizes = zip(architecture.depths, architecture.widths, strict=True)
    for number, (depth, width) in enumerate(sizes, start=1):
      convs = [layer_of[f"conv{number}_{i}"] for i in range(1, depth + 1)]
      pool = layer_of[f"pool{number}"]
      block = functools.partial(_block, make, convs, width)
      if number == self.settings.stride == 1:
        maps = make.block(self, functools.partial(block, None), maps)
        features[convs[-1].name] = maps.values
        maps = make.max_pool(maps, pool)
      else:
        maps = make.block(self, functools.partial(block, pool), maps)
      features[pool.name] = maps.values
    for name in ("fc6", "fc7"):
      maps = make_head.conv(maps, layer_of[name], head_width)
      maps = make.dropout(maps, self.settings.dropout_rate, f"{name}_dropout")
    features["fc7"] = maps.values
    return features


def _block(make, convs, width, pool, maps):
  """Convolutions, of which the last is pooled, unless `pool` is None."""
  *others, last = convs
  for layer in others:
    maps = make.conv(maps, layer, width)
  return make.conv(maps, last, width, pool=pool)
