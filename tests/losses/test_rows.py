import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import rows
from fcn_jax.losses import strips


def score_map(height=64, *, cells=None, offset=3.5, edge="clamp", seed=0):
  rng = np.random.default_rng(seed)
  cells = height // 8 if cells is None else cells
  scores = jnp.asarray(rng.normal(size=(2, cells, 4, 3)), jnp.float32)
  return types.ScoreMap(scores, 8, offset, (height, 32), edge)


GEOMETRIES = {
  "same": {},
  "cells at pixels": {"offset": 0.0},
  "released nets": {"cells": 14, "offset": -20.0, "edge": "zero"},
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("number", [2, 4])
def test_the_logits_of_the_parts_are_those_of_the_image(name, number):
  whole = score_map(**GEOMETRIES[name])
  parts = rows.split_map(whole, number)
  logits = rows.merge(upsampling.to_pixels(parts), number)
  np.testing.assert_allclose(
    logits, upsampling.to_pixels(whole), rtol=1e-6, atol=1e-6
  )


def test_merge_is_the_inverse_of_split():
  values = jnp.arange(2 * 8 * 3).reshape(2, 8, 3)
  parts = rows.split(values, 4)
  assert parts.shape == (8, 2, 3)
  np.testing.assert_array_equal(parts[2], values[0, 2:4])
  np.testing.assert_array_equal(rows.merge(parts, 4), values)


@pytest.mark.slow
@pytest.mark.parametrize(
  "loss", [losses.cross_entropy, losses.dice()], ids=["pixels", "regions"]
)
def test_loss_and_gradient_are_those_of_whole_images(loss):
  labels = np.random.default_rng(1).integers(0, 3, (2, 64, 32))
  labels[:, :20] = types.IGNORE_LABEL
  whole = score_map()
  sampler = sampling.bernoulli(rate=0.5)

  def value(number):
    compute = losses.make(loss, sampler=sampler, row_shards=number)
    return jax.jit(
      jax.value_and_grad(
        lambda m: compute(jax.random.key(3), m, jnp.asarray(labels)).loss
      )
    )(whole)

  expected, found = value(1), value(4)
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
  np.testing.assert_allclose(
    found[1].scores, expected[1].scores, rtol=1e-5, atol=1e-8
  )


@pytest.mark.parametrize("height, nearest", [(60, "64 or 96"), (32, "64")])
def test_rows_that_devices_cannot_share_are_refused(height, nearest):
  compute = losses.make(row_shards=4)
  labels = jnp.zeros((2, height, 32), jnp.int32)
  with pytest.raises(ValueError, match=f"{height} rows.* such as {nearest}"):
    compute(jax.random.key(0), score_map(height, cells=8), labels)


def test_forms_with_lists_of_pixels_are_refused():
  with pytest.raises(ValueError, match='form is "blocks".*use "strips"'):
    losses.make(form="blocks", row_shards=2)


def test_predictions_by_rows_are_those_of_whole_images():
  def classes(logits, labels):
    return jnp.argmax(logits, axis=-2) + labels

  whole, offsets = score_map(), jnp.arange(2 * 64 * 32).reshape(2, 64, 32)
  expected, found = (
    strips.map_strips(classes, whole, (offsets,), row_shards=number)
    for number in (1, 4)
  )
  np.testing.assert_array_equal(found, expected)
