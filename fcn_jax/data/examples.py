"""Data sets: examples, and what their labels mean."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fcn_jax import reprs

# Examples whose sizes a data set shows; reading all may take minutes.
_NUM_SHOWN = 8


class Example(NamedTuple):
  """A picture and its labels.

  Attributes:
    image: [H, W, 3] uint8, RGB; other channels after `combining`.
    label: [H, W] int32, classes 0..C-1 or `types.IGNORE_LABEL`; [H, W, L] of
      several kinds after `combining`.
    name: of the example in its data set, for messages and figures.
    extras: the further features that `load` was asked for, by name: [H, W] or
      [H, W, 3] uint8, or [H, W] uint16.
  """

  image: np.ndarray
  label: np.ndarray
  name: str
  extras: Mapping[str, np.ndarray] = {}

  def __repr__(self) -> str:
    return reprs.call("Example", self._asdict())


class Classes(NamedTuple):
  """The classes of a network, to score it on other data.

  Attributes:
    names: of the classes 0..C-1.
    palette: [C] RGB of each class in figures.
    masks: how the masks of a folder encode them, as in `Dataset.masks`.
  """

  names: tuple[str, ...]
  palette: Sequence[Sequence[int]]
  masks: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
  """One split of a data set.

  Attributes:
    source: the examples, by number; reading from several threads is safe.
    class_names: of the classes 0..C-1.
    palette: [C, 3] uint8, RGB of each class in figures.
    fingerprint: of all splits; equal if the names and contents of the files are
      equal.
    masks: what the values and colours of masks mean, of data sets that have no
      fixed meaning; see `class_table.ClassTable.as_json`.
    remarks: on what the masks mean and on void, for people.
  """

  source: Sequence[Example]
  class_names: tuple[str, ...]
  palette: np.ndarray
  fingerprint: str
  masks: Mapping[str, Any] | None = None
  remarks: tuple[str, ...] = ()

  @property
  def num_classes(self) -> int:
    """Number of classes, with background and without void."""
    return len(self.class_names)

  def __repr__(self) -> str:
    names = ", ".join(self.class_names)
    return f"Dataset({self._facts()}: {names})"

  def _repr_html_(self) -> str:
    rows = [
      (str(number), tuple(color), name)
      for number, (color, name) in enumerate(
        zip(np.asarray(self.palette).tolist(), self.class_names, strict=True)
      )
    ]
    return reprs.html_table(rows, caption=f"Dataset: {self._facts()}")

  def _facts(self) -> str:
    """Length, number of classes, and sizes of some of the pictures."""
    length = len(self.source)
    count = min(length, _NUM_SHOWN)
    indices = np.linspace(0, length - 1, count).round().astype(int)
    sizes = [self.source[int(i)].label.shape[:2] for i in indices]
    classes = f"{self.num_classes} classes"
    if not sizes:
      return f"no examples, {classes}"
    heights, widths = zip(*sizes, strict=True)
    height, width = (
      f"{min(sides)}"
      if min(sides) == max(sides)
      else f"{min(sides)}..{max(sides)}"
      for sides in (heights, widths)
    )
    of_some = "" if count == length else f" ({count} of them)"
    pixels = f"{height} x {width} pixels (height x width){of_some}"
    return f"{length} examples of {pixels}, {classes}"


class Mapped(Sequence[Example]):
  """A source that makes an example from an item of a sequence on reading it."""

  def __init__(
    self, items: Sequence[Any], make_example: Callable[[Any], Example]
  ):
    self._items = items
    self._make_example = make_example

  def __len__(self) -> int:
    return len(self._items)

  def __getitem__(self, index: int) -> Example:
    # At other indices, TFDS and ArrayRecord would read something else.
    if not 0 <= index < len(self):
      raise IndexError(f"no example {index}; there are {len(self)}")
    return self._make_example(self._items[index])


def check_split(name: str, split: str, known: Sequence[str]) -> None:
  """Raises a `ValueError` unless a data set has a split.

  Args:
    name: of the data set.
    split: one of its splits, or several different ones, joined by "+".
    known: its splits.
  """
  parts = split.split("+")
  if len(set(parts)) < len(parts) or not set(parts) <= set(known):
    names = ", ".join(map(repr, known))
    raise ValueError(f"no split {split!r} in {name}; it has {names}")
