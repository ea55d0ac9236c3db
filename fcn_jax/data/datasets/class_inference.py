"""Finds the classes of masks that come without a table; see `folder`."""

from collections.abc import Iterable, Sequence
from typing import Any

from fcn_jax import types
from fcn_jax.data.datasets import class_table
from fcn_jax.data.datasets import mask_colors
from fcn_jax.data.datasets import mask_counts
from fcn_jax.data.datasets import mask_levels
from fcn_jax.data.datasets import palettes

_BINARY_PALETTE = ((0, 0, 0), (230, 25, 75))
# If more masks than this share have colours, or nothing but alpha, these are
# not single faults.
_FEW = 0.25


class UnknownClassesError(ValueError):
  """The classes cannot be found; a table has to say what they are.

  Attributes:
    problem: what is wrong.
    table: what a file classes.json can begin with.
  """

  def __init__(self, problem: str, table: dict[str, Any]):
    super().__init__(
      f"{problem}; list the classes in a file classes.json (fcn-jax check-data"
      " writes one to begin with)"
    )
    self.problem = problem
    self.table = table


def infer(
  counts: mask_counts.MaskCounts,
) -> tuple[class_table.ClassTable, Sequence[str]]:
  """Finds the classes of masks that come without a table.

  Args:
    counts: what occurs in them.

  Returns:
    The table, and remarks for the user.

  Raises:
    UnknownClassesError: the masks are colours, or several meanings are
      plausible.
    ValueError: the values cannot be class ids.
  """
  total = counts.num_masks.total()
  if counts.num_masks["alpha"] > _FEW * total:
    raise ValueError(
      f"{counts.num_masks['alpha']} of {total} masks have one colour"
      f" everywhere, such as {counts.alpha}; the mask seems to be in the alpha"
      " channel, so save that as grey values"
    )
  try:
    found = mask_colors.by_color(counts)
    if found is None and _needs_colors(counts):
      raise mask_levels.UndecidedError(_colors_problem(counts))
    if found is not None:
      return _colors_table(found, total), [found.note]
    return _values_table(counts)
  except mask_levels.UndecidedError as error:
    raise UnknownClassesError(str(error), _template(counts)) from error


def _needs_colors(counts: mask_counts.MaskCounts) -> bool:
  """Whether coloured masks are more than single faults."""
  if not counts.colors:
    return False
  if counts.palette and _palette_codes(counts) >= counts.colors.keys():
    return False
  others = {v for group in counts.values.values() for v in group}
  others |= counts.palette_values.keys()
  many = counts.num_masks["colors"] > _FEW * counts.num_masks.total()
  return many or len(others - {types.IGNORE_LABEL}) < 2


def _palette_codes(counts: mask_counts.MaskCounts) -> set[int]:
  return {color for _, color in counts.palette}


def _colors_table(
  found: mask_colors.ByColor, num_masks: int
) -> class_table.ClassTable:
  """A table of classes that are colours."""
  if not 2 <= len(found.colors) <= class_table.MAX_CLASSES:
    raise mask_levels.UndecidedError(
      f"{found.note}, of which there are {len(found.colors)}"
    )
  labels = {
    mask_counts.unpack(color): label for label, color in enumerate(found.colors)
  }
  colors = labels | {
    mask_counts.unpack(color): types.IGNORE_LABEL for color in found.void
  }
  # Masks without objects may come without a palette.
  greys = {c[0]: label for c, label in colors.items() if len({*c}) == 1}
  return class_table.ClassTable(
    names=tuple(map(_color_name, labels)),
    palette=tuple(labels),
    values=greys,
    colors=colors,
    origin=f"found in {num_masks} masks",
    by_value=False,
  )


def _values_table(
  counts: mask_counts.MaskCounts,
) -> tuple[class_table.ClassTable, Sequence[str]]:
  """A table of classes that are values."""
  notes = []
  scaled = _scaled(counts)
  values, subsets = _merged(counts, scaled)
  by_grey = mask_colors.greys_that_are_levels(counts)
  if not by_grey:
    for value, count in counts.palette_values.items():
      values.setdefault(value, mask_counts.Count(count.first)).merge(count)
  num_masks = counts.num_masks["values"] + counts.num_masks["palette"]
  levels = mask_levels.read(values, subsets, num_masks)
  notes += levels.notes
  for white in sorted(scaled):
    first = counts.values[white][white].first
    notes.append(
      f"masks of fewer bits, such as {first}: {white} is read as 255"
    )
  binary = levels.classes == (0, types.IGNORE_LABEL)
  in_order = levels.classes == tuple(range(len(levels.classes)))
  labels = {value: label for label, value in enumerate(levels.classes)}
  if not binary:
    labels.setdefault(types.IGNORE_LABEL, types.IGNORE_LABEL)
  colors = {}
  if by_grey:
    colors = {(v, v, v): label for v, label in labels.items() if v < 256}
  elif counts.colors:
    # The masks of colours have those of the palettes; others are faulty.
    colors = {
      mask_counts.unpack(color): labels[index]
      for index, color in counts.palette
      if index in labels and _palette_codes(counts) >= counts.colors.keys()
    }
  if binary:
    names, palette = ("background", "foreground"), _BINARY_PALETTE
  else:
    kind = "class" if in_order else "value"
    names = tuple(f"{kind} {value}" for value in levels.classes)
    palette = _figure_colors(counts, levels.classes)
  table = class_table.ClassTable(
    names=names,
    palette=palette,
    values=labels,
    colors=colors,
    origin=f"found in {num_masks} masks",
    scaled=scaled,
    soft=levels.soft,
    by_value=not by_grey,
  )
  return table, notes


