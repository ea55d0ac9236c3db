"""Section 3.4 of the papers, "patchwise training is loss sampling", as tests.

The networks have no padding, so that an output sees its receptive field and
nothing else, and all is in float64, so that what is equal is equal to ten
digits. Where an output looks is always asked of `geometry`.
"""

import dataclasses
import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import geometry
from fcn_jax import losses
from fcn_jax import optimizers
from fcn_jax import patches
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling

Layer = geometry.Layer

NUM_CLASSES = 3
VOID = types.IGNORE_LABEL

# As VGG: pooling of 2x2, stride 4.
SMALL_VGG = (
  Layer("conv1", 3),
  Layer("pool1", 2, 2),
  Layer("conv2", 3),
  Layer("pool2", 2, 2),
  Layer("conv3", 2),
  Layer("score", 1),
)
# As AlexNet: a convolution with a stride and pooling that overlaps; stride 6.
SMALL_ALEXNET = (
  Layer("conv1", 4, 3),
  Layer("pool1", 3, 2),
  Layer("conv2", 2, dilation=2),
  Layer("score", 1),
)
both_nets = pytest.mark.parametrize(
  "layers", [SMALL_VGG, SMALL_ALEXNET], ids=["vgg", "alexnet"]
)

# These programs run for milliseconds, once: to optimise them would be most of
# the time of the tests.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
jit_layers = functools.partial(jit, static_argnames="layers")
jit_logits = functools.partial(jit, static_argnames=("layers", "logits_of"))


@functools.partial(jit, static_argnames="rate")
def draw(key, labels, *, rate):
  return sampling.bernoulli(rate=rate, unit="pixel").draw(key, labels)


extract_patches = jit(patches.extract_patches, static_argnames="size")


@pytest.fixture(autouse=True)
def float64():
  """Double precision, in the tests of this file only."""
  with jax.enable_x64(True):
    yield


def initialize(layers):
  """Random parameters; no bias is zero."""
  rng = np.random.default_rng(0)
  params, inputs = {}, 3
  for layer in layers:
    if layer.name.startswith("pool"):
      continue
    outputs = NUM_CLASSES if layer.name == "score" else inputs + 1
    shape = (layer.kernel, layer.kernel, inputs, outputs)
    scale = np.sqrt(2 / np.prod(shape[:-1]))
    params[layer.name] = {
      "kernel": jnp.asarray(scale * rng.normal(size=shape)),
      "bias": jnp.asarray(0.3 * rng.normal(size=outputs)),
    }
    inputs = outputs
  return params


def make_example(layers, num_images=2, cells=(4, 5), void=0.0):
  """Images, and labels of the cells of the final layer.

  The images are the largest with so many cells: the last rows and columns of
  pixels, one less than the stride, are seen by none.

  Args:
    layers: the network.
    num_images: N.
    cells: height and width of the score map.
    void: share of void cells.

  Returns:
    Images [N, H, W, 3] float64 and labels [N, h, w].
  """
  stride = int(geometry.grid(layers).stride)
  rest = geometry.receptive_field(layers) - 1
  image_size = [stride * count + rest for count in cells]
  images = np.random.default_rng(1).normal(size=(num_images, *image_size, 3))
  return jnp.asarray(images), random_labels((num_images, *cells), void)


def random_labels(shape, void):
  rng = np.random.default_rng(2)
  labels = rng.integers(0, NUM_CLASSES, shape).astype(np.int32)
  labels[rng.random(shape) < void] = VOID
  return jnp.asarray(labels)


