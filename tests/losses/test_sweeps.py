"""The three forms of the loss are one loss."""

import dataclasses
import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import sweeps


def make_map(
  *,
  stride=8,
  offset=3.5,
  edge="clamp",
  image_size=(37, 41),
  num_classes=5,
  num_images=2,
  dtype=np.float32,
):
  """Random scores, with as many cells as a network would give, about."""
  cells = [max(1, round((side - offset) / stride)) for side in image_size]
  shape = (num_images, *cells, num_classes)
  scores = 3 * np.random.default_rng(1).normal(size=shape).astype(dtype)
  return types.ScoreMap(jnp.asarray(scores), stride, offset, image_size, edge)


def make_labels(score_map, seed=2):
  rng = np.random.default_rng(seed)
  shape = (len(score_map.scores), *score_map.image_size)
  labels = rng.integers(0, score_map.scores.shape[-1], shape)
  labels[rng.random(shape) < 0.2] = types.IGNORE_LABEL
  return jnp.asarray(labels, jnp.int32)


def make_weights(labels, rate=0.3, seed=3):
  rng = np.random.default_rng(seed)
  kept = rng.random(labels.shape) < rate
  weights = kept * rng.uniform(0.5, 2.0, labels.shape)
  weights[np.asarray(labels) == types.IGNORE_LABEL] = 0
  return jnp.asarray(weights, jnp.float32)


def masked(score_map, labels, weights, **options):
  logits = upsampling.to_pixels(score_map)
  return losses.masked_cross_entropy(logits, labels, weights, **options)


def sampled(score_map, labels, weights, capacity=10**6, **options):
  sample = sampling.compact(weights, capacity=capacity)
  return losses.sampled_cross_entropy(score_map, labels, sample, **options)


def value_and_gradient(form, score_map, labels, weights, **options):
  loss_of = functools.partial(form, **options)
  compute = jax.jit(jax.value_and_grad(loss_of))
  value, gradient = compute(score_map, labels, weights)
  return value, gradient.scores


def assert_forms_are_equal(score_map, labels, weights, rtol=1e-5, **options):
  expected = value_and_gradient(masked, score_map, labels, weights, **options)
  scale = np.abs(expected[1]).max()
  for form in (losses.dense_cross_entropy, sampled):
    value, gradient = value_and_gradient(
      form, score_map, labels, weights, **options
    )
    np.testing.assert_allclose(value, expected[0], rtol=rtol)
    np.testing.assert_allclose(gradient, expected[1], atol=rtol * scale)
  return expected


# Strides with the offsets of padding "same", of the released nets (the crops
# 19, 27 and 31, and AlexNet's 18) and of a stack of unpadded layers.
GRIDS = [
  (8, 3.5, "clamp"), (8, 3.5, "zero"), (1, 0.0, "clamp"), (4, 9.0, "clamp"),
  (32, 12.5, "zero"), (16, -11.5, "zero"), (8, -23.5, "zero"),
  (32, 13.0, "zero"),
]  # fmt: skip


@pytest.mark.parametrize("stride, offset, edge", GRIDS)
def test_the_forms_are_equal_for_all_strides_offsets_and_edges(
  stride, offset, edge
):
  score_map = make_map(stride=stride, offset=offset, edge=edge)
  labels = make_labels(score_map)
  _, gradient = assert_forms_are_equal(
    score_map, labels, make_weights(labels), normalize="sum"
  )
  assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("image_size", [(1, 1), (3, 50), (64, 40)])
def test_the_forms_are_equal_where_the_last_cells_are_cut(image_size):
  score_map = make_map(image_size=image_size)
  labels = make_labels(score_map)
  assert_forms_are_equal(
    score_map, labels, make_weights(labels), normalize="valid"
  )