def _scaled(counts: mask_counts.MaskCounts) -> frozenset[int]:
  """The whites of masks with fewer or more than 8 bits that are read as 255.

  Raises:
    UndecidedError: in masks of 8 bits, both the white and 255 occur.
  """
  of_bytes = counts.values.get(255, {})
  whites = {
    white
    for white, values in counts.values.items()
    if white != 255 and values.keys() - {0} == {white}
  }
  if not of_bytes:
    return frozenset(whites if len(whites) > 1 else ())
  scaled = set()
  for white in whites:
    if 255 not in of_bytes:
      continue
    if white in of_bytes and white not in mask_levels.odd(of_bytes):
      raise mask_levels.UndecidedError(
        f"{counts.values[white][white].first} has fewer or more than 8 bits, so"
        f" its {white} may be white, as 255 in {of_bytes[255].first}, or the"
        f" value {white}, as in {of_bytes[white].first}"
      )
    scaled.add(white)
  return frozenset(scaled)


def _merged(
  counts: mask_counts.MaskCounts, scaled: frozenset[int]
) -> tuple[mask_counts.Counts, dict[int, int]]:
  """The counts of values of all grey masks, and of sets of values."""
  values: mask_counts.Counts = {}
  for white, group in counts.values.items():
    for value, count in group.items():
      key = value * 255 // white if white in scaled else value
      values.setdefault(key, mask_counts.Count(count.first)).merge(count)
  subsets: dict[int, int] = {}
  for (white, bits), number in counts.subsets.items():
    if white in scaled:
      bits = (bits & 1) | (bits > 1) << 255
    subsets[bits] = subsets.get(bits, 0) + number
  return values, subsets


def _figure_colors(
  counts: mask_counts.MaskCounts, values: Sequence[int]
) -> tuple[class_table.Color, ...]:
  """The colours of palettes, and defaults for values without one."""
  defaults = palettes.distinct_palette(num_classes=len(values))
  known = {i: mask_counts.unpack(color) for i, color in counts.palette}
  return tuple(
    known.get(value, default)
    for value, default in zip(values, defaults, strict=True)
  )


def _colors_problem(counts: mask_counts.MaskCounts) -> str:
  entries = _color_entries(counts)
  listed = ", ".join(
    f"{entry['color']} {entry['share']:.1%}" for entry in entries[:12]
  )
  more = ", ..." if len(entries) > 12 else ""
  thin = len(_color_counts(counts)) - len(entries)
  return (
    f"{counts.num_masks['colors']} of {counts.num_masks.total()} masks are"
    f" coloured, with {len(entries)} colours ({listed}{more} of the pixels)"
    + (f" and {thin} along edges or in single pixels" if thin else "")
    + ", and nothing says which classes these are"
  )


def _color_counts(counts: mask_counts.MaskCounts) -> mask_counts.Counts:
  """Of all colours, those of grey values and of palettes included."""
  found: mask_counts.Counts = {}

  def add(items: Iterable[tuple[int, mask_counts.Count]]) -> None:
    for color, count in items:
      found.setdefault(color, mask_counts.Count(count.first)).merge(count)

  add(counts.colors.items())
  add(
    (value * 0x010101, count)
    for value, count in counts.values.get(255, {}).items()
  )
  add((color, count) for (_, color), count in counts.palette.items())
  return found


def _color_entries(counts: mask_counts.MaskCounts) -> list[dict[str, Any]]:
  """The colours that have solid regions, the commonest first, for a table."""
  found = _color_counts(counts)
  total = sum(count.pixels for count in found.values())
  solid = [
    color
    for color, count in found.items()
    if count.solid >= 0.02 * count.pixels or color in _palette_codes(counts)
  ]
  commonest = sorted(solid or found, key=lambda c: -found[c].pixels)
  return [
    {
      "name": _color_name(mask_counts.unpack(color)),
      "color": list(mask_counts.unpack(color)),
      "share": round(found[color].pixels / total, 6),
    }
    for color in commonest[: class_table.MAX_CLASSES]
  ]


def _color_name(color: class_table.Color) -> str:
  return "color #{:02x}{:02x}{:02x}".format(*color)


def _template(counts: mask_counts.MaskCounts) -> dict[str, Any]:
  """A table of all colours, or of all values if there are no colours."""
  if counts.colors or counts.palette:
    return {"classes": _color_entries(counts), "ignore": []}
  values, _ = _merged(counts, frozenset())
  total = sum(count.pixels for count in values.values())
  kept = sorted(values.keys() - mask_levels.odd(values))
  return {
    "classes": [
      {
        "name": f"value {value}",
        "value": value,
        "share": round(values[value].pixels / total, 6),
      }
      for value in kept[: class_table.MAX_CLASSES]
    ],
    "ignore": [],
  }
