"""Scores of segments, such as cells divided by membranes.

The foreground-restricted Rand and information scores after border thinning, by
which the ISBI 2012 challenge ranks (Arganda-Carreras et al., Frontiers in
Neuroanatomy, 2015). A gap of one pixel in a membrane merges two cells, which
hardly changes the scores of pixels but these scores very much.

    true = segments(labels == cell)
    found = segments_of_thin_borders(probabilities[..., cell] > threshold)
    segment_scores(true, found)

`segments` and `segments_of_thin_borders` need scikit-image: the extra
`segments` of this package.
"""

from typing import NamedTuple

import chex
import numpy as np


class SegmentScores(NamedTuple):
  """Scores in 0..1; NaN without a true segment.

  Attributes:
    rand: V_Rand, the harmonic mean of two shares: of the pairs of pixels in one
      true segment, those that are also in one predicted segment (fewer if
      segments are split); and the reverse (fewer if segments are merged).
    information: V_Info, the same of the mutual information of the two
      segmentations as a share of the entropy of each.
  """

  rand: float
  information: float


def segments(is_inside: np.ndarray) -> np.ndarray:
  """Numbers the connected components of a mask.

  Args:
    is_inside: [H, W] bool; pixels are connected to those above, below, left and
      right.

  Returns:
    [H, W] int, 1 and up; 0 outside.
  """
  # Optional: the extra "segments".
  import skimage.measure

  return skimage.measure.label(is_inside, connectivity=1)


def segments_of_thin_borders(is_inside: np.ndarray) -> np.ndarray:
  """Numbers the connected components and grows them until they meet.

  Lines of one pixel remain between them (a watershed), so scores do not depend
  on how wide a network draws borders.

  Args:
    is_inside: [H, W] bool.

  Returns:
    [H, W] int, 1 and up; 0 on the lines.
  """
  import skimage.segmentation

  return skimage.segmentation.watershed(
    ~is_inside, segments(is_inside), connectivity=1, watershed_line=True
  )


def segment_scores(true: np.ndarray, predicted: np.ndarray) -> SegmentScores:
  """The foreground-restricted Rand and information scores of an image.

  Equations 3 and 6 of Arganda-Carreras et al. (2015) with alpha = 1/2. Pixels
  outside the true segments are left out. Pixels outside the predicted segments
  are segments of one pixel each, as in the challenge's own program. The score
  of a data set is the mean over its images.

  Args:
    true: [H, W] int, numbers of segments; 0 outside.
    predicted: [H, W] int, likewise.
  """
  chex.assert_equal_shape((true, predicted))
  is_inside = true > 0
  num_pixels = np.count_nonzero(is_inside)
  if not num_pixels:
    return SegmentScores(float("nan"), float("nan"))
  true, predicted = true[is_inside], predicted[is_inside]
  alone = np.arange(num_pixels) + predicted.max() + 1
  predicted = np.where(predicted > 0, predicted, alone)
  both = true.astype(np.int64) * (predicted.max() + 1) + predicted
  sizes = [
    np.unique(numbers, return_counts=True)[1].astype(np.float64)
    for numbers in (true, predicted, both)
  ]
  of_true, of_found, of_both = (np.sum(size**2) for size in sizes)
  rand = 2 * of_both / (of_true + of_found)
  of_true, of_found, of_both = (
    np.log(num_pixels) - np.sum(size * np.log(size)) / num_pixels
    for size in sizes
  )
  entropies = of_true + of_found
  mutual = entropies - of_both
  # One segment in both has no information, and is right.
  information = 2 * mutual / entropies if entropies > 0 else 1.0
  return SegmentScores(float(rand), float(np.clip(information, 0, 1)))
