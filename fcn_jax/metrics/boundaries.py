"""How well the outlines of classes are found."""

import chex
import jax
import numpy as np
import scipy.spatial

from fcn_jax import label_boundaries
from fcn_jax import types


def boundary_band(labels: jax.Array, *, width: int) -> jax.Array:
  """The valid pixels near boundaries, to score those alone.

  The trimap of Kohli, Ladicky and Torr (IJCV, 2009): scores in a band around
  the boundaries show how well outlines are found, which the scores of all
  pixels hardly do. A pixel is in the band if another label is at most `width`
  pixels away, in rows and in columns. Void counts as a label here, since data
  sets draw outlines with it, but is not in the band: in PASCAL VOC the band
  lies along void, as in DeepLab (Chen et al., 2015), in data sets without such
  outlines along the changes of class, and elsewhere also around void objects.
  The border of the image is not a boundary.

  Score a band by making all else void:

      labels = jnp.where(boundary_band(labels, width=4), labels, IGNORE_LABEL)

  Args:
    labels: [N, H, W] int32.
    width: of the band on each side of a boundary, in pixels.

  Returns:
    [N, H, W] bool.

  Raises:
    ValueError: if `width` is not positive.
  """
  return label_boundaries.near(labels, distance=width)


def boundary_f1(
  labels: np.ndarray,
  predictions: np.ndarray,
  *,
  num_classes: int,
  tolerance: float = 0.0075,
) -> np.ndarray:
  """The boundary F1 score (BF) of each class in one image.

  Csurka, Larlus and Perronnin (BMVC, 2013). Precision is the share of the
  predicted boundary of a class that lies less than the tolerance away from its
  true boundary, recall is the share of the true boundary that lies so close to
  the predicted one, and F1 is their harmonic mean. The score of an image is the
  mean over its classes, and that of a data set the mean over images.

  The boundary of a class is made of its pixels beside a pixel, above, below,
  left or right, that is not of the class. The border of the image is not a
  boundary. Where the labels are void, the prediction belongs to no class
  either.

  Args:
    labels: [H, W] int, classes 0..C-1 or `IGNORE_LABEL`.
    predictions: [H, W] int, classes 0..C-1.
    num_classes: C.
    tolerance: as a share of the diagonal of the image; the paper's by default.

  Returns:
    [C] float64 in 0..1; 0 for a class of which only one of the two has a
    boundary, NaN for a class that neither has, or that fills the whole image in
    both.
  """
  chex.assert_rank([labels, predictions], 2)
  chex.assert_equal_shape((labels, predictions))
  distance = tolerance * np.hypot(*labels.shape)
  predictions = np.where(
    labels == types.IGNORE_LABEL, types.IGNORE_LABEL, predictions
  )
  f1 = np.full(num_classes, np.nan)
  present = np.union1d(labels, predictions)
  for one in present[(present >= 0) & (present < num_classes)]:
    true, found = (_boundary(where == one) for where in (labels, predictions))
    if len(true) and len(found):
      recall = _share_near(true, found, distance)
      precision = _share_near(found, true, distance)
      both = precision + recall
      f1[one] = 2 * precision * recall / both if both else 0.0
    elif (
      len(true)
      or len(found)
      or not np.array_equal(labels == one, predictions == one)
    ):
      f1[one] = 0.0
  return f1


def _boundary(is_class: np.ndarray) -> np.ndarray:
  """The pixels [K, 2] of a class beside a pixel that is not of it."""
  is_boundary = np.zeros_like(is_class)
  for here, beside in (
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:, 1:], np.s_[:, :-1]),
  ):
    changes = is_class[here] != is_class[beside]
    is_boundary[here] |= changes
    is_boundary[beside] |= changes
  return np.argwhere(is_boundary & is_class)


def _share_near(
  points: np.ndarray, others: np.ndarray, distance: float
) -> float:
  """The share of points [K, 2] less than a distance away from others."""
  # Boundaries have few pixels: a tree is six times as fast as the distance
  # transform of the image.
  tree = scipy.spatial.cKDTree(others, balanced_tree=False, compact_nodes=False)
  nearest, _ = tree.query(points, distance_upper_bound=distance)
  return float(np.mean(np.isfinite(nearest)))