def network(params, images, layers):
  """Scores [N, h, w, C] of images [N, H, W, 3]."""
  outputs = images
  for layer in layers:
    if layer.name.startswith("pool"):
      outputs = jax.lax.reduce_window(
        outputs,
        -jnp.inf,
        jax.lax.max,
        window_dimensions=(1, layer.kernel, layer.kernel, 1),
        window_strides=(1, layer.stride, layer.stride, 1),
        window_dilation=(1, layer.dilation, layer.dilation, 1),
        padding="VALID",
      )
      continue
    outputs = jax.lax.conv_general_dilated(
      outputs,
      params[layer.name]["kernel"],
      (layer.stride, layer.stride),
      padding="VALID",
      rhs_dilation=(layer.dilation, layer.dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    outputs += params[layer.name]["bias"][None, None, None]
    if layer.name.startswith("conv"):
      outputs = jax.nn.relu(outputs)
  return outputs


def pixel_logits(params, images, layers):
  """Scores [N, H, W, C] of the pixels, by bilinear interpolation."""
  grid = geometry.grid(layers)
  score_map = types.ScoreMap(
    network(params, images, layers),
    stride=int(grid.stride),
    offset=float(grid.offset),
    image_size=images.shape[1:3],
    edge="clamp",
  )
  return upsampling.to_pixels(score_map)


def masked_loss(params, images, labels, weights, layers, logits_of):
  logits = logits_of(params, images, layers)
  return losses.masked_cross_entropy(logits, labels, weights, normalize="sum")


@jit_logits
def gradient(params, images, labels, weights, *, layers, logits_of=network):
  """Gradient of the sum of the weighted terms of the loss."""
  return jax.grad(masked_loss)(
    params, images, labels, weights, layers, logits_of
  )


def whole_gradient(params, images, labels, **options):
  """Gradient of the sum of all terms of the loss."""
  weights = sampling.valid_pixels(labels)
  return gradient(params, images, labels, weights, **options)


@jit_logits
def gradients_under_masks(
  params, images, labels, masks, *, layers, logits_of=network
):
  """Gradient under each of M masks [M, N, h, w], on a new first axis."""

  def under_mask(weights):
    return jax.grad(masked_loss)(
      params, images, labels, weights, layers, logits_of
    )

  return jax.lax.map(under_mask, masks)


@jit_layers
def gradients_of_patches(params, pieces, labels, *, layers):
  """Gradient of each of K patches by itself, on a new first axis.

  Args:
    params: of the network.
    pieces: [K, side, side, 3], of the size of the receptive field.
    labels: [K].
    layers: the network.
  """

  def loss(params, piece, label):
    scores = network(params, piece[None], layers)
    chex.assert_shape(scores, (1, 1, 1, NUM_CLASSES))
    return losses.pixel_cross_entropy(scores[0, 0, 0], label)

  return jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(params, pieces, labels)


def cut_receptive_fields(images, layers):
  """What each cell sees: [N, h, w, side, side, 3]."""
  stride = int(geometry.grid(layers).stride)
  cells = [geometry.output_size(layers, side) for side in images.shape[1:3]]
  first = geometry.receptive_field_start(layers)
  corners = first + stride * np.array(list(np.ndindex(*cells)))
  corners = np.broadcast_to(corners, (len(images), *corners.shape))
  side = geometry.receptive_field(layers)
  pieces = extract_patches(images, jnp.asarray(corners), size=(side, side))
  return pieces.reshape(len(images), *cells, *pieces.shape[2:])


def sum_terms(gradients):
  return jax.tree.map(lambda terms: np.asarray(terms).sum(axis=0), gradients)


def as_matrix(gradients):
  """Gradients of n terms as [n, P], all parameters in a row."""
  leaves = jax.tree.leaves(jax.device_get(gradients))
  return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


def as_row(gradient):
  leaves = jax.tree.leaves(jax.device_get(gradient))
  return np.concatenate([leaf.ravel() for leaf in leaves])


def assert_same(found, expected, tolerance=1e-10):
  """Equal relative to the largest entry of each array, in float64."""

  def check(found, expected):
    assert found.dtype == expected.dtype == np.float64
    largest = np.abs(np.asarray(expected)).max()
    assert largest > 1e-3, "an expectation of zeros says nothing"
    np.testing.assert_allclose(
      found, expected, rtol=0, atol=tolerance * largest
    )

  jax.tree.map(check, found, expected)


@both_nets
def test_the_gradient_of_the_whole_image_is_the_sum_over_its_receptive_fields(
  layers,
):
  images, labels = make_example(layers)
  params = initialize(layers)
  pieces = cut_receptive_fields(images, layers)
  chex.assert_equal_shape_prefix((pieces, labels), 3)
  pieces = pieces.reshape(-1, *pieces.shape[3:])
  parts = gradients_of_patches(params, pieces, labels.ravel(), layers=layers)
  whole = whole_gradient(params, images, labels, layers=layers)
  assert_same(whole, sum_terms(parts))


@both_nets
def test_the_receptive_field_is_the_smallest_patch_with_an_output(layers):
  side = geometry.receptive_field(layers)
  assert geometry.output_size(layers, side) == 1
  last = [layer for layer in layers if layer.extent > 1][-1]
  with pytest.raises(ValueError, match=f"{last.name} has no output"):
    geometry.output_size(layers, side - 1)


@pytest.mark.slow
def test_the_term_of_a_pixel_is_that_of_the_patch_of_the_cells_around_it():
  layers = SMALL_VGG
  images, _ = make_example(layers, num_images=1)
  params = initialize(layers)
  grid = geometry.grid(layers)
  stride = int(grid.stride)
  image_size = images.shape[1:3]

  # Pixels that have a cell on every side; the others, and some more, are void.
  is_interior = np.ones(image_size, bool)
  for axis, side in enumerate(image_size):
    last = grid.offset + stride * (geometry.output_size(layers, side) - 1)
    inside = [grid.offset <= x < last for x in range(side)]
    is_interior &= np.expand_dims(inside, 1 - axis)
  labels = jnp.where(is_interior, random_labels(image_size, void=0.2), VOID)
  pixels = np.argwhere(labels != VOID)
  assert 0 < len(pixels) < is_interior.sum() < labels.size
  # All places that a pixel can have between four cells.
  assert len({tuple(place) for place in pixels % stride}) == stride**2

  # The first of the 2x2 cells, and how far beyond it the pixel lies.
  positions = [[(x - grid.offset) / stride for x in pixel] for pixel in pixels]
  first = np.array([[math.floor(x) for x in pair] for pair in positions])
  fractions = np.array(positions, float) - first
  side = geometry.receptive_field(layers) + stride
  corners = geometry.receptive_field_start(layers) + stride * first
  pieces = extract_patches(
    images, jnp.asarray(corners[None]), size=(side, side)
  )[0]

  def one_pixel(params, piece, fractions, label):
    scores = network(params, piece[None], layers)
    chex.assert_shape(scores, (1, 2, 2, NUM_CLASSES))
    rows, columns = jnp.stack([1 - fractions, fractions], axis=1)
    logits = jnp.einsum("i,j,ijc->c", rows, columns, scores[0])
    return losses.pixel_cross_entropy(logits, label)

  at_pixels = tuple(pixels.T)
  terms, gradients = jit(
    jax.vmap(jax.value_and_grad(one_pixel), in_axes=(None, 0, 0, 0))
  )(params, pieces, jnp.asarray(fractions), labels[at_pixels])
  logits = jit_layers(pixel_logits)(params, images, layers=layers)[0]
  found = jit(losses.pixel_cross_entropy)(logits, labels)
  assert_same(found[at_pixels], terms)
  whole = whole_gradient(
    params, images, labels[None], layers=layers, logits_of=pixel_logits
  )
  assert_same(whole, sum_terms(gradients))


@both_nets
def test_the_gradient_under_a_random_mask_is_the_sum_over_the_kept_patches(
  layers,
):
  images, labels = make_example(layers, void=0.2)
  params = initialize(layers)
  weights = draw(jax.random.key(0), labels, rate=0.5)
  kept = np.ravel(weights) > 0
  assert 0 < kept.sum() < np.sum(labels != VOID) < labels.size

  pieces = cut_receptive_fields(images, layers)
  pieces = pieces.reshape(-1, *pieces.shape[3:])
  parts = gradients_of_patches(params, pieces, labels.ravel(), layers=layers)
  parts = jax.tree.map(lambda terms: np.asarray(terms)[kept], parts)
  masked = gradient(params, images, labels, weights, layers=layers)
  assert_same(masked, sum_terms(parts))


def accumulate_over_images(params, num_images):
  """Passes of one image, each with its own mask, and what they keep.

  Returns:
    The gradient of the sum over the kept cells in each pass; the kept patches
    of all images as one batch [K, side, side, 3], shuffled; their labels [K].
  """
  images, labels = make_example(SMALL_VGG, num_images, void=0.2)
  keys = jax.random.split(jax.random.key(1), num_images)
  gradients, kept = [], []
  for n in range(num_images):
    image, label = images[n : n + 1], labels[n : n + 1]
    weights = draw(keys[n], label, rate=0.5)
    gradients.append(gradient(params, image, label, weights, layers=SMALL_VGG))
    kept.append(np.asarray(weights[0] > 0))
  # A mean over images of their means would be another loss.
  assert len({mask.sum() for mask in kept}) > 1
  kept = np.nonzero(kept)
  order = np.random.default_rng(3).permutation(len(kept[0]))
  # No image's patches stay together.
  assert np.count_nonzero(np.diff(kept[0][order])) > num_images
  pieces = cut_receptive_fields(images, SMALL_VGG)[kept][order]
  return gradients, pieces, labels[kept][order]


@pytest.mark.slow
def test_gradients_accumulated_over_masked_images_are_of_one_mixed_batch():
  params = initialize(SMALL_VGG)
  gradients, pieces, labels = accumulate_over_images(params, num_images=3)
  accumulated = jax.tree.map(
    lambda *parts: np.sum(parts, axis=0) / len(labels), *gradients
  )
  # The mean over the patches, as of any batch of a classifier.
  labels = labels.reshape(-1, 1, 1)
  weights = np.full(labels.shape, 1 / len(labels))
  mixed = gradient(params, pieces, labels, weights, layers=SMALL_VGG)
  assert_same(accumulated, mixed)


@pytest.mark.slow
def test_the_accumulation_recipe_steps_as_on_one_mixed_batch():
  num_images = 3
  params = initialize(SMALL_VGG)
  gradients, pieces, labels = accumulate_over_images(params, num_images)
  recipe = optimizers.accumulation(0.1, batch=num_images)
  # Optax's MultiSteps mixes integer counts with floats.
  with jax.numpy_dtype_promotion("standard"):
    update = jit(recipe.update)
    state = jit(recipe.init)(params)
    for part in gradients:
      updates, state = update(part, state, params)

  # The recipe divides by the number of images.
  labels = labels.reshape(-1, 1, 1)
  weights = np.full(labels.shape, 1 / num_images)
  mixed = gradient(params, pieces, labels, weights, layers=SMALL_VGG)
  step = optimizers.caffe_sgd(0.1, momentum=0.9)
  expected, _ = jit(
    lambda params, mixed: step.update(mixed, step.init(params), params)
  )(params, mixed)
  # MultiSteps adds up in float32, whatever the parameters are.
  assert_same(updates, expected, tolerance=1e-6)


def predicted_error(gradients, rate):
  """Mean squared error of the gradient under one mask, divided by the rate.

  Terms [n, P] are drawn independently; the weight of each is 1 / rate or 0,
  which has the variance (1 - rate) / rate.
  """
  return (1 - rate) / rate * np.sum(gradients**2)


def check_convergence(gradients, kept, rate, num_means=1024):
  """Checks how fast means over masks approach the full gradient.

  Args:
    gradients: [n, P] of the terms that are drawn independently.
    kept: [D, n] draws, 0 or 1.
    rate: probability of 1.
    num_means: means over masks whose squared errors are averaged.
  """
  full = gradients.sum(axis=0)
  products = gradients @ gradients.T
  # Fourth cumulant of a Bernoulli variable relative to its squared variance.
  excess = 1 / (rate * (1 - rate)) - 6

  def squared_errors(num_means, num_masks):
    draws = kept[: num_means * num_masks]
    means = draws.reshape(num_means, num_masks, -1).mean(axis=1) / rate
    return np.sum((means @ gradients - full) ** 2, axis=1)

  def relative_deviation(num_masks):
    """Standard deviation of one squared error, divided by its expectation."""
    variance = 2 * np.sum(products**2)
    variance += excess / num_masks * np.sum(np.diag(products) ** 2)
    return np.sqrt(variance) / np.trace(products)

  for num_masks in (1, 4, 16):
    tolerance = 5 * relative_deviation(num_masks) / np.sqrt(num_means)
    assert tolerance < 0.2
    np.testing.assert_allclose(
      np.mean(squared_errors(num_means, num_masks)),
      predicted_error(gradients, rate) / num_masks,
      rtol=tolerance,
    )
  # A bias would be seen in the mean over all masks.
  expected = predicted_error(gradients, rate) / len(kept)
  (error,) = squared_errors(1, len(kept))
  assert error < expected * (1 + 5 * relative_deviation(len(kept)))


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_the_mean_over_masks_converges_at_the_rate_that_the_variance_predicts(
  rate,
):
  layers = SMALL_VGG
  images, labels = make_example(layers, void=0.2)
  params = initialize(layers)
  # A mask for each cell gives its term of the gradient.
  masks = jnp.eye(labels.size).reshape(-1, *labels.shape)
  gradients = as_matrix(
    gradients_under_masks(params, images, labels, masks, layers=layers)
  )
  num_draws = 2**14
  weights = draw(
    jax.random.key(2), jnp.tile(labels, (num_draws, 1, 1)), rate=rate
  ).reshape(num_draws, *labels.shape)
  kept = np.asarray(weights, float).reshape(num_draws, -1)
  # The gradient is linear in the mask, so that thousands of masks are cheap.
  masked = gradient(params, images, labels, weights[0], layers=layers)
  assert_same(kept[0] @ gradients, as_row(masked))
  check_convergence(gradients, kept, rate)


def test_a_mask_of_blocks_has_the_variance_of_the_sums_over_its_blocks():
  # The mask of the papers' experiment on a loss at pixels: all pixels between
  # four cells of the final layer are kept or dropped together.
  layers, rate = SMALL_VGG, 0.5
  images, _ = make_example(layers, num_images=1)
  params = initialize(layers)
  grid = geometry.grid(layers)
  image_size = images.shape[1:3]
  # The last blocks are cut off, in both directions.
  assert all((side - grid.offset) % grid.stride for side in image_size)
  labels = random_labels((1, *image_size), void=0.2)

  positions = np.indices(image_size) - float(grid.offset)
  rows, columns = (positions // int(grid.stride)).astype(int)
  rows, columns = rows - rows.min(), columns - columns.min()
  block_of = (rows * (columns.max() + 1) + columns).ravel()
  is_in_block = block_of == np.arange(block_of.max() + 1)[:, None]
  assert set(is_in_block.sum(axis=1)) > {grid.stride**2}

  # A mask for each block gives its part of the gradient.
  options = {"layers": layers, "logits_of": pixel_logits}
  masks = jnp.asarray(is_in_block.reshape(-1, *labels.shape), float)
  gradients = as_matrix(
    gradients_under_masks(params, images, labels, masks, **options)
  )
  draws = jnp.broadcast_to(labels, (2**14, *image_size))
  sampler = sampling.bernoulli(rate=rate)
  weights = sampler.draw(jax.random.key(3), draws, grid=grid)
  # A block of void alone would count as dropped; it has no gradient either.
  kept = np.asarray(weights).reshape(len(draws), -1) @ is_in_block.T > 0
  masked = gradient(params, images, labels, weights[:1], **options)
  assert_same(kept[0] @ gradients, as_row(masked))
  check_convergence(gradients, kept, rate)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_the_expectation_over_all_masks_is_the_full_gradient(rate):
  layers = SMALL_VGG
  images, labels = make_example(layers, num_images=1, cells=(3, 3))
  params = initialize(layers)
  masks = np.array(list(itertools.product([0.0, 1.0], repeat=labels.size)))
  probabilities = np.where(masks > 0, rate, 1 - rate).prod(axis=1)
  assert len(masks) == 2**9

  weights = jnp.asarray(masks.reshape(-1, *labels.shape) / rate)
  estimates = as_matrix(
    gradients_under_masks(params, images, labels, weights, layers=layers)
  )
  full = as_row(whole_gradient(params, images, labels, layers=layers))
  assert_same(probabilities @ estimates, full)
  # And the variance is the predicted one. Masks of one cell give its term.
  terms = rate * estimates[masks.sum(axis=1) == 1]
  np.testing.assert_allclose(
    probabilities @ np.sum((estimates - full) ** 2, axis=1),
    predicted_error(terms, rate),
    rtol=1e-10,
  )


def remove_strides(layers):
  """The same layers with holes in the kernels in place of strides."""
  dense, stride = [], 1
  for layer in layers:
    dilation = layer.dilation * stride
    dense.append(dataclasses.replace(layer, stride=1, dilation=dilation))
    stride *= layer.stride
  return tuple(dense)


@both_nets
def test_shift_and_stitch_is_dilation(layers):
  # CVPR 2015, section 3.2.
  images, _ = make_example(layers, num_images=1, cells=(3, 4))
  params = initialize(layers)
  dense = remove_strides(layers)
  assert geometry.grid(dense).stride == 1
  assert geometry.grid(dense).offset == geometry.grid(layers).offset
  assert geometry.receptive_field(dense) == geometry.receptive_field(layers)

  image_size = images.shape[1:3]
  dilated = jit_layers(network)(params, images, layers=dense)
  assert dilated.shape[1:3] == tuple(
    geometry.output_size(dense, side) for side in image_size
  )
  stride = int(geometry.grid(layers).stride)
  shifts = np.array(list(np.ndindex(stride, stride)))
  shifted = extract_patches(
    images,
    jnp.asarray(shifts[None]),
    size=tuple(side - stride + 1 for side in image_size),
  )[0]
  scores = jit_layers(network)(params, shifted, layers=layers)
  stitched = np.full(dilated.shape, np.nan)
  for (row, column), score in zip(shifts, np.asarray(scores), strict=True):
    stitched[0, row::stride, column::stride] = score
  assert_same(stitched, dilated)