@pytest.mark.parametrize(
  "normalize, rate",
  [("sum", None), ("valid", None), ("kept", None), ("expected", 0.3)],
)
def test_the_forms_are_equal_under_every_normalization(normalize, rate):
  score_map = make_map()
  labels = make_labels(score_map)
  assert_forms_are_equal(
    score_map, labels, make_weights(labels), normalize=normalize, rate=rate
  )


def test_the_forms_are_equal_to_1e_12_in_float64():
  with jax.enable_x64(True):
    score_map = make_map(dtype=np.float64)
    labels = make_labels(score_map)
    weights = make_weights(labels)
    value, _ = assert_forms_are_equal(
      score_map, labels, weights, rtol=1e-12, normalize="sum"
    )
    assert value.dtype == jnp.float64


@pytest.mark.parametrize("num_pixels_in_chunk", [1, 64])
def test_the_size_of_the_chunks_has_no_influence(
  num_pixels_in_chunk, monkeypatch
):
  score_map = make_map()
  labels = make_labels(score_map)
  num_images, *_, num_classes = score_map.scores.shape
  monkeypatch.setattr(
    sweeps,
    "_CHUNK_BYTES_CPU",
    num_pixels_in_chunk * 16 * num_images * num_classes,
  )
  assert_forms_are_equal(
    score_map, labels, make_weights(labels), normalize="sum"
  )


def test_two_heads_are_the_sum_of_their_losses():
  heads = {"semantic": make_map(), "geometric": make_map(num_classes=3)}
  labels = {name: make_labels(head, 5) for name, head in heads.items()}
  weights = make_weights(labels["semantic"])

  def total(form):
    return value_and_gradient_of_heads(
      lambda maps: sum(
        form(maps[name], labels[name], weights, normalize="valid")
        for name in sorted(maps)
      ),
      heads,
    )

  expected = total(masked)
  for form in (losses.dense_cross_entropy, sampled):
    found = total(form)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)


def value_and_gradient_of_heads(loss_of, heads):
  value, gradient = jax.jit(jax.value_and_grad(loss_of))(heads)
  return value, {name: head.scores for name, head in gradient.items()}


@pytest.mark.parametrize("form", [losses.dense_cross_entropy, sampled])
def test_nothing_kept_is_loss_0_with_gradient_0(form):
  score_map = make_map()
  labels = make_labels(score_map)
  value, gradient = value_and_gradient(
    form, score_map, labels, jnp.zeros(labels.shape), normalize="kept"
  )
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("form", [losses.dense_cross_entropy, sampled])
def test_weights_on_void_have_no_influence(form):
  score_map = make_map()
  labels = make_labels(score_map)
  weights = jnp.ones(labels.shape)
  expected = value_and_gradient(
    masked, score_map, labels, weights, normalize="kept"
  )
  found = value_and_gradient(form, score_map, labels, weights, normalize="kept")
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", [losses.dense_cross_entropy, sampled])
def test_a_sampled_label_outside_the_classes_makes_the_loss_nan(form):
  score_map = make_map()
  labels = make_labels(score_map).at[1, 5, 5].set(77)
  weights = jnp.ones(labels.shape)
  value, _ = value_and_gradient(
    form, score_map, labels, weights, normalize="kept"
  )
  assert jnp.isnan(value)


