import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from fcn_jax import types

VOID = types.IGNORE_LABEL
KEY = jax.random.key(0)


def labels_with_void(shape=(2, 45, 38)):
  labels = np.random.default_rng(0).integers(0, 5, shape).astype(np.int32)
  labels[labels == 4] = VOID
  return jnp.asarray(labels)


class SamplerTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_whole_image_keeps_all_but_void(self):
    labels = labels_with_void()
    weights = self.variant(sampling.whole_image)(KEY, labels)
    assert weights.dtype == jnp.float32
    np.testing.assert_array_equal(weights, np.asarray(labels) != VOID)

  @chex.variants(with_jit=True, without_jit=True)
  def test_rate_1_is_the_whole_image(self):
    labels = labels_with_void()
    sampler = functools.partial(sampling.bernoulli, rate=1.0, cell=8)
    weights = self.variant(sampler)(KEY, labels)
    np.testing.assert_array_equal(weights, sampling.whole_image(None, labels))

  @chex.variants(with_jit=True, without_jit=True)
  def test_void_is_never_sampled(self):
    labels = labels_with_void()
    sampler = functools.partial(sampling.bernoulli, rate=0.7)
    weights = self.variant(sampler)(KEY, labels)
    assert weights.dtype == jnp.float32
    assert set(np.unique(weights)) == {0.0, 1.0}
    assert not np.any(np.asarray(weights)[np.asarray(labels) == VOID])

  @chex.variants(with_jit=True, without_jit=True)
  def test_cells_are_constant_inside_also_where_they_are_cut_off(self):
    cell, shape = 8, (2, 45, 38)
    labels = jnp.zeros(shape, jnp.int32)
    sampler = functools.partial(sampling.bernoulli, rate=0.5, cell=cell)
    weights = np.asarray(self.variant(sampler)(KEY, labels))
    corners = weights[:, ::cell, ::cell]
    assert corners.shape == (2, 6, 5)
    filled = corners.repeat(cell, axis=1).repeat(cell, axis=2)
    np.testing.assert_array_equal(weights, filled[:, :45, :38])
    assert 0 < corners.mean() < 1


@pytest.mark.parametrize("rate", [0.05, 0.25, 0.9])
@pytest.mark.parametrize("cell", [1, 4])
def test_the_share_of_kept_cells_is_the_rate(rate, cell):
  labels = jnp.zeros((4, 50 * cell, 50 * cell), jnp.int32)
  weights = sampling.bernoulli(KEY, labels, rate=rate, cell=cell)
  # Five standard deviations of a binomial share of 10,000 cells.
  bound = 5 * np.sqrt(rate * (1 - rate) / 10_000)
  assert abs(float(weights.mean()) - rate) < bound


def test_neighbouring_cells_and_images_are_drawn_independently():
  labels = jnp.zeros((2, 400, 400), jnp.int32)
  weights = sampling.bernoulli(KEY, labels, rate=0.5, cell=4)
  cells = np.asarray(weights)[:, ::4, ::4] - 0.5
  for a, b in (
    (cells[:, 1:], cells[:, :-1]),
    (cells[:, :, 1:], cells[:, :, :-1]),
    (cells[0], cells[1]),
  ):
    # The correlation of 10,000 or more independent pairs.
    assert abs(np.mean(a * b) / 0.25) < 0.05


def test_only_the_key_decides():
  labels = jnp.zeros((1, 32, 32), jnp.int32)
  draw = functools.partial(sampling.bernoulli, labels=labels, rate=0.5)
  np.testing.assert_array_equal(draw(KEY), draw(KEY))
  assert np.any(draw(KEY) != draw(jax.random.key(1)))


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, float("nan")])
def test_a_rate_outside_0_to_1_is_an_error(rate):
  labels = jnp.zeros((1, 2, 2), jnp.int32)
  with pytest.raises(ValueError, match=f"sampling rate is {rate}"):
    sampling.bernoulli(KEY, labels, rate=rate)


@pytest.mark.parametrize("cell", [0, -8])
def test_a_cell_without_pixels_is_an_error(cell):
  labels = jnp.zeros((1, 2, 2), jnp.int32)
  with pytest.raises(ValueError, match=f"cell is {cell}"):
    sampling.bernoulli(KEY, labels, rate=0.5, cell=cell)
