"""Examples on their way into a batch: what they must be, and stacking them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcn_jax import types
from fcn_jax.data import padding
from fcn_jax.data import transforms

# What fills up a batch: one pixel, since no picture has none.
NOTHING = (
  np.full((1, 1, 3), transforms.FILL, np.uint8),
  np.full((1, 1), types.IGNORE_LABEL, np.int32),
)


def stack(
  pairs: Sequence[transforms.Pair], *, size: padding.Size, with_sizes: bool
) -> types.Batch:
  """Pads pictures and their labels to one size and makes a batch of them.

  Args:
    pairs: N images [h, w, 3] uint8 and labels [h, w] integers.
    size: height and width of the batch.
    with_sizes: whether the batch says how large its pictures are.

  Returns:
    Images [N, H, W, 3] uint8, labels [N, H, W] int32, and sizes [N, 2] int32
    or None.

  Raises:
    ValueError: a picture is larger than `size`.
  """
  batch = types.Batch(
    images=np.empty((len(pairs), *size, 3), np.uint8),
    # Sources may have bytes; a crop has fewer of them to make larger.
    labels=np.empty((len(pairs), *size), np.int32),
    sizes=np.array([label.shape for _, label in pairs], np.int32),
  )
  for number, pair in enumerate(pairs):
    transforms.write_padded(*pair, batch.images[number], batch.labels[number])
  return batch if with_sizes else batch._replace(sizes=None)


def check_labels(example: Any, *, num_classes: int) -> None:
  """Raises a `ValueError` if a label is neither a class nor void.

  Args:
    example: with the attributes `label`, [H, W] integers, and `name`.
    num_classes: number of classes.
  """
  label = example.label
  # As unsigned integers, numbers below 0 are large ones.
  unsigned = label.view(f"u{label.itemsize}")
  wrong = (unsigned >= num_classes) & (label != types.IGNORE_LABEL)
  if wrong.any():
    raise ValueError(
      f"{example.name} has the label {label[wrong][0]}, which is neither a"
      f" class (0..{num_classes - 1}) nor void ({types.IGNORE_LABEL}); correct"
      " its mask or the number of classes"
    )


def check_size(example: Any, size: np.ndarray) -> None:
  """Raises a `ValueError` if a picture has not the size it is said to have.

  Args:
    example: with the attributes `label`, [H, W] integers, and `name`.
    size: [2] integers, what `image_sizes` says.
  """
  height, width = example.label.shape
  if (height, width) != tuple(size):
    raise ValueError(
      f"{example.name} has {height}x{width} pixels (height x width), but"
      f" image_sizes says {size[0]}x{size[1]}: these are the sizes of another"
      " data set"
    )
