"""Data sets: examples, and what their labels mean."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


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


@dataclasses.dataclass(frozen=True)
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
