"""How networks normalize the pixels of an image before their first layer.

Images are RGB in 0..255 everywhere. Published weights expect other ranges and
other orders of channels. The normalization belongs to the network, so that it
always fits the weights.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class InputNormalization:
  """Mean and scale of each channel: a network sees (image - mean) * scale.

  Attributes:
    mean: of each channel of the images, in 0..255.
    scale: of each channel.
    order: the image channels in the order of the first layer's kernel in files
      of weights. Caffe's are BGR; kernels are reordered to RGB when they are
      read.
  """

  mean: tuple[float, ...]
  scale: tuple[float, ...]
  order: tuple[int, ...]

  def __post_init__(self):
    """Checks that all fields are for the same channels."""
    num = len(self.mean)
    if len(self.scale) != num or sorted(self.order) != list(range(num)):
      raise ValueError(
        f"mean {self.mean}, scale {self.scale} and order {self.order} must be "
        "those of the same channels, and the order a permutation of them."
      )

  @property
  def num_channels(self) -> int:
    """Channels of the images."""
    return len(self.mean)


def _caffe(mean: tuple[float, ...], order: tuple[int, ...] = (2, 1, 0)):
  return InputNormalization(mean, (1.0,) * len(mean), order)


# The released nets (data layers of the authors' repository). Their means are
# given there in the order of the files, here in that of the images.
CAFFE = _caffe((122.67892, 116.66877, 104.00699))
PASCAL_CONTEXT = _caffe((122.679, 116.669, 104.007))
SIFT_FLOW = _caffe((108.353, 115.294, 114.578))
NYUD_COLOR = _caffe((92.318, 97.203, 116.190))
# Horizontal disparity, height above ground and angle, as in the picture files.
NYUD_HHA = _caffe((132.431, 94.076, 118.477), (0, 1, 2))
# Colour, and the logarithm of the depth.
NYUD_COLOR_DEPTH = _caffe((*NYUD_COLOR.mean, 7.844), (2, 1, 0, 3))

# torchvision's classifiers and FCNs: numbers in 0..1, normalised.
TORCHVISION = InputNormalization(
  mean=tuple(255 * mean for mean in (0.485, 0.456, 0.406)),
  scale=tuple(1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)),
  order=(0, 1, 2),
)
# torchvision's GoogLeNet undoes that normalisation and sees numbers in -1..1.
INCEPTION = InputNormalization((127.5,) * 3, (1 / 127.5,) * 3, (0, 1, 2))
# Networks of this package that are trained from scratch.
FROM_SCRATCH = InputNormalization((127.5,) * 3, (1 / 64,) * 3, (0, 1, 2))
