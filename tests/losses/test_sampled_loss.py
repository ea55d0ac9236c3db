"""The forms of the loss are one loss, that of `masked_cross_entropy`."""

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
from fcn_jax.losses import choice
from tests.helpers import loss_forms
from tests.helpers import score_maps


def masked(score_map, labels, weights, **options):
  logits = upsampling.to_pixels(score_map)
  return losses.masked_cross_entropy(logits, labels, weights, **options)


def compute(
  form,
  score_map,
  labels,
  weights,
  capacity=10**6,
  expected_sum=None,
  **options,
):
  """The loss in one of the forms, under given weights."""
  loss = losses.make(
    sampler=sampling.Sampler(
      lambda key, labels: weights,
      expected_sum=lambda labels: expected_sum,
    ),
    form=form,
    capacity=capacity,
    **options,
  )
  return loss(None, score_map, labels).loss


def strips(*arrays, **options):
  return compute("strips", *arrays, **options)


def blocks(*arrays, **options):
  return compute("blocks", *arrays, **options)


def pixels(*arrays, **options):
  return compute("pixels", *arrays, **options)


def value_and_gradient(form, score_map, labels, weights, **options):
  loss_of = functools.partial(form, **options)
  compute = jax.jit(jax.value_and_grad(loss_of))
  value, gradient = compute(score_map, labels, weights)
  return value, gradient.scores


def assert_forms_are_equal(score_map, labels, weights, rtol=1e-5, **options):
  expected = value_and_gradient(masked, score_map, labels, weights, **options)
  scale = np.abs(expected[1]).max()
  for form in (strips, blocks, pixels):
    value, gradient = value_and_gradient(
      form, score_map, labels, weights, **options
    )
    np.testing.assert_allclose(value, expected[0], rtol=rtol)
    np.testing.assert_allclose(gradient, expected[1], atol=rtol * scale)
  return expected


@pytest.mark.slow
@pytest.mark.parametrize("stride, offset, edge", score_maps.GRIDS)
def test_the_forms_are_equal_for_all_strides_offsets_and_edges(
  stride, offset, edge
):
  score_map = score_maps.make_map(stride=stride, offset=offset, edge=edge)
  labels = score_maps.make_labels(score_map)
  _, gradient = assert_forms_are_equal(
    score_map, labels, score_maps.make_weights(labels), normalize="sum"
  )
  assert np.abs(gradient).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("stride, offset, edge", score_maps.GRIDS[1:3])
def test_all_blocks_are_the_whole_image(stride, offset, edge):
  # Labels of so many classes are no bytes.
  score_map = score_maps.make_map(
    stride=stride, offset=offset, edge=edge, num_classes=300
  )
  labels = score_maps.make_labels(score_map)
  loss = losses.make(form="blocks")

  def whole(score_map, labels, weights):
    return loss(None, score_map, labels).loss

  arrays = score_map, labels, sampling.valid_pixels(labels)
  expected = value_and_gradient(masked, *arrays, normalize="kept")
  found = value_and_gradient(whole, *arrays)
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  scale = np.abs(expected[1]).max()
  np.testing.assert_allclose(found[1], expected[1], atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [(1, 1), (3, 50), (64, 40)])
def test_the_forms_are_equal_where_the_last_cells_are_cut(image_size):
  score_map = score_maps.make_map(image_size=image_size)
  labels = score_maps.make_labels(score_map)
  assert_forms_are_equal(
    score_map, labels, score_maps.make_weights(labels), normalize="valid"
  )


@pytest.mark.slow
# Two others are those of the tests around this one.
@pytest.mark.parametrize("normalize", ["kept", "expected"])
def test_the_forms_are_equal_under_every_normalization(normalize):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  weights = score_maps.make_weights(labels)
  expected_sum = 100.0 if normalize == "expected" else None
  assert_forms_are_equal(
    score_map,
    labels,
    weights,
    normalize=normalize,
    expected_sum=expected_sum,
  )


def set_chunks(monkeypatch, num_bytes):
  """Sets the size of all pieces that the forms compute at once."""
  device = choice._CPU._replace(
    strip_bytes=num_bytes,
    band_bytes=num_bytes,
    block_bytes=num_bytes,
    pixel_bytes=num_bytes,
  )
  monkeypatch.setattr(choice, "_CPU", device)


