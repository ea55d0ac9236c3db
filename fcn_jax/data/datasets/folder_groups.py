"""Groups of pictures that belong into one split, and the draw of validation."""

import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from fcn_jax import reprs
from fcn_jax.data.files import listing

_VALIDATION_SHARE = 0.2


def of_names(pairs: Sequence[listing.Pair], pattern: str | None) -> list[str]:
  """The group of each pair; without a pattern, each is a group of its own.

  Args:
    pairs: the pictures.
    pattern: regular expression that is searched for in the name of a picture,
      without its suffix and the folder of its split. What its first parentheses
      match is the group.

  Raises:
    ValueError: the pattern is wrong, has no parentheses, or does not match a
      name.
  """
  names = [_plain_name(pair) for pair in pairs]
  if pattern is None:
    return names
  try:
    compiled = re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f"folder: the pattern of groups (group_by, --group-by) {pattern!r} is no"
      f" regular expression ({error}); write one such as '^([^_]+)_', which"
      " groups by what precedes the first underscore"
    ) from error
  if not compiled.groups:
    raise ValueError(
      f"folder: the pattern of groups (group_by, --group-by) {pattern!r} has no"
      " parentheses; put them around the part of the name that is the group,"
      " as in '^([^_]+)_'"
    )
  found = [compiled.search(name) for name in names]
  groups = [match and match.group(1) for match in found]
  missing = [
    name for name, group in zip(names, groups, strict=True) if not group
  ]
  if missing:
    raise ValueError(
      f"folder: the pattern of groups (group_by, --group-by) {pattern!r} finds"
      f" no group in {len(missing)} of {len(names)} names, such as"
      f" {reprs.path(missing[0])}; extend the pattern"
    )
  return groups


def _plain_name(pair: listing.Pair) -> str:
  # The split's folder is in the name only if there are several.
  return pair.name.removeprefix(f"{pair.split}/")


def draw_validation(
  pairs: Sequence[listing.Pair],
  groups: Sequence[str],
  hashes: Mapping[pathlib.Path, str],
) -> tuple[list[listing.Pair], list[str]]:
  """Takes a fifth of the pairs of "train" for validation, whole groups only.

  The groups are taken in the order of the hashes of their names, and a group
  only if the number of pictures for validation comes nearer to a fifth. Groups
  that have an equal picture count as one, with the lowest of their hashes.

  Args:
    pairs: the pictures; those of "train" first.
    groups: of each pair.
    hashes: of the pictures' contents, of those that can be read.

  Returns:
    The pairs in the order of their splits, and notes.
  """
  count = sum(pair.split == "train" for pair in pairs)
  members = _joined(pairs[:count], groups[:count], hashes)
  if len(members) < 2:
    return list(pairs), [
      f"no folder for validation, and no pictures for it: all {count} belong"
      " together, by their contents or group"
    ]
  wanted, chosen = _VALIDATION_SHARE * count, []
  for group in members:
    without, within = len(chosen), len(chosen) + len(group)
    if abs(within - wanted) < abs(without - wanted):
      chosen += group
  # At least one for validation.
  chosen = set(chosen or min(members, key=len))
  parts = {"train": [], "validation": []}
  for number, pair in enumerate(pairs[:count]):
    split = "validation" if number in chosen else "train"
    parts[split].append(pair._replace(split=split))
  note = (
    f"no folder for validation: {len(chosen)} of {count} pictures are, chosen"
    " by a hash of their "
    + ("groups" if len(set(groups[:count])) < count else "names")
  )
  together = sum(len(group) > 1 for group in members)
  if together:
    note += (
      f"; {together} groups of more than one picture stay together, the largest"
      f" of {max(map(len, members))}"
    )
  return [*parts["train"], *parts["validation"], *pairs[count:]], [note]


def _joined(
  pairs: Sequence[listing.Pair],
  groups: Sequence[str],
  hashes: Mapping[pathlib.Path, str],
) -> list[list[int]]:
  """Numbers of the pairs that stay together, in the order of the draw."""
  first: dict[tuple[str, str], int] = {}
  edges = []
  for number, (pair, group) in enumerate(zip(pairs, groups, strict=True)):
    content = hashes.get(pair.picture, pair.name)
    for key in (("group", group), ("content", content)):
      edges.append((first.setdefault(key, number), number))
  graph = scipy.sparse.coo_array(
    (np.ones(len(edges)), np.array(edges).reshape(-1, 2).T),
    shape=(len(pairs), len(pairs)),
  )
  _, components = scipy.sparse.csgraph.connected_components(graph)
  members: dict[int, list[int]] = {}
  for number, component in enumerate(components.tolist()):
    members.setdefault(component, []).append(number)

  def place(numbers: Sequence[int]) -> float:
    return min(listing.share_of_name(groups[number]) for number in numbers)

  return sorted(members.values(), key=place)


def in_several_splits(
  pairs: Sequence[listing.Pair], groups: Sequence[str]
) -> list[str]:
  """A note if a group is in several splits, as the folders say."""
  splits: dict[str, set[str]] = {}
  for pair, group in zip(pairs, groups, strict=True):
    splits.setdefault(group, set()).add(pair.split)
  torn = sorted(group for group, found in splits.items() if len(found) > 1)
  if not torn:
    return []
  return [
    f"{len(torn)} groups are in several splits, such as"
    f" {reprs.path(torn[0])} in {' and '.join(sorted(splits[torn[0]]))}: its"
    " pictures are scored by a network that has seen pictures like them"
  ]
