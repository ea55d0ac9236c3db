"""Labels as colours."""

import numpy as np

from fcn_jax import types

VOID_COLOR = (224, 224, 192)


def colorize(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """Paints class ids in the colours of a palette.

  Args:
    labels: [...] integers, classes 0..C-1 or `IGNORE_LABEL`.
    palette: [C, 3] uint8, RGB.

  Returns:
    [..., 3] uint8; void in `VOID_COLOR`.
  """
  table = np.full((256, 3), VOID_COLOR, np.uint8)
  table[: len(palette)] = palette
  table[types.IGNORE_LABEL] = VOID_COLOR
  return table[np.asarray(labels)]


def overlay(
  image: np.ndarray,
  labels: np.ndarray,
  palette: np.ndarray,
  opacity: float = 0.5,
) -> np.ndarray:
  """Lays class colours over an image.

  Args:
    image: [H, W, 3] uint8.
    labels: [H, W] integers, classes 0..C-1 or `IGNORE_LABEL`.
    palette: [C, 3] uint8, RGB.
    opacity: of the colours, in 0..1.

  Returns:
    [H, W, 3] uint8; the image itself where void.
  """
  colors = colorize(labels, palette)
  mixed = (1 - opacity) * image + opacity * colors
  void = (np.asarray(labels) == types.IGNORE_LABEL)[..., None]
  return np.where(void, image, np.round(mixed)).astype(np.uint8)


def errors(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Marks where a prediction is wrong.

  Args:
    labels: [...] integers, the truth, classes 0..C-1 or `IGNORE_LABEL`.
    classes: [...] integers, the prediction.

  Returns:
    [..., 3] uint8: red where the prediction is wrong, light grey where it is
    right, `VOID_COLOR` where there is no truth.
  """
  labels = np.asarray(labels)
  wrong = (labels != classes)[..., None]
  colors = np.where(wrong, np.uint8([200, 30, 30]), np.uint8([235] * 3))
  void = (labels == types.IGNORE_LABEL)[..., None]
  return np.where(void, np.uint8(VOID_COLOR), colors)
