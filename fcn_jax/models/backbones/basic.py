"""The encoder of FCN-Basic: four blocks of one wide convolution.

Badrinarayanan, Kendall and Cipolla, "SegNet" (PAMI 2017), section 3.1: the
encoder of SegNet-Basic, with a decoder as in the FCN papers. It is small enough
to train from scratch, and has no layers fc6 and fc7. At stride 2 an FCN on it
is their FCN-Basic, at stride 16 with one upsampling their variant without
skips. Upsampling is bilinear here and learned there.
"""

import dataclasses
import functools

import flax.linen as nn

from fcn_jax import geometry
from fcn_jax.models import input_normalization
from fcn_jax.models import layers


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What distinguishes one such encoder from another, see `backbones`.

  Attributes:
    widths: channels of each block; a 2x2 max-pooling follows each.
    kernel: side of the kernels.
  """

  widths: tuple[int, int, int, int] = (64, 64, 64, 64)
  kernel: int = 7
  inputs: input_normalization.InputNormalization = (
    input_normalization.FROM_SCRATCH
  )
  normalization: layers.Normalization = "batch"
  skips: tuple[str, ...] = ("pool3", "pool2", "pool1", "conv1")


ARCHITECTURES = {"fcn_basic": Architecture()}

PADDINGS = ("same",)


def layer_list(
  architecture: Architecture, padding: layers.Padding = "same"
) -> tuple[geometry.Layer, ...]:
  """The layer list of the encoder, from the image to pool4.

  Args:
    architecture: one of `ARCHITECTURES`.
    padding: one of `PADDINGS`.
  """
  del padding
  kernel = architecture.kernel
  result = []
  for number in range(1, len(architecture.widths) + 1):
    result.append(geometry.Layer(f"conv{number}", kernel, padding=kernel // 2))
    result.append(geometry.Layer(f"pool{number}", 2, 2, ceil_mode=True))
  return tuple(result)


class Backbone(nn.Module):
  """The encoder of FCN-Basic, see `backbones`."""

  architecture: Architecture
  settings: layers.Settings

  @nn.compact
  def __call__(self, images, *, train, valid_sizes=None):
    """Features of each pooling layer, see `backbones`.

    At stride 1 also those of conv1.
    """
    make = self.settings.make(train)
    layer_pairs = layer_list(self.architecture)
    features = {}
    maps = make.begin(images, valid_sizes)
    for conv, pool, width in zip(
      layer_pairs[::2], layer_pairs[1::2], self.architecture.widths, strict=True
    ):
      if self.settings.stride == 1 and not features:
        maps = make.conv(maps, conv, width)
        features[conv.name] = maps.values
        maps = make.max_pool(maps, pool)
      else:
        block = functools.partial(make.conv, layer=conv, width=width, pool=pool)
        maps = make.block(self, block, maps)
      features[pool.name] = maps.values
    maps = make.dropout(maps, self.settings.dropout_rate, "pool4_dropout")
    features["pool4"] = maps.values
    return features
