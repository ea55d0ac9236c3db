"""Fully convolutional networks: a trunk, scores, and skips that refine them."""

from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax import geometry
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.models import vgg

# Scales of pool4 and pool3 that let an 8-stride net be trained in one go
# (PAMI 2017, section 4.3, "at-once").
AT_ONCE_SCALES = (0.01, 0.0001)


class FCN(nn.Module):
  """A fully convolutional network, from images to a coarse score map.

  CVPR 2015, sections 3 and 4. Stride 32 is FCN-32s; 16 adds scores of pool4
  to the scores upsampled by two, and 8 those of pool3 as well. The last
  upsampling to pixels is `upsampling.to_pixels`, outside the network.

  Parameters are named as in the papers: `conv1_1` ... `fc7`, `score_fr`,
  `score_pool4`, `score_pool3`. Score layers begin at zero.

  Attributes:
    num_classes: classes to score, C.
    backbone: trunk, one of `vgg.ARCHITECTURES`.
    stride: of the score map: 32, 16 or 8.
    padding: "same", or "caffe" for the geometry of the released nets.
    skip_scales: what pool4 and pool3 are multiplied by before their score
      layers; `AT_ONCE_SCALES` to train stride 8 at once.
    head_width: channels of fc6 and fc7; the backbone's own if None.
    dropout_rate: of fc6 and fc7, in training.
    normalization: "none" as in the papers, or "batch" or "group" between
      convolution and ReLU, to train from scratch.
    dtype: of the computation; scores are float32 all the same.
    param_dtype: of the parameters.
  """

  num_classes: int
  backbone: str = "vgg16"
  stride: int = 8
  padding: vgg.Padding = "same"
  skip_scales: tuple[float, float] = (1.0, 1.0)
  head_width: int | None = None
  dropout_rate: float = 0.5
  normalization: vgg.Normalization = "none"
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    for name, choices in (
      ("backbone", tuple(vgg.ARCHITECTURES)),
      ("stride", (32, 16, 8)),
      ("padding", get_args(vgg.Padding)),
      ("normalization", get_args(vgg.Normalization)),
    ):
      value = getattr(self, name)
      if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {choices}.")
    if not 1 <= self.num_classes <= types.IGNORE_LABEL:
      raise ValueError(
        f"num_classes is {self.num_classes}; it must be in "
        f"1..{types.IGNORE_LABEL}, as label {types.IGNORE_LABEL} is void."
      )
    if len(self.skip_scales) != 2:
      raise ValueError(
        f"skip_scales are {self.skip_scales}; give two, for pool4 and pool3."
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
    architecture = vgg.ARCHITECTURES[self.backbone]
    trunk = vgg.layers(architecture, self.padding)
    return geometry.fcn_chain(trunk, self.stride)

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> types.ScoreMap:
    """Scores images.

    Args:
      images: [N, H, W, 3] uint8 or float, RGB in 0..255; any size.
      train: whether dropout (needs the key "dropout") and batch statistics
        (updates the collection "batch_stats") are those of training.

    Returns:
      Score map with scores [N, h, w, C] float32.

    Raises:
      ValueError: if the images have another shape.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
      raise ValueError(
        f"images have shape {images.shape}; they must be [N, H, W, 3]. For a "
        "single image, give image[None]."
      )
    architecture = vgg.ARCHITECTURES[self.backbone]
    trunk = vgg.VGG(
      architecture=architecture,
      padding=self.padding,
      head_width=(
        architecture.head_width if self.head_width is None else self.head_width
      ),
      dropout_rate=self.dropout_rate,
      normalization=self.normalization,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
    # Lifts the trunk's parameters into the network's own scope.
    nn.share_scope(self, trunk)
    features = trunk(images, train=train)

    chain = self.chain()
    image_size = images.shape[1:3]
    fused = self._score("score_fr", features["fc7"], chain.score, image_size)
    for layers, scale in zip(chain.skips, self.skip_scales, strict=False):
      pool = layers[-1].name
      scaled = features[pool] * jnp.asarray(scale, self.dtype)
      skip = self._score(f"score_{pool}", scaled, layers, image_size)
      fused = upsampling.add_skip(fused, skip)
    return fused

  def _score(self, name, features, layers, image_size):
    scores = nn.Conv(
      self.num_classes,
      (1, 1),
      kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=name,
    )(features)
    grid = geometry.grid(layers)
    return types.ScoreMap(
      scores.astype(jnp.float32),
      stride=int(grid.stride),
      offset=float(grid.offset),
      image_size=image_size,
      edge=self.edge,
    )
