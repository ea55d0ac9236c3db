"""A table of what the values and colours of masks mean, read from a file.

See `folder` for the form of the file.
"""

import dataclasses
import pathlib
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fcn_jax import reprs
from fcn_jax import strict_json
from fcn_jax import types
from fcn_jax.data.datasets import mask_counts
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding
from fcn_jax.data.files import rasters

Color = tuple[int, int, int]

# Class ids are below void.
MAX_CLASSES = types.IGNORE_LABEL
_MAX_VALUE = 65535
# Names stand in tables and below pictures.
_MAX_NAME = 200
# Control characters, lone surrogates, and separators of lines.
_NO_NAMES = ("Cc", "Cs", "Zl", "Zp")


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
    scaled: the largest values that masks of other than 8 bits can have, such as
      1 and 65535, which are read as 255 there.
    soft: values of soft edges, for messages.
    by_value: whether palette indices count where the colours are not in
      `colors`.
  """

  names: tuple[str, ...]
  palette: tuple[Color, ...]
  values: Mapping[int, int]
  colors: Mapping[Color, int]
  origin: str
  scaled: frozenset[int] = frozenset()
  soft: frozenset[int] = frozenset()
  by_value: bool = True

  def decode(self, content: bytes) -> np.ndarray:
    """Decodes a mask to [H, W] uint8, classes or `types.IGNORE_LABEL`.

    Raises:
      ValueError: the file is broken, or a value or colour is not in the table.
    """
    mask = decoding.mask_raster(content)
    values = mask.samples
    if mask_counts.is_alpha_only(mask):
      raise ValueError(
        "has one colour everywhere; the mask seems to be in the alpha channel,"
        " so save that as grey values"
      )
    if values.ndim == 2 and self.colors:
      values = self._palette_colors(mask.palette, values)
    if values.ndim == 2 and mask.white in self.scaled:
      values = np.where(values == mask.white, np.uint16(255), values)
    if values.ndim == 3 and not self.colors:
      values = _grey_of(values)
    if values.ndim == 2:
      return self._look_up(values, self.values, str)
    codes = {_code(color): label for color, label in self.colors.items()}
    return self._look_up(
      values, codes, lambda code: str(list(mask_counts.unpack(int(code))))
    )

  def as_json(self) -> dict[str, Any]:
    """The table for `from_json`, except for its origin."""
    return {
      "names": list(self.names),
      "palette": [list(color) for color in self.palette],
      "values": [list(item) for item in self.values.items()],
      "colors": [[list(c), label] for c, label in self.colors.items()],
      "scaled": sorted(self.scaled),
      "by_value": self.by_value,
    }

  def for_classes(
    self, names: Sequence[str], palette: Sequence[Color]
  ) -> "ClassTable":
    """The same encodings of masks for a network that has its own classes.

    Args:
      names: of the classes of the network, in its order.
      palette: [C] RGB of these classes.

    Raises:
      ValueError: the table has other classes.
    """
    other = [name for name in self.names if name not in names]
    if other:
      raise ValueError(
        f"{self.origin} has the classes {reprs.names(other)}, which the network"
        f" does not know; it was trained on {reprs.names(names)}"
      )
    place = {
      label: names.index(name) for label, name in enumerate(self.names)
    } | {types.IGNORE_LABEL: types.IGNORE_LABEL}
    return dataclasses.replace(
      self,
      names=tuple(names),
      palette=tuple(map(tuple, palette)),
      values={value: place[label] for value, label in self.values.items()},
      colors={color: place[label] for color, label in self.colors.items()},
    )

  def _palette_colors(
    self, palette: np.ndarray | None, values: np.ndarray
  ) -> np.ndarray:
    """The colours of a palette mask, if the table knows all that are used."""
    if palette is None or values.max() >= len(palette):
      return values
    used = {tuple(map(int, palette[value])) for value in np.unique(values)}
    if self.by_value and not used <= self.colors.keys():
      return values
    return palette[values]

  def _look_up(
    self,
    values: np.ndarray,
    table: Mapping[int, int],
    describe: Callable[[int], str],
  ) -> np.ndarray:
    """The labels of values, [H, W], or of the codes of colours, [H, W, 3]."""
    keys = np.array(sorted(table), np.int64)
    labels = np.array([table[key] for key in keys.tolist()], np.uint8)
    result = np.empty(values.shape[:2], np.uint8)
    # The first values that the table does not have; a photo has millions.
    others, soft = np.zeros(0, np.int64), True
    for rows in rasters.strips(*result.shape):
      strip = values[rows]
      found, places = np.unique(
        mask_counts.pack(strip) if strip.ndim == 3 else strip,
        return_inverse=True,
      )
      at = np.searchsorted(keys, found).clip(max=len(keys) - 1)
      known = keys[at] == found
      if known.all():
        result[rows] = labels[at][places].reshape(strip.shape[:2])
      else:
        others = np.union1d(others, found[~known][:8])[:8]
        soft = soft and np.isin(found[~known], [*self.soft]).all()
    unknown = [describe(value) for value in others]
    if unknown and soft:
      raise ValueError(
        f"has the values {', '.join(unknown)}, which occur only between"
        " others: soft edges; threshold the mask, or resize it with nearest"
        " neighbour. If they are classes, list them in classes.json"
      )
    if unknown:
      known = ", ".join(describe(value) for value in sorted(table)[:12])
      more = ", ..." if len(table) > 12 else ""
      raise ValueError(
        f"has the values {', '.join(unknown)}, which are neither a class"
        f" nor void; known are {known}{more} ({self.origin}). Correct the mask,"
        " or list them in classes.json"
      )
    return result


def _code(color: Color) -> int:
  return color[0] << 16 | color[1] << 8 | color[2]


def _grey_of(colors: np.ndarray) -> np.ndarray:
  """[H, W] values of a grey mask that was saved as RGB, as some programs do."""
  if (colors != colors[..., :1]).any():
    raise ValueError(
      "has colours, and no table says their classes; list them in classes.json"
    )
  return colors[..., 0]


def from_json(content: Mapping[str, Any], *, origin: str) -> ClassTable:
  """The table of `ClassTable.as_json`."""
  return ClassTable(
    names=tuple(content["names"]),
    palette=tuple(map(tuple, content["palette"])),
    values={value: label for value, label in content["values"]},
    colors={tuple(color): label for color, label in content["colors"]},
    origin=origin,
    scaled=frozenset(content["scaled"]),
    by_value=content["by_value"],
  )


def read(path: pathlib.Path) -> ClassTable:
  """Reads a table of classes from a JSON file; see `folder` for its form.

  Raises:
    ValueError: something is wrong with the file, which is named.
  """
  try:
    content = strict_json.read(path)
  except (ValueError, OSError) as error:
    raise ValueError(f"{path} cannot be read as JSON ({error})") from error
  try:
    return _table_of(content, origin=path.name)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def of_entries(
  entries: Sequence[str | Mapping[str, Any]], path: pathlib.Path
) -> ClassTable:
  """The table of classes that another file than classes.json lists.

  Args:
    entries: as "classes" in that file.
    path: of the file.

  Raises:
    ValueError: something is wrong with the classes; the file is named.
  """
  try:
    return _table_of({"classes": entries}, origin=path.name)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _check_name(name: str, label: int) -> None:
  """Raises a `ValueError` for a name that cannot be shown everywhere."""
  if len(name) > _MAX_NAME:
    raise ValueError(
      f"the name of class {label}, {reprs.shown(name)}, has {len(name)}"
      f" characters; it may have {_MAX_NAME}"
    )
  if any(unicodedata.category(letter) in _NO_NAMES for letter in name):
    raise ValueError(
      f"the name of class {label}, {reprs.shown(name)}, has control characters"
      " or half characters; leave them out"
    )


def _table_of(content: Any, *, origin: str) -> ClassTable:
  if not isinstance(content, dict) or not isinstance(
    content.get("classes"), list
  ):
    raise ValueError('it must hold {"classes": [...]}, a list of classes')
  unknown = content.keys() - {"classes", "ignore"}
  if unknown:
    raise ValueError(f'unknown entries {_names(unknown)}; there is "ignore"')
  entries = [
    {"name": entry} if isinstance(entry, str) else entry
    for entry in content["classes"]
  ]
  if not 1 <= len(entries) <= MAX_CLASSES:
    raise ValueError(f"{len(entries)} classes; there must be 1 to 255")
  names, palette, values, colors = [], [], {}, {}
  defaults = palettes.distinct_palette(num_classes=len(entries))
  for label, entry in enumerate(entries):
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
      raise ValueError(
        f'class {label} is {reprs.shown(repr(entry))}; it must have a "name"'
      )
    _check_name(entry["name"], label)
    unknown = entry.keys() - {"name", "value", "color", "share"}
    if unknown:
      raise ValueError(
        f"class {reprs.shown(repr(entry['name']))} has unknown entries"
        f" {_names(unknown)}; there"
        ' are "value" and "color"'
      )
    names.append(entry["name"])
    _put(values, _check_value(entry.get("value", label)), label, "value")
    if "color" in entry:
      _put(colors, _check_color(entry["color"]), label, "color")
    palette.append(tuple(entry.get("color", defaults[label])))
  if len(set(names)) < len(names):
    raise ValueError(f"names are not all different: {reprs.shown(repr(names))}")
  ignored = content.get("ignore", [])
  if not isinstance(ignored, list):
    raise ValueError(
      f'"ignore" is {reprs.shown(repr(ignored))}; it must be a list'
    )
  for item in ignored:
    if isinstance(item, list):
      _put(colors, _check_color(item), types.IGNORE_LABEL, "ignored color")
    else:
      _put(values, _check_value(item), types.IGNORE_LABEL, "ignored value")
  values.setdefault(types.IGNORE_LABEL, types.IGNORE_LABEL)
  by_value = not colors or all("value" in entry for entry in entries)
  return ClassTable(
    tuple(names), tuple(palette), values, colors, origin, by_value=by_value
  )


def _names(unknown: Collection[str]) -> str:
  return ", ".join(reprs.shown(repr(name)) for name in sorted(unknown)[:8])


def _put(table: dict, key: Any, label: int, kind: str) -> None:
  if key in table:
    raise ValueError(f"the {kind} {key} is given twice")
  table[key] = label


def _check_value(value: Any) -> int:
  if type(value) is not int or not 0 <= value <= _MAX_VALUE:
    raise ValueError(
      f"the value {reprs.shown(repr(value))} must be a number in"
      f" 0..{_MAX_VALUE}"
    )
  return value


def _check_color(color: Any) -> Color:
  valid = isinstance(color, list) and len(color) == 3
  if not valid or not all(type(c) is int and 0 <= c <= 255 for c in color):
    raise ValueError(
      f"the color {reprs.shown(repr(color))} must be [red, green, blue] in"
      " 0..255"
    )
  return tuple(color)
