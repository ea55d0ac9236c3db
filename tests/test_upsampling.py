import dataclasses

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.signal

from fcn_jax import geometry
from fcn_jax import types
from fcn_jax import upsampling
from tests.helpers import score_maps

to_pixels = jax.jit(upsampling.to_pixels)
add_skip = jax.jit(upsampling.add_skip)


def bilinear_kernel(size):
  """The filler of the released nets: (1-|i-c|/f)(1-|j-c|/f)."""
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  tent = [1 - abs(i - centre) / factor for i in range(size)]
  return np.outer(tent, tent)


def transposed_convolution(scores, kernel, stride):
  """[N, h, w, C] to [N, (h-1)s+k, (w-1)s+k, C]: zeros between, convolve."""
  batch, height, width, channels = scores.shape
  rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
  spread = np.zeros((batch, rows, columns, channels))
  spread[:, ::stride, ::stride] = scores
  kernel = bilinear_kernel(kernel)[None, :, :, None]
  return scipy.signal.fftconvolve(spread, kernel, axes=(1, 2))


def crop(array, offset, size):
  height, width = size
  return array[:, offset : offset + height, offset : offset + width]


def random_map(shape, seed=0, **fields):
  scores = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  return types.ScoreMap(jnp.asarray(scores), **fields)


