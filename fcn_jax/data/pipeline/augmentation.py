"""How training pictures change at random."""

import dataclasses

import numpy as np

from fcn_jax.data.pipeline import photometric
from fcn_jax.data.pipeline import transforms


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Random changes of training pictures.

  Each picture is scaled, cropped, changed in colour, blurred and mirrored, in
  this order. By default pictures stay whole, and half of them are mirrored.
  """

  crop_size: tuple[int, int] | None = None
  """Height and width of random crops; None for whole pictures."""
  scale_range: tuple[float, float] = (1.0, 1.0)
  """Smallest and largest factor of the random scale."""
  min_labelled: float = 0.0
  """Share of a crop that should be labelled, 0..1; up to ten crops are
  tried."""
  foreground_share: float = 0.0
  """Share of the crops of a batch, 0..1, that hold a pixel of a class drawn at
  random, from a picture with this class; at least one crop if above 0."""
  foreground_classes: tuple[int, ...] | None = None
  """Numbers of these classes, such as all but the background. Default: all."""
  flip: bool = True
  """Mirror half of the pictures."""
  brightness: float = 0.0
  """Strength of random changes of brightness, usually 0..1."""
  contrast: float = 0.0
  """Strength of random changes of contrast, usually 0..1."""
  saturation: float = 0.0
  """Strength of random changes of saturation, usually 0..1."""
  hue: float = 0.0
  """Strength of random changes of hue, 0..0.5."""
  blur_probability: float = 0.0
  """Share of the pictures that are blurred, 0..1."""
  blur_sigma: tuple[float, float] = (0.1, 2.0)
  """Smallest and largest standard deviation of the blur, in pixels."""
  num_sizes: int = 4
  """Most sizes that whole pictures are padded to; the step is compiled for
  each."""

  def check(self) -> None:
    """Raises a `ValueError` if a value is out of range."""
    if self.crop_size is not None and min(self.crop_size) < 1:
      raise ValueError(f"crop_size must be at least 1x1, not {self.crop_size}")
    if not 0 < self.scale_range[0] <= self.scale_range[1]:
      raise ValueError(
        "scale_range must be (smallest, largest) with 0 < smallest <= largest,"
        f" not {self.scale_range}"
      )
    if not 0 <= self.min_labelled <= 1:
      raise ValueError(f"min_labelled must be in 0..1, not {self.min_labelled}")
    if self.min_labelled and self.crop_size is None:
      raise ValueError("min_labelled chooses crops; give it with a crop_size")
    if not 0 <= self.foreground_share <= 1:
      raise ValueError(
        f"foreground_share must be in 0..1, not {self.foreground_share}"
      )
    if self.foreground_share and self.crop_size is None:
      raise ValueError(
        "foreground_share chooses crops; give it with a crop_size"
      )
    if self.foreground_classes is not None and not self.foreground_share:
      raise ValueError("foreground_classes needs a foreground_share above 0")
    photometric.check_jitter(**self._jitter)
    photometric.check_blur(
      probability=self.blur_probability, sigma_range=self.blur_sigma
    )
    if self.num_sizes < 1:
      raise ValueError(f"num_sizes must be at least 1, not {self.num_sizes}")

  def apply(
    self,
    generator: np.random.Generator,
    image: np.ndarray,
    label: np.ndarray,
    *,
    factor: float,
    foreground: int | None = None,
  ) -> transforms.Pair:
    """Changes one picture and its labels.

    Args:
      generator: source of the randomness.
      image: [H, W, C] uint8 or float32.
      label: [H, W] or [H, W, L] integers.
      factor: the scale of this picture, drawn from `scale_range`.
      foreground: class of which the crop holds a pixel, where the picture has
        one; None for any crop.

    Returns:
      Image and label of the same dtypes. They have the size of the crop, or
      less where the scaled picture is smaller; without crops, the size of the
      scaled picture.
    """
    if self.crop_size is None:
      image, label = transforms.rescale(image, label, factor=factor)
    else:
      image, label = transforms.random_crop(
        generator,
        image,
        label,
        size=self.crop_size,
        factor=factor,
        min_labelled=self.min_labelled,
        foreground=foreground,
      )
    image = photometric.color_jitter(generator, image, **self._jitter)
    image = photometric.random_blur(
      generator,
      image,
      probability=self.blur_probability,
      sigma_range=self.blur_sigma,
    )
    if self.flip:
      image, label = transforms.random_flip(generator, image, label)
    return image, label

  @property
  def _jitter(self) -> dict[str, float]:
    names = ("brightness", "contrast", "saturation", "hue")
    return {name: getattr(self, name) for name in names}
