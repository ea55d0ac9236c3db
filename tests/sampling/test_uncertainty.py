"""Uncertain pixels, against PointRend's rule in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.sampling import uncertainty
from tests.helpers import score_maps

VOID = types.IGNORE_LABEL


@functools.partial(jax.jit, static_argnums=0)
def draw(sampler, key, labels, score_map):
  return sampler.draw(key, labels, score_map=score_map)


def numpy_margins(score_map):
  """[N, H * W] of the logits of all pixels."""
  logits = np.sort(jax.jit(upsampling.to_pixels)(score_map), axis=-1)
  margins = logits[..., -1] - logits[..., -2]
  return margins.reshape(len(margins), -1)


def numpy_rule(score_map, labels, key, *, count, oversample, importance):
  """The rule of PointRend, with the random numbers of the sampler."""
  margins = numpy_margins(score_map)
  candidate_key, rest_key = jax.random.split(key)
  first, second = (
    np.asarray(jax.random.bits(k, margins.shape, jnp.uint32))
    for k in (candidate_key, rest_key)
  )
  kept = np.zeros(margins.shape, bool)
  for image, flat in enumerate(np.asarray(labels).reshape(margins.shape)):
    valid = np.flatnonzero(flat != VOID)
    order = valid[np.argsort(-first[image, valid].astype(np.int64))]
    candidates = order[: int(oversample * count)]
    by_margin = candidates[np.argsort(margins[image, candidates])]
    chosen = by_margin[: int(importance * count)]
    rest = np.setdiff1d(valid, chosen)
    rest = rest[np.argsort(-second[image, rest].astype(np.int64))]
    kept[image, chosen] = True
    kept[image, rest[: count - len(chosen)]] = True
  return kept.reshape(labels.shape)


@pytest.mark.parametrize(
  "options",
  [
    {"count": 60, "oversample": 3.0, "importance": 0.75},
    {"count": 60, "oversample": 1.0, "importance": 1.0},
    {"count": 60, "oversample": 5.0, "importance": 0.0},
    {"count": 900, "oversample": 3.0, "importance": 0.75},
    {"count": 10**5, "oversample": 3.0, "importance": 0.75},
  ],
)
def test_the_published_rule_keeps_the_same_pixels(options):
  key = jax.random.key(5)
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  found = draw(sampling.uncertain(**options), key, labels, score_map)
  expected = numpy_rule(score_map, labels, key, **options)
  np.testing.assert_array_equal(found, expected)
  num_valid = np.sum(np.asarray(labels) != VOID, axis=(1, 2))
  np.testing.assert_array_equal(
    np.sum(found, axis=(1, 2)), np.minimum(options["count"], num_valid)
  )


def test_chunks_do_not_change_what_is_kept(monkeypatch):
  key = jax.random.key(5)
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  indices = jnp.arange(1000, dtype=jnp.int32)[None].repeat(2, axis=0)

  # Two samplers, as the first is compiled already for the larger chunks.
  def kept_and_margins():
    sampler = sampling.uncertain(count=300)
    margins = uncertainty._margins_at(score_map, indices)
    return draw(sampler, key, labels, score_map), margins

  kept, margins = kept_and_margins()
  monkeypatch.setattr(uncertainty, "_CPU_BYTES", 7 * 2 * 4 * 5 * 4)
  kept_in_chunks, margins_in_chunks = kept_and_margins()
  np.testing.assert_array_equal(kept_in_chunks, kept)
  # On some CPUs chunks are rounded otherwise.
  expected = numpy_margins(score_map)[:, :1000]
  for found in (margins, margins_in_chunks):
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_margins_are_those_of_the_two_best_classes():
  rng = np.random.default_rng(0)
  scores = rng.integers(-3, 4, (200, 4)).astype(np.float32)
  ordered = np.sort(scores, axis=-1)
  np.testing.assert_array_equal(
    uncertainty.margins(jnp.asarray(scores)),
    ordered[:, -1] - ordered[:, -2],
  )


def test_blocks_are_kept_whole_and_those_with_the_least_margins_first():
  key = jax.random.key(5)
  score_map = score_maps.make_map(image_size=(64, 64), offset=-4.0)
  labels = jnp.zeros((2, 64, 64), jnp.int32)
  sampler = sampling.uncertain(
    count=10 * 64, oversample=100.0, importance=0.5, unit="block"
  )
  kept = np.asarray(draw(sampler, key, labels, score_map))
  # At offset -4 a block begins half a block before the image.
  tiles = np.pad(kept, [(0, 0), (4, 4), (4, 4)], constant_values=-1)
  tiles = tiles.reshape(2, 9, 8, 9, 8).transpose(0, 1, 3, 2, 4)
  tiles = tiles.reshape(2, 81, 64)
  assert np.all((tiles == 1).any(2) != (tiles == 0).any(2))
  of_blocks = (tiles == 1).any(axis=2)
  np.testing.assert_array_equal(of_blocks.sum(axis=1), 10)
  cells = np.asarray(upsampling.covering_map(score_map))
  # The pixels of a block are 0 to 7 eighths of the way to the next cell.
  down = (9 * cells[:, :-1] + 7 * cells[:, 1:]) / 16
  centres = (9 * down[:, :, :-1] + 7 * down[:, :, 1:]) / 16
  ordered = np.sort(centres, axis=-1)
  margins = (ordered[..., -1] - ordered[..., -2]).reshape(2, 81)
  for image in range(2):
    # All blocks were candidates, so the five least are kept. At the borders,
    # where cells are repeated, some are equal.
    fifth = np.sort(margins[image])[4]
    assert np.sum(margins[image][of_blocks[image]] <= fifth + 1e-5) >= 5


@pytest.mark.slow
def test_weights_of_uncertain_pixels_keep_the_expectation():
  score_map = score_maps.make_map(num_classes=3)
  labels = score_maps.make_labels(score_map)
  sampler = sampling.uncertain_weighted(count=100)
  draw = jax.jit(
    jax.vmap(lambda key: sampler.draw(key, labels, score_map=score_map))
  )
  weights = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
  is_void = np.asarray(labels) == VOID
  assert np.all(weights[:, is_void] == 0)
  # Two probabilities an image, so two weights beside 0.
  num_valid = np.sum(~is_void, axis=(1, 2))
  for image in range(2):
    rate = 100 / num_valid[image]
    np.testing.assert_allclose(
      np.unique(weights[:, image]), [0, 1 / (3.25 * rate), 4 / rate], rtol=1e-4
    )
  # The mean of a pixel has a standard error of sqrt((1 - q) / q / 4000).
  means = weights.mean(axis=0)
  mostly = np.where(weights.max(axis=0) > 0, weights.max(axis=0), 1)
  error = np.sqrt((mostly - 1) / 4000)
  z = (means - 1)[~is_void] / error[~is_void]
  assert np.abs(z).max() < 5 and abs(z.mean()) < 4 / np.sqrt(z.size)
  # The least certain pixels have the smaller weights.
  margins = numpy_margins(score_map).reshape(labels.shape)
  for image in range(2):
    smaller = mostly[image] < 2 * num_valid[image] / 100
    valid = ~is_void[image]
    assert (
      margins[image][smaller & valid].max()
      <= margins[image][~smaller & valid].min()
    )
    assert 0.1 < np.mean(smaller[valid]) < 0.5


def test_expected_divides_by_the_valid_pixels():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  sampler = sampling.uncertain_weighted(count=100)
  np.testing.assert_array_equal(
    sampler.expected_sum(labels), np.sum(np.asarray(labels) != VOID)
  )


def test_neither_scores_nor_candidates_get_a_gradient_from_the_draw():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  samplers = (
    sampling.uncertain(count=50),
    sampling.uncertain(count=128, unit="block"),
    sampling.uncertain_weighted(count=50),
  )

  @jax.jit
  @jax.grad
  def gradient(score_map):
    return sum(
      jnp.sum(s.draw(jax.random.key(0), labels, score_map=score_map))
      for s in samplers
    )

  np.testing.assert_array_equal(gradient(score_map).scores, 0)


@pytest.mark.slow
def test_no_array_of_all_logits_is_compiled():
  score_map = score_maps.make_map(image_size=(128, 128), num_classes=50)
  labels = score_maps.make_labels(score_map)
  loss = losses.make(sampler=sampling.uncertain(count=100))

  def value(score_map):
    return loss(jax.random.key(0), score_map, labels).loss

  compiled = jax.jit(jax.grad(value)).lower(score_map).compile()
  logits_bytes = labels.size * 50 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < logits_bytes / 4


@pytest.mark.parametrize(
  "options, message",
  [
    ({"count": 0}, "count is 0"),
    ({"count": 5, "oversample": 0.5}, "oversample is 0.5"),
    ({"count": 5, "importance": 1.5}, "importance is 1.5"),
    ({"count": 5, "unit": "cell"}, "unit is 'cell'"),
  ],
)
def test_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    sampling.uncertain(**options)
  if "unit" not in options:
    with pytest.raises(ValueError, match=message):
      sampling.uncertain_weighted(**options)


@pytest.mark.slow
def test_a_network_of_one_class_has_no_uncertain_pixels():
  score_map = score_maps.make_map(num_classes=1)
  labels = jnp.zeros((2, 37, 41), jnp.int32)
  with pytest.raises(ValueError, match="the network has one class"):
    sampling.uncertain(count=5).draw(
      jax.random.key(0), labels, score_map=score_map
    )


def test_weights_need_a_share_for_all_pixels():
  with pytest.raises(ValueError, match="importance is 1"):
    sampling.uncertain_weighted(count=5, importance=1.0)
