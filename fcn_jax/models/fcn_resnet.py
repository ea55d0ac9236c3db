"""FCNs on dilated ResNets, as published by torchvision.

What many people call "FCN" today: `fcn_resnet50` and `fcn_resnet101`. They are
not from the FCN papers; `fcn.FCN` has the papers' networks (strides 32, 16 and
8, with skips) on the same backbones.
"""

import dataclasses
from collections.abc import Callable
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax import geometry
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.models import checks
from fcn_jax.models import freezing as freezing_lib
from fcn_jax.models import input_normalization
from fcn_jax.models import layers
from fcn_jax.models import scoring
from fcn_jax.models.backbones import resnet


class FCNResNet(nn.Module):
  """torchvision's FCN: a dilated ResNet with a head of a 3x3 convolution.

  Scores have stride 8, and torchvision resizes them bilinearly to the image. If
  the sides of the image are not multiples of 8, cells then lie less than 8
  pixels apart. The network itself resizes the scores of such images, and of
  images with `valid_sizes`: their score map has stride 1, so all logits exist,
  even if few are sampled. For other images, such as crops in training, the
  score map has stride 8. In both cases the logits are torchvision's.

  Attributes:
    num_classes: classes to score, C.
    backbone: one of `resnet.ARCHITECTURES`.
    auxiliary: whether there is a second head, "aux", on layer3, for a loss
      that helps training; the main one is "out".
    auxiliary_weight: of the loss of the auxiliary head, in training.
    inputs: normalization of the input; None for torchvision's.
    head_divisor: ratio of the channels of a head's input to those of its 3x3
      convolution.
    resized: whether scores are resized to images of any size as torchvision
      does; False leaves cells 8 pixels apart, as tiles of a picture need.
    dropout_rate: before the last convolution of a head, in training.
    normalization: after each convolution.
    dtype: see `fcn.FCN`.
    param_dtype: see `fcn.FCN`.
    remat: see `fcn.FCN`.
    frozen: see `fcn.FCN`; the heads include their 3x3 convolutions.
    frozen_statistics: see `fcn.FCN`.
  """

  num_classes: int
  backbone: str = "resnet50"
  auxiliary: bool = False
  auxiliary_weight: float = 0.5
  inputs: input_normalization.InputNormalization | None = None
  head_divisor: int = 4
  resized: bool = True
  dropout_rate: float = 0.1
  normalization: layers.Normalization = "batch"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32
  remat: layers.Remat = "none"
  frozen: str | None = None
  frozen_statistics: bool = False

  def __post_init__(self):
    super().__post_init__()
    checks.choice("backbone", self.backbone, tuple(resnet.ARCHITECTURES))
    checks.choice("normalization", self.normalization, ("batch", "group"))
    checks.choice("remat", self.remat, get_args(layers.Remat))
    checks.num_classes(self.heads)
    if self.inputs is None:
      object.__setattr__(self, "inputs", self._architecture.inputs)
    freezing_lib.up_to(self.frozen, resnet.layer_list(self._architecture))

  @property
  def _architecture(self):
    architecture = resnet.ARCHITECTURES[self.backbone]
    return dataclasses.replace(architecture, dilated=True)

  @property
  def num_channels(self) -> int:
    """Channels of the images."""
    return self.inputs.num_channels

  @property
  def heads(self) -> dict[str, int]:
    """Classes of each head, by name; a single head has an empty name."""
    if not self.auxiliary:
      return {"": self.num_classes}
    return {"out": self.num_classes, "aux": self.num_classes}

  @property
  def head_weights(self) -> dict[str, float]:
    """Weight of the loss of each head."""
    weights = {"": 1.0, "out": 1.0, "aux": self.auxiliary_weight}
    return {head: weights[head] for head in self.heads}

  @property
  def freezing(self) -> freezing_lib.Freezing:
    """Which layers and batch statistics are frozen."""
    return freezing_lib.up_to(
      self.frozen,
      resnet.layer_list(self._architecture),
      statistics=self.frozen_statistics,
    )

  @property
  def stride(self) -> int:
    """Stride of the scores, before they are resized."""
    return 8

  @property
  def padding(self) -> layers.Padding:
    """The geometry is torchvision's."""
    return "torchvision"

  def chain(self) -> geometry.Chain:
    """The network's layer lists, for `geometry`.

    Cells are centred on pixels 0, 8, 16 ..., but torchvision interpolates as if
    they were at 3.5, 11.5 ..., so a pixel may see one cell more than those
    around it. The layer "resized" accounts for that.
    """
    backbone_layers = resnet.layer_list(self._architecture)
    head = geometry.Layer("classifier", 3, padding=1)
    resized = geometry.Layer("resized", 3, padding=1)
    return geometry.fcn_chain((*backbone_layers, head, resized), 8, skips=())

  @nn.nowrap
  def make_backbone(
    self, make_layers: Callable[..., layers.Layers] | None = None
  ) -> nn.Module:
    """The backbone, see `fcn.FCN.make_backbone`."""
    settings = layers.Settings(
      padding=self.padding,
      inputs=self.inputs,
      head_width=None,
      dropout_rate=0.0,
      normalization=self.normalization,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      remat=self.remat,
      freezing=self.freezing,
      layers=make_layers,
    )
    return resnet.Backbone(self._architecture, settings)

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool,
    valid_sizes: jax.Array | None = None,
  ) -> types.ScoreMap | dict[str, types.ScoreMap]:
    """Scores images of any size, see `fcn.FCN`.

    With an auxiliary head, the result is a score map for each head by its name.
    """
    valid_sizes = checks.images(images, valid_sizes, self.num_channels)
    backbone = self.make_backbone()
    nn.share_scope(self, backbone)
    features = backbone(images, train=train, valid_sizes=valid_sizes)
    make = backbone.settings.make(train, use_bias=False)
    num_cells = None
    if valid_sizes is not None:
      num_cells = -(-valid_sizes // self.stride)

    def score(name, layer_name):
      maps = layers.Maps(features[layer_name], num_cells)
      width = maps.values.shape[-1] // self.head_divisor
      layer = geometry.Layer(f"{name}_conv", 3, padding=1)
      maps = make.conv(maps, layer, width)
      maps = make.dropout(maps, self.dropout_rate, f"{name}_dropout")
      scores = scoring.Scores(
        self.num_classes, self.dtype, self.param_dtype, name=f"score_{name}"
      )(maps.values)
      return self._placed(
        scores.astype(jnp.float32), images.shape[1:3], valid_sizes
      )

    main = score("classifier", "layer4")
    if not self.auxiliary:
      return main
    return {"out": main, "aux": score("aux_classifier", "layer3")}

  def _placed(self, scores, image_size, valid_sizes):
    """The score map whose logits are the scores resized to the images."""
    stride, offset = self.stride, (self.stride - 1) / 2
    is_whole = all(side % stride == 0 for side in image_size)
    if self.resized and not (valid_sizes is None and is_whole):
      scores = upsampling.resize(
        scores, image_size, stride=stride, valid_sizes=valid_sizes
      )
      stride, offset = 1, 0.0
    score_map = types.ScoreMap(
      scores, stride=stride, offset=offset, image_size=image_size, edge="clamp"
    )
    if valid_sizes is None:
      return score_map
    return upsampling.fill_outside(score_map, -(-valid_sizes // stride))
