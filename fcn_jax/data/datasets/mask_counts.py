"""Counts what occurs in masks, to find out what their values mean.

The masks are read one after another; of each only its counts are kept, so the
memory does not depend on how many masks there are, except for a number of a few
bytes for each different set of values.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from fcn_jax.data.files import decoding
from fcn_jax.data.files import rasters
from fcn_jax.data.files import threads

# A picture in place of a mask may have millions of colours.
_MAX_COLORS = 4096
# From here on it is not counted.
_MOST_COLORS = 1 << 20
# Values from here on share a bit in the sets of values.
_MAX_BIT = 256

Kind = Literal["values", "palette", "colors", "alpha"]


class MaskFacts(NamedTuple):
  """What occurs in one mask.

  Attributes:
    kind: grey values, indices of a palette, colours, or nothing but alpha.
    white: the largest value that the file could hold.
    values: [K] the grey values, indices, or codes of colours that occur.
    pixels: [K] how many pixels have them.
    solid: [K] those among them whose eight neighbours have the same value.
    between: [K] those with both a smaller and a larger neighbour.
    palette: [K] codes of colours, of masks with a palette; else empty.
    whole_palette: with its unused entries.
  """

  kind: Kind
  white: int
  values: np.ndarray
  pixels: np.ndarray
  solid: np.ndarray
  between: np.ndarray
  palette: tuple[int, ...] = ()
  whole_palette: bytes = b""


@dataclasses.dataclass(slots=True)
class Count:
  """Of one value or colour in all masks.

  Attributes:
    pixels: how many have it.
    solid: as in `MaskFacts`.
    between: as in `MaskFacts`.
    masks: in how many masks it occurs.
    first: the first of these.
  """

  first: pathlib.Path
  pixels: int = 0
  solid: int = 0
  between: int = 0
  masks: int = 0

  def add(self, pixels: int, solid: int = 0, between: int = 0) -> None:
    """Adds the pixels of one more mask."""
    self.pixels += pixels
    self.solid += solid
    self.between += between
    self.masks += 1

  def merge(self, other: "Count") -> None:
    """Adds the pixels of the masks of another count."""
    self.pixels += other.pixels
    self.solid += other.solid
    self.between += other.between
    self.masks += other.masks


# By grey value, index, or code of a colour.
Counts = dict[int, Count]


@dataclasses.dataclass
class MaskCounts:
  """What occurs in all masks.

  Attributes:
    num_masks: how many could be read, by kind.
    values: of grey masks, by `MaskFacts.white`; then by value.
    subsets: how many masks have a set of values, by white and the set, whose
      numbers are the bits of one number; see `has`.
    palette: by index and colour, of masks with a palette.
    palette_values: of the same by index.
    palettes: the first two different ones.
    same_color: the first mask that uses two indices of one colour.
    colors: of coloured masks, by the code of the colour.
    alpha: the first mask that has nothing but alpha.
    unreadable: the first mask that could not be read, and why.
    hashes: SHA-256 of the contents of all masks that could be opened.
  """

  num_masks: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  values: dict[int, Counts] = dataclasses.field(default_factory=dict)
  subsets: collections.Counter[tuple[int, int]] = dataclasses.field(
    default_factory=collections.Counter
  )
  palette: dict[tuple[int, int], Count] = dataclasses.field(
    default_factory=dict
  )
  palette_values: Counts = dataclasses.field(default_factory=dict)
  palettes: set[bytes] = dataclasses.field(default_factory=set)
  same_color: pathlib.Path | None = None
  colors: Counts = dataclasses.field(default_factory=dict)
  alpha: pathlib.Path | None = None
  unreadable: tuple[pathlib.Path, str] | None = None
  hashes: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)

  def add(self, path: pathlib.Path, facts: MaskFacts) -> None:
    """Adds a mask."""
    self.num_masks[facts.kind] += 1
    if facts.kind == "alpha":
      self.alpha = self.alpha or path
      return
    numbers = [
      array.tolist()
      for array in (facts.values, facts.pixels, facts.solid, facts.between)
    ]
    if facts.kind == "colors":
      counts = self.colors
    elif facts.kind == "palette":
      counts = self.palette_values
      self._add_palette(path, facts)
    else:
      counts = self.values.setdefault(facts.white, {})
    is_full = facts.kind == "colors" and len(counts) >= _MAX_COLORS
    for value, *of_value in zip(*numbers, strict=True):
      if is_full and value not in counts:
        continue
      counts.setdefault(value, Count(path)).add(*of_value)
    if facts.kind in ("values", "palette"):
      bits = sum(1 << value for value in {min(v, _MAX_BIT) for v in numbers[0]})
      self.subsets[facts.white, bits] += 1

  def _add_palette(self, path: pathlib.Path, facts: MaskFacts) -> None:
    for index, color, pixels in zip(
      facts.values.tolist(), facts.palette, facts.pixels.tolist(), strict=True
    ):
      self.palette.setdefault((index, color), Count(path)).add(pixels)
    if len(self.palettes) < 2:
      self.palettes.add(facts.whole_palette)
    if len(set(facts.palette)) < len(facts.palette):
      self.same_color = self.same_color or path


def has(bits: int, values: Iterable[int]) -> bool:
  """Whether a set of `MaskCounts.subsets` has one of some values."""
  return any(bits >> min(value, _MAX_BIT) & 1 for value in values)


def count(paths: Sequence[pathlib.Path]) -> MaskCounts:
  """Counts what occurs in masks, with a progress bar."""
  counts = MaskCounts()
  found = threads.in_parallel(_read, paths, title="finding classes")
  for path, (facts, digest) in zip(paths, found, strict=True):
    if digest is not None:
      counts.hashes[path] = digest
    if isinstance(facts, MaskFacts):
      counts.add(path, facts)
    else:
      # The survey of all files lists the others.
      counts.unreadable = counts.unreadable or (path, facts)
  return counts


def _read(path: pathlib.Path) -> tuple[MaskFacts | str, str | None]:
  """What occurs in a mask, or why it cannot be read; and its hash."""
  try:
    content = path.read_bytes()
  except OSError as error:
    return f"cannot be read ({error.strerror})", None
  digest = hashlib.sha256(content).hexdigest()
  try:
    return facts_of(content), digest
  except ValueError as error:
    return str(error), digest


def facts_of(content: bytes) -> MaskFacts:
  """Reads what occurs in a mask.

  Raises:
    ValueError: as `decoding.decode_values`.
  """
  mask = decoding.mask_raster(content)
  array = mask.samples
  if is_alpha_only(mask):
    none = np.zeros(0, np.int64)
    return MaskFacts("alpha", 255, none, none, none, none)
  if array.ndim == 3:
    if (array != array[..., :1]).any():
      return _facts("colors", 255, array)
    return _facts("values", 255, array[..., 0])
  palette = mask.palette
  if palette is None or array.max() >= len(palette):
    return _facts("values", mask.white, array)
  facts = _facts("palette", 255, array)
  used = palette[facts.values]
  if (used == facts.values[:, None]).all():
    return facts._replace(kind="values")  # A palette of greys in their order.
  return facts._replace(
    palette=tuple(pack(used).tolist()), whole_palette=palette.tobytes()
  )


def _facts(kind: Kind, white: int, array: np.ndarray) -> MaskFacts:
  """Counts grey values or indices, [H, W], or colours, [H, W, 3]."""
  values, (pixels,) = _histograms(array, _all_pixels)
  if len(values) == 1 or (kind == "values" and {*values.tolist()} <= {0, 255}):
    # Most masks; nobody asks for their neighbours.
    return MaskFacts(kind, white, values, pixels, pixels, np.zeros_like(pixels))
  values, (pixels, *others) = _histograms(array, _with_neighbours)
  kept = slice(None)
  if kind == "colors" and len(values) > _MAX_COLORS:
    kept = np.argsort(-pixels, kind="stable")[:_MAX_COLORS]
  return MaskFacts(
    kind, white, *(column[kept] for column in (values, pixels, *others))
  )


# From rows of values, and from the first row that counts to the one behind the
# last, to the values and for each of them some numbers.
_CountRows = Callable[[np.ndarray, slice], tuple[np.ndarray, list[np.ndarray]]]


def _histograms(
  array: np.ndarray, count_rows: _CountRows
) -> tuple[np.ndarray, list[np.ndarray]]:
  """The values that occur, in their order, and the sums of their numbers.

  Handles some rows at a time, since colours need much memory for each pixel.

  Raises:
    ValueError: there are so many values that this is a photo, and no mask.
  """
  height, width = array.shape[:2]
  values, sums = None, []
  for rows in rasters.strips(height, width):
    # With the rows above and below.
    start = max(0, rows.start - 1)
    strip = array[start : rows.stop + 1]
    strip = pack(strip) if strip.ndim == 3 else strip
    inner = slice(rows.start - start, rows.stop - start)
    found, numbers = count_rows(strip, inner)
    if values is None:
      values, sums = found, numbers
      continue
    merged = np.union1d(values, found)
    if len(merged) > _MOST_COLORS:
      raise ValueError(
        f"has more than {_MOST_COLORS} colours; it is a photo, and no mask"
      )
    totals = []
    for total, one in zip(sums, numbers, strict=True):
      column = np.zeros(len(merged), np.int64)
      column[np.searchsorted(merged, values)] = total
      column[np.searchsorted(merged, found)] += one
      totals.append(column)
    values, sums = merged, totals
  return values, sums


def _all_pixels(
  strip: np.ndarray, rows: slice
) -> tuple[np.ndarray, list[np.ndarray]]:
  values, pixels = _histogram(strip[rows])
  return values, [pixels]


def _with_neighbours(
  strip: np.ndarray, rows: slice
) -> tuple[np.ndarray, list[np.ndarray]]:
  """`MaskFacts.values`, and its pixels, solid and between."""
  lowest, highest = (
    _of_neighbours(strip, choose)[rows] for choose in (np.minimum, np.maximum)
  )
  inner = strip[rows]
  values, pixels = _histogram(inner)
  numbers = [pixels]
  for where in (lowest == highest, (lowest < inner) & (inner < highest)):
    found, count = _histogram(inner, where)
    of_values = np.zeros_like(pixels)
    of_values[np.searchsorted(values, found)] = count
    numbers.append(of_values)
  return values, numbers


def _histogram(
  array: np.ndarray, where: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The values that occur, in their order, and how often they do."""
  if array.dtype != np.uint8:
    values, pixels = np.unique(
      array if where is None else array[where], return_counts=True
    )
    return values.astype(np.int64), pixels
  # NumPy's bincount would need eight times the memory of the pixels.
  mask = None if where is None else Image.fromarray(where.view(np.uint8))
  pixels = np.array(Image.fromarray(array).histogram(mask), np.int64)
  values = np.flatnonzero(pixels)
  return values, pixels[values]


def _of_neighbours(
  array: np.ndarray, choose: Callable[..., np.ndarray]
) -> np.ndarray:
  """The least or largest value in the 3x3 pixels around each."""
  for axis in (0, 1):
    result = array.copy()
    before, after = (
      (slice(None),) * axis + (part,)
      for part in (slice(None, -1), slice(1, None))
    )
    choose(result[after], array[before], out=result[after])
    choose(result[before], array[after], out=result[before])
    array = result
  return array


def is_alpha_only(mask: rasters.Raster) -> bool:
  """Whether a mask has one colour everywhere, and alpha that varies."""
  flat = mask.samples.reshape(-1, *mask.samples.shape[2:])
  return mask.varied_alpha and not (flat != flat[0]).any()


def pack(colors: np.ndarray) -> np.ndarray:
  """Codes of colours, [...] int32, from [..., 3] uint8 RGB."""
  return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def unpack(code: int) -> tuple[int, int, int]:
  """The colour of a code."""
  return (code >> 16, code >> 8 & 255, code & 255)
