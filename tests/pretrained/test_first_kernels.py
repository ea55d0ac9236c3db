"""What the first kernels say about pixels, with real and with other ones."""

import os

import numpy as np
import pytest

from fcn_jax.pretrained import first_kernels
from fcn_jax.pretrained.formats import caffemodel

RNG = np.random.default_rng(0)
RANDOM = RNG.normal(0, 0.2, (64, 3, 7, 7)).astype(np.float32)


def like_vgg16():
  """Kernels with VGG16's difference of blue and red, but no others."""
  kernel = RNG.normal(0, 0.1, (64, 3, 3, 3)).astype(np.float32)
  difference = first_kernels._BLUE_MINUS_RED / 10
  has = (kernel[:, 0] - kernel[:, 2]).sum((1, 2))
  kernel[:, 0] += ((difference - has) / 9)[:, None, None]
  return kernel


def test_kernels_of_caffes_vgg16_are_known_in_both_orders():
  kernel = like_vgg16()
  assert first_kernels.pixels(kernel) == "caffe_bgr"
  assert first_kernels.pixels(kernel[:, ::-1]) == "caffe_rgb"
  # Converted for pixels in 0..1, by somebody else.
  assert first_kernels.pixels(255 * kernel) is None


@pytest.mark.skipif(
  "VGG16_CONV" not in os.environ, reason="VGG16_CONV is not set"
)
def test_the_published_vgg16_is_known():
  kernel, _ = caffemodel.read(os.environ["VGG16_CONV"])["conv1_1"]
  assert first_kernels.pixels(kernel) == "caffe_bgr"
  assert first_kernels.pixels(kernel[:, ::-1]) == "caffe_rgb"
  noise = RNG.normal(0, 0.05, kernel.shape)
  assert first_kernels.pixels(kernel + noise) == "caffe_bgr"


@pytest.mark.parametrize("shape", [(64, 3, 3, 3), (64, 3, 7, 7), (8, 3, 3, 3)])
def test_other_kernels_do_not_tell(shape):
  for seed in range(20):
    kernel = np.random.default_rng(seed).normal(0, 0.2, shape)
    assert first_kernels.pixels(kernel) is None
  assert first_kernels.pixels(np.zeros(shape)) is None
  assert first_kernels.pixels(np.zeros((64, 4, 3, 3))) is None


@pytest.mark.parametrize(
  "deviation, expected", [(1.0, "normalised"), (58.0, "0..255"), (8.0, None)]
)
def test_batch_statistics_tell_the_scale(deviation, expected):
  """Of a picture with the smoothness of natural ones: a random walk."""
  walk = RNG.normal(size=(3, 200, 200)).cumsum(1).cumsum(2)
  walk = walk.mean(0) + 0.1 * walk
  picture = deviation * (walk - walk.mean()) / walk.std()
  windows = np.lib.stride_tricks.sliding_window_view(picture, (7, 7), (1, 2))
  outputs = np.einsum("cyxij,ocij->oyx", windows[:, ::5, ::5], RANDOM)
  variance = outputs.var((1, 2))
  assert first_kernels.pixels(RANDOM, variance) == expected
  assert first_kernels.pixels(RANDOM, np.zeros(64)) is None
