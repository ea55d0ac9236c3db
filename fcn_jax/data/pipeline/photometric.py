"""Pure functions that change the colours of a picture.

Images are [H, W, 3] uint8, RGB; functions raise a `ValueError` for others. Do
not pad images first: contrast depends on the mean of all pixels.
"""

import math

import numpy as np
from PIL import Image
from PIL import ImageFilter

# The weights of red, green and blue in a grey value (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)

# RGB to YIQ, in which hue is an angle (FCC 1953, with the weights above).
_YIQ = np.array(
  [GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], np.float64
)


def adjust_colors(
  image: np.ndarray,
  *,
  brightness: float = 1.0,
  contrast: float = 1.0,
  saturation: float = 1.0,
  hue: float = 0.0,
) -> np.ndarray:
  """Changes brightness, contrast, saturation and hue, in this order.

  With x a colour of three channels and grey(x) its grey value, as in
  torchvision's functions of the same names:

  - brightness: brightness * x
  - contrast: contrast * x + (1 - contrast) * mean of grey(x) over the image
  - saturation: saturation * x + (1 - saturation) * grey(x)
  - hue: x turned by hue * 360 degrees about the grey axis

  All four are one affine map of colours, so values are rounded and clipped to
  0..255 only once, at the end. torchvision rotates the hue in HSV, which is not
  affine; this function rotates it in YIQ, which keeps the grey value.

  Args:
    image: the picture.
    brightness: factor, 0 (black) or more; 1 changes nothing.
    contrast: factor, 0 (one grey) or more; 1 changes nothing.
    saturation: factor, 0 (greys) or more; 1 changes nothing.
    hue: turns, -0.5 to 0.5; 0 changes nothing.

  Raises:
    ValueError: a factor is below 0.
  """
  _check_colors(image)
  if min(brightness, contrast, saturation) < 0:
    raise ValueError(
      "factors of colours must be at least 0, not brightness"
      f" {brightness}, contrast {contrast}, saturation {saturation}"
    )
  matrix = saturation * np.eye(3) + (1.0 - saturation) * np.array(GREY)
  matrix = brightness * contrast * _turn(hue) @ matrix
  # Changes of saturation and hue leave greys as they are.
  offset = 0.0
  if contrast != 1:
    offset = (1.0 - contrast) * brightness * (_mean(image) @ GREY)
  columns = np.column_stack([matrix, np.full(3, offset)])
  changed = Image.fromarray(image).convert("RGB", columns.ravel().tolist())
  return np.array(changed)


def _turn(hue: float) -> np.ndarray:
  """Returns the matrix, [3, 3], that turns the hue of RGB in YIQ."""
  # Clockwise, so that red becomes yellow and not purple, as in HSV.
  sine, cosine = math.sin(-2 * math.pi * hue), math.cos(2 * math.pi * hue)
  turn = np.array([(1, 0, 0), (0, cosine, -sine), (0, sine, cosine)])
  return np.linalg.solve(_YIQ, turn @ _YIQ)


def _mean(image: np.ndarray) -> np.ndarray:
  """Returns the mean colour, [3]."""
  height, width, _ = image.shape
  # Sums along rows of bytes; over both axes at once it takes ten times as long.
  columns = image.reshape(height, width * 3).sum(axis=0, dtype=np.uint32)
  return columns.reshape(width, 3).sum(axis=0) / (height * width)


def color_jitter(
  generator: np.random.Generator,
  image: np.ndarray,
  *,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
) -> np.ndarray:
  """Changes the colours at random, see `adjust_colors`.

  The factors are drawn uniformly from max(0, 1 - strength) to 1 + strength, and
  the hue from -strength to strength, as in torchvision's ColorJitter; the order
  of the changes is fixed here. If all strengths are 0, the result is `image`
  itself, which may then have any channels.

  Raises:
    ValueError: a strength is below 0, or that of the hue above 0.5.
  """
  strengths = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
  }
  check_jitter(**strengths, hue=hue)
  factors = {
    name: generator.uniform(max(0.0, 1.0 - strength), 1.0 + strength)
    for name, strength in strengths.items()
  }
  turn = generator.uniform(-hue, hue)
  if not any([*strengths.values(), hue]):
    return image
  return adjust_colors(image, **factors, hue=turn)


