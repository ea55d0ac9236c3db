import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import pixel_losses
from fcn_jax.losses import strips
from tests.helpers import score_maps


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "default"])
def test_map_strips_is_the_function_of_all_logits(platform, monkeypatch):
  monkeypatch.setattr(
    jax.lax,
    "platform_dependent",
    lambda *arrays, **forms: forms.get(platform, forms["default"])(*arrays),
  )
  for stride, offset, edge in score_maps.GRIDS[:6:2]:
    score_map = score_maps.make_map(stride=stride, offset=offset, edge=edge)
    labels = score_maps.make_labels(score_map)
    found = losses.loss_map(score_map, labels)
    logits = upsampling.to_pixels(score_map)
    expected = losses.pixel_cross_entropy(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 6, 2))
def test_strips_of_many_rows_are_the_loss_of_all_logits(number):
  stride, offset, edge = score_maps.GRIDS[number]
  with jax.enable_x64(True):
    score_map = score_maps.make_map(
      stride=stride, offset=offset, edge=edge, dtype=np.float64
    )
    # Scores that are not finite, and void where they count.
    scores = score_map.scores.at[0, -1].set(jnp.inf)
    score_map = dataclasses.replace(score_map, scores=scores)
    labels = np.array(score_maps.make_labels(score_map))
    labels[0, max(0, labels.shape[1] - 3 * stride) :] = types.IGNORE_LABEL
    labels = jnp.asarray(labels)

    def values(logits, labels):
      return pixel_losses.weighted_values(
        pixel_losses.with_axis(losses.cross_entropy), logits, labels
      )

    sums, gradient = jax.jit(
      functools.partial(
        strips.value_and_gradient, values, weights=None, strip_bytes=2**25
      )
    )(score_map, labels)

    def loss_sum(score_map):
      logits = upsampling.to_pixels(score_map)
      return jnp.sum(losses.pixel_cross_entropy(logits, labels))

    expected, of_map = jax.jit(jax.value_and_grad(loss_sum))(score_map)
  sums, gradient = jax.device_get((sums, gradient.scores))
  found = sums.sum(), gradient
  expected = jax.device_get((expected, of_map.scores))
  assert np.isfinite(expected[0]) and np.abs(expected[1]).max() > 0
  chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-12)
