"""The layers that backbones are made of.

An image may fill only a part of its array. Layers do not see the rest: in each
map, all cells that the image would not have by itself are zero, just as if the
next layer had padded the image.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax import geometry
from fcn_jax import valid_region
from fcn_jax.models import batch_norm
from fcn_jax.models import freezing as freezing_lib
from fcn_jax.models import input_normalization
from fcn_jax.models import pooling
from fcn_jax.models import units

# "same" pads every layer by half its kernel. "caffe" is the geometry of the
# released nets: 100 pixels at the first layer, none at fc6. "torchvision" is
# that of torchvision's networks: poolings round down, and layers after the
# convolutions are padded by half their kernels.
Padding = Literal["same", "caffe", "torchvision"]
Normalization = Literal["none", "batch", "group"]
# What the backward pass computes again instead of keeping it in memory.
Remat = Literal["none", "blocks"]


class Maps(NamedTuple):
  """The features of one layer.

  Attributes:
    values: [N, h, w, C].
    valid_sizes: [N, 2] int32, rows and columns that each image has, the first
      ones; None if the images fill their arrays.
  """

  values: jax.Array
  valid_sizes: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a backbone is made, whatever its architecture.

  Attributes:
    padding: its geometry.
    inputs: normalization of the input.
    head_width: channels of fc6 and fc7; None for the architecture's own. It has
      no effect on architectures without these layers.
    dropout_rate: of fc6 and fc7 (elsewhere: of the last features), in
      training.
    normalization: between convolution and ReLU: "none", "batch" or "group"
      (of 8 channels).
    dtype: of the computation.
    param_dtype: of the parameters.
    stride: of the finest features that are scored. Where these come before a
      pooling, the convolution is not computed together with it.
    remat: "blocks": only the inputs of blocks are kept for the backward pass.
    freezing: which batch statistics are frozen.
    layers: what makes the layers, if not `Layers`: `inference.onnx_graph` draws
      a graph instead.
  """

  padding: Padding
  inputs: input_normalization.InputNormalization
  head_width: int | None
  dropout_rate: float
  normalization: Normalization
  dtype: jnp.dtype
  param_dtype: jnp.dtype
  stride: int = 8
  remat: Remat = "none"
  freezing: freezing_lib.Freezing = freezing_lib.Freezing()
  layers: "Callable[..., Layers] | None" = None

  def make(self, train: bool, **options) -> "Layers":
    """What makes the layers in the scope of the calling module.

    Args:
      train: see `Layers`.
      **options: epsilon and use_bias, see `Layers`.
    """
    return (self.layers or Layers)(self, train, **options)


