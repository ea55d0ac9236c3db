import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics
import sklearn.metrics
from hypothesis import strategies

from fcn_jax import metrics


def numbers(shape=(4, 5)):
  return hypothesis.extra.numpy.arrays(
    np.int64, shape, elements=strategies.integers(0, 3)
  )


def with_single_pixels(predicted):
  """Pixels outside the segments get segments of their own."""
  alone = np.arange(predicted.size).reshape(predicted.shape) + 100
  return np.where(predicted > 0, predicted, alone)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(numbers(), numbers())
def test_scores_agree_with_all_pairs_of_pixels_and_with_scikit_learn(
  true, predicted
):
  scores = metrics.segment_scores(true, predicted)
  inside = true > 0
  if not inside.any():
    assert np.isnan(scores).all()
    return
  found = with_single_pixels(predicted)[inside]
  true = true[inside]
  # Equation 3 of the paper is about pairs that are drawn with replacement.
  both = in_true = in_found = 0
  for i in range(len(true)):
    for j in range(len(true)):
      in_true += true[i] == true[j]
      in_found += found[i] == found[j]
      both += true[i] == true[j] and found[i] == found[j]
  assert scores.rand == pytest.approx(2 * both / (in_true + in_found))
  assert scores.information == pytest.approx(
    sklearn.metrics.normalized_mutual_info_score(true, found), abs=1e-9
  )


def test_scores_agree_with_scikit_image():
  rng = np.random.default_rng(0)
  true, predicted = rng.integers(0, 9, (2, 60, 70))
  predicted = np.where(rng.random(true.shape) < 0.7, true, predicted)
  scores = metrics.segment_scores(true, predicted)
  found = with_single_pixels(predicted)
  error, _, _ = skimage.metrics.adapted_rand_error(true, found)
  # Theirs leaves out the pairs of a pixel with itself.
  assert scores.rand == pytest.approx(1 - error, abs=1e-3)
  split, merged = skimage.metrics.variation_of_information(
    true, found, ignore_labels=(0,)
  )
  sizes = np.unique(true[true > 0], return_counts=True)[1]
  shares = sizes / sizes.sum()
  of_true = -np.sum(shares * np.log2(shares))
  # I = H(true) - H(true | found), and H(found) = I + H(found | true).
  mutual = of_true - merged
  expected = 2 * mutual / (of_true + mutual + split)
  assert scores.information == pytest.approx(expected)


def test_a_gap_in_a_membrane_merges_two_cells():
  is_cell = np.ones((40, 41), bool)
  is_cell[:, 20] = False
  true = metrics.segments(is_cell)
  whole = metrics.segments_of_thin_borders(is_cell)
  assert metrics.segment_scores(true, whole) == pytest.approx((1, 1))
  is_cell[7, 20] = True
  merged = metrics.segments_of_thin_borders(is_cell)
  assert merged.max() == 1
  # All pairs are together, but half of them belong together.
  assert metrics.segment_scores(true, merged) == pytest.approx((2 / 3, 0))


def test_the_width_of_predicted_borders_hardly_matters():
  is_cell = np.ones((60, 61), bool)
  is_cell[:, 30] = is_cell[30] = False
  true = metrics.segments(is_cell)
  thin = metrics.segments_of_thin_borders(is_cell)
  wide = scipy.ndimage.binary_erosion(is_cell, iterations=6, border_value=1)
  assert metrics.segment_scores(true, metrics.segments(wide)).rand < 0.9
  scores = metrics.segment_scores(true, metrics.segments_of_thin_borders(wide))
  assert min(scores) > 0.99
  np.testing.assert_array_equal(
    np.unique(metrics.segments_of_thin_borders(wide)), np.unique(thin)
  )


def test_borders_are_thinned_to_lines_of_one_pixel():
  rng = np.random.default_rng(2)
  seeds = scipy.ndimage.binary_dilation(rng.random((50, 60)) < 0.01)
  found = metrics.segments_of_thin_borders(seeds)
  assert set(np.unique(found)) == set(range(seeds.any() * found.max() + 1))
  # Grown, not joined: each seed keeps its number.
  np.testing.assert_array_equal(found[seeds], metrics.segments(seeds)[seeds])
  lines = found == 0
  assert 0 < lines.mean() < 0.3
  # No line is two pixels wide everywhere around a pixel.
  assert not scipy.ndimage.binary_erosion(lines, np.ones((3, 3))).any()


def test_pixels_that_only_touch_at_a_corner_are_not_connected():
  is_inside = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
  np.testing.assert_array_equal(
    metrics.segments(is_inside), [[1, 0, 0], [0, 2, 2], [0, 0, 2]]
  )


def test_no_predicted_segment_is_a_segment_for_each_pixel():
  true = np.ones((3, 4), int)
  none = metrics.segments_of_thin_borders(np.zeros((3, 4), bool))
  assert not none.any()
  # 12 of 144 pairs are together, against all.
  scores = metrics.segment_scores(true, none)
  assert scores == pytest.approx((2 * 12 / (144 + 12), 0))


def test_one_segment_in_both_is_right():
  one = np.ones((3, 4), int)
  assert metrics.segment_scores(one, one) == (1, 1)