@pytest.mark.slow
@pytest.mark.parametrize("num_pixels_in_chunk", [1, 64])
def test_the_size_of_the_chunks_has_no_influence(
  num_pixels_in_chunk, monkeypatch
):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  num_images, *_, num_classes = score_map.scores.shape
  num_bytes = num_pixels_in_chunk * 16 * num_images * num_classes
  set_chunks(monkeypatch, num_bytes)
  assert_forms_are_equal(
    score_map, labels, score_maps.make_weights(labels), normalize="sum"
  )


@pytest.mark.long
def test_two_heads_are_the_sum_of_their_losses():
  heads = {
    "semantic": score_maps.make_map(),
    "geometric": score_maps.make_map(num_classes=3),
  }
  labels = {
    name: score_maps.make_labels(head, 5) for name, head in heads.items()
  }
  weights = score_maps.make_weights(labels["semantic"])

  def total(form):
    return value_and_gradient_of_heads(
      lambda maps: sum(
        form(maps[name], labels[name], weights, normalize="valid")
        for name in sorted(maps)
      ),
      heads,
    )

  expected = total(masked)
  for form in (strips, blocks, pixels):
    found = total(form)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)


def value_and_gradient_of_heads(loss_of, heads):
  value, gradient = jax.jit(jax.value_and_grad(loss_of))(heads)
  return value, {name: head.scores for name, head in gradient.items()}


@pytest.mark.parametrize("form", [strips, blocks, pixels])
def test_nothing_kept_is_loss_0_with_gradient_0(form):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  value, gradient = value_and_gradient(
    form, score_map, labels, jnp.zeros(labels.shape), normalize="kept"
  )
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("form", [strips, blocks, pixels])
def test_weights_on_void_have_no_influence(form):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  weights = jnp.ones(labels.shape)
  expected = value_and_gradient(
    masked, score_map, labels, weights, normalize="kept"
  )
  found = value_and_gradient(form, score_map, labels, weights, normalize="kept")
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)


# As bytes, the last three would be class 0 and void.
@pytest.mark.parametrize("label", [77, 256, -1, 511])
@pytest.mark.parametrize("form", [strips, blocks, pixels])
def test_a_sampled_label_outside_the_classes_makes_the_loss_nan(form, label):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map).at[1, 5, 5].set(label)
  weights = jnp.ones(labels.shape)
  value, _ = value_and_gradient(
    form, score_map, labels, weights, normalize="kept"
  )
  assert jnp.isnan(value)