@dataclasses.dataclass(frozen=True)
class Layers:
  """Makes layers in the scope of the calling module.

  Attributes:
    settings: of the backbone.
    train: whether dropout and batch statistics are those of training.
    epsilon: added to the variances of batch normalisation.
    use_bias: whether convolutions have a bias.
  """

  settings: Settings
  train: bool
  epsilon: float = 1e-5
  use_bias: bool = True

  def begin(self, images: jax.Array, valid_sizes: jax.Array | None) -> Maps:
    """Images [N, H, W, C], uint8 or float, as the first layer sees them."""
    mean, scale = (
      jnp.array(values, jnp.float32).reshape(1, 1, 1, -1)
      for values in (self.settings.inputs.mean, self.settings.inputs.scale)
    )
    values = (images.astype(jnp.float32) - mean) * scale
    return zero_outside(Maps(values.astype(self.settings.dtype), valid_sizes))

  def block(
    self, module: nn.Module, function: Callable[[Maps], Maps], maps: Maps
  ) -> Maps:
    """Layers that the backward pass computes again, if `remat` says so.

    Args:
      module: the calling module.
      function: from the inputs to the outputs of the layers.
      maps: the inputs.
    """
    if self.settings.remat == "none" or not self.train:
      return function(maps)
    return nn.remat(lambda _, maps: function(maps))(module, maps)

  def conv(
    self,
    maps: Maps,
    layer: geometry.Layer,
    width: int,
    *,
    groups: int = 1,
    relu: bool = True,
    pool: geometry.Layer | None = None,
    packs: bool = True,
  ) -> Maps:
    """Convolution, normalization, ReLU and max-pooling.

    Parameters have the layer's name.

    Args:
      maps: features [N, h, w, C].
      layer: kernel, stride, padding and dilation.
      width: channels of the outputs.
      groups: groups of channels that do not see each other.
      relu: whether there is a ReLU. Without one, the cells outside are not
        zero; `add` sets them to zero.
      pool: the max-pooling, if there is one. It needs a ReLU.
      packs: see `units.Unit`.
    """
    if self.settings.normalization == "group":
      maps = self._unit(maps, layer, width, groups, None, packs)
      maps = self._normalize_groups(maps, f"{layer.name}_norm")
      maps = zero_outside(_relu(maps)) if relu else maps
      return maps if pool is None else self.max_pool(maps, pool)
    maps = self._unit(maps, layer, width, groups, pool, packs)
    return zero_outside(_relu(maps)) if relu else maps

  def _unit(self, maps, layer, width, groups, pool, packs):
    """See `units`; without group normalization and ReLU."""
    settings = self.settings
    shape = layer.kernel, layer.kernel, maps.values.shape[-1] // groups, width
    parameters = units.Convolution(
      shape, self.use_bias, settings.param_dtype, name=layer.name
    )
    kernel, bias = jax.tree.map(
      lambda array: array.astype(settings.dtype), parameters()
    )
    valid_sizes = _num_outputs(layer, maps.valid_sizes)
    inside = None
    if valid_sizes is not None:
      sides = (layer.num_outputs(side) for side in maps.values.shape[1:3])
      inside = valid_region.inside(valid_sizes, tuple(sides))[..., None]
    uses_batch = self.train and not settings.freezing.holds_statistics(
      layer.name
    )
    unit = units.Unit(
      layer, pool, groups, self.epsilon, uses_batch, settings.dtype, packs
    )

    def compute(norm):
      operands = units.Operands(kernel, bias, norm, inside)
      return units.compute(unit, maps.values, operands)

    if settings.normalization == "batch":
      values = batch_norm.BatchNorm(
        width, uses_batch, settings.param_dtype, name=f"{layer.name}_norm"
      )(compute)
    else:
      values, _ = compute(None)
    if pool is not None:
      valid_sizes = _num_outputs(pool, valid_sizes)
    return Maps(values, valid_sizes)

  def _normalize_groups(self, maps, name):
    mask = None
    if maps.valid_sizes is not None:
      # Only cells inside the images count in the statistics.
      inside = valid_region.inside(maps.valid_sizes, maps.values.shape[1:3])
      # GroupNorm splits the channels of the mask as well.
      mask = jnp.broadcast_to(inside[..., None], maps.values.shape)
    norm = nn.GroupNorm(
      num_groups=None,
      group_size=8,
      dtype=self.settings.dtype,
      param_dtype=self.settings.param_dtype,
      name=name,
    )
    return maps._replace(values=norm(maps.values, mask=mask))

  def dropout(self, maps: Maps, rate: float, name: str) -> Maps:
    """Dropout of single features, in training; masks depend on the name."""
    dropout = nn.Dropout(rate, deterministic=not self.train, name=name)
    return maps._replace(values=dropout(maps.values))

  def add(self, maps: Maps, shortcut: Maps) -> Maps:
    """ReLU of the sum of two maps of equal shape, as of a residual block."""
    return zero_outside(
      _relu(maps._replace(values=maps.values + shortcut.values))
    )

  def max_pool(self, maps: Maps, layer: geometry.Layer) -> Maps:
    """Maximum of windows of features that are not negative.

    After a ReLU, the zeros outside an image do not change the maximum. Where
    the maximum is zero, the ReLU stops the gradient.
    """
    values = pooling.max_pool(
      maps.values,
      layer.kernel,
      layer.stride,
      padding=layer.padding,
      ceil_mode=layer.ceil_mode,
    )
    return zero_outside(Maps(values, _num_outputs(layer, maps.valid_sizes)))

  def average_pool(self, maps: Maps, layer: geometry.Layer) -> Maps:
    """Mean over windows of stride 1, of the cells inside the image."""
    dtype = maps.values.dtype
    # Sums of bfloat16 would lose what is small beside them.
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    counted = jnp.ones((1, *maps.values.shape[1:3], 1), wide)
    if maps.valid_sizes is not None:
      inside = valid_region.inside(maps.valid_sizes, maps.values.shape[1:3])
      counted = inside[..., None].astype(wide)
    total, number = (
      pooling.window_sums(values, layer.kernel, padding=layer.padding)
      for values in (maps.values.astype(wide), counted)
    )
    # Windows wholly outside have no cells; they are set to zero below.
    values = (total / jnp.maximum(number, 1)).astype(dtype)
    return zero_outside(Maps(values, _num_outputs(layer, maps.valid_sizes)))

  def local_response_norm(
    self,
    maps: Maps,
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
  ) -> Maps:
    """Divides features by the energy of neighbouring channels, as Caffe does.

    Krizhevsky et al. (2012), section 3.3, except that they do not divide alpha
    by size.

    Args:
      maps: features [N, h, w, C].
      size: channels that count, odd.
      alpha: factor of the mean of the squares of these channels.
      beta: exponent.
    """
    num_channels = maps.values.shape[-1]
    reach = size // 2
    squares = jnp.pad(
      jnp.square(maps.values), ((0, 0),) * 3 + ((reach, reach),)
    )
    total = sum(
      jax.lax.slice_in_dim(squares, i, i + num_channels, axis=-1)
      for i in range(size)
    )
    return maps._replace(
      values=maps.values * (1 + alpha / size * total) ** -beta
    )

  def concatenate(self, branches: Sequence[Maps]) -> Maps:
    """Maps of equal height and width, side by side in their channels."""
    values = jnp.concatenate([one.values for one in branches], axis=-1)
    return branches[0]._replace(values=values)


def zero_outside(maps: Maps) -> Maps:
  """Maps that are zero outside the images."""
  if maps.valid_sizes is None:
    return maps
  values = valid_region.fill_outside(maps.values, maps.valid_sizes, edge="zero")
  return maps._replace(values=values)


def _relu(maps):
  return maps._replace(values=nn.relu(maps.values))


def _num_outputs(layer, valid_sizes):
  return None if valid_sizes is None else layer.num_outputs(valid_sizes)
