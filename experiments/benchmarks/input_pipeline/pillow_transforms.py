"""The transforms as people write them for PyTorch: on Pillow's images.

Functions of torchvision's kind, which do to images what torchvision's do: the
whole picture is resized before it is cropped, and each change of the colours is
a pass over the image.
"""

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter
from PIL import ImageOps

import fcn_jax as fcn

Pair = tuple[Image.Image, Image.Image]


def random_scale_and_crop(
  generator: np.random.Generator,
  image: Image.Image,
  mask: Image.Image,
  *,
  size: tuple[int, int],
  scale_range: tuple[float, float],
) -> Pair:
  factor = generator.uniform(*scale_range)
  scaled = round(image.width * factor), round(image.height * factor)
  image = image.resize(scaled, Image.Resampling.BILINEAR)
  mask = mask.resize(scaled, Image.Resampling.NEAREST)
  height, width = size
  border = (0, 0, max(0, width - scaled[0]), max(0, height - scaled[1]))
  if any(border):
    fill = fcn.data.pipeline.transforms.FILL
    image = ImageOps.expand(image, border, fill=fill)
    mask = ImageOps.expand(mask, border, fill=fcn.types.IGNORE_LABEL)
  top = int(generator.integers(image.height - height + 1))
  left = int(generator.integers(image.width - width + 1))
  window = (left, top, left + width, top + height)
  return image.crop(window), mask.crop(window)


def random_flip(
  generator: np.random.Generator, image: Image.Image, mask: Image.Image
) -> Pair:
  if generator.uniform() < 0.5:
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    return image.transpose(flip), mask.transpose(flip)
  return image, mask


def color_jitter(
  generator: np.random.Generator,
  image: Image.Image,
  *,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
) -> Image.Image:
  for enhance, strength in (
    (ImageEnhance.Brightness, brightness),
    (ImageEnhance.Contrast, contrast),
    (ImageEnhance.Color, saturation),
  ):
    if strength:
      factor = generator.uniform(1 - strength, 1 + strength)
      image = enhance(image).enhance(factor)
  if hue:
    bands = image.convert("HSV").split()
    turn = np.uint8(int(generator.uniform(-hue, hue) * 255) % 256)
    turned = Image.fromarray(np.array(bands[0]) + turn)
    image = Image.merge("HSV", (turned, *bands[1:])).convert("RGB")
  return image


def random_blur(
  generator: np.random.Generator, image: Image.Image, *, probability: float
) -> Image.Image:
  if generator.uniform() < probability:
    sigma = generator.uniform(0.1, 2.0)
    image = image.filter(ImageFilter.GaussianBlur(sigma))
  return image
