"""What the pictures of a user's folder have in common; see `folder`."""

import collections
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fcn_jax import reprs
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import threads


class Pictures(NamedTuple):
  """What `look_at` finds.

  Attributes:
    white: the value to show as white in pictures of more than 8 bits a channel;
      None if there are none.
    faults: pictures of which nobody can say how their masks lie on them.
    notes: what is done to pictures, and to how many.
    hashes: SHA-256 of the contents of those that can be opened.
  """

  white: int | None
  faults: Sequence[listing.Fault]
  notes: Sequence[str]
  hashes: Mapping[pathlib.Path, str]


def look_at(pairs: Sequence[listing.Pair]) -> Pictures:
  """Hashes all pictures and reads their headers; decodes where it must.

  `white` is the largest number with as many bits as the largest value that
  occurs: cameras fill 10, 12 or 14 of the 16 bits, and their pictures would be
  nearly black on the full scale.

  Files that cannot be read are left out: the survey of all files will say what
  is wrong with them.
  """
  found = threads.in_parallel(_facts_of, pairs, title="looking at pictures")
  known, hashes = [], {}
  for pair, (facts, digest) in zip(pairs, found, strict=True):
    if digest is not None:
      hashes[pair.picture] = digest
    if facts is not None:
      known.append((pair, facts))
  deepest = max((facts.deepest for _, facts in known), default=0)
  white = max(255, 2 ** deepest.bit_length() - 1) if deepest else None
  notes = []
  if white is not None:
    notes.append(f"pictures of more than 8 bits a channel: {white} is white")
  dropped = collections.defaultdict(list)
  for pair, facts in known:
    if facts.dropped:
      dropped[facts.dropped].append(pair.picture.name)
  for what, names in sorted(dropped.items()):
    notes.append(
      f"{what} left out of {len(names)} pictures, such as"
      f" {reprs.path(names[0])}"
    )
  turned = [one for one in known if one[1].header.orientation != 1]
  return Pictures(white, _undecided(turned), notes, hashes)


def _facts_of(
  pair: listing.Pair,
) -> tuple[decoding.PictureFacts | None, str | None]:
  try:
    content = pair.picture.read_bytes()
  except OSError:
    return None, None
  digest = hashlib.sha256(content).hexdigest()
  try:
    return decoding.facts(content), digest
  except ValueError:
    return None, digest


def _undecided(
  turned: Sequence[tuple[listing.Pair, decoding.PictureFacts]],
) -> list[listing.Fault]:
  """Pictures turned by EXIF data whose masks fit before and after turning.

  One picture whose mask fits only after turning shows that the program that
  made the masks turned the pictures, too.
  """
  open_pairs = []
  for pair, facts in turned:
    try:
      mask = decoding.header(pair.mask.read_bytes())
    except (OSError, ValueError):
      continue
    if mask.orientation != 1:
      continue
    height, width = facts.header.size
    if facts.header.orientation < 5 or height == width:
      open_pairs.append((pair, facts.header.orientation))
    elif mask.size == (width, height):
      return []
  return [
    listing.Fault(
      pair.picture,
      f"is turned by its EXIF data (orientation {orientation}) and keeps its"
      f" size, so nothing says whether {reprs.path(pair.mask)} was drawn"
      " before or after; save the picture upright without EXIF data, and look"
      " whether the mask lies on it",
    )
    for pair, orientation in open_pairs
  ]
