"""Adds up what is in the examples of a split, one after another."""

import collections
import dataclasses

import numpy as np

from fcn_jax import types


def _zeros(*shape: int):
  return dataclasses.field(default_factory=lambda: np.zeros(shape, np.int64))


@dataclasses.dataclass
class Totals:
  """Of the examples of one split.

  Attributes:
    examples: their number.
    class_pixels: [256] int64, pixels of each label, void included.
    class_examples: [256] int64, examples with a pixel of each label.
    labelled_where_present: [256] int64, pixels that are not void in these.
    histogram: [3, 256] int64, pixels of each value of each channel, R, G, B.
    sizes: how many examples have each height and width in pixels.
  """

  examples: int = 0
  class_pixels: np.ndarray = _zeros(256)
  class_examples: np.ndarray = _zeros(256)
  labelled_where_present: np.ndarray = _zeros(256)
  histogram: np.ndarray = _zeros(3, 256)
  sizes: collections.Counter[tuple[int, int]] = dataclasses.field(
    default_factory=collections.Counter
  )

  def add(self, counts: "Counts") -> None:
    """Adds an example."""
    present = counts.class_pixels > 0
    labelled = counts.class_pixels[: types.IGNORE_LABEL].sum()
    self.examples += 1
    self.class_pixels += counts.class_pixels
    self.class_examples += present
    self.labelled_where_present += present * labelled
    self.histogram += counts.histogram
    self.sizes[counts.size] += 1


@dataclasses.dataclass(frozen=True)
class Counts:
  """Of one example.

  Attributes:
    size: height and width in pixels.
    class_pixels: as in `Totals`.
    histogram: as in `Totals`.
  """

  size: tuple[int, int]
  class_pixels: np.ndarray
  histogram: np.ndarray
