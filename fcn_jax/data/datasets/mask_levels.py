"""Which grey values of masks are classes, and what 255 means.

A class has solid regions. Values that occur only between two others, a pixel
or two wide, are soft edges: of masks that were resized with interpolation,
drawn with antialiasing or saved as JPEG on their way. Values of single pixels
are slips. Neither is a class, so the masks that have them are faulty.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fcn_jax import types
from fcn_jax.data.datasets import mask_counts

# Of the pixels of a value, the least share with eight equal neighbours for
# which nobody asks whether it is a class. Soft edges and the noise of JPEG have
# none; an object of 20 pixels has more.
_SOLID = 0.02
# The least share between a smaller and a larger neighbour of soft edges. The
# noise of JPEG beside them has a half.
_BETWEEN = 0.4
# A soft edge lies between classes at least so far apart. Ids are closer, and
# thin objects may lie between any two.
_MIN_GAP = 8
# Larger numbers without most of those below are seldom ids. Cityscapes has 33,
# of which a folder may have a few.
_MAX_ID = 40
# Slips have at most so many pixels in a mask.
_SLIP = 4
# If so many times more masks have 255 alone than have other classes, these
# others are faults. If this guess is wrong, the user sees faults; but if we
# took 255 for void where it is the foreground, nobody would notice.
_MAJORITY = 3
_MIN_BINARY_MASKS = 4
# With at least this many masks, a value in only one of them may be faulty.
_MIN_MASKS = 10
# More of 255 than this share is worth a question or a remark.
MUCH_VOID = 0.05

_VOID = types.IGNORE_LABEL


class UndecidedError(ValueError):
  """Nothing says what the values mean; the text says why."""


class Levels(NamedTuple):
  """What grey values mean.

  Attributes:
    classes: values of the classes, in their order; 255 is void unless it is
      one of them.
    soft: values of soft edges.
    slips: values of single pixels.
    notes: remarks for the user.
  """

  classes: tuple[int, ...]
  soft: frozenset[int]
  slips: frozenset[int]
  notes: tuple[str, ...]


def read(
  counts: mask_counts.Counts, subsets: Mapping[int, int], num_masks: int
) -> Levels:
  """Finds out which values are classes.

  Args:
    counts: of each value.
    subsets: how many masks have a set of values, by its bits; see
      `mask_counts.has`.
    num_masks: how many masks there are.

  Raises:
    UndecidedError: several meanings are plausible.
    ValueError: the values cannot be classes.
  """
  soft = _soft(counts)
  slips = _slips(counts, soft)
  values = sorted(counts.keys() - soft - slips - {_VOID})
  classes, notes = _with_255(values, counts, subsets)
  if classes is None:
    classes = _without_outliers(values, counts, num_masks)
  if not 2 <= len(classes) <= types.IGNORE_LABEL:
    raise ValueError(_no_classes(classes, num_masks))
  for wrong, what in ((soft, _SOFT_NOTE), (slips, _SLIPS_NOTE)):
    if wrong:
      count = sum(
        n for bits, n in subsets.items() if mask_counts.has(bits, wrong)
      )
      notes.append(f"{count} masks {what.format(**_example(wrong, counts))}")
  if _number_objects(subsets):
    notes.append(
      "in every mask the values are 0, 1, 2 and so on without a gap, as if they"
      " numbered objects; if so, write the class of each object instead"
    )
  return Levels(tuple(classes), soft, slips, tuple(notes))


def odd(counts: mask_counts.Counts) -> frozenset[int]:
  """Values that are no classes: of soft edges, or of single pixels."""
  soft = _soft(counts)
  return soft | _slips(counts, soft)


_SOFT_NOTE = (
  "hold values between others, such as {values} in {path}: soft edges;"
  " threshold them, or resize with nearest neighbour. If these are classes,"
  " list them in classes.json"
)
_SLIPS_NOTE = (
  "hold single pixels of other values, such as {values} in {path}; correct"
  " them. If these are classes, list them in classes.json"
)


def _example(
  values: Iterable[int], counts: mask_counts.Counts
) -> dict[str, object]:
  """Some values, and the mask in which most of the first one were found."""
  some = sorted(values, key=lambda value: -counts[value].pixels)[:5]
  return {
    "values": ", ".join(map(str, sorted(some))),
    "path": counts[some[0]].first,
  }


def _weak(counts: mask_counts.Counts) -> frozenset[int]:
  """Values without solid regions, which therefore may not be classes."""
  certain = {0, _VOID}
  if _VOID not in counts:
    others = counts.keys() - {0}
    certain |= {max(others, key=lambda v: counts[v].pixels, default=0)}
  return frozenset(
    value
    for value, count in counts.items()
    if value not in certain and count.solid < _SOLID * count.pixels
  )


def _soft(counts: mask_counts.Counts) -> frozenset[int]:
  """Values that occur only along edges between two others."""
  weak = _weak(counts)
  strong = sorted(counts.keys() - weak)

  def is_narrow(value: int) -> bool:
    below = max((v for v in strong if v < value), default=None)
    above = min((v for v in strong if v > value), default=None)
    return None not in (below, above) and above - below < _MIN_GAP

  weak = {value for value in weak if not is_narrow(value)}
  soft = {
    value
    for value in weak
    if strong[0] < value < strong[-1]
    and counts[value].between >= _BETWEEN * counts[value].pixels
  }
  pixels = sum(counts[value].pixels for value in weak)
  between = sum(counts[value].between for value in weak)
  # The peaks of a noise belong to it, though nothing is above them.
  noisy = len(soft) > 1 and between >= _BETWEEN * pixels
  return frozenset(weak if noisy else soft)


def _slips(counts: mask_counts.Counts, soft: frozenset[int]) -> frozenset[int]:
  """Values of single pixels among classes that are far away."""
  weak = _weak(counts) - soft
  strong = counts.keys() - weak - soft
  binary = strong == {0, _VOID}

  def is_slip(value: int) -> bool:
    count = counts[value]
    if count.solid or count.pixels > _SLIP * count.masks:
      return False
    if binary:
      return counts[_VOID].pixels > 20 * count.pixels
    return value > 2 * len(strong) + _MIN_GAP

  return frozenset(filter(is_slip, weak))


def _with_255(
  values: list[int],
  counts: mask_counts.Counts,
  subsets: Mapping[int, int],
) -> tuple[list[int] | None, list[str]]:
  """The classes where 255 is one of them, or None; and remarks."""
  others = [value for value in values if value != 0]
  if _VOID not in counts or 0 not in counts:
    return None, []
  if not others:
    return [0, _VOID], []
  with_others, alone, both = 0, 0, 0
  for bits, count in subsets.items():
    has_others = mask_counts.has(bits, others)
    has_255 = mask_counts.has(bits, [_VOID])
    with_others += count * has_others
    both += count * (has_others and has_255)
    alone += count * (has_255 and not has_others)
  if (
    alone >= _MAJORITY * with_others
    and alone + with_others >= _MIN_BINARY_MASKS
  ):
    return [0, _VOID], []
  share = _share(_VOID, counts)
  one = len(others) == 1
  if (
    one and not both and counts[_VOID].pixels >= 0.05 * _pixels(others, counts)
  ):
    raise UndecidedError(
      f"some masks have 255, such as {counts[_VOID].first}, and others"
      f" {others[0]}, such as {counts[others[0]].first}, but none has"
      " both, so 255 may be void or the same class in other numbers"
    )
  levels = [*values, _VOID]
  listed = _listed(levels)
  if _are_even(levels):
    return levels, [
      f"255 is a class ({share:.1%} of the pixels) and not void, as {listed}"
      " are evenly spaced; if it is void, say so in classes.json"
    ]
  if others[-1] <= max(_MAX_ID, 2 * len(values)):
    return None, []  # Ids and void, as in VOC.
  near = [v for v in others if v > _VOID - _MIN_GAP]
  if near and len(values) < near[0]:
    raise UndecidedError(
      f"the masks have {_listed(near)} as well as 255, which may be one class"
      f" or several, as in {counts[near[0]].first}"
    )
  commonest = max(counts[value].pixels for value in others)
  if share > MUCH_VOID or counts[_VOID].pixels > commonest:
    raise UndecidedError(
      f"the masks have the values {listed}, and 255 has {share:.1%} of the"
      " pixels: it may be a class or void"
    )
  return None, []


def _are_even(levels: list[int]) -> bool:
  """Whether levels are spread evenly over 0..255, up to rounding."""
  last = len(levels) - 1
  return 2 <= last <= 17 and all(
    abs(level - 255 * place / last) <= 1 for place, level in enumerate(levels)
  )


def _without_outliers(
  values: list[int], counts: mask_counts.Counts, num_masks: int
) -> list[int]:
  """The values that are classes, without outliers of a single mask."""
  if num_masks < _MIN_MASKS:
    return values
  largest = max((v for v in values if counts[v].masks > 1), default=0)
  kept = []
  for value in values:
    if value <= largest + 1:
      kept.append(value)
      largest = max(largest, value)
  return kept


def _number_objects(subsets: Mapping[int, int]) -> bool:
  """Whether every mask has 0, 1, ... up to a number of its own."""
  no_gap = all(bits & (bits + 1) == 0 for bits in subsets)
  return no_gap and len(subsets) >= 5 and max(subsets).bit_length() > 6


def _no_classes(classes: list[int], num_masks: int) -> str:
  if len(classes) == 1:
    return (
      f"the {num_masks} masks have 1 different value besides 255 (void),"
      f" {classes[0]}, so there is nothing to tell apart"
    )
  if not classes:
    return "the masks are void (255) everywhere"
  return (
    f"the masks have {len(classes)} different values besides 255 (void), such"
    f" as {classes[:8]}; there must be 2 to 255 classes. Are these masks of"
    " classes, and not numbers of objects, depths or photographs?"
  )


def _pixels(values: Iterable[int], counts: mask_counts.Counts) -> int:
  return sum(counts[value].pixels for value in values)


def _share(value: int, counts: mask_counts.Counts) -> float:
  return counts[value].pixels / _pixels(counts, counts)


def _listed(values: list[int]) -> str:
  more = ", ..." if len(values) > 8 else ""
  return ", ".join(map(str, values[:8])) + more
