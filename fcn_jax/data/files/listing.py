"""The files of a data set: pairs of picture and mask, and their faults.

Files are found in two steps. `find` in the module of a data set lists the pairs
by their names as a `Listing`, mostly without opening them. `checking` then
reads every file, and reports its contents and its faults.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fcn_jax.data.files import decoding

# Nobody reads a message of hundreds of lines.
_MAX_FAULTS = 40


class Fault(NamedTuple):
  """What is wrong with a file.

  Attributes:
    path: the file.
    reason: what is wrong and how to fix it, to be read after the path.
  """

  path: pathlib.Path
  reason: str


class Pair(NamedTuple):
  """The files of one example.

  Attributes:
    split: name of its split.
    name: of the example, different from all others of the data set.
    picture: file of the picture.
    mask: file of the labels.
    extras: further files by the name of their feature.
  """

  split: str
  name: str
  picture: pathlib.Path
  mask: pathlib.Path
  extras: Mapping[str, pathlib.Path] = {}


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of a data set, and how they are read.

  Attributes:
    name: of the data set, for messages.
    pairs: in the order of the data set, split by split.
    class_names: of the classes 0..C-1.
    palette: [C] RGB of each class in figures, in 0..255.
    faults: what is wrong with files, as far as their names show. `pairs` has no
      pair with such a file.
    decode_picture: bytes to [H, W, 3] uint8; ValueError for a faulty file.
    decode_mask: bytes to [H, W] uint8, classes 0..C-1 or void; ValueError for
      a faulty file.
    decode_extras: for each feature in the pairs' `extras`, bytes to [H, W] or
      [H, W, 3] uint8, or [H, W] uint16.
    skip_void: whether to leave out pairs whose mask is void everywhere;
      otherwise such a mask is a fault.
    settings: whatever else changes what is read, such as a table of classes.
    notes: remarks on the files that are not faults.
    mask_notes: remarks on what the values of masks mean.
    masks: what they mean, as in `examples.Dataset.masks`.
  """

  name: str
  pairs: Sequence[Pair]
  class_names: tuple[str, ...]
  palette: Sequence[tuple[int, int, int]]
  faults: Sequence[Fault] = ()
  decode_picture: Callable[[bytes], np.ndarray] = decoding.decode_picture
  decode_mask: Callable[[bytes], np.ndarray] = decoding.decode_mask
  decode_extras: Mapping[str, Callable[[bytes], np.ndarray]] = (
    dataclasses.field(default_factory=dict)
  )
  skip_void: bool = False
  settings: str = ""
  notes: Sequence[str] = ()
  mask_notes: Sequence[str] = ()
  masks: Mapping[str, Any] | None = None


def describe(name: str, faults: Sequence[Fault]) -> str:
  """Names the faults of a data set, a line for each of the first forty."""
  lines = [f"- {path} {reason}" for path, reason in faults[:_MAX_FAULTS]]
  if len(faults) > _MAX_FAULTS:
    lines.append(f"- and {len(faults) - _MAX_FAULTS} more faults")
  plural = "faults" if len(faults) > 1 else "fault"
  return "\n".join(
    [
      f"{name}: {len(faults)} {plural}; fix the files, or leave the pairs out"
      " (skip_bad; on the command line, --skip-bad):",
      *lines,
    ]
  )


def check_folders(
  name: str, folder: pathlib.Path, needed: Sequence[str], layout: str
) -> None:
  """Raises a `ValueError` if a needed folder is missing.

  Args:
    name: of the data set.
    folder: the folder that the user gave.
    needed: paths of folders in it.
    layout: what must be in it, to be read after "expected".
  """
  missing = [path for path in needed if not (folder / path).is_dir()]
  if missing:
    raise ValueError(
      f"{name}: {folder} has no folder {', '.join(missing)}; expected {layout};"
      f" found: {contents(folder)}"
    )


def contents(folder: pathlib.Path) -> str:
  """Up to ten names of what is in a folder, for messages."""
  found = sorted(path.name for path in folder.iterdir())
  more = ", ..." if len(found) > 10 else ""
  return ", ".join(found[:10]) + more or "nothing, the folder is empty"


def match(
  folders: Mapping[str, tuple[pathlib.Path, pathlib.Path]],
  *,
  root: pathlib.Path,
  split_in_names: bool = False,
  mask_suffixes: Sequence[str] = decoding.SUFFIXES,
  endings: tuple[str, str] = ("", ""),
) -> tuple[list[Pair], list[Fault]]:
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

  Returns:
    The pairs, split by split, in the order of their names; and the faults: a
    picture without a mask, a mask without a picture, several files of one name,
    links to outside, and anything that is not a file.
  """
  pairs, faults = [], []
  for split, (pictures, masks) in folders.items():
    sides = (
      _Side("picture", pictures, endings[0], decoding.SUFFIXES),
      _Side("mask", masks, endings[1], mask_suffixes),
    )
    found = [_files_by_stem(side) for side in sides]
    for stem in sorted(found[0].keys() | found[1].keys()):
      paths = [by_stem.get(stem, []) for by_stem in found]
      wrong = _faults_of_stem(stem, sides, paths, root)
      faults += wrong
      if not wrong:
        name = f"{split}/{stem}" if split_in_names else stem
        pairs.append(Pair(split, name, paths[0][0], paths[1][0]))
  return pairs, faults


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
) -> list[Fault]:
  """What is wrong with the pictures and the masks of one name."""
  wrong = [
    Fault(path, reason)
    for path in (*paths[0], *paths[1])
    if (reason := why_not_readable(path, root))
  ]
  for own, other in ((0, 1), (1, 0)):
    side, missing = sides[own], sides[other]
    if not paths[other]:
      reason = (
        f"has no {missing.kind} {missing.folder / stem}{missing.ending}.*; add"
        f" the {missing.kind} or remove the {side.kind}"
      )
      wrong += [Fault(path, reason) for path in paths[own]]
    if len(paths[own]) > 1:
      names = ", ".join(map(str, paths[own]))
      reason = (
        f"is one of {len(paths[own])} {side.kind}s of a name: {names}; keep one"
        " of them"
      )
      wrong.append(Fault(paths[own][0], reason))
  return wrong


def share_of_name(name: str) -> float:
  """A number in [0, 1) from a hash of a name, to draw splits by.

  It is the same on every machine and does not depend on the other names.
  """
  digest = hashlib.sha256(name.encode()).digest()
  return int.from_bytes(digest[:8], "big") / 2**64


def why_not_readable(path: pathlib.Path, root: pathlib.Path) -> str | None:
  """Says why a path must not be opened; None if it may be.

  Args:
    path: of a file.
    root: the folder that the user gave; nothing outside of it is read.
  """
  if not path.resolve().is_relative_to(root.resolve()):
    return (
      f"is, or lies behind, a symbolic link to {path.resolve()}, outside of"
      f" {root}; copy the file into the folder"
    )
  if path.is_symlink() and not path.exists():
    return "is a symbolic link to a file that is not there; restore the file"
  if not path.exists():
    return "is not there; copy it or unpack it again"
  # Reading from a pipe or a device might never end.
  if not path.is_file():
    return "is not a file; remove it"
  return None


def _files_by_stem(side: _Side) -> dict[str, list[pathlib.Path]]:
  """Files by their path from a folder, without ending and suffix."""
  by_stem = collections.defaultdict(list)
  # Links to folders are followed, so that `why_not_readable` can report those
  # that lead outside.
  for parent, folders, names in os.walk(side.folder, followlinks=True):
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
