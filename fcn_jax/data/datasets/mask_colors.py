"""Whether the numbers of palettes count in masks, or their colours.

Some programs number the colours of each file anew. Then one number stands for
several classes, and the colours say which.
"""

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fcn_jax import types
from fcn_jax.data.datasets import mask_counts
from fcn_jax.data.datasets import mask_levels

# Colours that differ by at most this much in each channel may be one.
_NEAR = 8
# With at least this many masks, most colours should be in several of them.
_MIN_MASKS = 4


class ByColor(NamedTuple):
  """Classes by colour.

  Attributes:
    colors: codes of the colours of classes, in their order.
    void: the colours of index 255, which are void.
    note: a remark for the user.
  """

  colors: tuple[int, ...]
  void: frozenset[int]
  note: str


def by_color(counts: mask_counts.MaskCounts) -> ByColor | None:
  """The classes by colour; None if each number has one colour in all masks.

  Raises:
    UndecidedError: the numbers contradict each other, and the colours may not
      be those of classes.
  """
  conflict = _conflict(counts.palette)
  if conflict is None or len(counts.palettes) < 2:
    return None
  (index, color), (other_index, other_color) = conflict
  first, second = (counts.palette[entry].first for entry in conflict)
  problem = (
    "the masks have palettes of their own:"
    f" {index} is {_text(color)} in {first}, but"
    f" {other_index} is {_text(other_color)} in {second}"
  )
  if counts.same_color is not None:
    raise mask_levels.UndecidedError(
      f"{problem}, and {counts.same_color} has two numbers of one colour"
    )
  colors = {*counts.colors, *(color for _, color in counts.palette)}
  near = _near(colors)
  if near:
    raise mask_levels.UndecidedError(
      f"{problem}, and {' and '.join(map(_text, near))} are nearly equal"
    )
  masks = collections.Counter()
  for (_, color), count in counts.palette.items():
    masks[color] += count.masks
  single = sum(number == 1 for number in masks.values())
  if counts.num_masks["palette"] >= _MIN_MASKS and 2 * single > len(masks):
    raise mask_levels.UndecidedError(
      f"{problem}, and most colours are in one mask only, as if they marked"
      " objects instead of classes"
    )
  void = {c for index, c in counts.palette if index == types.IGNORE_LABEL}
  elsewhere = {c for index, c in counts.palette if index != types.IGNORE_LABEL}
  if void & elsewhere:
    raise mask_levels.UndecidedError(
      f"{problem}, and {_text(min(void & elsewhere))} is void (255) in some"
    )
  return ByColor(
    tuple(sorted(colors - void)),
    frozenset(void),
    f"{problem}; so the colours are the classes and not the numbers",
  )


def _conflict(
  palette: Mapping[tuple[int, int], mask_counts.Count],
) -> tuple[tuple[int, int], tuple[int, int]] | None:
  """Two entries of palettes that contradict each other, if there are any."""
  by_index, by_color = {}, {}
  for entry in palette:
    other = by_index.setdefault(entry[0], entry)
    if other != entry:
      return other, entry
  for entry, count in palette.items():
    other = by_color.setdefault(entry[1], entry)
    # A mask may have two numbers of a colour, which differ in meaning.
    if palette[other].first != count.first:
      return other, entry
  return None


def _near(colors: Iterable[int]) -> tuple[int, int] | None:
  """Two colours that hardly differ, if there are any."""
  ordered = sorted(colors)
  unpacked = [mask_counts.unpack(color) for color in ordered]
  for place, one in enumerate(unpacked):
    for other in range(place + 1, len(unpacked)):
      # Sorted by red, so all others differ more.
      if unpacked[other][0] - one[0] > _NEAR:
        break
      if all(
        abs(a - b) <= _NEAR for a, b in zip(one, unpacked[other], strict=True)
      ):
        return ordered[place], ordered[other]
  return None


def _text(color: int) -> str:
  return str(list(mask_counts.unpack(color)))


def greys_that_are_levels(counts: mask_counts.MaskCounts) -> bool:
  """Whether palettes of greys mean these greys, as masks without palette do.

  Raises:
    UndecidedError: both their numbers and their greys are values of masks
      without palette, or neither are.
  """
  grey = counts.values.get(255, {}).keys() - {0}
  entries = {entry for entry in counts.palette if entry != (0, 0)}
  unpacked = {color: mask_counts.unpack(color) for _, color in entries}
  if not grey or any(len({*rgb}) > 1 for rgb in unpacked.values()):
    return False
  numbers = {index for index, _ in entries} - {0}
  levels = {rgb[0] for rgb in unpacked.values()} - {0}
  if not numbers or not levels or numbers == levels:
    return False
  if (numbers <= grey) == (levels <= grey):
    index, color = next(entry for entry in entries if entry[0])
    value = min(grey)
    raise mask_levels.UndecidedError(
      f"{counts.palette[index, color].first} has a palette in which {index} is"
      f" {_text(color)}, but {counts.values[255][value].first} has the grey"
      f" value {value} without a palette"
    )
  return levels <= grey