def check_jitter(
  *, brightness: float, contrast: float, saturation: float, hue: float
) -> None:
  """Raises a `ValueError` if a strength of `color_jitter` is out of range."""
  for name, strength in (
    ("brightness", brightness),
    ("contrast", contrast),
    ("saturation", saturation),
  ):
    if not strength >= 0:
      raise ValueError(f"{name} must be at least 0, not {strength}")
  if not 0 <= hue <= 0.5:
    raise ValueError(f"hue must be in 0..0.5, not {hue}")


def random_blur(
  generator: np.random.Generator,
  image: np.ndarray,
  *,
  probability: float,
  sigma_range: tuple[float, float] = (0.1, 2.0),
) -> np.ndarray:
  """Blurs some images by a Gaussian (Pillow's, three box blurs).

  Args:
    generator: source of the randomness.
    image: the picture. It is returned itself if it is not blurred, and may have
      any channels if the probability is 0.
    probability: of a blur, 0 to 1.
    sigma_range: smallest and largest standard deviation in pixels, between
      which it is drawn uniformly.

  Raises:
    ValueError: an option is out of range.
  """
  check_blur(probability=probability, sigma_range=sigma_range)
  if probability:
    _check_colors(image)
  chance, sigma = generator.uniform(), generator.uniform(*sigma_range)
  if chance >= probability:
    return image
  blur = ImageFilter.GaussianBlur(sigma)
  return np.array(Image.fromarray(image).filter(blur))


def check_blur(*, probability: float, sigma_range: tuple[float, float]) -> None:
  """Raises a `ValueError` if an option of `random_blur` is out of range."""
  if not 0 <= probability <= 1:
    raise ValueError(
      f"the probability of a blur must be in 0..1, not {probability}"
    )
  if not 0 < sigma_range[0] <= sigma_range[1]:
    raise ValueError(
      "the range of a blur's sigma must be (smallest, largest) with 0 <"
      f" smallest <= largest, not {sigma_range}"
    )


def random_gamma(
  generator: np.random.Generator,
  image: np.ndarray,
  *,
  gamma_range: tuple[float, float],
) -> np.ndarray:
  """Replaces values x by 255 * (x / 255) ** gamma, as torchvision does.

  Args:
    generator: source of the randomness.
    image: the picture. It is returned itself for the range (1, 1), and may then
      have any channels.
    gamma_range: smallest and largest gamma, above 0, between which it is drawn
      uniformly. A gamma below 1 makes the picture brighter.

  Raises:
    ValueError: the range is not one.
  """
  check_gamma(gamma_range)
  if tuple(gamma_range) == (1.0, 1.0):
    return image
  _check_colors(image)
  values = np.linspace(0.0, 1.0, 256) ** generator.uniform(*gamma_range)
  return np.rint(255 * values).astype(np.uint8)[image]


def check_gamma(gamma_range: tuple[float, float]) -> None:
  """Raises a `ValueError` if the option of `random_gamma` is out of range."""
  if not 0 < gamma_range[0] <= gamma_range[1]:
    raise ValueError(
      "gamma_range must be (smallest, largest) with 0 < smallest <= largest,"
      f" not {gamma_range}"
    )


def random_noise(
  generator: np.random.Generator, image: np.ndarray, *, noise: float
) -> np.ndarray:
  """Adds normal noise, independent for each pixel and channel.

  Args:
    generator: source of the randomness.
    image: the picture. It is returned itself without noise, and may then have
      any channels.
    noise: largest standard deviation, in values of 0..255; that of a picture is
      uniform between 0 and this. Sums are rounded and cut off.

  Raises:
    ValueError: the deviation is below 0.
  """
  check_noise(noise)
  if not noise:
    return image
  _check_colors(image)
  changed = generator.standard_normal(image.shape, np.float32)
  changed *= np.float32(generator.uniform(0.0, noise))
  changed += image
  np.clip(np.rint(changed, out=changed), 0, 255, out=changed)
  return changed.astype(np.uint8)


def check_noise(noise: float) -> None:
  """Raises a `ValueError` if the option of `random_noise` is out of range."""
  if not noise >= 0:
    raise ValueError(f"noise must be at least 0, not {noise}")


def _check_colors(image: np.ndarray) -> None:
  if image.shape[-1] != 3 or image.dtype != np.uint8:
    raise ValueError(
      "colours can be changed, and blurred, of pictures [H, W, 3] uint8 only,"
      f" not of {list(image.shape)} {image.dtype}; leave these options out"
    )
