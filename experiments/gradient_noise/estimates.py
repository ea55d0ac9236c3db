"""Estimates from projected gradients: noise, signal and correlation."""

import numpy as np


def noise_of_sums(
  sums: np.ndarray, scale: float, signal: float | None = None
) -> dict[str, float]:
  """Splits the noise of an image's sampled gradient into its sources.

  Args:
    sums: [M, R, N] weighted sums of projections, over masks, directions and
      images.
    scale: what the sums are divided by, such as the mean number of pixels.
    signal: the squared norm of the mean gradient, where it is known from
      elsewhere; else it is estimated.

  Returns:
    `masks` and `images`, the variances due to the mask and to the choice of
    the image, and `signal`, the squared norm of the mean gradient, all
    estimated without bias; and `noise`, (masks + images) / signal, NaN if
    there are too few images and masks to see a signal.
  """
  num_masks, _, num_images = sums.shape
  if scale == 0:  # No mask kept a pixel.
    return dict.fromkeys(("masks", "images", "signal", "noise"), float("nan"))
  values = np.asarray(sums, np.float64) / scale
  masks = values.var(axis=0, ddof=1).mean()
  of_images = values.mean(axis=0)
  spread = of_images.var(axis=-1, ddof=1).mean()
  images = spread - masks / num_masks
  if signal is None:
    signal = np.mean(of_images.mean(axis=-1) ** 2) - spread / num_images
  noise = (masks + images) / signal if signal > 0 else float("nan")
  return {"masks": masks, "images": images, "signal": signal, "noise": noise}


def correlation_by_distance(
  projections: np.ndarray, valid: np.ndarray, max_distance: int
) -> np.ndarray:
  """Correlation of the gradients of two pixels, by their distance.

  Args:
    projections: [R, N, H, W].
    valid: [N, H, W] bool, pixels that are not void.
    max_distance: in pixels.

  Returns:
    [max_distance + 1]; at d the mean over pairs of valid pixels of an image
    that are d pixels apart, to the nearest pixel.
  """
  mean = projections[:, valid].mean(axis=1)
  centred = np.where(valid, projections - mean[:, None, None, None], 0.0)
  height, width = valid.shape[1:]
  shape = (2 * height, 2 * width)

  def autocorrelation(values):
    return np.fft.irfft2(np.abs(np.fft.rfft2(values, shape)) ** 2, shape)

  products = np.zeros(shape)
  for direction in centred:
    products += autocorrelation(direction).sum(axis=0)
  pairs = len(projections) * autocorrelation(valid).sum(axis=0)
  rows, columns = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in shape)
  distance = np.rint(np.hypot(rows[:, None], columns)).astype(int).ravel()
  sums = np.bincount(distance, products.ravel())[: max_distance + 1]
  counts = np.bincount(distance, pairs.ravel())[: max_distance + 1]
  covariance = sums / np.maximum(np.rint(counts), 1)
  return covariance / covariance[0]
