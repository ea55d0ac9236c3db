import chex
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from fcn_jax import types
from tests.helpers import sampler_cases as cases

# Blocks of 8 x 8 pixels begin at row and column -4.
GRID = types.Grid(stride=8, offset=3.5)


class BernoulliTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_rate_1_is_the_whole_image(self):
    labels = cases.labels_with_void()
    sampler = cases.on_grid(sampling.bernoulli(rate=1.0), GRID)
    weights = self.variant(sampler.draw)(cases.KEY, labels)
    np.testing.assert_array_equal(weights, sampling.valid_pixels(labels))

  @chex.variants(with_jit=True, without_jit=True)
  def test_blocks_are_constant_inside_also_where_they_are_cut_off(self):
    labels = jnp.zeros((2, 45, 38), jnp.int32)
    sampler = cases.on_grid(sampling.bernoulli(rate=0.5), GRID)
    weights = np.asarray(self.variant(sampler.draw)(cases.KEY, labels))
    rows, columns = (np.arange(45) + 4) // 8, (np.arange(38) + 4) // 8
    centres = weights[:, [0, 8, 16, 24, 32, 40, 44]]
    centres = centres[:, :, [0, 8, 16, 24, 32, 37]]
    np.testing.assert_array_equal(weights, centres[:, rows][:, :, columns])
    assert 0 < centres.mean() < 1


@pytest.mark.parametrize("offset", [0.0, 3.5, -11.5, 9.0])
def test_the_pixels_of_a_block_lie_between_the_same_cells(offset):
  grid = types.Grid(stride=8, offset=offset)
  labels = jnp.zeros((1, 33, 41), jnp.int32)
  weights = sampling.bernoulli(rate=0.5).draw(cases.KEY, labels, grid=grid)
  rows, columns = (np.floor((np.arange(n) - offset) / 8) for n in (33, 41))
  for row in np.unique(rows):
    for column in np.unique(columns):
      block = weights[0][rows == row][:, columns == column]
      assert np.ptp(np.asarray(block)) == 0


@pytest.mark.parametrize("rate", [0.05, 0.25, 0.9])
@pytest.mark.parametrize("stride", [None, 4])
def test_the_share_of_what_is_kept_is_the_rate(rate, stride):
  if stride is None:
    sampler = sampling.bernoulli(rate=rate, unit="pixel")
    labels = jnp.zeros((4, 50, 50), jnp.int32)
  else:
    grid = types.Grid(stride, 0.0)
    sampler = cases.on_grid(sampling.bernoulli(rate=rate), grid)
    labels = jnp.zeros((4, 200, 200), jnp.int32)
  weights = sampler.draw(cases.KEY, labels)
  # Five standard deviations of a binomial share of 10,000.
  bound = 5 * np.sqrt(rate * (1 - rate) / 10_000)
  assert abs(float(weights.mean()) - rate) < bound


def test_neighbouring_blocks_and_images_are_drawn_independently():
  labels = jnp.zeros((2, 400, 400), jnp.int32)
  grid = types.Grid(4, 0.0)
  weights = sampling.bernoulli(rate=0.5).draw(cases.KEY, labels, grid=grid)
  blocks = np.asarray(weights)[:, ::4, ::4] - 0.5
  for a, b in (
    (blocks[:, 1:], blocks[:, :-1]),
    (blocks[:, :, 1:], blocks[:, :, :-1]),
    (blocks[0], blocks[1]),
  ):
    # The correlation of 10,000 or more independent pairs.
    assert abs(np.mean(a * b) / 0.25) < 0.05


def test_blocks_are_drawn_only_where_the_grid_is_known():
  sampler = sampling.bernoulli(rate=0.5)
  labels = jnp.zeros((1, 8, 8), jnp.int32)
  with pytest.raises(ValueError, match="give grid=score_map.grid"):
    sampler.draw(cases.KEY, labels)
  with pytest.raises(ValueError, match="give grid=score_map.grid"):
    sampler.max_count((1, 8, 8))


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_the_blocks_of_a_sampler_are_those_that_it_draws(rate):
  sampler = sampling.bernoulli(rate=rate)
  labels = jnp.zeros((2, 16, 24), jnp.int32)
  grid = types.Grid(8, 0.0)
  drawn = sampler.draw(cases.KEY, labels, grid=grid)
  kept = sampler.blocks(cases.KEY, (2, 2, 3))
  np.testing.assert_array_equal(np.asarray(drawn)[:, ::8, ::8], kept)
  assert kept.dtype == bool
