"""Finds the classes of masks that come without a table; see `folder`."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import class_table
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding

_BINARY = {0, 255}
# If at least this share of enough masks has only the values 0 and 255, the
# other masks are faulty. If this guess is wrong, the user sees faults; but if
# we took 255 for void where it is the foreground, nobody would notice.
_BINARY_MAJORITY = 0.75
_MIN_BINARY_MASKS = 4
# With at least this many masks, a value in only one of them may be faulty.
_MIN_MASKS = 10
_BINARY_PALETTE = ((0, 0, 0), (230, 25, 75))


class MaskValues(NamedTuple):
  """What occurs in one mask.

  Attributes:
    values: grey values or palette indices.
    palette: RGB of each value, of masks with a palette.
    colors: RGB of coloured masks, which have no values.
  """

  values: frozenset[int]
  palette: Mapping[int, class_table.Color]
  colors: frozenset[class_table.Color]


def values_of(content: bytes) -> MaskValues:
  """Reads what occurs in a mask.

  Raises:
    ValueError: as `decoding.decode_values`.
  """
  array = decoding.decode_values(content)
  if array.ndim == 3:
    if (array != array[..., :1]).any():
      colors = np.unique(array.reshape(-1, 3), axis=0).tolist()
      return MaskValues(frozenset(), {}, frozenset(map(tuple, colors)))
    array = array[..., 0]
  values = np.unique(array).tolist()
  palette = decoding.mask_palette(content)
  known = () if palette is None else map(tuple, palette.tolist())
  palette = {v: color for v, color in enumerate(known) if v in values}
  return MaskValues(frozenset(values), palette, frozenset())


def infer(masks: Sequence[MaskValues]) -> class_table.ClassTable:
  """Finds the classes of masks that come without a table.

  Args:
    masks: what occurs in each of them.

  Raises:
    ValueError: the values cannot be class ids, or they are colours.
  """
  grey = [mask for mask in masks if not mask.colors]
  if not grey:
    colors = sorted(set().union(*(mask.colors for mask in masks)))
    listed = ", ".join(str(list(color)) for color in colors[:12])
    more = ", ..." if len(colors) > 12 else ""
    raise ValueError(
      f"the masks have {len(colors)} colours ({listed}{more}), and nothing says"
      " which classes these are; add a file classes.json with"
      ' {"classes": [{"name": "...", "color": [red, green, blue]}, ...],'
      ' "ignore": [...]}'
    )
  origin = f"found in {len(grey)} masks"
  counts = collections.Counter(v for mask in grey for v in mask.values)
  if _is_binary(grey):
    names = ("background", "foreground")
    values = {0: 0, 255: 1}
    return class_table.ClassTable(names, _BINARY_PALETTE, values, {}, origin)
  values = _without_outliers(counts, len(grey))
  if not 2 <= len(values) <= class_table.MAX_CLASSES:
    raise ValueError(
      f"the masks have {len(values)} different values besides 255 (void), such"
      f" as {values[:8]}; there must be 2 to 255 classes. Are these masks of"
      " classes? If so, list the classes in classes.json"
    )
  defaults = palettes.distinct_palette(num_classes=len(values))
  palette = _common_palette(grey)
  in_order = values == list(range(len(values)))
  return class_table.ClassTable(
    names=tuple(f"{'class' if in_order else 'value'} {v}" for v in values),
    palette=tuple(
      palette.get(v, default)
      for v, default in zip(values, defaults, strict=True)
    ),
    values={
      **{v: label for label, v in enumerate(values)},
      types.IGNORE_LABEL: types.IGNORE_LABEL,
    },
    colors={},
    origin=origin,
  )


def _is_binary(masks: Sequence[MaskValues]) -> bool:
  """Whether 0 and 255 occur, and nothing else in most of the masks."""
  num_binary = sum(mask.values <= _BINARY for mask in masks)
  several = len(masks) >= _MIN_BINARY_MASKS
  most = several and num_binary >= _BINARY_MAJORITY * len(masks)
  occurring = frozenset().union(*(mask.values for mask in masks))
  return occurring >= _BINARY and (most or num_binary == len(masks))


def _without_outliers(counts: Mapping[int, int], num_masks: int) -> list[int]:
  """The values that are classes, without outliers of a single mask."""
  values = sorted(counts.keys() - {types.IGNORE_LABEL})
  if num_masks < _MIN_MASKS:
    return values
  largest = max((v for v in values if counts[v] > 1), default=0)
  kept = []
  for value in values:
    if value <= largest + 1:
      kept.append(value)
      largest = max(largest, value)
  return kept


def _common_palette(
  masks: Sequence[MaskValues],
) -> dict[int, class_table.Color]:
  """The colour that each palette index has most often."""
  votes = collections.defaultdict(collections.Counter)
  for mask in masks:
    for value, color in mask.palette.items():
      votes[value][color] += 1
  return {value: count.most_common(1)[0][0] for value, count in votes.items()}
