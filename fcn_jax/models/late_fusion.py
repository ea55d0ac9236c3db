"""Networks for several modalities of one scene, fused at their scores."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax import geometry
from fcn_jax import types
from fcn_jax.models import checks
from fcn_jax.models import fcn
from fcn_jax.models import freezing as freezing_lib
from fcn_jax.models import input_normalization
from fcn_jax.models import layers


class LateFusion(nn.Module):
  """The mean of the scores of several FCNs, one for each modality.

  CVPR 2015, section 5 (NYUDv2): one network sees the colours, another the
  depths as HHA. The parameters of each network are under the name of its
  modality, so it can be trained by itself first.

  Attributes:
    num_classes: classes to score, C.
    modalities: input normalization of each modality, by name. Their channels
      lie side by side in the images, in this order.
    backbone: see `fcn.FCN`, as for all that follow.
    stride: of the score map.
    padding: "same", or "caffe" for the released net.
    head_width: channels of fc6 and fc7.
    dropout_rate: of fc6 and fc7, in training.
    normalization: between convolution and ReLU.
    dtype: of the computation.
    param_dtype: of the parameters.
    remat: what the backward pass computes again.
    frozen: in each of the networks.
    frozen_statistics: in each of the networks.
  """

  num_classes: int
  modalities: Mapping[str, input_normalization.InputNormalization]
  backbone: str = "vgg16"
  stride: int = 32
  padding: layers.Padding = "same"
  head_width: int | None = None
  dropout_rate: float = 0.5
  normalization: layers.Normalization | None = None
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32
  remat: layers.Remat = "none"
  frozen: str | None = None
  frozen_statistics: bool = False

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.modalities, Mapping):
      # Pairs, as a module must be hashable and channels have an order.
      object.__setattr__(self, "modalities", tuple(self.modalities.items()))
    if not self.modalities:
      raise ValueError("modalities are empty; give at least one.")
    checks.num_classes(self.heads)
    # Making a network checks the attributes that all share.
    network = self._network(self.modalities[0][1])
    object.__setattr__(self, "normalization", network.normalization)

  def _network(self, modality_inputs, name=None):
    return fcn.FCN(
      self.num_classes,
      backbone=self.backbone,
      stride=self.stride,
      padding=self.padding,
      inputs=modality_inputs,
      head_width=self.head_width,
      dropout_rate=self.dropout_rate,
      normalization=self.normalization,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      remat=self.remat,
      frozen=self.frozen,
      frozen_statistics=self.frozen_statistics,
      parent=None if name is None else self,
      name=name,
    )

  @property
  def heads(self) -> dict[str, int]:
    """Classes of the single head, whose name is empty."""
    return {"": self.num_classes}

  @property
  def head_weights(self) -> dict[str, float]:
    """Weight of the loss of the single head."""
    return {"": 1.0}

  @property
  def freezing(self) -> freezing_lib.Freezing:
    """Which layers and batch statistics of the networks are frozen."""
    return self._network(self.modalities[0][1]).freezing

  @property
  def num_channels(self) -> int:
    """Channels of the images."""
    return sum(one.num_channels for _, one in self.modalities)

  def chain(self) -> geometry.Chain:
    """The layer lists of one of the networks; all have the same."""
    return self._network(self.modalities[0][1]).chain()

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool,
    valid_sizes: jax.Array | None = None,
  ) -> types.ScoreMap:
    """Scores images with the channels of all modalities, see `fcn.FCN`."""
    checks.images(images, valid_sizes, self.num_channels)
    first, maps = 0, []
    for name, modality_inputs in self.modalities:
      last = first + modality_inputs.num_channels
      network = self._network(modality_inputs, name)
      maps.append(
        network(images[..., first:last], train=train, valid_sizes=valid_sizes)
      )
      first = last
    scores = sum(one.scores for one in maps) / len(maps)
    return dataclasses.replace(maps[0], scores=scores)
