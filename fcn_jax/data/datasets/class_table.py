"""What the values and colours of masks mean: from a file, or from the masks.

See `folder` for the form of the file and the rules.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding

Color = tuple[int, int, int]

# Class ids are below void.
_MAX_CLASSES = types.IGNORE_LABEL
_MAX_VALUE = 65535
_BINARY = {0, 255}
# Share of the masks with no other values that makes the rest faulty, among as
# many masks at least. To err is to list faults; to take 255 for void in masks
# that mean the foreground by it would go unnoticed.
_BINARY_MAJORITY = 0.75
_MIN_BINARY_MASKS = 4
# Least number of masks among which a value that only one of them has may be
# taken for faulty.
_MIN_MASKS = 10
_BINARY_PALETTE = ((0, 0, 0), (230, 25, 75))


@dataclasses.dataclass(frozen=True)
class ClassTable:
  """The classes of a data set, and how masks say them.

  Attributes:
    names: of the classes 0..C-1.
    palette: [C] RGB of each class in figures.
    values: class, or `types.IGNORE_LABEL`, of each grey value or palette index.
    colors: the same of each RGB colour, for coloured masks.
    origin: where the table is from, for messages.
  """

  names: tuple[str, ...]
  palette: tuple[Color, ...]
  values: Mapping[int, int]
  colors: Mapping[Color, int]
  origin: str

  def decode(self, content: bytes) -> np.ndarray:
    """Decodes a mask to classes.

    Args:
      content: the bytes of its file.

    Returns:
      [H, W] uint8, classes or `types.IGNORE_LABEL`.

    Raises:
      ValueError: the file is broken, or a value or colour is not in the table.
    """
    values = decoding.decode_values(content)
    if values.ndim == 2 and self.colors:
      values = self._palette_colors(content, values)
    if values.ndim == 3 and not self.colors:
      values = _grey_of(values)
    if values.ndim == 2:
      return self._look_up(values, self.values, str)
    codes = {_code(color): label for color, label in self.colors.items()}
    packed = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    return self._look_up(packed, codes, lambda code: str(list(_color(code))))

  def _palette_colors(self, content: bytes, values: np.ndarray) -> np.ndarray:
    """The colours of a palette mask, if the table knows all that are used."""
    palette = decoding.mask_palette(content)
    if palette is None or values.max() >= len(palette):
      return values
    used = {tuple(map(int, palette[value])) for value in np.unique(values)}
    return palette[values] if used <= self.colors.keys() else values

  def _look_up(self, values, table, describe) -> np.ndarray:
    found, places = np.unique(values, return_inverse=True)
    unknown = [describe(value) for value in found if int(value) not in table]
    if unknown:
      known = ", ".join(describe(value) for value in sorted(table)[:12])
      more = ", ..." if len(table) > 12 else ""
      raise ValueError(
        f"has the values {', '.join(unknown[:8])}, which are no class and not"
        f" void; known are {known}{more} ({self.origin}). Correct the mask, or"
        " list them in classes.json"
      )
    labels = np.array([table[int(value)] for value in found], np.uint8)
    return labels[places].reshape(values.shape)


def _code(color: Color) -> int:
  return color[0] << 16 | color[1] << 8 | color[2]


def _color(code: int) -> Color:
  return (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)


def _grey_of(colors: np.ndarray) -> np.ndarray:
  """[H, W] values of an RGB mask that is grey, as some programs save it."""
  if (colors != colors[..., :1]).any():
    raise ValueError(
      "has colours, and no table says their classes; list them in classes.json"
    )
  return colors[..., 0]


def read(path: pathlib.Path) -> ClassTable:
  """Reads a table of classes from a JSON file; see `folder` for its form.

  Raises:
    ValueError: something is wrong with the file, which is named.
  """
  try:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
  except (ValueError, OSError, RecursionError) as error:
    raise ValueError(f"{path} cannot be read as JSON ({error})") from error
  try:
    return _table_of(content, origin=path.name)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _table_of(content: Any, *, origin: str) -> ClassTable:
  if not isinstance(content, dict) or not isinstance(
    content.get("classes"), list
  ):
    raise ValueError('it must hold {"classes": [...]}, a list of classes')
  unknown = content.keys() - {"classes", "ignore"}
  if unknown:
    raise ValueError(f'unknown entries {sorted(unknown)}; there is "ignore"')
  entries = content["classes"]
  if not 1 <= len(entries) <= _MAX_CLASSES:
    raise ValueError(f"{len(entries)} classes; there must be 1 to 255")
  names, palette, values, colors = [], [], {}, {}
  defaults = palettes.voc_palette(num_classes=len(entries))
  for label, entry in enumerate(entries):
    if isinstance(entry, str):
      entry = {"name": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
      raise ValueError(f'class {label} is {entry!r}; it must have a "name"')
    unknown = entry.keys() - {"name", "value", "color"}
    if unknown:
      raise ValueError(
        f"class {entry['name']!r} has unknown entries {sorted(unknown)}; there"
        ' are "value" and "color"'
      )
    names.append(entry["name"])
    _put(values, _check_value(entry.get("value", label)), label, "value")
    if "color" in entry:
      _put(colors, _check_color(entry["color"]), label, "color")
    palette.append(tuple(entry.get("color", defaults[label])))
  if len(set(names)) < len(names):
    raise ValueError(f"names are not all different: {names}")
  ignored = content.get("ignore", [])
  if not isinstance(ignored, list):
    raise ValueError(f'"ignore" is {ignored!r}; it must be a list')
  for item in ignored:
    if isinstance(item, list):
      _put(colors, _check_color(item), types.IGNORE_LABEL, "ignored color")
    else:
      _put(values, _check_value(item), types.IGNORE_LABEL, "ignored value")
  values.setdefault(types.IGNORE_LABEL, types.IGNORE_LABEL)
  return ClassTable(tuple(names), tuple(palette), values, colors, origin)


def _put(table: dict, key: Any, label: int, kind: str) -> None:
  if key in table:
    raise ValueError(f"the {kind} {key} is given twice")
  table[key] = label


def _check_value(value: Any) -> int:
  if type(value) is not int or not 0 <= value <= _MAX_VALUE:
    raise ValueError(f"the value {value!r} must be a number in 0..{_MAX_VALUE}")
  return value


def _check_color(color: Any) -> Color:
  valid = isinstance(color, list) and len(color) == 3
  if not valid or not all(type(c) is int and 0 <= c <= 255 for c in color):
    raise ValueError(
      f"the color {color!r} must be [red, green, blue] in 0..255"
    )
  return tuple(color)


class MaskValues(NamedTuple):
  """What occurs in one mask.

  Attributes:
    values: grey values or palette indices; of coloured masks, codes of colours.
    colors: RGB of each value, of masks with a palette.
    colored: whether it is an RGB mask that is not grey.
  """

  values: frozenset[int]
  colors: Mapping[int, Color]
  colored: bool


def values_of(content: bytes) -> MaskValues:
  """Reads what occurs in a mask.

  Raises:
    ValueError: as `files.decode_values`.
  """
  array = decoding.decode_values(content)
  if array.ndim == 3:
    if (array != array[..., :1]).any():
      colors = np.unique(array.reshape(-1, 3), axis=0).tolist()
      return MaskValues(frozenset(_code(color) for color in colors), {}, True)
    array = array[..., 0]
  values = frozenset(np.unique(array).tolist())
  palette = decoding.mask_palette(content)
  colors = {}
  if palette is not None:
    colors = {v: tuple(palette[v].tolist()) for v in values if v < len(palette)}
  return MaskValues(values, colors, False)


def infer(masks: Sequence[MaskValues]) -> ClassTable:
  """Finds the classes of masks that come without a table.

  Args:
    masks: what occurs in each of them.

  Raises:
    ValueError: the values cannot be class ids, or are colours.
  """
  grey = [mask for mask in masks if not mask.colored]
  if not grey:
    codes = sorted(set().union(*(mask.values for mask in masks)))
    listed = ", ".join(str(list(_color(code))) for code in codes[:12])
    more = ", ..." if len(codes) > 12 else ""
    raise ValueError(
      f"the masks have {len(codes)} colours ({listed}{more}), and nothing says"
      " which classes these are; add a file classes.json with"
      ' {"classes": [{"name": "...", "color": [red, green, blue]}, ...],'
      ' "ignore": [...]}'
    )
  origin = f"found in {len(grey)} masks"
  counts = collections.Counter(v for mask in grey for v in mask.values)
  num_binary = sum(mask.values <= _BINARY for mask in grey)
  majority = len(
    grey
  ) >= _MIN_BINARY_MASKS and num_binary >= _BINARY_MAJORITY * len(grey)
  if counts.keys() >= _BINARY and (majority or num_binary == len(grey)):
    names = ("background", "foreground")
    return ClassTable(names, _BINARY_PALETTE, {0: 0, 255: 1}, {}, origin)
  values = _without_outliers(counts, len(grey))
  if not 2 <= len(values) <= _MAX_CLASSES:
    raise ValueError(
      f"the masks have {len(values)} different values besides 255 (void), such"
      f" as {values[:8]}; there must be 2 to 255 classes. Are these masks of"
      " classes? If so, list the classes in classes.json"
    )
  defaults = palettes.voc_palette(num_classes=len(values))
  palette = _common_palette(grey)
  in_order = values == list(range(len(values)))
  return ClassTable(
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


def _without_outliers(counts: Mapping[int, int], num_masks: int) -> list[int]:
  """The values that are classes: not those far above all others in one mask."""
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


def _common_palette(masks: Sequence[MaskValues]) -> dict[int, Color]:
  """The colour that each palette index has most often."""
  votes = collections.defaultdict(collections.Counter)
  for mask in masks:
    for value, color in mask.colors.items():
      votes[value][color] += 1
  return {value: count.most_common(1)[0][0] for value, count in votes.items()}