@pytest.mark.slow
def test_pixels_without_room_are_left_out_of_the_sum_and_of_the_mean():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  weights = score_maps.make_weights(labels)
  sample = sampling.compact(weights, capacity=50)
  assert sample.num_dropped > 0
  kept = np.zeros((len(labels), labels[0].size), np.float32)
  np.put_along_axis(kept, np.asarray(sample.indices), sample.weights, axis=1)
  kept = jnp.asarray(kept.reshape(labels.shape))
  assert 0 < np.count_nonzero(kept) < np.count_nonzero(weights)
  for normalize in ("sum", "kept"):
    expected = jax.jit(functools.partial(masked, normalize=normalize))(
      score_map, labels, kept
    )
    found = jax.jit(
      functools.partial(pixels, capacity=50, normalize=normalize)
    )(score_map, labels, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_losses_for_hard_examples_are_detached():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  gradient = jax.grad(
    lambda scores: jnp.sum(
      losses.loss_map(dataclasses.replace(score_map, scores=scores), labels)
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


@pytest.mark.slow
def test_no_array_of_all_logits_is_in_the_compiled_program(monkeypatch):
  # As on pictures that are large beside a chunk.
  set_chunks(monkeypatch, 2**18)
  score_map = score_maps.make_map(image_size=(160, 192), num_classes=40)
  labels = score_maps.make_labels(score_map)
  weights = score_maps.make_weights(labels, rate=0.1)
  num_logits = labels.size * 40
  assert largest_array(masked, score_map, labels, weights) >= num_logits
  few = functools.partial(pixels, capacity=4000)
  for form in (strips, blocks, few):
    largest = largest_array(form, score_map, labels, weights)
    assert largest <= num_logits / 8


def test_one_trace_serves_all_samples_of_a_shape():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  traced = chex.assert_max_traces(pixels, n=1)
  compute = jax.jit(functools.partial(traced, capacity=900, normalize="kept"))
  for seed in range(3):
    compute(score_map, labels, score_maps.make_weights(labels, seed=seed))


@pytest.mark.long
def test_batches_spread_over_devices_have_the_same_loss_and_gradient():
  score_map = score_maps.make_map(num_images=4)
  labels = score_maps.make_labels(score_map)
  weights = score_maps.make_weights(labels)
  mesh = jax.make_mesh(
    (4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec("batch")
  )
  for form in (strips, blocks, pixels):
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


@pytest.mark.parametrize("form", ["logits", "strips", "blocks", "pixels"])
def test_the_terms_are_the_sum_and_the_counts_of_the_loss(form):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  weights = score_maps.make_weights(labels)
  loss = losses.make(
    sampler=sampling.Sampler(lambda key, labels: weights),
    normalize="valid",
    form=form,
    capacity=1000,
  )
  terms = jax.jit(loss)(jax.random.key(0), score_map, labels)
  total = masked(score_map, labels, weights, normalize="sum")
  np.testing.assert_allclose(terms.loss_sum, total, rtol=1e-5)
  assert terms.num_kept == np.count_nonzero(weights)
  assert terms.num_valid == np.sum(np.asarray(labels) != types.IGNORE_LABEL)
  assert terms.num_dropped == 0
  np.testing.assert_allclose(
    terms.loss, terms.loss_sum / float(terms.num_valid), rtol=1e-6
  )


def test_a_function_is_no_sampler():
  with pytest.raises(TypeError, match="called with its options, such as"):
    losses.make(sampler=sampling.bernoulli)


def test_options_of_the_form_are_checked_when_the_loss_is_made():
  with pytest.raises(ValueError, match="'dense'; choose one of auto, logits"):
    losses.make(form="dense")
  with pytest.raises(ValueError, match="capacity is 0"):
    losses.make(capacity=0)
  with pytest.raises(ValueError, match="does not say how many .* capacity"):
    losses.make(form="pixels")


@pytest.mark.slow
@pytest.mark.parametrize("stride, offset, edge", score_maps.GRIDS[::4])
def test_at_rate_1_no_block_is_dropped(stride, offset, edge):
  score_map = score_maps.make_map(stride=stride, offset=offset, edge=edge)
  labels = score_maps.make_labels(score_map)
  loss = losses.make(sampler=sampling.bernoulli(rate=1.0), form="blocks")
  terms = jax.jit(loss)(jax.random.key(0), score_map, labels)
  assert terms.num_kept == sampling.num_valid(labels)
  assert terms.num_dropped == 0


PIXEL_LOSSES = {
  "cross-entropy": losses.cross_entropy,
  "of a user": lambda logits, labels: jnp.square(
    jnp.max(logits, axis=-2) - labels.astype(logits.dtype)
  ),
}


def draw_importance(key, labels):
  probabilities = sampling.class_probabilities(count=300, num_classes=5)
  return sampling.importance(probabilities=probabilities).draw(key, labels)


EVERY_SAMPLER = {
  "whole image": sampling.whole_image(),
  "blocks": sampling.bernoulli(rate=0.3),
  "pixels": sampling.bernoulli(rate=0.3, unit="pixel"),
  "places": sampling.places(rate=1 / 16),
  "random places": sampling.places(rate=1 / 16, arrangement="random"),
  "one a square": sampling.one_per_square(side=4),
  "count": sampling.fixed_count(count=100),
  "centre": sampling.center_pixel(),
  "near boundaries": sampling.near_boundary(
    rate=0.5, rate_elsewhere=0.1, distance=2
  ),
  "class-balanced": sampling.class_balanced(
    count=200, num_classes=5, min_probability=0.05, redistribute=True
  ),
  "class-weighted": sampling.class_weighted(class_weights=(1, 2, 0, 0.5, 1)),
  "hardest": sampling.hardest(count=50),
  "uncertain": sampling.uncertain(count=100),
  "of a user": sampling.Sampler(draw_importance),
}


# One of each form; the others are for `make long`.
FIRST = ("whole image", "blocks", "places", "pixels", "uncertain")


@pytest.mark.slow
@pytest.mark.parametrize(
  "name, pixel_loss",
  [
    pytest.param(
      name, "cross-entropy", marks=() if name in FIRST else pytest.mark.long
    )
    for name in EVERY_SAMPLER
  ]
  + [("class-weighted", "of a user")]
  + [
    pytest.param(name, "of a user", marks=pytest.mark.long)
    for name in ("blocks", "places")
  ],
)
def test_all_forms_are_equal_for_every_sampler_and_pixel_loss(name, pixel_loss):
  loss_forms.check(
    PIXEL_LOSSES[pixel_loss], EVERY_SAMPLER[name], score_maps.make_labels
  )


def test_places_need_a_sampler_and_a_stride_with_places():
  with pytest.raises(ValueError, match="does not keep the same places"):
    losses.make(form="places")
  loss = losses.make(sampler=sampling.places(rate=0.1), form="places")
  score_map = score_maps.make_map(stride=1, offset=0.0)
  labels = score_maps.make_labels(score_map)
  with pytest.raises(ValueError, match="less than one pixel in a block of 1x1"):
    loss(jax.random.key(0), score_map, labels)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["block", "pixel"])
def test_at_stride_1_blocks_are_pixels(unit):
  score_map = score_maps.make_map(stride=1, offset=0.0)
  labels = score_maps.make_labels(score_map)
  loss = losses.make(sampler=sampling.bernoulli(rate=0.5, unit=unit))
  terms = jax.jit(loss)(jax.random.key(0), score_map, labels)
  share = terms.num_kept / terms.num_valid
  assert abs(share - 0.5) < 5 * 0.5 / float(terms.num_valid) ** 0.5


@pytest.mark.slow
def test_a_pixel_loss_computes_with_labels_as_integers():
  # As bytes, 0 - 1 would be 255.
  def pixel_loss(logits, labels):
    target = (labels - 1).astype(logits.dtype)
    return jnp.square(logits[..., 0, :] - target)

  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  values = [
    losses.make(pixel_loss, form=form)(None, score_map, labels).loss
    for form in ("logits", "strips", "blocks")
  ]
  np.testing.assert_allclose(values, values[0], rtol=1e-5)


@pytest.mark.slow
def test_a_capacity_is_for_the_form_pixels_only():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  terms = losses.make(capacity=10)(None, score_map, labels)
  assert terms.num_dropped == 0
  assert terms.num_kept == terms.num_valid


@pytest.mark.slow
@pytest.mark.parametrize(
  "unit, form", [("block", "blocks"), ("pixel", "pixels"), ("pixel", "auto")]
)
def test_a_rate_that_keeps_next_to_nothing_has_loss_0(unit, form):
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  sampler = sampling.bernoulli(rate=1e-13, unit=unit)
  loss = losses.make(sampler=sampler, form=form)
  assert loss(jax.random.key(0), score_map, labels).loss == 0


@pytest.mark.slow
def test_all_images_may_share_their_places():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  sampler = sampling.places(rate=1 / 16)
  shared = sampler._replace(
    places=lambda key, num_images, stride: sampler.places(key, 1, stride)
  )
  terms = losses.make(sampler=shared)(jax.random.key(0), score_map, labels)
  assert terms.num_kept > 0


@pytest.mark.slow
def test_strips_are_exact_at_strides_that_are_no_power_of_two():
  score_map = score_maps.make_map(
    stride=3, offset=1.0, image_size=(7, 4000), num_images=1
  )
  labels = score_maps.make_labels(score_map)
  found = losses.make(form="strips")(None, score_map, labels).loss
  expected = losses.make(form="logits")(None, score_map, labels).loss
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_blocks_without_room_are_left_out_and_counted():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  # Room for 3 blocks of each image, where all are drawn.
  sampler = sampling.bernoulli(rate=1.0)._replace(
    max_count=lambda shape, *, grid: 3 * grid.stride**2
  )
  loss = losses.make(sampler=sampler, normalize="sum", form="blocks")
  terms = loss(jax.random.key(0), score_map, labels)
  # The first ones; the blocks of the first row begin above the image.
  first = np.zeros(labels.shape, np.float32)
  first[:, :4, : 4 + 2 * 8] = 1
  expected = masked(score_map, labels, jnp.asarray(first), normalize="sum")
  np.testing.assert_allclose(terms.loss, expected, rtol=1e-5)
  num_valid = sampling.num_valid(labels)
  assert terms.num_kept == losses.num_kept(labels, jnp.asarray(first))
  assert terms.num_dropped == num_valid - terms.num_kept


def test_places_have_the_loss_and_gradient_of_their_mask():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  sampler = sampling.places(rate=0.1, arrangement="random")
  key = jax.random.key(0)
  weights = sampler.draw(key, labels, grid=score_map.grid)
  loss = losses.make(sampler=sampler, form="places")

  def of_places(score_map):
    return loss(key, score_map, labels).loss

  found = jax.jit(jax.value_and_grad(of_places))(score_map)
  expected = value_and_gradient(
    masked, score_map, labels, weights, normalize="kept"
  )
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  np.testing.assert_allclose(found[1].scores, expected[1], atol=1e-7)
