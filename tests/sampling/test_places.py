import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from fcn_jax import types
from tests.helpers import sampler_cases as cases

GRID = types.Grid(stride=8, offset=3.5)


# Not `cases.KEY`: its generator draws differently even for equal keys.
KEY = jax.random.key(0)


def draw(rate, labels, grid=GRID, **options):
  sampler = sampling.places(rate=rate, **options)
  return np.asarray(sampler.draw(KEY, labels, grid=grid))


@pytest.mark.parametrize("arrangement", ["even", "random"])
@pytest.mark.parametrize("rate, number", [(1 / 64, 1), (1 / 16, 4), (0.3, 19)])
def test_the_same_places_are_kept_in_all_blocks_of_an_image(
  rate, number, arrangement
):
  labels = jnp.zeros((3, 40, 48), jnp.int32)
  weights = draw(rate, labels, arrangement=arrangement)
  first = weights[:, 4:12, 4:12]
  assert (first.sum(axis=(1, 2)) == number).all()
  np.testing.assert_array_equal(weights, np.tile(first, (1, 7, 8))[
    :, 4:44, 4:52
  ])  # fmt: skip
  # Each image has places of its own.
  assert not np.array_equal(first[0], first[1])


def test_four_even_places_are_a_lattice():
  labels = jnp.zeros((1, 32, 32), jnp.int32)
  rows, columns = np.nonzero(draw(1 / 16, labels)[0])
  assert len({*(rows % 4)}) == len({*(columns % 4)}) == 1


@pytest.mark.parametrize(
  "stride, rate, side, number",
  [(1, 0.25, 2, 1), (1, 1 / 16, 4, 1), (4, 0.02, 8, 1), (8, 0.01, 16, 3)],
)
def test_below_one_place_a_block_the_pattern_repeats_later(
  stride, rate, side, number
):
  grid = types.Grid(stride, 0.0)
  labels = jnp.zeros((1, 64, 64), jnp.int32)
  weights = draw(rate, labels, grid)[0]
  first = weights[:side, :side]
  assert first.sum() == number
  repeats = 64 // side
  np.testing.assert_array_equal(weights, np.tile(first, (repeats, repeats)))
  sampler = sampling.places(rate=rate)
  assert sampler.places(cases.KEY, 1, stride) is None
  np.testing.assert_allclose(
    sampler.expected_sum(labels, grid=grid), weights.sum()
  )


def test_all_places_are_the_whole_image():
  labels = cases.labels_with_void()
  np.testing.assert_array_equal(
    draw(1.0, labels), sampling.valid_pixels(labels)
  )


def test_places_are_drawn_only_where_the_grid_is_known():
  sampler = sampling.places(rate=0.5)
  labels = jnp.zeros((1, 8, 8), jnp.int32)
  with pytest.raises(ValueError, match="give grid=score_map.grid"):
    sampler.draw(cases.KEY, labels)
  with pytest.raises(ValueError, match="give grid=score_map.grid"):
    sampler.expected_sum(labels)
