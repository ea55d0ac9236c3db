"""VGG trunks: from an image to the features that an FCN scores.

Simonyan and Zisserman (2015), made fully convolutional as in section 3.1 of
the FCN papers: fc6 and fc7 are convolutions.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax import extents
from fcn_jax import geometry
from fcn_jax.models import convolution

Padding = Literal["same", "caffe"]
Normalization = Literal["none", "batch", "group"]


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What tells one VGG from another.

  Attributes:
    widths: channels of each block.
    depths: convolutions of each block; a 2x2 max-pooling follows each.
    head_width: channels of fc6 and fc7, by default.
    fc6_kernel: side of fc6's kernel.
    mean: of the channels R, G, B of images in 0..255, subtracted first.
    scale: multiplied after that.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  head_width: int
  fc6_kernel: int
  mean: tuple[float, float, float]
  scale: float


ARCHITECTURES = {
  # The mean of the released nets (VOC), which see 0..255 unscaled.
  "vgg16": Architecture(
    widths=(64, 128, 256, 512, 512),
    depths=(2, 2, 3, 3, 3),
    head_width=4096,
    fc6_kernel=7,
    mean=(122.67892, 116.66877, 104.00699),
    scale=1.0,
  ),
  # Of the same shape, to be trained from scratch on two CPU cores.
  "vgg_small": Architecture(
    widths=(16, 32, 64, 96, 128),
    depths=(1, 1, 2, 2, 2),
    head_width=128,
    fc6_kernel=3,
    mean=(127.5, 127.5, 127.5),
    scale=1 / 64,
  ),
}


def layers(
  architecture: Architecture, padding: Padding
) -> tuple[geometry.Layer, ...]:
  """The layer list of a VGG trunk, from the image to fc7.

  Args:
    architecture: one of `ARCHITECTURES`.
    padding: "same" pads each layer by half its kernel. "caffe" is the
      geometry of the released nets: 100 pixels at conv1_1, none at fc6.
  """
  caffe = padding == "caffe"
  result = []
  for block, depth in enumerate(architecture.depths, start=1):
    for i in range(1, depth + 1):
      pad = 100 if caffe and block == i == 1 else 1
      result.append(geometry.Layer(f"conv{block}_{i}", 3, padding=pad))
    result.append(geometry.Layer(f"pool{block}", 2, 2, ceil_mode=True))
  kernel = architecture.fc6_kernel
  fc6_padding = 0 if caffe else kernel // 2
  result.append(geometry.Layer("fc6", kernel, padding=fc6_padding))
  result.append(geometry.Layer("fc7", 1))
  return tuple(result)


class VGG(nn.Module):
  """A VGG trunk.

  Attributes:
    architecture: one of `ARCHITECTURES`.
    padding: see `layers`.
    head_width: channels of fc6 and fc7.
    dropout_rate: of fc6 and fc7, in training.
    normalization: between convolution and ReLU: "none" as in the papers,
      "batch" or "group" (of 8 channels) to train from scratch.
    dtype: of the computation.
    param_dtype: of the parameters.
  """

  architecture: Architecture
  padding: Padding
  head_width: int
  dropout_rate: float
  normalization: Normalization
  dtype: jnp.dtype
  param_dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool, sizes: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Computes the features.

    Args:
      images: [N, H, W, 3] uint8 or float, RGB in 0..255.
      train: whether dropout and batch statistics are those of training.
      sizes: [N, 2] int32, height and width of each image inside its array;
        None if all are H and W.

    Returns:
      The output of each pooling layer and of fc7 by name, [N, h, w, channels].
      With sizes, those of an image are its first rows and columns, as many as
      it has alone, and zeros follow.
    """
    widths = {
      f"conv{block}": width
      for block, width in enumerate(self.architecture.widths, start=1)
    }
    features = {}
    mean = jnp.array(self.architecture.mean).reshape(1, 1, 1, -1)
    x = _zero_outside(images.astype(jnp.float32) - mean, sizes)
    x = (x * self.architecture.scale).astype(self.dtype)
    for layer in layers(self.architecture, self.padding):
      if sizes is not None:
        sizes = layer.num_outputs(sizes)
      if layer.name.startswith("pool"):
        # A window that is partly outside: zeros are as good as no cells after
        # a ReLU, which also stops the gradient where a zero is the maximum.
        x = features[layer.name] = convolution.max_pool_2x2(x)
        continue
      width = widths.get(layer.name.split("_")[0], self.head_width)
      x = nn.Conv(
        width,
        (layer.kernel, layer.kernel),
        strides=layer.stride,
        padding=layer.padding,
        kernel_dilation=layer.dilation,
        kernel_init=nn.initializers.he_normal(),
        conv_general_dilated=convolution.conv_general_dilated,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=layer.name,
      )(x)
      x = self._normalize(x, f"{layer.name}_norm", sizes, train=train)
      # So that the next layer sees the zeros that it pads with.
      x = _zero_outside(nn.relu(x), sizes)
      if layer.name.startswith("fc"):
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    features["fc7"] = x
    return features

  def _normalize(self, x, name, sizes, *, train):
    if self.normalization == "none":
      return x
    types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    # Statistics are those of the cells inside.
    mask = None
    if sizes is not None:
      mask = extents.inside(sizes, x.shape[1:3])[..., None]
    if self.normalization == "batch":
      return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, name=name, **types
      )(x, mask=mask)
    if mask is not None:
      # GroupNorm splits the channels of the mask as well.
      mask = jnp.broadcast_to(mask, x.shape)
    norm = nn.GroupNorm(num_groups=None, group_size=8, name=name, **types)
    return norm(x, mask=mask)


def _zero_outside(x, sizes):
  if sizes is None:
    return x
  return extents.fill_outside(x, sizes, edge="zero")
