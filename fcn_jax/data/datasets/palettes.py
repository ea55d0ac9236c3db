"""Colours of classes for data sets that have none of their own."""

import numpy as np

# Black, and the colours of Okabe and Ito, "Color Universal Design" (2008),
# which people see apart who do not see red or green. Four more continue them:
# the colours of a grid that are farthest from those before (CIEDE2000), also
# for these people.
_DISTINCT = (
  (0, 0, 0),
  (230, 159, 0),
  (86, 180, 233),
  (0, 158, 115),
  (240, 228, 66),
  (0, 114, 178),
  (213, 94, 0),
  (204, 121, 167),
  (0, 0, 96),
  (128, 32, 0),
  (64, 96, 96),
  (128, 255, 255),
)


def distinct_palette(*, num_classes: int) -> tuple[tuple[int, int, int], ...]:
  """Colours for classes that have none, for any number of them up to 256.

  People with colour blindness can tell the first twelve apart. Those of PASCAL
  VOC follow.
  """
  further = [c for c in voc_palette(num_classes=256) if c not in _DISTINCT]
  return (*_DISTINCT, *further)[:num_classes]


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
