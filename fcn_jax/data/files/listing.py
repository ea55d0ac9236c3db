"""The files of a data set: pairs of picture and mask, and their faults.

Files are found in two steps. `find` in the module of a data set lists the pairs
by their names as a `Listing`, mostly without opening them. `checking` then
reads every file, and reports its contents and its faults.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fcn_jax import reprs
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
    hashes: SHA-256 of the contents of files, as far as `find` has read them.
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
  hashes: Mapping[pathlib.Path, str] = dataclasses.field(default_factory=dict)


def describe(name: str, faults: Sequence[Fault]) -> str:
  """Names the faults of a data set, a line for each of the first forty."""
  lines = [
    f"- {reprs.path(path)} {reason}" for path, reason in faults[:_MAX_FAULTS]
  ]
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
  return (
    ", ".join(map(reprs.path, found[:10])) + more
    or "nothing, the folder is empty"
  )


def share_of_name(name: str) -> float:
  """A number in [0, 1) from a hash of a name, to draw splits by.

  It is the same on every machine and does not depend on the other names.
  """
  digest = hashlib.sha256(name.encode()).digest()
  return int.from_bytes(digest[:8], "big") / 2**64


def why_not_readable(
  path: pathlib.Path,
  root: pathlib.Path,
  known: dict[str, bool] | None = None,
) -> str | None:
  """Says why a path must not be opened; None if it may be.

  Args:
    path: of a file.
    root: the folder that the user gave; nothing outside of it is read.
    known: whether folders lie in `root`, as found by earlier calls; extended.
      Finding it out for each of many files would take minutes.
  """
  try:
    str(path).encode()
  except UnicodeEncodeError:
    return "has a name that is not UTF-8; rename it"
  known = {} if known is None else known
  parent = os.path.dirname(path)
  if parent not in known:
    known[parent] = path.parent.resolve().is_relative_to(root.resolve())
  if known[parent] and not path.is_symlink() and path.is_file():
    return None
  if not path.resolve().is_relative_to(root.resolve()):
    return (
      f"is, or lies behind, a symbolic link to {reprs.path(path.resolve())},"
      f" outside of {reprs.path(root)}; copy the file into the folder"
    )
  if path.is_symlink() and not path.exists():
    return "is a symbolic link to a file that is not there; restore the file"
  if not path.exists():
    return "is not there; copy it or unpack it again"
  # Reading from a pipe or a device might never end.
  if not path.is_file():
    return "is not a file; remove it"
  return None
