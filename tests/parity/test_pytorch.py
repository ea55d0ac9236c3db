"""Comparisons with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.models import convolution
from fcn_jax.models import pooling

torch = pytest.importorskip(
  "torch", reason="PyTorch is not installed: make parity"
)

pytestmark = pytest.mark.parity


def random(shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return values.astype(np.float32)


def channels_first(array):
  return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize(
  "stride, kernel, crop",
  [(32, 64, 19), (16, 32, 27), (8, 16, 31), (32, 63, 18)],
)
def test_to_pixels_is_the_transposed_convolution_of_torch(stride, kernel, crop):
  scores, image_size = random((2, 4, 5, 3)), (33, 37)
  factor = (kernel + 1) // 2
  centre = factor - 1 if kernel % 2 else factor - 0.5
  tent = 1 - np.abs(np.arange(kernel) - centre) / factor
  weight = np.zeros((3, 3, kernel, kernel), np.float32)
  weight[range(3), range(3)] = np.outer(tent, tent)
  expected = torch.nn.functional.conv_transpose2d(
    channels_first(scores), torch.from_numpy(weight), stride=stride
  )
  height, width = image_size
  expected = expected[:, :, crop : crop + height, crop : crop + width]
  score_map = types.ScoreMap(
    jnp.asarray(scores),
    stride=stride,
    offset=(kernel - 1) / 2 - crop,
    image_size=image_size,
    edge="zero",
  )
  logits = jax.jit(upsampling.to_pixels)(score_map)
  np.testing.assert_allclose(
    logits[:, : expected.shape[2], : expected.shape[3]],
    expected.numpy().transpose(0, 2, 3, 1),
    atol=1e-5,
  )


def test_clamped_scores_are_those_of_torch_interpolate():
  scores = random((2, 4, 5, 3))
  expected = torch.nn.functional.interpolate(
    channels_first(scores), (32, 40), mode="bilinear", align_corners=False
  )
  score_map = types.ScoreMap(
    jnp.asarray(scores),
    stride=8,
    offset=3.5,
    image_size=(32, 40),
    edge="clamp",
  )
  logits = jax.jit(upsampling.to_pixels)(score_map)
  np.testing.assert_allclose(
    logits, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5
  )


@pytest.mark.parametrize(
  "normalize, reduction", [("sum", "sum"), ("valid", "mean")]
)
def test_loss_and_gradient_are_those_of_torch_cross_entropy(
  normalize, reduction
):
  logits = 3 * random((2, 6, 7, 4))
  labels = np.random.default_rng(1).integers(0, 5, (2, 6, 7))
  labels[labels == 4] = types.IGNORE_LABEL
  their_logits = channels_first(logits).requires_grad_()
  expected = torch.nn.functional.cross_entropy(
    their_logits,
    torch.from_numpy(labels),
    ignore_index=types.IGNORE_LABEL,
    reduction=reduction,
  )
  expected.backward()
  loss, gradient = jax.value_and_grad(losses.masked_cross_entropy)(
    jnp.asarray(logits),
    jnp.asarray(labels, jnp.int32),
    jnp.ones(labels.shape),
    normalize=normalize,
  )
  np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
  np.testing.assert_allclose(
    gradient, their_logits.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6
  )


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_pooling_rounds_up_as_torch_does_in_ceil_mode(size):
  inputs = random((2, *size, 3))
  expected = torch.nn.functional.max_pool2d(
    channels_first(inputs), 2, 2, ceil_mode=True
  )
  np.testing.assert_array_equal(
    pooling.max_pool(jnp.asarray(inputs), 2, 2, ceil_mode=True),
    expected.numpy().transpose(0, 2, 3, 1),
  )


@pytest.mark.parametrize(
  "size, padding", [(3, (1, 1)), (7, (0, 0)), (1, (0, 0))]
)
def test_convolutions_are_those_of_torch(size, padding):
  inputs, kernel = random((2, 9, 8, 3)), random((size, size, 3, 5), 1)
  expected = torch.nn.functional.conv2d(
    channels_first(inputs),
    torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))),
    padding=padding[0],
  )
  outputs = convolution.conv_general_dilated(
    jnp.asarray(inputs),
    jnp.asarray(kernel),
    (1, 1),
    (padding, padding),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  np.testing.assert_allclose(
    outputs, expected.numpy().transpose(0, 2, 3, 1), atol=1e-4
  )
