"""Finds the files of pictures and masks, and pairs them by their names."""

import collections
import difflib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fcn_jax import reprs
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import near_names
from fcn_jax.data.files import other_kinds

# What people have beside pictures: other kinds of files, and other forms of
# labels.
_UNREAD = tuple(
  form
  for suffix in (
    *other_kinds.SUFFIXES,
    *(".mat", ".txt", ".json", ".xml"),
  )
  for form in (suffix, suffix.upper())
)
# Looking for names that are almost equal takes time.
_MAX_NAMES = 1000


def match(
  folders: Mapping[str, tuple[pathlib.Path, pathlib.Path]],
  *,
  root: pathlib.Path,
  split_in_names: bool = False,
  mask_suffixes: Sequence[str] = decoding.SUFFIXES,
  endings: tuple[str, str] = ("", ""),
  nearly: bool = False,
) -> tuple[list[listing.Pair], list[listing.Fault], list[str]]:
  """Pairs pictures and masks whose names are equal except for their endings.

  Hidden files and files without the suffix of a picture are left out.

  Args:
    folders: for each split, the folder of the pictures and that of the masks.
      Both may have subfolders, of the same names.
    root: the folder that the user gave; links to outside of it are faults.
    split_in_names: whether the names of the examples begin with their split.
      Otherwise they are relative to the folder of the pictures.
    mask_suffixes: suffixes of masks.
    endings: what precedes the suffix in the names of all pictures, and of all
      masks; files without it are left out.
    nearly: whether to pair names that are almost equal, see `near_names`.

  Returns:
    The pairs, split by split, in the order of their names; the faults: a
    picture without a mask, a mask without a picture, several files of one name,
    links to outside, and anything that is not a file; and how names that are
    almost equal were paired.
  """
  pairs, faults, notes = [], [], []
  known: dict[str, bool] = {}
  for split, (pictures, masks) in folders.items():
    sides = (
      _Side("picture", pictures, endings[0], decoding.SUFFIXES),
      _Side("mask", masks, endings[1], mask_suffixes),
    )
    found = [_files_by_stem(side, faults) for side in sides]
    if nearly:
      notes += _rename_masks(found)
    alone = [
      sorted(found[own].keys() - found[other].keys())[:_MAX_NAMES]
      for own, other in ((0, 1), (1, 0))
    ]
    for stem in sorted(found[0].keys() | found[1].keys()):
      paths = [by_stem.get(stem, []) for by_stem in found]
      wrong = _faults_of_stem(stem, sides, paths, root, alone, known)
      faults += wrong
      if not wrong:
        name = f"{split}/{stem}" if split_in_names else stem
        pairs.append(listing.Pair(split, name, paths[0][0], paths[1][0]))
  return pairs, faults, notes


def _rename_masks(found: Sequence[dict[str, list[pathlib.Path]]]) -> list[str]:
  """Gives masks the names of pictures that are almost the same."""
  pictures, masks = found
  pairing = near_names.pair(
    pictures.keys() - masks.keys(),
    masks.keys() - pictures.keys(),
    decoding.SUFFIXES,
  )
  for picture, mask in pairing.masks.items():
    masks[picture] = masks.pop(mask)
  return [reprs.path(note) for note in pairing.notes]


class _Side(NamedTuple):
  """Where the pictures or masks of a split are, and how their names end."""

  kind: str
  folder: pathlib.Path
  ending: str
  suffixes: Sequence[str]


def _faults_of_stem(
  stem: str,
  sides: Sequence[_Side],
  paths: Sequence[Sequence[pathlib.Path]],
  root: pathlib.Path,
  alone: Sequence[Sequence[str]],
  known: dict[str, bool],
) -> list[listing.Fault]:
  """What is wrong with the pictures and the masks of one name.

  Args:
    stem: the name.
    sides: of the pictures and the masks.
    paths: the pictures and the masks.
    root: the folder that the user gave.
    alone: names of pictures without masks, and of masks without pictures.
    known: see `listing.why_not_readable`.
  """
  wrong = [
    listing.Fault(path, reason)
    for path in (*paths[0], *paths[1])
    if (reason := listing.why_not_readable(path, root, known))
  ]
  for own, other in ((0, 1), (1, 0)):
    side, missing = sides[own], sides[other]
    if not paths[other]:
      place = reprs.path(missing.folder / stem) + missing.ending
      near = _near(missing, stem, alone[other])
      reason = (
        f"has no {missing.kind} {place}.*{near}; add the {missing.kind} or"
        f" remove the {side.kind}"
      )
      wrong += [listing.Fault(path, reason) for path in paths[own]]
    if len(paths[own]) > 1:
      names = ", ".join(map(reprs.path, paths[own]))
      reason = (
        f"is one of {len(paths[own])} {side.kind}s of a name: {names}; keep one"
        " of them"
      )
      wrong.append(listing.Fault(paths[own][0], reason))
  return wrong


def _near(side: _Side, stem: str, alone: Sequence[str]) -> str:
  """Names what may have been meant by a name that is not there."""
  path = side.folder / f"{stem}{side.ending}"
  for suffix in _UNREAD:
    if path.with_name(path.name + suffix).is_file():
      kind = other_kinds.of_name(suffix)
      there = reprs.path(path.name + suffix)
      if kind is not None:
        return f" ({there} is there, but {kind.reason})"
      return f" ({there} is there, but of a format that is not read)"
  near = difflib.get_close_matches(stem, alone, 1)
  return f" (the nearest name is {reprs.path(near[0])})" if near else ""


def _files_by_stem(
  side: _Side, faults: list[listing.Fault]
) -> dict[str, list[pathlib.Path]]:
  """Files by their path from a folder, without ending and suffix.

  Folders that cannot be listed are added to the faults.
  """

  def note(error: OSError) -> None:
    reason = f"cannot be listed ({error.strerror}); change its permissions"
    faults.append(listing.Fault(pathlib.Path(error.filename), reason))

  by_stem = collections.defaultdict(list)
  # Links to folders are followed, so that `why_not_readable` can report those
  # that lead outside.
  for parent, folders, names in os.walk(
    side.folder, onerror=note, followlinks=True
  ):
    if _is_inside_itself(parent):
      folders.clear()
      continue
    # Files such as .DS_Store and ._x.png are an operating system's own.
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    for name in sorted(names):
      path = pathlib.Path(parent, name)
      if path.suffix.lower() not in side.suffixes or name.startswith("."):
        continue
      stem = path.relative_to(side.folder).with_suffix("").as_posix()
      if stem.endswith(side.ending):
        by_stem[stem.removesuffix(side.ending)].append(path)
  return dict(by_stem)


def _is_inside_itself(folder: str) -> bool:
  """Whether a link leads back to a folder above, as in an endless walk."""
  path = pathlib.Path(folder)
  return any(os.path.samefile(path, parent) for parent in path.parents)
