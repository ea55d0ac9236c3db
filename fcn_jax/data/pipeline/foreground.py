"""Crops that are made to hold a class, so that rare ones are seen.

As nnU-Net does (Isensee et al. 2021): the last crops of each batch are forced.
A class is drawn uniformly among those of the data set, an example uniformly
among those that hold it, a pixel uniformly among those of the class, and a crop
uniformly among those that hold this pixel.

Crops from which a class is pasted into others are drawn in the same way.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fcn_jax.data.files import checking
from fcn_jax.data.files import threads
from fcn_jax.data.pipeline import augmentation as augmentation_lib
from fcn_jax.data.pipeline import batching


@dataclasses.dataclass(frozen=True)
class Forced:
  """Which examples the forced crops, or the pasted ones, are from.

  Attributes:
    share: of the crops of a batch that are forced, or pasted into.
    classes: that are drawn; each is in an example.
    holds_class: [length, C] bool, whether an example holds a class.
  """

  share: float
  classes: tuple[int, ...]
  holds_class: np.ndarray

  @classmethod
  def of(
    cls,
    augmentation: augmentation_lib.Augmentation,
    holds_class: np.ndarray,
  ) -> Self | None:
    """The forced crops; None if there are none.

    Raises:
      ValueError: a class is none of the data set's, or no example holds any.
    """
    names = ("foreground_share", "foreground_classes")
    return cls._of(augmentation, holds_class, *names)

  @classmethod
  def pasted(
    cls,
    augmentation: augmentation_lib.Augmentation,
    holds_class: np.ndarray,
  ) -> Self | None:
    """The crops from which a class is pasted, as `of`."""
    names = ("copy_paste", "copy_paste_classes")
    return cls._of(augmentation, holds_class, *names)

  @classmethod
  def _of(cls, augmentation, holds_class, share, classes):
    """Checks the classes, and leaves out those that no example holds.

    `share` and `classes` are names of options.
    """
    if not getattr(augmentation, share):
      return None
    num_classes = holds_class.shape[1]
    chosen = getattr(augmentation, classes)
    if chosen is None:
      chosen = range(num_classes)
    unknown = [c for c in chosen if not 0 <= c < num_classes]
    if unknown:
      raise ValueError(
        f"{classes} has {unknown[0]}, but classes are 0 to {num_classes - 1}"
      )
    present = tuple(c for c in chosen if holds_class[:, c].any())
    if not present:
      raise ValueError(
        f"{classes} are {list(chosen)}, but no example holds any of them:"
        f" choose others, or leave out {share}"
      )
    return cls(getattr(augmentation, share), present, holds_class)

  def number(self, batch_size: int) -> int:
    """How many crops of a batch are forced, at least one."""
    return max(1, round(self.share * batch_size))

  def draw(self, generator: np.random.Generator) -> tuple[int, int]:
    """An example, and the class that its crop is to hold."""
    of_class = int(generator.choice(self.classes))
    examples = np.flatnonzero(self.holds_class[:, of_class])
    return int(generator.choice(examples)), of_class


def holds_class(
  source: Sequence[Any],
  *,
  num_classes: int | Mapping[str, int],
  num_threads: int,
) -> np.ndarray:
  """Reads all labels, with a progress bar.

  Args:
    source: the examples.
    num_classes: as for `train_batches`; the first kind of labels counts.
    num_threads: that read.

  Returns:
    [length, C] bool: whether an example holds a class.

  Raises:
    ValueError: a label is neither a class nor void.
  """
  number = num_classes
  if isinstance(num_classes, Mapping):
    number = next(iter(num_classes.values()))
  rows = threads.in_parallel(
    functools.partial(_holds, source, num_classes, number),
    range(len(source)),
    title="finding classes",
    num_threads=num_threads,
  )
  return np.stack(list(rows))


def _holds(source, num_classes, number, index):
  example = source[index]
  batching.check_example(example, num_classes=num_classes)
  label = example.label if example.label.ndim == 2 else example.label[..., 0]
  return checking.count_values(label.astype(np.uint8))[:number] > 0
