"""How training pictures change at random."""

import dataclasses
import numbers
from typing import NamedTuple

import numpy as np

from fcn_jax import checks
from fcn_jax.data.pipeline import photometric
from fcn_jax.data.pipeline import transforms
from fcn_jax.data.pipeline import warping


class Pasted(NamedTuple):
  """A picture from which a class is pasted into another one.

  Attributes:
    image: as that of `Augmentation.apply`.
    label: its labels.
    factor: the scale of this picture.
    of_class: whose pixels are pasted.
  """

  image: np.ndarray
  label: np.ndarray
  factor: float
  of_class: int


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Random changes of training pictures.

  Each picture is turned by quarters, scaled, rotated, deformed, cropped,
  changed in colour and gamma, blurred, made noisy, pasted into, cut out and
  mirrored, in this order. Scale, rotation, deformation and crop are one
  interpolation; what lies outside of the picture begins with the colour of
  padding, and its labels are void. By default pictures stay whole, and half of
  them are mirrored.
  """

  crop_size: tuple[int, int] | int | None = None
  """Height and width of random crops, or one number for a square; None for
  whole pictures."""
  scale_range: tuple[float, float] = (1.0, 1.0)
  """Smallest and largest factor of the random scale."""
  aspect_range: tuple[float, float] = (1.0, 1.0)
  """Smallest and largest ratio of the scale of the width to that of the height;
  its logarithm is uniform, and the area stays. Whole pictures keep the size
  that scale_range gives."""
  rotation: float = 0.0
  """Largest angle of random rotations in both directions, 0..180 degrees. Whole
  pictures keep their size and lose what leaves it."""
  quarter_turns: bool = False
  """Turn pictures by 0, 90, 180 or 270 degrees; whole ones that are not square
  by 0 or 180 degrees only, since their size stays."""
  elastic_amplitude: float = 0.0
  """Standard deviation of random displacements (elastic deformation), in pixels
  of the crop. Above a tenth of elastic_spacing, pictures may fold."""
  elastic_spacing: float = 64.0
  """Pixels of the crop between random displacements; cubic in between."""
  min_labelled: float = 0.0
  """Share of a crop that should be labelled, 0..1; up to ten crops are
  tried."""
  foreground_share: float = 0.0
  """Share of the crops of a batch, 0..1, that hold a pixel of a class drawn at
  random, from a picture with this class; at least one crop if above 0."""
  foreground_classes: tuple[int, ...] | None = None
  """Numbers of these classes, such as all but the background. Default: all."""
  copy_paste: float = 0.0
  """Share of the crops, 0..1, into which the pixels of a rare class are pasted
  from a crop of another picture."""
  copy_paste_classes: tuple[int, ...] | None = None
  """Numbers of the rare classes; copy_paste needs them."""
  cutout_count: int = 0
  """Number of squares that are cut out: without picture, and void."""
  cutout_size: int = 32
  """Side of these squares, in pixels."""
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
  gamma_range: tuple[float, float] = (1.0, 1.0)
  """Smallest and largest exponent of random gamma corrections."""
  noise: float = 0.0
  """Largest standard deviation of random noise, in values of 0..255."""
  blur_probability: float = 0.0
  """Share of the pictures that are blurred, 0..1."""
  blur_sigma: tuple[float, float] = (0.1, 2.0)
  """Smallest and largest standard deviation of the blur, in pixels."""
  num_sizes: int = 4
  """Most sizes that whole pictures are padded to; the step is compiled for
  each."""

  def __post_init__(self):
    if isinstance(self.crop_size, numbers.Integral):
      side = int(self.crop_size)
      object.__setattr__(self, "crop_size", (side, side))

  def check(self) -> None:
    """Raises a `ValueError` if a value is out of range."""
    if self.crop_size is not None:
      checks.size(self.crop_size, "crop_size")
    self._check_ranges()
    self._check_shares()
    self._check_used()
    photometric.check_jitter(**self._jitter)
    photometric.check_gamma(self.gamma_range)
    photometric.check_blur(
      probability=self.blur_probability, sigma_range=self.blur_sigma
    )
    photometric.check_noise(self.noise)

  def _check_ranges(self) -> None:
    for name in ("scale_range", "aspect_range"):
      smallest, largest = getattr(self, name)
      if not 0 < smallest <= largest:
        raise ValueError(
          f"{name} must be (smallest, largest) with 0 < smallest <= largest,"
          f" not {(smallest, largest)}"
        )
    if not 0 <= self.rotation <= 180:
      raise ValueError(
        f"rotation must be in 0..180 degrees, not {self.rotation}"
      )
    for name, least in (
      ("elastic_amplitude", 0),
      ("elastic_spacing", 1),
      ("cutout_count", 0),
      ("cutout_size", 1),
      ("num_sizes", 1),
    ):
      if not getattr(self, name) >= least:
        raise ValueError(
          f"{name} must be at least {least}, not {getattr(self, name)}"
        )

  def _check_shares(self) -> None:
    for name, what in (
      ("min_labelled", "chooses crops"),
      ("foreground_share", "chooses crops"),
      ("copy_paste", "pastes crops into crops"),
    ):
      share = getattr(self, name)
      if not 0 <= share <= 1:
        raise ValueError(f"{name} must be in 0..1, not {share}")
      if share and self.crop_size is None:
        raise ValueError(f"{name} {what}; give it with a crop_size")
    if self.copy_paste and not self.copy_paste_classes:
      raise ValueError(
        "copy_paste needs the rare classes to paste: give copy_paste_classes"
      )

  def _check_used(self) -> None:
    """Refuses options that have no effect without another."""
    for name, needed in (
      ("foreground_classes", "foreground_share"),
      ("copy_paste_classes", "copy_paste"),
      ("elastic_spacing", "elastic_amplitude"),
      ("cutout_size", "cutout_count"),
    ):
      is_default = getattr(self, name) == getattr(Augmentation, name)
      if not is_default and not getattr(self, needed):
        raise ValueError(f"{name} has no effect without {needed}: give both")

  def apply(
    self,
    generator: np.random.Generator,
    image: np.ndarray,
    label: np.ndarray,
    *,
    factor: float,
    foreground: int | None = None,
    pasted: Pasted | None = None,
  ) -> transforms.Pair:
    """Changes one picture and its labels.

    Args:
      generator: source of the randomness.
      image: [H, W, C] uint8 or float32.
      label: [H, W] or [H, W, L] integers.
      factor: the scale of this picture, drawn from `scale_range`.
      foreground: class of which the crop holds a pixel, where the picture has
        one, and which is neither pasted over nor cut out; None for any crop.
      pasted: a picture of the same kind, of which a crop is made that holds its
        class, to be pasted into this one; None for none.

    Returns:
      Image and label of the same dtypes. They have the size of the crop, or
      less where the scaled picture is smaller and nothing is pasted; without
      crops, the size of the scaled picture.
    """
    image, label = self._change(generator, image, label, factor, foreground)
    if pasted is not None:
      above = self._change(generator, *pasted)
      if self.flip:
        above = transforms.random_flip(generator, *above)
      below, above = (
        transforms.pad_to(*pair, size=self.crop_size)
        for pair in ((image, label), above)
      )
      image, label = transforms.paste(
        below, above, of_class=pasted.of_class, keep=foreground
      )
    if self.cutout_count:
      image, label = transforms.cutout(
        generator,
        image,
        label,
        count=self.cutout_count,
        size=self.cutout_size,
        keep=foreground,
      )
    if self.flip:
      image, label = transforms.random_flip(generator, image, label)
    return image, label

  def _change(
    self,
    generator: np.random.Generator,
    image: np.ndarray,
    label: np.ndarray,
    factor: float,
    foreground: int | None,
  ) -> transforms.Pair:
    """Changes geometry, but for the mirror, and colours."""
    image, label = self._place(generator, image, label, factor, foreground)
    image = photometric.color_jitter(generator, image, **self._jitter)
    image = photometric.random_gamma(
      generator, image, gamma_range=self.gamma_range
    )
    image = photometric.random_blur(
      generator,
      image,
      probability=self.blur_probability,
      sigma_range=self.blur_sigma,
    )
    image = photometric.random_noise(generator, image, noise=self.noise)
    return image, label

  def _place(
    self,
    generator: np.random.Generator,
    image: np.ndarray,
    label: np.ndarray,
    factor: float,
    foreground: int | None,
  ) -> transforms.Pair:
    """Makes all geometric changes but the mirror."""
    whole = self.crop_size is None
    if self.quarter_turns:
      image, label = transforms.random_quarter_turn(
        generator, image, label, keep_size=whole
      )
    size = self.crop_size
    if whole:
      size = transforms.rescaled_size(label.shape[:2], factor=factor)
    has_aspect = tuple(self.aspect_range) != (1.0, 1.0)
    if has_aspect:
      ratio = np.exp(generator.uniform(*np.log(self.aspect_range)))
      factor = float(factor / ratio**0.5), float(factor * ratio**0.5)
    warp = warping.draw(
      generator,
      size,
      rotation=self.rotation,
      elastic_amplitude=self.elastic_amplitude,
      elastic_spacing=self.elastic_spacing,
    )
    if not whole:
      return transforms.random_crop(
        generator,
        image,
        label,
        size=size,
        factor=factor,
        min_labelled=self.min_labelled,
        foreground=foreground,
        warp=warp,
      )
    if warp is None and not has_aspect:
      return transforms.resize(image, label, size=size)
    return transforms.warp_whole(
      image, label, size=size, factor=factor, warp=warp or warping.Warp()
    )

  @property
  def needs_classes(self) -> bool:
    """Whether examples are drawn by the classes that they hold."""
    return bool(self.foreground_share or self.copy_paste)

  @property
  def _jitter(self) -> dict[str, float]:
    names = ("brightness", "contrast", "saturation", "hue")
    return {name: getattr(self, name) for name in names}
