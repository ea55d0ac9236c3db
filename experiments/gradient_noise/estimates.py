"""Estimates from projected gradients: noise, signal and correlation.

All of them are functions of means over the directions that gradients were
projected onto. Their standard errors are those of the jackknife: the spread of
the estimates that leave out one direction. They do not say what other images or
another network would give; seeds do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Parts(NamedTuple):
  """What a sampled gradient consists of, by direction.

  Each mean over directions is an estimate without bias.

  Attributes:
    masks: [R] variance due to the mask.
    images: [R] variance due to the choice of the image.
    signal: [R] square of the mean gradient.
  """

  masks: np.ndarray
  images: np.ndarray
  signal: np.ndarray


def with_error(
  function: Callable[..., Any], *by_direction: np.ndarray
) -> tuple[Any, Any]:
  """A function of means over directions, and its standard error.

  Args:
    function: from means to a number or an array.
    *by_direction: [R, ...] values whose means over axis 0 it takes.

  Returns:
    Its value, and the error; NaN for a single direction.
  """
  value = function(*(values.mean(axis=0) for values in by_direction))
  count = len(by_direction[0])
  if count < 2:
    return value, np.full_like(value, np.nan, dtype=float)[()]
  without_one = np.array(
    [
      function(
        *(np.delete(values, i, axis=0).mean(0) for values in by_direction)
      )
      for i in range(count)
    ]
  )
  return value, np.sqrt((count - 1) * without_one.var(axis=0))


def split(sums: np.ndarray, scale: float) -> Parts:
  """Splits the noise of an image's sampled gradient into its sources.

  Args:
    sums: [M, R, N] weighted sums of projections, over masks, directions and
      images.
    scale: what the sums are divided by, such as the mean number of pixels.

  Returns:
    NaN if the scale is 0, as no mask kept a pixel.
  """
  num_masks, num_directions, num_images = sums.shape
  if scale == 0:
    return Parts(*np.full((3, num_directions), np.nan))
  values = np.asarray(sums, np.float64) / scale
  masks = values.var(axis=0, ddof=1).mean(axis=-1)
  of_images = values.mean(axis=0)
  spread = of_images.var(axis=-1, ddof=1)
  signal = of_images.mean(axis=-1) ** 2 - spread / num_images
  return Parts(masks, spread - masks / num_masks, signal)


def noise(parts: Parts, signal: np.ndarray | None = None) -> dict[str, float]:
  """The noise of a sampled gradient, relative to its signal.

  Args:
    parts: what it consists of.
    signal: [R] that of another sampler with the same mean gradient, if it is
      better known.

  Returns:
    `masks`, `images` and `signal`, the means over directions; `noise`, (masks +
    images) / signal, and `noise_error`, its standard error: NaN if there are
    too few images and masks to see a signal.
  """
  if signal is not None:
    parts = parts._replace(signal=signal)

  def relative(masks, images, signal):
    return (masks + images) / signal if signal > 0 else float("nan")

  value, error = with_error(relative, *parts)
  means = {
    name: float(values.mean()) for name, values in parts._asdict().items()
  }
  return {**means, "noise": float(value), "noise_error": float(error)}


def covariance_by_distance(
  projections: np.ndarray, valid: np.ndarray, max_distance: int
) -> np.ndarray:
  """Covariance of the gradients of two pixels, by their distance.

  Args:
    projections: [R, N, H, W].
    valid: [N, H, W] bool, pixels that are not void.
    max_distance: in pixels.

  Returns:
    [R, max_distance + 1]; at d the mean over pairs of valid pixels of an image
    that are d pixels apart, to the nearest pixel.
  """
  mean = projections[:, valid].mean(axis=1)
  centred = np.where(valid, projections - mean[:, None, None, None], 0.0)
  height, width = valid.shape[1:]
  shape = (2 * height, 2 * width)
  rows, columns = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in shape)
  distance = np.rint(np.hypot(rows[:, None], columns)).astype(int).ravel()

  def by_distance(values):
    """Sums of products of two pixels of an image."""
    spectrum = np.abs(np.fft.rfft2(values, shape)) ** 2
    products = np.fft.irfft2(spectrum, shape).sum(axis=0)
    return np.bincount(distance, products.ravel())[: max_distance + 1]

  counts = np.maximum(np.rint(by_distance(valid)), 1)
  return np.stack([by_distance(direction) / counts for direction in centred])


def correlation(covariance: np.ndarray) -> np.ndarray:
  """Correlation by distance, from the covariance [D + 1]."""
  return covariance / covariance[0]


def correlation_length(covariance: np.ndarray) -> float:
  """Distance at which the correlation falls to 1 / e; NaN if it never does."""
  values = correlation(covariance)
  (below,) = np.nonzero(values < np.exp(-1))
  if not len(below):
    return float("nan")
  after = below[0]
  before, reached = values[after - 1], values[after]
  return float(after - 1 + (before - np.exp(-1)) / (before - reached))
