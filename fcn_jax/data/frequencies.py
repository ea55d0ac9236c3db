"""How common classes are in a data set."""

import functools
from typing import NamedTuple

import numpy as np

from fcn_jax import types
from fcn_jax.data import examples
from fcn_jax.data.files import checking
from fcn_jax.data.files import threads
from fcn_jax.data.pipeline import batching


class Frequencies(NamedTuple):
  """How common the classes of a data set are; void does not count.

  Attributes:
    shares: [C] share of each class in all pixels; 0 for a class without one.
    shares_where_present: [C] the same in the pixels of those images that have
      the class, 0 if none has; median frequency balancing calls this the
      frequency.
  """

  shares: np.ndarray
  shares_where_present: np.ndarray


def class_frequencies(dataset: examples.Dataset) -> Frequencies:
  """Counts the pixels of each class, with a progress bar.

  Raises:
    ValueError: if all pixels are void, or a label is neither a class nor void.
  """
  if dataset.num_classes > types.IGNORE_LABEL:
    raise ValueError(
      f"{dataset.num_classes} classes are more than the {types.IGNORE_LABEL}"
      f" that there can be; {types.IGNORE_LABEL} is void"
    )
  counts = np.zeros(dataset.num_classes, np.int64)
  pixels_where_present = np.zeros_like(counts)
  for in_image in threads.in_parallel(
    functools.partial(_count, dataset),
    range(len(dataset.source)),
    title="counting classes",
  ):
    counts += in_image
    pixels_where_present += np.where(in_image > 0, in_image.sum(), 0)
  if not counts.any():
    raise ValueError(
      f"no pixel of these {len(dataset.source)} examples has a class, so there "
      "is nothing to balance: choose another split or data set."
    )
  return Frequencies(
    counts / counts.sum(), counts / np.maximum(1, pixels_where_present)
  )


def _count(dataset: examples.Dataset, index: int) -> np.ndarray:
  """Pixels of each class in one example, [C]."""
  example = dataset.source[index]
  batching.check_example(example, num_classes=dataset.num_classes)
  counts = checking.count_values(example.label.astype(np.uint8))
  return counts[: dataset.num_classes]
