import hypothesis
import hypothesis.extra.numpy
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import strategies

from fcn_jax import metrics
from fcn_jax import types

VOID = types.IGNORE_LABEL


def band_by_distances(labels, width):
  """Chessboard distances to other labels, label by label, from SciPy."""
  band = np.zeros(labels.shape, bool)
  for image, found in zip(labels, band, strict=True):
    for label in np.unique(image):
      is_label = image == label
      if label != VOID and not is_label.all():
        distance = scipy.ndimage.distance_transform_cdt(is_label, "chessboard")
        found |= is_label & (distance <= width)
  return band


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_boundary_band_is_what_distance_transforms_say(width):
  rng = np.random.default_rng(width)
  coarse = rng.choice([0, 1, VOID], (3, 3, 4))
  labels = coarse.repeat(7, axis=1).repeat(9, axis=2).astype(np.int32)
  labels[1] = 2  # No boundary.
  labels[2, 5, 5] = 3
  band = metrics.boundary_band(jnp.asarray(labels), width=width)
  assert band.dtype == bool
  np.testing.assert_array_equal(band, band_by_distances(labels, width))
  assert band[0].any() and not band[0].all() and not band[1].any()


def test_the_score_of_a_band_sees_only_what_is_near_boundaries():
  labels = np.zeros((1, 1, 12), np.int32)
  labels[..., 6:] = 1
  predictions = np.zeros_like(labels)  # Right on the left half only.
  predictions[..., 7:] = 1
  for width, accuracy in ((1, 1 / 2), (2, 3 / 4), (6, 11 / 12)):
    band = metrics.boundary_band(jnp.asarray(labels), width=width)
    confusion = metrics.confusion_matrix(
      jnp.where(band, labels, VOID),
      jnp.asarray(predictions),
      num_classes=2,
    )
    assert confusion.sum() == 2 * width
    scores = metrics.scores(confusion)
    assert scores.pixel_accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize("width", [0, -1, 1.5])
def test_a_band_without_a_width_is_refused(width):
  with pytest.raises(ValueError):
    metrics.boundary_band(jnp.zeros((1, 3, 3), jnp.int32), width=width)


def boundary_loop(is_class):
  """Pixels of a class with a neighbour that is not of it."""
  height, width = is_class.shape
  return [
    (row, column)
    for row, column in np.ndindex(height, width)
    if is_class[row, column]
    and any(
      0 <= r < height and 0 <= c < width and not is_class[r, c]
      for r, c in (
        (row - 1, column),
        (row + 1, column),
        (row, column - 1),
        (row, column + 1),
      )
    )
  ]


def boundary_f1_loop(labels, predictions, num_classes, tolerance):
  """Section 3 of Csurka et al., pixel by pixel."""
  theta = tolerance * np.sqrt(labels.shape[0] ** 2 + labels.shape[1] ** 2)
  result = []
  for one in range(num_classes):
    true = labels == one
    found = (predictions == one) & (labels != VOID)
    if not true.any() and not found.any():
      result.append(np.nan)
      continue
    boundaries = boundary_loop(true), boundary_loop(found)
    if not boundaries[0] and not boundaries[1] and (true == found).all():
      result.append(np.nan)
      continue
    if not boundaries[0] or not boundaries[1]:
      result.append(0.0)
      continue
    shares = []
    for points, others in (boundaries, boundaries[::-1]):
      near = [
        min(np.hypot(r - s, c - d) for s, d in others) < theta
        for r, c in points
      ]
      shares.append(np.mean(near))
    total = sum(shares)
    result.append(2 * shares[0] * shares[1] / total if total else 0.0)
  return result


def maps(elements):
  return hypothesis.extra.numpy.arrays(np.int32, (6, 8), elements=elements)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  maps(strategies.sampled_from([0, 0, 1, 2, VOID])),
  maps(strategies.sampled_from([0, 0, 1, 2])),
  strategies.sampled_from([0.01, 0.11, 0.2, 0.25]),
)
def test_boundary_f1_agrees_with_distances_pixel_by_pixel(
  labels, predictions, tolerance
):
  found = metrics.boundary_f1(
    labels, predictions, num_classes=4, tolerance=tolerance
  )
  np.testing.assert_allclose(
    found, boundary_f1_loop(labels, predictions, 4, tolerance)
  )


def test_a_boundary_counts_if_it_is_nearer_than_the_tolerance():
  labels = np.zeros((300, 400), int)  # A diagonal of 500 pixels.
  labels[:, 200:] = 1
  for shift, score in ((0, 1.0), (3, 1.0), (4, 0.0)):  # 0.75 %: 3.75 pixels.
    predictions = np.zeros_like(labels)
    predictions[:, 200 + shift :] = 1
    found = metrics.boundary_f1(labels, predictions, num_classes=2)
    np.testing.assert_array_equal(found, [score, score])


def test_a_class_that_only_one_has_scores_0_and_one_that_fills_both_nan():
  filled = np.zeros((5, 5), int)
  corner = filled.copy()
  corner[0, 0] = 1
  nan = np.nan
  for labels, predictions, expected in (
    (filled, filled, [nan, nan, nan]),
    (filled, corner, [0, 0, nan]),
    (corner, filled, [0, 0, nan]),
    (corner, corner, [1, 1, nan]),
    (filled, filled + 2, [0, nan, 0]),
    (np.full((5, 5), VOID), corner, [nan, nan, nan]),
  ):
    found = metrics.boundary_f1(labels, predictions, num_classes=3)
    np.testing.assert_array_equal(found, expected)
