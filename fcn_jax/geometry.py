"""Where the outputs of a stack of layers lie in the image.

All of this is exact integer and rational arithmetic on layer lists, without
arrays. All layers are square, so one axis is enough.

Output i of a convolution or pooling with kernel k, stride s and padding p is
centred on input coordinate i * s + (k - 1) / 2 - p. A transposed convolution
is the inverse map. Composing these affine maps over a stack gives the `Grid`
of its outputs: image coordinate = offset + stride * index. Two blobs can be
added if one is cropped so that their grids coincide. `crop_offset` derives the
crop offsets of the released Caffe nets (19; 5 and 27; 9 and 31; 18) from that.

Why those nets pad the image by 100 pixels: fc6 is a 7x7 convolution without
padding at stride 32, so it loses three cells, 96 pixels, at every border. The
upsampled scores would not reach the border of the image, and an image with a
side of less than 193 pixels would have no score at all. Padding the first layer
solves both. `smallest_padding` finds how much is needed: 81 pixels if all
images have more than 32 pixels a side, 97 for images of any size. 100 is the
next round number. The price is computation on a border of zeros. This package
therefore pads every layer by half its kernel (`padding="same"`), unless
released weights need the old geometry (`padding="caffe"`).
"""

import dataclasses
import fractions
import math
from collections.abc import Sequence

from fcn_jax import types

Fraction = fractions.Fraction


