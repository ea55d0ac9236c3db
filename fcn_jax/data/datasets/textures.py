"""Textures of the data set `shapes`."""

import numpy as np
from PIL import Image


def rotate(
  v: np.ndarray, u: np.ndarray, half_turns: float
) -> tuple[np.ndarray, np.ndarray]:
  """Rotates coordinates, [H, W] each, by half turns."""
  cosine, sine = np.cos(np.pi * half_turns), np.sin(np.pi * half_turns)
  return cosine * v - sine * u, sine * v + cosine * u


def paint(
  generator: np.random.Generator,
  grid: np.ndarray,
  *,
  hue: float,
  saturation: float,
  texture: str,
) -> np.ndarray:
  """Returns a picture, [H, W, 3] float32 in 0..1, filled with one texture.

  Args:
    generator: source of the randomness.
    grid: [2, H, W] float32, the coordinates of the pixels.
    hue: in turns (0 red, 1/3 green, 2/3 blue).
    saturation: 0..1.
    texture: one of `NAMES`.
  """
  draw = _DRAW[texture]
  brightness = generator.uniform(0.45, 0.85)
  contrast = generator.uniform(0.15, 0.35)
  value = (brightness + contrast * draw(generator, grid)).clip(0.05, 1.0)[
    ..., None
  ]
  # The hue's pure colour: each channel is a trapezoid over the circle.
  distance = np.abs((hue - np.array([0, 1 / 3, 2 / 3]) + 0.5) % 1.0 - 0.5)
  pure = (2.0 - 6.0 * distance).clip(0.0, 1.0)
  return (value * (1.0 - saturation * (1.0 - pure))).astype(np.float32)


def _gradient(generator: np.random.Generator, grid: np.ndarray) -> np.ndarray:
  v, _ = rotate(grid[0], grid[1], generator.uniform(0.0, 2.0))
  # Reverses about twice per picture, so that the slope shows on small objects.
  period = generator.uniform(50.0, 100.0)
  phase = v / period + generator.uniform()
  return 4.0 * np.abs(phase % 1.0 - 0.5) - 1.0


def _noise(generator: np.random.Generator, grid: np.ndarray) -> np.ndarray:
  _, height, width = grid.shape
  cell = generator.uniform(1.5, 4.0)
  coarse = generator.uniform(
    -1.0, 1.0, size=(int(height / cell) + 1, int(width / cell) + 1)
  )
  image = Image.fromarray(coarse.astype(np.float32))
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _stripes(generator: np.random.Generator, grid: np.ndarray) -> np.ndarray:
  waves, _ = _crossed_waves(generator, grid)
  return np.sign(waves)


def _checks(generator: np.random.Generator, grid: np.ndarray) -> np.ndarray:
  waves, across = _crossed_waves(generator, grid)
  return np.sign(waves * across)


def _crossed_waves(
  generator: np.random.Generator, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  frequency = 2.0 * np.pi / generator.uniform(5.0, 11.0)
  phases = generator.uniform(0.0, 2.0 * np.pi, size=2)
  v, u = rotate(grid[0], grid[1], generator.uniform(0.0, 2.0))
  return np.sin(v * frequency + phases[0]), np.sin(u * frequency + phases[1])


_DRAW = {
  "gradient": _gradient,
  "noise": _noise,
  "stripes": _stripes,
  "checks": _checks,
}
NAMES = tuple(_DRAW)
