"""Fully convolutional networks: a backbone, scores, and skips that refine."""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
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
from fcn_jax.models.backbones import alexnet
from fcn_jax.models.backbones import basic
from fcn_jax.models.backbones import googlenet
from fcn_jax.models.backbones import resnet
from fcn_jax.models.backbones import vgg

# Scales of pool4 and pool3 that let an 8-stride net be trained in one go
# (PAMI 2017, section 4.3, "at-once").
AT_ONCE_SCALES = (0.01, 0.0001)

_FILES = (vgg, alexnet, googlenet, resnet, basic)


def backbones() -> dict[str, ModuleType]:
  """The file of each backbone, by its name."""
  return {name: file for file in _FILES for name in file.ARCHITECTURES}


class FCN(nn.Module):
  """A fully convolutional network, from images to a coarse score map.

  CVPR 2015, sections 3 and 4. Stride 32 is FCN-32s; 16 adds scores of pool4
  to the scores upsampled by two, and 8 those of pool3 as well. Strides 4, 2 and
  1 go on like this, for thin structures. The last upsampling to pixels is
  `upsampling.to_pixels`, outside the network.

  Parameters are named as in the papers: `conv1_1` ... `fc7`, `score_fr`,
  `score_pool4`, `score_pool3`. Score layers begin at zero.

  Attributes:
    num_classes: number of classes, C. For a network with several heads (section
      5 of CVPR 2015, SIFT Flow): a number for each head, by its name; the first
      head is the main one.
    backbone: one of `backbones()`.
    stride: of the score map: 32, 16, 8 or 4; with GoogLeNet and ResNet also 2,
      and with VGG 2 or 1. With fcn_basic from 16 to 1.
    padding: "same"; "caffe" or "torchvision" for the geometry of the networks
      that weights are from, see `layers.Padding`.
    inputs: normalization of the input; None for that of the backbone's
      published weights. Images have as many channels as this has.
    skip_scales: factors on the features of the first two skips, before their
      score layers; `AT_ONCE_SCALES` to train stride 8 at once.
    head_width: channels of fc6 and fc7; the backbone's own if None.
    dropout_rate: of fc6 and fc7 (elsewhere: of the last features), in
      training.
    normalization: "none" as in the papers, or "batch" or "group" between
      convolution and ReLU; None for the backbone's own.
    dtype: of the computation; scores are float32 in any case.
    param_dtype: of the parameters.
    remat: "blocks" computes the layers of each block again in the backward
      pass, which then keeps only what lies between blocks; loss and gradients
      are the same to rounding.
    frozen: name of the last layer or block that `train` leaves as it is, such
      as "pool3" or "conv3"; "backbone" freezes all but the score layers; None
      nothing. See `freezing`.
    frozen_statistics: whether batch normalization uses its running statistics
      in training, too, and leaves them as they are. In frozen layers it always
      does.
  """

  num_classes: int | Mapping[str, int]
  backbone: str = "vgg16"
  stride: int = 8
  padding: layers.Padding = "same"
  inputs: input_normalization.InputNormalization | None = None
  skip_scales: tuple[float, float] = (1.0, 1.0)
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
    checks.choice("backbone", self.backbone, tuple(backbones()))
    if self.inputs is None:
      object.__setattr__(self, "inputs", self._architecture.inputs)
    if self.normalization is None:
      normalization = self._architecture.normalization
      object.__setattr__(self, "normalization", normalization)
    if isinstance(self.num_classes, Mapping):
      # Pairs, since a module must be hashable and the heads have an order.
      object.__setattr__(self, "num_classes", tuple(self.num_classes.items()))
    checks.choice("padding", self.padding, self._file.PADDINGS)
    num_skips = len(self._architecture.skips)
    layer_list = self._file.layer_list(self._architecture, self.padding)
    coarsest = int(geometry.grid(layer_list).stride)
    strides = tuple(coarsest // 2**n for n in range(num_skips + 1))
    checks.choice(f"with {self.backbone}, stride", self.stride, strides)
    checks.choice(
      "normalization", self.normalization, get_args(layers.Normalization)
    )
    checks.choice("remat", self.remat, get_args(layers.Remat))
    if self.remat == "blocks" and self._file is alexnet:
      raise ValueError(
        f'remat is "blocks", but {self.backbone} has none: leave it out.'
      )
    checks.num_classes(self.heads)
    freezing_lib.up_to(self.frozen, layer_list)
    if len(self.skip_scales) != 2:
      raise ValueError(
        f"skip_scales are {self.skip_scales}; give two, for pool4 and pool3."
      )

  @property
  def _file(self):
    return backbones()[self.backbone]

  @property
  def _architecture(self):
    return self._file.ARCHITECTURES[self.backbone]

  @property
  def num_channels(self) -> int:
    """Channels of the images."""
    return self.inputs.num_channels

  @property
  def heads(self) -> dict[str, int]:
    """Classes of each head, by name; a single head has an empty name."""
    if isinstance(self.num_classes, tuple):
      return dict(self.num_classes)
    return {"": self.num_classes}

  @property
  def head_weights(self) -> dict[str, float]:
    """Weight of the loss of each head: they are summed."""
    return dict.fromkeys(self.heads, 1.0)

  @property
  def freezing(self) -> freezing_lib.Freezing:
    """Which layers and batch statistics are frozen."""
    layer_list = self._file.layer_list(self._architecture, self.padding)
    return freezing_lib.up_to(
      self.frozen, layer_list, statistics=self.frozen_statistics
    )

  @property
  def edge(self) -> types.EdgeRule:
    """How scores continue outside the map when they are upsampled."""
    return "zero" if self.padding == "caffe" else "clamp"

  def chain(self) -> geometry.Chain:
    """The network's layer lists, for `geometry`.

    Their crops and `check` are those of the released nets: they apply to
    `padding="caffe"` only.
    """
    layer_list = self._file.layer_list(self._architecture, self.padding)
    # If the centre of a cell is that of a pixel, the kernel has an odd size.
    on_pixels = (
      self.stride == 1 or geometry.grid(layer_list).offset.denominator == 1
    )
    kernel = 2 * self.stride - (1 if on_pixels else 0)
    final = geometry.Layer("upscore", kernel, self.stride, transposed=True)
    return geometry.fcn_chain(
      layer_list, self.stride, skips=self._architecture.skips, final=final
    )

  @nn.nowrap
  def make_backbone(
    self, make_layers: Callable[..., layers.Layers] | None = None
  ) -> nn.Module:
    """The backbone, a module that makes features from images.

    Args:
      make_layers: what makes its layers, see `layers.Settings`.
    """
    settings = layers.Settings(
      padding=self.padding,
      inputs=self.inputs,
      head_width=self.head_width,
      dropout_rate=self.dropout_rate,
      normalization=self.normalization,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      remat=self.remat,
      stride=self.stride,
      freezing=self.freezing,
      layers=make_layers,
    )
    return self._file.Backbone(self._architecture, settings)

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool,
    valid_sizes: jax.Array | None = None,
  ) -> types.ScoreMap | dict[str, types.ScoreMap]:
    """Scores images.

    With `valid_sizes`, the network does not see what lies below and to the
    right of an image: scores are those of the unpadded image, and batch
    statistics count only pixels of images. Only dropout differs: its masks are
    drawn for the whole arrays.

    Args:
      images: [N, H, W, 3] uint8 or float, RGB in 0..255; any size. Other
        channels if `inputs` has others.
      train: whether dropout (needs the key "dropout") and batch statistics
        (updates the collection "batch_stats") are those of training.
      valid_sizes: [N, 2] int32, height and width of each image inside its
        array, as in `Batch`, clipped to 1..H and 1..W. None if the images fill
        their arrays.

    Returns:
      Score map with scores [N, h, w, C] float32, or one for each head by its
      name. Its image size is H and W; scores outside an image mean nothing.

    Raises:
      ValueError: if the images or valid_sizes have another shape, or the images
        are too small for the backbone, unless `padding` is "same".
    """
    valid_sizes = checks.images(images, valid_sizes, self.num_channels)
    _check_sides(self.chain().score, images.shape[1:3])
    backbone = self.make_backbone()
    # Lifts the backbone's parameters into the network's own scope.
    nn.share_scope(self, backbone)
    features = backbone(images, train=train, valid_sizes=valid_sizes)
    maps = {
      head: self._score(
        features, head, num_classes, images.shape[1:3], valid_sizes
      )
      for head, num_classes in self.heads.items()
    }
    return maps.get("", maps)

  def _score(self, features, head, num_classes, image_size, valid_sizes):
    """The score map of one head."""
    suffix = f"_{head}" if head else ""

    def score(name, values, layer_list):
      scores = scoring.Scores(
        num_classes, self.dtype, self.param_dtype, name=name + suffix
      )(values)
      grid = geometry.grid(layer_list)
      return types.ScoreMap(
        scores.astype(jnp.float32),
        stride=int(grid.stride),
        offset=float(grid.offset),
        image_size=image_size,
        edge=self.edge,
      )

    chain = self.chain()
    fused = score("score_fr", features[chain.score[-1].name], chain.score)
    if valid_sizes is not None:
      num_cells = _num_cells(chain.score, valid_sizes)
      fused = upsampling.fill_outside(fused, num_cells)
    scales = (*self.skip_scales, 1.0, 1.0, 1.0)
    for layer_list, scale in zip(chain.skips, scales, strict=False):
      name = layer_list[-1].name
      scaled = features[name] * jnp.asarray(scale, self.dtype)
      skip = score(f"score_{name}", scaled, layer_list)
      coarse, fused = fused, upsampling.add_skip(fused, skip)
      if valid_sizes is not None:
        num_cells = upsampling.num_fused_cells(
          coarse, skip, num_cells, _num_cells(layer_list, valid_sizes)
        )
        # Apply the edge rule to the sum, not its terms: it may have fewer
        # cells.
        fused = upsampling.fill_outside(fused, num_cells)
    return fused


def _check_sides(layer_list, image_size):
  for side in image_size:
    # A side that is not known yet is checked when an exported program runs.
    if jax.export.is_symbolic_dim(side):
      continue
    cells = side
    for layer in layer_list:
      cells = layer.num_outputs(cells)
      if cells < 1:
        raise ValueError(
          f"images have a side of {side} pixels, of which {layer.name} leaves "
          'nothing: use larger images, or padding="same", which takes all.'
        )


def _num_cells(layer_list, valid_sizes):
  """Rows and columns [N, 2] of the last outputs, for images of these sizes."""
  return functools.reduce(
    lambda n, layer: layer.num_outputs(n), layer_list, valid_sizes
  )