def test_pixels_without_room_are_left_out_of_the_sum_and_of_the_mean():
  score_map = make_map()
  labels = make_labels(score_map)
  weights = make_weights(labels)
  sample = sampling.compact(weights, capacity=50)
  assert sample.num_dropped > 0
  kept = np.zeros((len(labels), labels[0].size), np.float32)
  np.put_along_axis(kept, np.asarray(sample.indices), sample.weights, axis=1)
  kept = jnp.asarray(kept.reshape(labels.shape))
  assert 0 < np.count_nonzero(kept) < np.count_nonzero(weights)
  for normalize in ("sum", "kept"):
    expected = masked(score_map, labels, kept, normalize=normalize)
    found = sampled(
      score_map, labels, weights, capacity=50, normalize=normalize
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("stride, offset, edge", GRIDS)
def test_at_pixels_has_the_logits_of_to_pixels(stride, offset, edge):
  score_map = make_map(stride=stride, offset=offset, edge=edge)
  logits = upsampling.to_pixels(score_map)
  flat = logits.reshape(len(logits), -1, logits.shape[-1])
  rng = np.random.default_rng(0)
  indices = rng.integers(0, flat.shape[1], (len(flat), 60)).astype(np.int32)
  indices[:, :2] = 0, flat.shape[1] - 1
  found = jax.jit(upsampling.at_pixels)(score_map, jnp.asarray(indices))
  expected = np.take_along_axis(np.asarray(flat), indices[..., None], axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_at_pixels_has_the_gradient_of_to_pixels():
  score_map = make_map()
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


def test_map_strips_is_the_function_of_all_logits():
  for stride, offset, edge in GRIDS[:6:2]:
    score_map = make_map(stride=stride, offset=offset, edge=edge)
    labels = make_labels(score_map)
    found = losses.pixel_losses(score_map, labels)
    logits = upsampling.to_pixels(score_map)
    expected = losses.pixel_cross_entropy(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_losses_for_hard_examples_are_detached():
  score_map = make_map()
  labels = make_labels(score_map)
  gradient = jax.grad(
    lambda scores: jnp.sum(
      losses.pixel_losses(dataclasses.replace(score_map, scores=scores), labels)
    )
  )(score_map.scores)
  np.testing.assert_array_equal(gradient, 0)


def largest_array(form, score_map, labels, weights):
  """Elements of the largest array in the compiled value and gradient."""

  def loss_of(scores, labels, weights):
    moved = dataclasses.replace(score_map, scores=scores)
    return form(moved, labels, weights, normalize="kept")

  compiled = (
    jax.jit(jax.value_and_grad(loss_of))
    .lower(score_map.scores, labels, weights)
    .compile()
  )
  shapes = re.findall(r"[a-z]+\d+\[([\d,]+)\]", compiled.as_text())
  return max(math.prod(map(int, shape.split(","))) for shape in set(shapes))


def test_no_array_of_all_logits_is_in_the_compiled_program(monkeypatch):
  # As on pictures that are large beside a chunk.
  monkeypatch.setattr(sweeps, "_CHUNK_BYTES_CPU", 2**18)
  score_map = make_map(image_size=(160, 192), num_classes=40)
  labels = make_labels(score_map)
  weights = make_weights(labels, rate=0.1)
  num_logits = labels.size * 40
  assert largest_array(masked, score_map, labels, weights) >= num_logits
  few = functools.partial(sampled, capacity=4000)
  for form in (losses.dense_cross_entropy, few):
    largest = largest_array(form, score_map, labels, weights)
    assert largest <= num_logits / 8


def test_one_trace_serves_all_samples_of_a_shape():
  score_map = make_map()
  labels = make_labels(score_map)
  traced = chex.assert_max_traces(sampled, n=1)
  compute = jax.jit(functools.partial(traced, capacity=900, normalize="kept"))
  for seed in range(3):
    compute(score_map, labels, make_weights(labels, seed=seed))


def test_batches_spread_over_devices_have_the_same_loss_and_gradient():
  score_map = make_map(num_images=4)
  labels = make_labels(score_map)
  weights = make_weights(labels)
  mesh = jax.make_mesh(
    (4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec("batch")
  )
  for form in (losses.dense_cross_entropy, sampled):
    expected = value_and_gradient(
      form, score_map, labels, weights, normalize="kept"
    )
    found = value_and_gradient(
      form, *jax.device_put((score_map, labels, weights), sharding),
      normalize="kept",
    )  # fmt: skip
    chex.assert_trees_all_close(
      jax.device_get(found), jax.device_get(expected), rtol=1e-5, atol=1e-7
    )
