"""Data sets whose splits are lists of names, in text files."""

import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from fcn_jax.data.files import listing

# A name becomes part of a path, and must not lead elsewhere.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def read(
  path: pathlib.Path,
  *,
  root: pathlib.Path,
  prefix: str = "",
  suffix: str = "",
  columns: bool = False,
) -> tuple[list[str], list[listing.Fault]]:
  """Reads a list with one name on each line.

  Args:
    path: of the list.
    root: the folder that the user gave.
    prefix: what may stand before the names; backslashes count as slashes.
    suffix: what may stand behind the names.
    columns: whether the name is the first word of a line, and lines that begin
      with # are comments.

  Returns:
    The names in their order, and the faults: lines without a name, and names
    that occur twice.

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
    text = line.strip()
    if columns and text:
      text = "" if text.startswith("#") else text.split()[0]
    if not text:
      continue
    name = text.replace("\\", "/").removeprefix(prefix).removesuffix(suffix)
    if not _NAME.fullmatch(name):
      reason = (
        f"has {text[:80]!r} in line {number}, which is not the name of a"
        " picture; download the list again"
      )
      faults.append(listing.Fault(path, reason))
    elif name in names:
      reason = f"has {name} in the lines {names[name]} and {number}; remove one"
      faults.append(listing.Fault(path, reason))
    else:
      names[name] = number
  if not names and not faults:
    raise ValueError(f"{path} is an empty list; copy or download it again")
  return list(names), faults


def read_all(
  paths: Mapping[str, pathlib.Path],
  *,
  root: pathlib.Path,
  columns: bool = False,
) -> tuple[dict[str, list[str]], list[listing.Fault]]:
  """Reads lists that have no name in common.

  Args:
    paths: the lists by the names of their splits.
    root: the folder that the user gave.
    columns: as for `read`.

  Returns:
    The names by split, and the faults: those of `read`, and names that an
    earlier list has too; they stay in the earlier one.

  Raises:
    ValueError: as `read`.
  """
  splits, faults, taken = {}, [], {}
  for split, path in paths.items():
    names, wrong = read(path, root=root, columns=columns)
    faults += wrong
    faults += [
      listing.Fault(
        path, f"has {name}, which {taken[name].name} has, too; remove one"
      )
      for name in names
      if name in taken
    ]
    splits[split] = [name for name in names if name not in taken]
    taken.update(dict.fromkeys(splits[split], path))
  return splits, faults


def find_pairs(
  splits: Mapping[str, Sequence[str]],
  make_pair: Callable[[str, str], listing.Pair],
  *,
  root: pathlib.Path,
  because: Mapping[str, pathlib.Path | str],
  counts: Mapping[str, int],
) -> tuple[list[listing.Pair], list[listing.Fault], list[str]]:
  """Finds the files of the names of all splits.

  Args:
    splits: the names by split.
    make_pair: makes a pair of a split and a name; its files may be missing.
    root: the folder that the user gave; links to outside of it are faults.
    because: for each split, why its files should exist, such as the list of
      their names; follows "though" in the message.
    counts: how many names the published data set has for a split, if known.

  Returns:
    The pairs whose files are there; the faults: files that are not there or
    must not be opened; and a note for each split with another number of names.
    That is not a fault, since a part of a data set is useful too.
  """
  pairs, faults, notes = [], [], []
  for split, names in splits.items():
    reason = because[split]
    if isinstance(reason, pathlib.Path):
      reason = f"{reason} names it"
    for name in names:
      pair = make_pair(split, name)
      wrong = [
        listing.Fault(path, fault)
        for path in (pair.picture, pair.mask, *pair.extras.values())
        if (fault := _why_not_there(path, root, reason))
      ]
      faults += wrong
      pairs += [] if wrong else [pair]
    if len(names) != counts.get(split, len(names)):
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
