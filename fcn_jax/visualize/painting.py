"""Labels as colours."""

from collections.abc import Sequence

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


def background_of(class_names: Sequence[str]) -> int | None:
  """Number of the class that is called background; None if there is none."""
  names = [name.casefold() for name in class_names]
  return names.index("background") if "background" in names else None


def overlay(
  image: np.ndarray,
  labels: np.ndarray,
  palette: np.ndarray,
  opacity: float = 0.5,
  *,
  background: int | None = None,
  contours: bool = True,
) -> np.ndarray:
  """Lays class colours over an image.

  Contours have a light edge and a dark one, so that they show on light and on
  dark images.

  Args:
    image: [H, W, 3] uint8.
    labels: [H, W] integers, classes 0..C-1 or `IGNORE_LABEL`.
    palette: [C, 3] uint8, RGB.
    opacity: of the colours, in 0..1.
    background: class that is not painted, see `background_of`.
    contours: whether to draw lines between regions, also around void.

  Returns:
    [H, W, 3] uint8; the image itself where void.
  """
  labels = np.asarray(labels)
  colors = colorize(labels, palette)
  mixed = (1 - opacity) * image + opacity * colors
  is_bare = labels == types.IGNORE_LABEL
  if background is not None:
    is_bare |= labels == background
  painted = np.where(is_bare[..., None], image, np.round(mixed))
  if contours:
    light, dark = _edges(np.where(is_bare, -1, labels), labels.shape)
    painted = np.where(dark[..., None], 0.3 * painted, painted)
    painted = np.where(light[..., None], 0.3 * painted + 0.7 * 255, painted)
  return painted.astype(np.uint8)


def _edges(
  labels: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """The light and the dark edges of contours, [H, W] bool each.

  The region of the larger label has the light one, inside.
  """
  light, dark = np.zeros(shape, bool), np.zeros(shape, bool)
  # About a line of print on a picture that fills a page.
  for distance in range(1, 1 + max(1, round(min(shape) / 400))):
    for axis in (0, 1):
      before = np.moveaxis(labels, axis, 0)[:-distance]
      after = np.moveaxis(labels, axis, 0)[distance:]
      for edges, first, second in (
        (light, before > after, before < after),
        (dark, before < after, before > after),
      ):
        along = np.moveaxis(edges, axis, 0)
        along[:-distance] |= first
        along[distance:] |= second
  return light, dark & ~light


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
