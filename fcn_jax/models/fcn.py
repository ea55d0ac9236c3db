"""Fully convolutional networks: a trunk, scores, and skips that refine them."""

import functools
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
  def __call__(
    self, images: jax.Array, *, train: bool, sizes: jax.Array | None = None
  ) -> types.ScoreMap:
    """Scores images.

    With `sizes`, what lies below and to the right of an image is not seen: its
    pixels have the scores that they have without it, and batch statistics are
    those of the images. Only dropout differs, whose masks are drawn for the
    whole arrays.

    Args:
      images: [N, H, W, 3] uint8 or float, RGB in 0..255; any size.
      train: whether dropout (needs the key "dropout") and batch statistics
        (updates the collection "batch_stats") are those of training.
      sizes: [N, 2] int32, height and width of each image inside its array,
        as in `Batch`; less than 1 is 1, more than H and W are H and W. None
        if the images fill their arrays.

    Returns:
      Score map with scores [N, h, w, C] float32. Its image size is H and W;
      pixels outside an image have scores without meaning.

    Raises:
      ValueError: if the images or sizes have another shape.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
      raise ValueError(
        f"images have shape {images.shape}; they must be [N, H, W, 3]. For a "
        "single image, give image[None]."
      )
    image_size = images.shape[1:3]
    if sizes is not None:
      if sizes.shape != (images.shape[0], 2):
        raise ValueError(
          f"sizes have shape {sizes.shape}; they must be [N, 2], a height and "
          f"a width for each of the {images.shape[0]} images."
        )
      sizes = jnp.clip(sizes, 1, jnp.array([image_size], sizes.dtype))
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
    features = trunk(images, train=train, sizes=sizes)

    chain = self.chain()
    fused = self._score("score_fr", features["fc7"], chain.score, image_size)
    if sizes is not None:
      num_cells = _num_cells(chain.score, sizes)
      fused = upsampling.fill_outside(fused, num_cells)
    for layers, scale in zip(chain.skips, self.skip_scales, strict=False):
      pool = layers[-1].name
      scaled = features[pool] * jnp.asarray(scale, self.dtype)
      skip = self._score(f"score_{pool}", scaled, layers, image_size)
      coarse, fused = fused, upsampling.add_skip(fused, skip)
      if sizes is not None:
        num_cells = upsampling.num_fused_cells(
          coarse, skip, num_cells, _num_cells(layers, sizes)
        )
        # Not those of the coarse scores and the skip, continued each: their
        # sum is continued, and the sum may have fewer cells than both.
        fused = upsampling.fill_outside(fused, num_cells)
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


def _num_cells(layers, sizes):
  """Rows and columns [N, 2] of the outputs of layers for images of `sizes`."""
  return functools.reduce(lambda n, layer: layer.num_outputs(n), layers, sizes)
