"""Colours of classes for data sets that have none of their own."""

import numpy as np


def voc_palette(*, num_classes: int) -> tuple[tuple[int, int, int], ...]:
  """The colours of PASCAL VOC, for any number of classes up to 256.

  The bits of a class's number, from the lowest, are dealt to the channels R, G
  and B in turn, and fill each of them from its highest bit.
  """
  colors = np.zeros((num_classes, 3), np.uint8)
  numbers = np.arange(num_classes)
  for bit in range(8):
    colors[:, bit % 3] |= ((numbers >> bit & 1) << (7 - bit // 3)).astype(
      np.uint8
    )
  return tuple(tuple(int(value) for value in color) for color in colors)
