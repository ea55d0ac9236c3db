"""Data sets whose splits are lists of names, in text files."""

import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from fcn_jax.data.files import listing

# A name becomes part of a path, and must not lead elsewhere.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def read(
  path: pathlib.Path, *, root: pathlib.Path, prefix: str = "", suffix: str = ""
) -> tuple[list[str], list[listing.Fault]]:
  """Reads a list with one name a line.

  Args:
    path: of the list.
    root: the folder that the user gave.
    prefix: what lines may have before the name; in the file, slashes may lean
      to either side.
    suffix: what they may have behind it.

  Returns:
    The names in their order, and the faults: lines that are no names, or names
    that were there before.

  Raises:
    ValueError: the list is not there, cannot be read or has no names.
  """
  reason = _why_not_there(path, root, "splits are made of it")
  if reason:
    raise ValueError(f"{path} {reason}")
  try:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f"{path} cannot be read as a list of names ({error}); copy or download it"
      " again"
    ) from error
  names, faults = {}, []
  for number, line in enumerate(lines, 1):
    name = line.strip()
    if not name:
      continue
    name = name.replace("\\", "/").removeprefix(prefix).removesuffix(suffix)
    if not _NAME.fullmatch(name):
      faults.append(
        listing.Fault(
          path,
          f"has {line.strip()[:80]!r} in line {number}, which is no name of a"
          " picture; download the list again",
        )
      )
    elif name in names:
      faults.append(
        listing.Fault(
          path,
          f"has {name} in the lines {names[name]} and {number}; remove one",
        )
      )
    else:
      names[name] = number
  if not names and not faults:
    raise ValueError(f"{path} is an empty list; copy or download it again")
  return list(names), faults


def find_pairs(
  splits: Mapping[str, Sequence[str]],
  make_pair: Callable[[str, str], listing.Pair],
  *,
  root: pathlib.Path,
  because: Mapping[str, str],
  counts: Mapping[str, int],
) -> tuple[list[listing.Pair], list[listing.Fault], list[str]]:
  """Pairs for the names of all splits.

  Args:
    splits: the names by split.
    make_pair: from a split and a name; its files need not be there.
    root: the folder that the user gave; links to outside of it are faults.
    because: for each split, why the files of its names should be there, to be
      read after "though".
    counts: how many names the published data set has for each split.

  Returns:
    The pairs whose files are there; the faults: files that are not there, or
    not to be opened; and a note for each split with another number of names.
    That is no fault: a part of a data set is good for much.
  """
  pairs, faults, notes = [], [], []
  for split, names in splits.items():
    for name in names:
      pair = make_pair(split, name)
      wrong = [
        listing.Fault(path, reason)
        for path in (pair.picture, pair.mask, *pair.extras.values())
        if (reason := _why_not_there(path, root, because[split]))
      ]
      if wrong:
        faults.extend(wrong)
      else:
        pairs.append(pair)
    if len(names) != counts[split]:
      notes.append(
        f"{len(names)} pictures are named for {split}; the published data set"
        f" has {counts[split]}"
      )
  return pairs, faults, notes


def _why_not_there(
  path: pathlib.Path, root: pathlib.Path, because: str
) -> str | None:
  if not os.path.lexists(path):
    return f"is not there, though {because}; unpack or download it again"
  return listing.why_not_readable(path, root)
