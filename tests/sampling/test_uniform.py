import collections
import itertools

import chex
import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import sampling
from fcn_jax.sampling import uniform
from tests.helpers import sampler_cases as cases


class UniformTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_whole_image_keeps_all_but_void(self):
    labels = cases.labels_with_void()
    weights = self.variant(sampling.whole_image().draw)(cases.KEY, labels)
    np.testing.assert_array_equal(weights, np.asarray(labels) != cases.VOID)


@pytest.mark.parametrize("count", [1, 35, 1000])
def test_each_image_keeps_the_count_or_all_it_has(count):
  sampler = sampling.fixed_count(count=count)
  weights = cases.draws(sampler, keys=cases.KEYS[:200])
  kept = np.minimum(count, cases.VALID.sum(axis=(1, 2)))
  assert np.all(cases.counts_by_image(weights) == kept)
  assert set(np.unique(weights)) <= {0.0, 1.0}


@pytest.mark.parametrize("count", [1, 69, 1000])
def test_the_batch_keeps_the_count_or_all_it_has(count):
  sampler = sampling.fixed_count_in_batch(count=count)
  kept = cases.counts_by_image(cases.draws(sampler, keys=cases.KEYS[:200]))
  assert np.all(kept.sum(axis=1) == min(count, cases.VALID.sum()))


@pytest.mark.parametrize(
  "sampler", [sampling.fixed_count, sampling.fixed_count_in_batch]
)
def test_all_sets_of_a_count_are_equally_likely(sampler):
  labels = np.array([[[0, cases.VOID, 1], [2, 0, cases.VOID]]], np.int32)
  labels = np.concatenate([labels, np.full((1, 2, 3), cases.VOID, np.int32)])
  weights = cases.draws(sampler(count=2), labels)
  sets = collections.Counter(map(bytes, weights))
  assert len(sets) == 6
  # Five standard deviations of a binomial count.
  bound = 5 * np.sqrt(cases.NUM_DRAWS * (1 / 6) * (5 / 6))
  assert all(abs(n - cases.NUM_DRAWS / 6) < bound for n in sets.values())


def test_each_square_with_truth_keeps_one_pixel_that_stands_for_all():
  weights = cases.draws_of("one_per_square")
  for n, i, j in itertools.product((0, 1), (0, 3), (0, 3, 6)):
    square = weights[:, n, i : i + 3, j : j + 3].reshape(cases.NUM_DRAWS, -1)
    num_valid = cases.VALID[n, i : i + 3, j : j + 3].sum()
    assert np.all((square != 0).sum(axis=1) == min(num_valid, 1))
    np.testing.assert_allclose(square.sum(axis=1), num_valid / 9, rtol=1e-6)


def test_of_a_patch_around_a_pixel_that_pixel_is_kept():
  labels = jnp.arange(9 * 8, dtype=jnp.int32).reshape(1, 9, 8)
  corners = jnp.array([[[1, 2], [4, 0], [0, 4]]])
  size = (5, 4)
  patches = fcn.patches.extract_patches(labels, corners, size=size)
  patches = patches.reshape(-1, *size)
  kept = np.asarray(sampling.center_pixel().draw(cases.KEY, patches))
  assert np.all(kept.sum(axis=(1, 2)) == 1)
  centres = np.asarray(patches)[kept > 0]
  rows, columns = np.moveaxis(np.asarray(corners[0]), -1, 0)
  np.testing.assert_array_equal(
    centres, labels[0, rows + size[0] // 2, columns + size[1] // 2]
  )


def test_a_void_centre_does_not_count():
  labels = jnp.zeros((2, 3, 3), jnp.int32).at[0, 1, 1].set(cases.VOID)
  sampler = sampling.center_pixel()
  assert np.asarray(sampler.draw(cases.KEY, labels)).sum() == 1
  assert sampler.expected_sum(labels) == 1


@pytest.mark.parametrize("side", [1, 7, 45])
def test_squares_of_any_size_cover_the_image(side):
  labels = np.asarray(cases.labels_with_void())
  sampler = sampling.one_per_square(side=side)
  weights = np.asarray(jax.jit(sampler.draw)(cases.KEY, labels))
  num_valid = np.sum(labels != cases.VOID, axis=(1, 2))
  np.testing.assert_allclose(
    weights.sum(axis=(1, 2)), num_valid / side**2, rtol=1e-5
  )
  if side == 1:
    np.testing.assert_array_equal(weights, labels != cases.VOID)
  if side == 45:
    assert cases.counts_by_image(weights).tolist() == [1, 1]


mark_largest = jax.jit(
  uniform.largest, static_argnames=("count", "in_all_rows")
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  values=hypothesis.extra.numpy.arrays(
    np.uint32,
    (2, 9),
    # Few values, so that many are equal, or any.
    elements=st.integers(0, 3) | st.integers(0, 2**32 - 1),
  ),
  count=st.sampled_from([0, 1, 4, 10]),
  in_all_rows=st.booleans(),
)
def test_largest_marks_what_a_stable_sort_puts_first(
  values, count, in_all_rows
):
  marks = np.asarray(
    mark_largest(jnp.asarray(values), count=count, in_all_rows=in_all_rows)
  )
  if in_all_rows:
    values, marks = values.reshape(1, -1), marks.reshape(1, -1)
  for row, marked in zip(values, marks, strict=True):
    order = np.argsort(-row.astype(np.int64), kind="stable")[:count]
    expected = [place for place in sorted(order) if row[place] > 0]
    assert np.flatnonzero(marked).tolist() == expected