@dataclasses.dataclass(frozen=True)
class Layer:
  """A convolution, pooling or transposed convolution along one axis.

  Attributes:
    name: as in the paper (`conv1_1`, `pool1`, `fc6`).
    kernel: taps of the kernel.
    stride: step of the kernel; the upsampling factor when transposed.
    padding: cells added on either side; cells removed when transposed.
    dilation: distance between taps.
    ceil_mode: rounds the output size up (Caffe's pooling), not down.
    transposed: whether the layer is a transposed convolution.
  """

  name: str
  kernel: int
  stride: int = 1
  padding: int = 0
  dilation: int = 1
  ceil_mode: bool = False
  transposed: bool = False

  @property
  def extent(self) -> int:
    """Cells from the first to the last tap."""
    return self.dilation * (self.kernel - 1) + 1

  def num_outputs(self, num_inputs):
    """Number of outputs for a number of inputs, or for an array of them.

    Does not check the result; `output_size` does.
    """
    if self.transposed:
      return (num_inputs - 1) * self.stride + self.extent - 2 * self.padding
    room = num_inputs + 2 * self.padding - self.extent
    if self.ceil_mode:
      return -(-room // self.stride) + 1
    return room // self.stride + 1


def bilinear_upsampling(factor: int, name: str = "upscore") -> Layer:
  """The transposed convolution of the papers that upsamples by `factor`."""
  return Layer(name, kernel=2 * factor, stride=factor, transposed=True)


def output_size(layers: Sequence[Layer], size: int) -> int:
  """Number of outputs of a stack of layers for `size` inputs.

  Raises:
    ValueError: if a layer has no output because its input is too small.
  """
  for layer in layers:
    if layer.num_outputs(size) < 1 and not layer.transposed:
      raise ValueError(
        f"{layer.name} has no output: its input of {size} cells, padded by "
        f"{layer.padding}, is smaller than its kernel of {layer.extent}. Use "
        "a larger image or more padding."
      )
    size = layer.num_outputs(size)
  return size


def grid(layers: Sequence[Layer]) -> types.Grid:
  """Where the outputs of a stack of layers lie in the image, in fractions."""
  stride, offset = Fraction(1), Fraction(0)
  for layer in layers:
    centre = Fraction(layer.extent - 1, 2) - layer.padding
    if layer.transposed:
      stride /= layer.stride
      offset -= centre * stride
    else:
      offset += centre * stride
      stride *= layer.stride
  return types.Grid(stride, offset)


def receptive_field(layers: Sequence[Layer]) -> int:
  """Side in pixels of the square of the image that one output sees.

  Raises:
    ValueError: for a transposed convolution, whose outputs see different sizes.
  """
  size, stride = 1, 1
  for layer in layers:
    if layer.transposed:
      raise ValueError(
        f"{layer.name} is a transposed convolution: its outputs do not all "
        "have the same receptive field. Give the layers before it."
      )
    size += (layer.extent - 1) * stride
    stride *= layer.stride
  return size


def receptive_field_start(layers: Sequence[Layer]) -> int:
  """Image coordinate of the first pixel that output 0 sees.

  Output i sees the `receptive_field(layers)` pixels from this coordinate plus
  i times the stride. Negative where it begins in the padding.
  """
  first = grid(layers).offset - Fraction(receptive_field(layers) - 1, 2)
  return int(first)


def crop_offset(
  layers: Sequence[Layer], reference: Sequence[Layer] = ()
) -> int:
  """Outputs to cut at the top and left to align one blob with another.

  Args:
    layers: the stack that makes the blob to crop.
    reference: the stack that makes the blob to align with; empty for the
      image itself.

  Raises:
    ValueError: if no crop aligns them: strides differ, the grids are shifted
      by a part of a cell, or the blob begins after the reference.
  """
  blob, target = grid(layers), grid(reference)
  if blob.stride != target.stride:
    raise ValueError(
      f"a blob of stride {blob.stride} cannot be cropped to one of stride "
      f"{target.stride}: upsample one of them first."
    )
  cells = (target.offset - blob.offset) / blob.stride
  if cells.denominator != 1 or cells < 0:
    raise ValueError(
      f"no crop aligns a blob that begins at {blob.offset} with one that "
      f"begins at {target.offset}: the distance is {cells} cells. Change the "
      "padding of the first layer."
    )
  return int(cells)


@dataclasses.dataclass(frozen=True)
class Chain:
  """The layer lists of a fully convolutional net with Caffe's crops.

  In these nets skips are cropped to the upsampled scores, which must lie inside
  them. With `padding="same"` it is the other way round, and there are no such
  crops; `upsampling.add_skip` handles both.

  Attributes:
    score: image to the coarsest class scores.
    skips: image to each skip's scores, coarse to fine.
    fused: image to the upsampled scores that each skip is added to.
    upscore: image to the scores at all pixels, before the last crop.
  """

  score: tuple[Layer, ...]
  skips: tuple[tuple[Layer, ...], ...]
  fused: tuple[tuple[Layer, ...], ...]
  upscore: tuple[Layer, ...]

  def crop_offsets(self) -> tuple[int, ...]:
    """Crop of each skip, coarse to fine, and of the final scores."""
    skips = [
      crop_offset(skip, fused)
      for skip, fused in zip(self.skips, self.fused, strict=True)
    ]
    return (*skips, crop_offset(self.upscore))

  def check(self, image_size: int) -> None:
    """Checks that the net has a score at every pixel of an image.

    Args:
      image_size: side of the image in pixels.

    Raises:
      ValueError: if a map is too small for its crop, naming it.
    """
    *skip_crops, crop = self.crop_offsets()
    for skip, fused, first in zip(
      self.skips, self.fused, skip_crops, strict=True
    ):
      needed = first + output_size(fused, image_size)
      _check_crop(skip[-1].name, output_size(skip, image_size), needed)
    upscored = output_size(self.upscore, image_size)
    _check_crop(self.upscore[-1].name, upscored, crop + image_size)


def _check_crop(name: str, size: int, needed: int) -> None:
  if size < needed:
    raise ValueError(
      f"{name} has {size} cells but its crop ends at cell {needed}: the net "
      "does not cover the image. Pad the first layer by more."
    )


def pixels_seen(chain: Chain, first: int, last: int) -> tuple[int, int]:
  """Pixels of the image on which the logits of some pixels depend.

  Logits are interpolated between the two nearest cells of the finest scores,
  these between the two nearest of the next coarser ones, and so on; each cell
  sees its receptive field.

  Args:
    chain: the net.
    first: coordinate of the first pixel along one axis.
    last: coordinate of the last one.

  Returns:
    The first and the last coordinate that is seen; they may lie outside the
    image.
  """
  low, high = Fraction(first), Fraction(last)
  seen = []
  for layers in reversed((chain.score, *chain.skips)):
    cells = grid(layers)
    begin = math.floor((low - cells.offset) / cells.stride)
    end = math.ceil((high - cells.offset) / cells.stride)
    start = receptive_field_start(layers)
    seen += [
      start + begin * cells.stride,
      start + end * cells.stride + receptive_field(layers) - 1,
    ]
    low = cells.offset + begin * cells.stride
    high = cells.offset + end * cells.stride
  return int(min(seen)), int(max(seen))


def fcn_chain(
  backbone: Sequence[Layer],
  stride: int,
  *,
  skips: Sequence[str] = ("pool4", "pool3"),
  final: Layer | None = None,
) -> Chain:
  """The layer lists of an FCN on a backbone, with or without skips.

  Args:
    backbone: layers from the image to the coarsest features.
    stride: stride of the fused scores, the backbone's divided by a power of
      two.
    skips: names of the layers whose outputs have half the backbone's stride, a
      quarter of it and so on; only those that `stride` needs are used.
    final: the last transposed convolution; `bilinear_upsampling(stride)` if
      None. The released AlexNet has a kernel of 63 at stride 32.

  Raises:
    ValueError: if the backbone has no layer for a skip of that stride.
  """
  backbone = tuple(backbone)
  ends = {layer.name: i for i, layer in enumerate(backbone, start=1)}
  finest = grid(backbone).stride
  fused, skipped, fusions = backbone, [], []
  for name in skips:
    if finest <= stride:
      break
    finest /= 2
    layers = backbone[: ends.get(name, 0)]
    if grid(layers).stride != finest:
      raise ValueError(f"the backbone has no layer {name} of stride {finest}.")
    fused = (*fused, bilinear_upsampling(2, f"upscore{finest}"))
    skipped.append(layers)
    fusions.append(fused)
  if finest != stride:
    raise ValueError(
      f"stride {stride} cannot be reached from {grid(backbone).stride} by "
      f"halving it at the skips {', '.join(skips)}."
    )
  return Chain(
    score=backbone,
    skips=tuple(skipped),
    fused=tuple(fusions),
    upscore=(*fused, final or bilinear_upsampling(stride)),
  )


def smallest_padding(
  backbone: Sequence[Layer],
  stride: int,
  image_sizes: Sequence[int],
  *,
  final: Layer | None = None,
) -> int:
  """Smallest padding of the first layer that covers all these image sizes.

  Args:
    backbone: layers from the image to the coarsest features; the padding of the
      first one is replaced.
    stride: stride of the fused scores.
    image_sizes: sides of images in pixels.
    final: see `fcn_chain`.

  Raises:
    ValueError: if no padding up to the receptive field is enough.
  """
  fault = None
  for padding in range(receptive_field(backbone)):
    first = dataclasses.replace(backbone[0], padding=padding)
    chain = fcn_chain((first, *backbone[1:]), stride, final=final)
    try:
      for size in image_sizes:
        chain.check(size)
      return padding
    except ValueError as error:
      fault = error
  raise ValueError(f"no padding of {backbone[0].name} is enough: {fault}")
