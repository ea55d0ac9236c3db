"""A table of what the values and colours of masks mean, read from a file.

See `folder` for the form of the file.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding

Color = tuple[int, int, int]

# Class ids are below void.
MAX_CLASSES = types.IGNORE_LABEL
_MAX_VALUE = 65535


@dataclasses.dataclass(frozen=True)
class ClassTable:
  """The classes of a data set, and how masks encode them.

  Attributes:
    names: of the classes 0..C-1.
    palette: [C] RGB of each class in figures.
    values: the class, or `types.IGNORE_LABEL`, of each grey value or palette
      index.
    colors: the same for each RGB colour, for coloured masks.
    origin: where the table is from, for messages.
  """

  names: tuple[str, ...]
  palette: tuple[Color, ...]
  values: Mapping[int, int]
  colors: Mapping[Color, int]
  origin: str

  def decode(self, content: bytes) -> np.ndarray:
    """Decodes a mask to [H, W] uint8, classes or `types.IGNORE_LABEL`.

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

  def _look_up(
    self,
    values: np.ndarray,
    table: Mapping[int, int],
    describe: Callable[[int], str],
  ) -> np.ndarray:
    found, places = np.unique(values, return_inverse=True)
    unknown = [describe(value) for value in found if int(value) not in table]
    if unknown:
      known = ", ".join(describe(value) for value in sorted(table)[:12])
      more = ", ..." if len(table) > 12 else ""
      raise ValueError(
        f"has the values {', '.join(unknown[:8])}, which are neither a class"
        f" nor void; known are {known}{more} ({self.origin}). Correct the mask,"
        " or list them in classes.json"
      )
    labels = np.array([table[int(value)] for value in found], np.uint8)
    return labels[places].reshape(values.shape)


def _code(color: Color) -> int:
  return color[0] << 16 | color[1] << 8 | color[2]


def _color(code: int) -> Color:
  return (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)


def _grey_of(colors: np.ndarray) -> np.ndarray:
  """[H, W] values of a grey mask that was saved as RGB, as some programs do."""
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
  if not 1 <= len(entries) <= MAX_CLASSES:
    raise ValueError(f"{len(entries)} classes; there must be 1 to 255")
  names, palette, values, colors = [], [], {}, {}
  defaults = palettes.distinct_palette(num_classes=len(entries))
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
