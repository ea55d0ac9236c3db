"""How common classes are in a data set, and weights that make up for it."""

from typing import NamedTuple

import numpy as np
import tqdm

import fcn_jax as fcn


class Frequencies(NamedTuple):
  """How common the classes are in the training split, void left out.

  Attributes:
    shares: [C] share of each class in all pixels.
    shares_where_present: [C] the same, in the pixels of those images that
      contain the class; what median frequency balancing calls frequency.
  """

  shares: np.ndarray
  shares_where_present: np.ndarray


def count_classes(dataset: fcn.data.Dataset) -> Frequencies:
  """Counts the pixels of each class, of the original images.

  Raises:
    ValueError: if a class has no pixels.
  """
  counts = np.zeros(dataset.num_classes, np.int64)
  pixels_where_present = np.zeros_like(counts)
  for index in tqdm.trange(
    len(dataset.source), desc="counting classes", unit="image", disable=None
  ):
    label = dataset.source[index].label
    valid = label[label != fcn.types.IGNORE_LABEL]
    in_image = np.bincount(valid, minlength=dataset.num_classes)
    counts += in_image
    pixels_where_present += np.where(in_image > 0, valid.size, 0)
  if not counts.all():
    absent = dataset.class_names[int(np.argmin(counts))]
    raise ValueError(
      f"class {absent} has no pixel in the training split, which leaves "
      "nothing to balance it with: choose another data set."
    )
  return Frequencies(counts / counts.sum(), counts / pixels_where_present)


def class_weights(frequencies: Frequencies) -> np.ndarray:
  """Median frequency weights [C], scaled: the mean weight of a pixel is 1.

  The loss is divided by the number of pixels, not by the sum of their weights;
  so scaled, it and the learning rate mean the same as without weights.
  """
  weights = fcn.sampling.median_frequency_weights(
    frequencies.shares_where_present
  )
  return weights / np.sum(frequencies.shares * weights)
