"""Pairs names that are almost equal, where only one pairing is possible.

People name a mask car_mask.png, car.jpg.png or Car.png, a Mac spells accents in
its own way, and some programs write 1 where others write 001.
"""

import collections
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from typing import NamedTuple

# In names of pictures, and in those of masks.
_PICTURE_WORDS = (
  "image", "images", "img", "picture", "photo", "pic", "input", "rgb", "sat",
)  # fmt: skip
_MASK_WORDS = (
  "mask", "masks", "label", "labels", "lbl", "seg", "segm", "segmentation",
  "gt", "groundtruth", "ground_truth", "annotation", "annotations", "anno",
  "target",
)  # fmt: skip
_WORD = r"(^|(?<=[-_. /]))({})(?=$|[-_. ])"
_EDGES = re.compile(r"(?<![^/])[-_. ]+|[-_. ]+(?=$|/)")


_Key = Callable[[str], str]


class Pairing(NamedTuple):
  """Names that belong together.

  Attributes:
    masks: the name of the mask by that of the picture.
    notes: how they were paired, and how many.
  """

  masks: dict[str, str]
  notes: list[str]


def pair(
  pictures: Collection[str],
  masks: Collection[str],
  suffixes: Collection[str],
) -> Pairing:
  """Pairs names by the first rule that leaves one possibility.

  Args:
    pictures: names of pictures that have no mask of the same name; paths
      without suffixes, with "/".
    masks: names of masks without a picture.
    suffixes: of pictures, in lower case.
  """

  def folded(name: str) -> str:
    return _composed(name).casefold()

  def single(name: str) -> str:
    stem, suffix = os.path.splitext(folded(name))
    return stem if suffix in suffixes else folded(name)

  def without(words: Collection[str]) -> _Key:
    pattern = re.compile(_WORD.format("|".join(words)))
    return lambda name: _EDGES.sub("", pattern.sub("", single(name)))

  def numbered(key: _Key) -> _Key:
    return lambda name: re.sub(r"\d+", lambda one: str(int(one[0])), key(name))

  bare = without(_PICTURE_WORDS), without(_MASK_WORDS)
  rules = (
    ("in the Unicode form of their letters", (_composed, _composed), False),
    ("in upper and lower case", (folded, folded), False),
    ("in a second suffix, as in car.jpg.png", (single, single), False),
    ("in words such as mask or image", bare, False),
    ("in zeros before numbers", tuple(map(numbered, bare)), True),
  )
  left = set(pictures), set(masks)
  found, notes = {}, []
  for difference, keys, completely in rules:
    _take(_by_key(left, keys), left, found, notes, difference, completely)
  affix, pairs = _by_affix(*left)
  _take(pairs, left, found, notes, f"in {affix}", True)
  return Pairing(found, notes)


def _take(
  pairs: dict[str, str],
  left: tuple[set[str], set[str]],
  found: dict[str, str],
  notes: list[str],
  difference: str,
  completely: bool,
) -> None:
  """Moves pairs from what is left to what is found."""
  if not pairs or (completely and len(pairs) < max(map(len, left))):
    return
  found.update(pairs)
  left[0].difference_update(pairs)
  left[1].difference_update(pairs.values())
  picture, mask = min(pairs.items())
  plural = "pairs" if len(pairs) > 1 else "pair"
  notes.append(
    f"{len(pairs)} {plural} whose names differ {difference}, such as picture"
    f" {picture} and mask {mask}"
  )


def _composed(name: str) -> str:
  return unicodedata.normalize("NFC", name)


def _by_key(
  sides: tuple[Collection[str], Collection[str]], keys: tuple[_Key, _Key]
) -> dict[str, str]:
  """Pairs names whose keys are equal, and which no third name shares."""
  groups = collections.defaultdict(lambda: ([], []))
  for side, (names, key) in enumerate(zip(sides, keys, strict=True)):
    for name in names:
      groups[key(name)][side].append(name)
  return {
    group[0][0]: group[1][0]
    for name, group in groups.items()
    if len(group[0]) == len(group[1]) == 1 and name.rpartition("/")[2]
  }


def _by_affix(
  pictures: Collection[str], masks: Collection[str]
) -> tuple[str, dict[str, str]]:
  """Pairs by what all names of masks have in front or behind."""
  if len(masks) < 2:
    return "", {}
  first = min(masks)
  folder, _, base = first.rpartition("/")
  candidates = []
  for picture in pictures:
    parent, _, name = picture.rpartition("/")
    if parent == folder and name in base:
      before, _, behind = base.partition(name)
      pairs = {}
      for mask in masks:
        parent, slash, whole = mask.rpartition("/")
        if not (whole.startswith(before) and whole.endswith(behind)):
          break
        inner = whole[len(before) : len(whole) - len(behind)]
        pairs[parent + slash + inner] = mask
      if len(pairs) == len(masks) and pairs.keys() <= set(pictures):
        affix = f"{before!r} before and {behind!r} behind that of the mask"
        candidates.append((affix, pairs))
  return candidates[0] if len(candidates) == 1 else ("", {})
