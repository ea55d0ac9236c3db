"""Which pixels the weights of a file expect, as far as their values tell.

Names do not say it: people publish Caffe's weights, for BGR in 0..255, under
torchvision's names. Two things can be told from values.

- The order of channels and the scale, if the first kernels are those of the
  VGG16 for Caffe (Simonyan and Zisserman), from which most published FCNs come;
  fine-tuning with small learning rates hardly changes them.
- The scale, if a batch normalization follows the first convolution: its running
  variance is that of the kernels' outputs, which the covariance of neighbouring
  pixels in natural images predicts. On ten pictures of CamVid, with the kernels
  of VGG16 or with random ones, the true variance is 1.5 to 1.7 times the
  prediction for normalised pixels, and so 5,000 times for 0..255.

Nothing is known about other kernels: both scales and both orders give kernels
of the same sizes.
"""

from typing import Literal

import numpy as np

# What is known: Caffe's pixels in the order of the file, pixels in 0..255 in
# some order, or pixels of a standard deviation near 1 in some order.
Pixels = Literal["caffe_bgr", "caffe_rgb", "0..255", "normalised"]

# For each kernel of conv1_1 of VGG16 for Caffe: ten times the sum of the
# weights of blue, less that of red.
_BLUE_MINUS_RED = np.fromstring(
  "0 29 1 1 -3 27 1 -8 -7 18 0 0 4 18 -2 0 -22 -1 10 -23 16 -3 30 8 7 25 "
  "0 -17 -3 -31 2 -2 -13 1 0 0 24 -2 7 14 -1 7 0 -3 6 0 -12 0 -8 18 15 0 "
  "-10 -10 6 10 1 8 0 -33 0 -1 0 -2 ",
  sep=" ",
)
_LEAST_COSINE = 0.8
# Distance in pixels at which the correlation falls to 1 / e; correlation of two
# channels.
_LENGTH, _CHANNELS = 20.0, 0.9
# Of the variances' medians: far from 1.5 and from 5,000.
_NORMALISED, _BYTES = 30.0, 300.0


def pixels(
  kernel: np.ndarray, variance: np.ndarray | None = None
) -> Pixels | None:
  """What the first layer of a network says about its pixels.

  Args:
    kernel: [outputs, inputs, rows, columns], with the channels of the file.
    variance: running variance of the batch normalization after it, [outputs];
      None if there is none.

  Returns:
    None if it cannot be told.
  """
  if kernel.ndim != 4 or kernel.shape[1] != 3:
    return None
  kernel = kernel.astype(np.float64)
  if variance is not None:
    return _scale(kernel, variance)
  if len(kernel) != len(_BLUE_MINUS_RED):
    return None
  difference = (kernel[:, 0] - kernel[:, 2]).sum(axis=(1, 2))
  norms = np.linalg.norm(_BLUE_MINUS_RED), 10 * np.linalg.norm(difference)
  cosine = 10 * difference @ _BLUE_MINUS_RED / max(np.prod(norms), 1e-30)
  # Kernels for pixels in 0..1 or normalised are fifty times as large, or more.
  if abs(cosine) < _LEAST_COSINE or not 0.5 < norms[1] / norms[0] < 2:
    return None
  return "caffe_bgr" if cosine > 0 else "caffe_rgb"


def _scale(kernel, variance):
  """Pixels in 0..255 or normalised, by the variance of the outputs."""
  rows, columns = np.indices(kernel.shape[2:]).reshape(2, -1)
  distance = np.hypot(
    rows[:, None] - rows[None], columns[:, None] - columns[None]
  )
  covariance = np.kron(
    np.where(np.eye(3), 1.0, _CHANNELS), np.exp(-distance / _LENGTH)
  )
  flat = kernel.reshape(len(kernel), -1)
  predicted = np.einsum("oi,ij,oj->o", flat, covariance, flat)
  known = (predicted > 0) & (variance > 0)
  if not known.any():
    return None
  ratio = np.median(variance[known] / predicted[known])
  if ratio < _NORMALISED:
    return "normalised"
  return "0..255" if ratio > _BYTES else None