# Caffe's crops and kernels, from the papers' released nets.
@pytest.mark.parametrize(
  "stride, kernel, crop_offset",
  [(32, 64, 19), (16, 32, 27), (8, 16, 31), (32, 63, 18)],
)
@pytest.mark.parametrize("image_size", [(50, 64), (37, 41)])
def test_to_pixels_is_the_transposed_convolution_of_the_papers(
  stride, kernel, crop_offset, image_size
):
  cells = [-(-(side + crop_offset) // stride) + 1 for side in image_size]
  score_map = random_map(
    (2, *cells, 3),
    stride=stride,
    offset=(kernel - 1) / 2 - crop_offset,
    image_size=image_size,
    edge="zero",
  )
  expected = crop(
    transposed_convolution(score_map.scores, kernel, stride),
    crop_offset,
    image_size,
  )
  logits = to_pixels(score_map)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("image_size", [(32, 16), (13, 22)])
def test_nothing_is_added_beyond_the_border_of_a_zero_map(image_size):
  # Too few cells for the image: there the transposed convolution ends.
  score_map = random_map(
    (1, 2, 2, 1), stride=8, offset=3.5, image_size=image_size, edge="zero"
  )
  full = transposed_convolution(score_map.scores, 16, 8)
  expected = np.zeros((1, *image_size, 1))
  part = full[:, 4 : 4 + image_size[0], 4 : 4 + image_size[1]]
  expected[:, : part.shape[1], : part.shape[2]] = part
  logits = to_pixels(score_map)
  np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("edge", ["clamp", "zero"])
def test_to_pixels_of_a_same_padded_map_is_image_resize(stride, edge):
  shape = (2, 3, 4, 5)
  image_size = (3 * stride, 4 * stride)
  score_map = random_map(
    shape,
    stride=stride,
    offset=(stride - 1) / 2,
    image_size=image_size,
    edge=edge,
  )
  logits = to_pixels(score_map)
  expected = jax.image.resize(
    score_map.scores, (2, *image_size, 5), method="linear"
  )
  # Up to the centres of the outermost cells the edge rule has no say.
  rim = 0 if edge == "clamp" else stride // 2
  inside = np.s_[:, rim : image_size[0] - rim, rim : image_size[1] - rim]
  np.testing.assert_allclose(logits[inside], expected[inside], atol=1e-5)
  if edge == "zero":
    assert not np.allclose(logits, expected, atol=1e-2)


@pytest.mark.parametrize("offset", [-3.5, 0.0, 3.5, 12.5])
@pytest.mark.parametrize("edge", ["clamp", "zero"])
def test_a_linear_ramp_stays_one(offset, edge):
  stride, image_size = 8, (40, 33)
  rows, columns = np.meshgrid(np.arange(6), np.arange(7), indexing="ij")
  scores = 2.0 * (offset + stride * rows) - 3.0 * (offset + stride * columns)
  score_map = types.ScoreMap(
    jnp.asarray(scores[None, ..., None], jnp.float32),
    stride=stride,
    offset=offset,
    image_size=image_size,
    edge=edge,
  )
  logits = to_pixels(score_map)[0, ..., 0]
  y, x = np.meshgrid(*map(np.arange, image_size), indexing="ij")
  inside = np.logical_and.reduce(
    [(offset <= p) & (p <= offset + stride * n) for p, n in ((y, 5), (x, 6))]
  )
  assert inside.sum() > 100
  expected = (2.0 * y - 3.0 * x)[inside]
  np.testing.assert_allclose(logits[inside], expected, atol=1e-3)


@pytest.fixture(scope="module")
def caffe_backbone():
  backbone = []
  for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
    for i in range(depth):
      padding = 100 if block == 1 and i == 0 else 1
      backbone.append(geometry.Layer(f"conv{block}_{i}", 3, padding=padding))
    backbone.append(geometry.Layer(f"pool{block}", 2, 2, ceil_mode=True))
  return (*backbone, geometry.Layer("fc6", 7))


@pytest.mark.parametrize("image_size", [(64, 40), (1, 77), (33, 100)])
@pytest.mark.parametrize("stride", [16, 8])
def test_skips_are_cropped_and_added_as_in_caffe(
  caffe_backbone, stride, image_size
):
  chain = geometry.fcn_chain(caffe_backbone, stride)

  def blob(layers, seed):
    grid = geometry.grid(layers)
    sides = [geometry.output_size(layers, side) for side in image_size]
    return random_map(
      (1, *sides, 2),
      seed,
      stride=int(grid.stride),
      offset=float(grid.offset),
      image_size=image_size,
      edge="zero",
    )

  fused = blob(chain.score, 0)
  expected = np.asarray(fused.scores)
  for seed, (layers, offset) in enumerate(
    zip(chain.skips, (5, 9), strict=False), start=1
  ):
    skip = blob(layers, seed)
    expected = transposed_convolution(expected, 4, 2)
    expected += crop(skip.scores, offset, expected.shape[1:3])
    fused = add_skip(fused, skip)
    assert fused.stride == skip.stride
  expected = transposed_convolution(expected, 2 * stride, stride)
  expected = crop(expected, {16: 27, 8: 31}[stride], image_size)
  logits = to_pixels(fused)
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_same_padded_skip_keeps_its_cells():
  image_size = (40, 72)
  fields = {"image_size": image_size, "edge": "clamp"}
  coarse = random_map((1, 3, 5, 2), stride=16, offset=7.5, **fields)
  skip = random_map((1, 5, 9, 2), 1, stride=8, offset=3.5, **fields)
  fused = add_skip(coarse, skip)
  assert (fused.stride, fused.offset) == (8, 3.5)
  resized = jax.image.resize(coarse.scores, (1, 6, 10, 2), method="linear")
  expected = resized[:, :5, :9] + skip.scores
  np.testing.assert_allclose(fused.scores, expected, atol=1e-5)


def test_a_skip_of_another_image_is_refused():
  fields = {"stride": 8, "offset": 3.5, "edge": "clamp"}
  coarse = random_map((1, 2, 2, 1), image_size=(16, 16), **fields)
  skip = random_map((1, 2, 2, 1), image_size=(16, 17), **fields)
  with pytest.raises(AssertionError):
    upsampling.add_skip(coarse, skip)


@pytest.mark.parametrize("edge", ["clamp", "zero"])
@pytest.mark.parametrize("offset", [-2.5, 1.0])
def test_gradients_agree_with_finite_differences(edge, offset):
  score_map = random_map(
    (1, 3, 2, 2), stride=4, offset=offset, image_size=(9, 11), edge=edge
  )

  def logits(scores):
    return to_pixels(dataclasses.replace(score_map, scores=scores))

  jax.test_util.check_grads(
    logits, (score_map.scores,), order=1, modes=("fwd", "rev"), atol=1e-2
  )


def test_a_score_map_passes_through_jit():
  score_map = random_map(
    (1, 3, 2, 2), stride=8, offset=3.5, image_size=(20, 11), edge="clamp"
  )
  np.testing.assert_allclose(
    to_pixels(score_map), upsampling.to_pixels(score_map), atol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize("stride, offset, edge", score_maps.GRIDS)
def test_at_pixels_has_the_logits_of_to_pixels(stride, offset, edge):
  score_map = score_maps.make_map(stride=stride, offset=offset, edge=edge)
  logits = to_pixels(score_map)
  flat = logits.reshape(len(logits), -1, logits.shape[-1])
  rng = np.random.default_rng(0)
  indices = rng.integers(0, flat.shape[1], (len(flat), 60)).astype(np.int32)
  indices[:, :2] = 0, flat.shape[1] - 1
  found = jax.jit(upsampling.at_pixels)(score_map, jnp.asarray(indices))
  expected = np.take_along_axis(np.asarray(flat), indices[..., None], axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_at_pixels_has_the_gradient_of_to_pixels():
  score_map = score_maps.make_map()
  rng = np.random.default_rng(0)
  # Some pixels twice.
  indices = jnp.asarray(rng.integers(0, 37 * 41, (2, 900)), jnp.int32)
  factors = jnp.asarray(rng.normal(size=(2, 900, 5)), jnp.float32)

  def some(scores):
    moved = dataclasses.replace(score_map, scores=scores)
    return jnp.sum(factors * upsampling.at_pixels(moved, indices))

  def all_of_them(scores):
    moved = dataclasses.replace(score_map, scores=scores)
    logits = upsampling.to_pixels(moved).reshape(2, -1, 5)
    picked = jnp.take_along_axis(logits, indices[..., None], axis=1)
    return jnp.sum(factors * picked)

  np.testing.assert_allclose(
    jax.grad(some)(score_map.scores),
    jax.grad(all_of_them)(score_map.scores),
    rtol=1e-4,
    atol=1e-4,
  )
