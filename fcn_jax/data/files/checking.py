"""Reads all files of a data set, and reports contents and faults."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.data.files import listing
from fcn_jax.data.files import threads
from fcn_jax.data.files import totals

# Stands for the hash of a file that cannot be read.
_UNREADABLE = "unreadable"
# A larger share of void than this may be a mistake.
_MUCH_VOID = 0.05


class Checked(NamedTuple):
  """A pair without a fault.

  Attributes:
    pair: the files.
    hashes: SHA-256 of the picture, the mask and the further files.
    num_bytes: of the picture's file.
    looks: what `survey` was asked to keep of the picture.
  """

  pair: listing.Pair
  hashes: Sequence[str]
  num_bytes: int
  looks: Any = None


@dataclasses.dataclass(frozen=True)
class Survey:
  """What was found in all files of a listing.

  Attributes:
    listing: what was read.
    checked: the pairs without a fault, in the order of the listing, and without
      those that `Listing.skip_void` leaves out.
    totals: what they hold, by split.
    faults: of the listing and of the files, in the order of their paths.
    fingerprint: see `fingerprint`.
  """

  listing: listing.Listing
  checked: Sequence[Checked]
  totals: Mapping[str, totals.Totals]
  faults: Sequence[listing.Fault]
  fingerprint: str

  def check(self, *, skip_bad: bool = False) -> None:
    """Raises a `ValueError` that names the faults, unless they are skipped.

    Args:
      skip_bad: whether the pairs without a fault are enough; there must be one
        at least.
    """
    if self.faults and not (skip_bad and self.checked):
      raise ValueError(listing.describe(self.listing.name, self.faults))


def survey(
  found: listing.Listing,
  *,
  num_threads: int | None = None,
  look: Callable[[np.ndarray], Any] | None = None,
) -> Survey:
  """Reads every file of a listing, with a progress bar.

  A pair is good if all of its files can be decoded and have the same size, and
  its mask has a pixel that is not void.

  The memory grows by some hundred bytes a pair.

  Args:
    found: the files.
    num_threads: how many threads; None for the number of cores. Each needs
      memory for one decoded pair.
    look: what to keep of each picture, [H, W, 3] uint8; see `Checked.looks`.
  """
  checked, by_split, faults = [], {}, list(found.faults)
  digest = _start_digest(found)
  # Threads: Pillow decodes outside of Python's lock.
  outcomes = threads.in_parallel(
    functools.partial(_check, found, look),
    found.pairs,
    num_threads=num_threads,
    title=f"checking {found.name}",
  )
  for pair, outcome in zip(found.pairs, outcomes, strict=True):
    one, counts, wrong = outcome
    _digest_pair(digest, pair, one.hashes)
    faults.extend(wrong)
    if counts and counts.class_pixels[: types.IGNORE_LABEL].any():
      checked.append(one)
      by_split.setdefault(pair.split, totals.Totals()).add(counts)
  return Survey(
    listing=found,
    checked=checked,
    totals=by_split,
    faults=sorted(faults),
    fingerprint=digest.hexdigest(),
  )


def fingerprint(
  found: listing.Listing, *, num_threads: int | None = None
) -> str:
  """Hashes the names and contents of all files, and how they are read.

  A copy of the folder has the same hash, which does not depend on its path or
  the times of its files.

  Args:
    found: the files.
    num_threads: how many threads; None for the number of cores.
  """
  digest = _start_digest(found)
  hashes = threads.in_parallel(
    functools.partial(_hash_pair, found.hashes),
    found.pairs,
    num_threads=num_threads,
    title=f"comparing {found.name}",
  )
  for pair, values in zip(found.pairs, hashes, strict=True):
    _digest_pair(digest, pair, values)
  return digest.hexdigest()


def _check(
  found: listing.Listing,
  look: Callable[[np.ndarray], Any] | None,
  pair: listing.Pair,
) -> tuple[Checked, totals.Counts | None, list[listing.Fault]]:
  """What the files of a pair hold, or what is wrong."""
  decoders = {
    pair.picture: found.decode_picture,
    pair.mask: found.decode_mask,
    **{path: found.decode_extras[name] for name, path in pair.extras.items()},
  }
  arrays, hashes, faults, num_bytes = {}, [], [], 0
  for path, decode in decoders.items():
    try:
      content = path.read_bytes()
      hashes.append(hashlib.sha256(content).hexdigest())
      if path == pair.picture:
        num_bytes = len(content)
      arrays[path] = decode(content)
    except OSError as error:
      hashes.append(_UNREADABLE)
      reason = f"cannot be read ({error.strerror}); look at its permissions"
      faults.append(listing.Fault(path, reason))
    except ValueError as error:
      faults.append(listing.Fault(path, str(error)))
  faults = faults or _compare(pair, arrays, skip_void=found.skip_void)
  checked = Checked(pair, hashes, num_bytes)
  if faults:
    return checked, None, faults
  picture = arrays[pair.picture]
  if look is not None:
    checked = checked._replace(looks=look(picture))
  return checked, count(picture, arrays[pair.mask]), []


def count(picture: np.ndarray, label: np.ndarray) -> totals.Counts:
  """Counts what is in a picture, [H, W, 3] uint8, and a label, [H, W] uint8."""
  return totals.Counts(
    size=label.shape,
    class_pixels=count_values(label),
    histogram=count_values(picture).reshape(3, 256),
  )


def describe_equal(survey: Survey) -> list[str]:
  """Warns of equal pictures in several splits, or with different masks."""
  by_picture = collections.defaultdict(list)
  for one in survey.checked:
    by_picture[one.hashes[0]].append(one)
  equal = [found for found in by_picture.values() if len(found) > 1]
  remarks = []
  torn = [
    found for found in equal if len({one.pair.split for one in found}) > 1
  ]
  if torn:
    first = torn[0][0].pair
    other = next(one.pair for one in torn[0] if one.pair.split != first.split)
    remarks.append(
      f"{len(torn)} pictures are in several splits, in equal files such as"
      f" {reprs.path(first.picture)} ({first.split}) and"
      f" {reprs.path(other.picture)} ({other.split}): the network has seen"
      " what it is scored on; keep each in one split"
    )
  unlike = [
    found for found in equal if len({one.hashes[1] for one in found}) > 1
  ]
  if unlike:
    first, other = (
      next(one.pair for one in unlike[0] if one.hashes[1] == digest)
      for digest in list(dict.fromkeys(one.hashes[1] for one in unlike[0]))[:2]
    )
    remarks.append(
      f"{len(unlike)} pictures occur with different masks, such as"
      f" {reprs.path(first.mask)} and {reprs.path(other.mask)}"
    )
  return remarks


def describe_void(
  found: listing.Listing, by_split: Mapping[str, totals.Totals]
) -> list[str]:
  """Says what 255 means and how common void is; warns if it is common.

  Args:
    found: the files.
    by_split: what is in the good ones.
  """
  if not by_split:
    return []
  counts = sum(split.class_pixels for split in by_split.values())
  void = counts[types.IGNORE_LABEL]
  share = void / counts.sum()
  text = f"void is {share:.1%} of the pixels"
  if found.masks is None:
    return [text]
  label = dict(found.masks["values"]).get(types.IGNORE_LABEL)
  if label is None:
    return [text]
  if label != types.IGNORE_LABEL:
    return [
      f"255 in masks is the class {reprs.shown(found.class_names[label])},"
      f" {counts[label] / counts.sum():.1%} of the pixels; {text}"
    ]
  remarks = [f"255 in masks is void, a pixel without a class; {text}"]
  commonest = void > counts[1 : types.IGNORE_LABEL].max()
  if share > _MUCH_VOID or (void and commonest):
    remarks.append(
      f"void is {'the commonest value but 0' if commonest else 'common'};"
      " nothing is learned or scored there. If 255 is a class, such as the"
      " background, list it in classes.json"
    )
  return remarks


def count_values(array: np.ndarray) -> np.ndarray:
  """Counts the pixels of each value.

  Args:
    array: [H, W] or [H, W, 3] uint8.

  Returns:
    [256] int64, or [768] for the three channels one after another.
  """
  # NumPy's bincount would need eight times the memory of the pixels.
  return np.array(Image.fromarray(array).histogram(), np.int64)


def _compare(
  pair: listing.Pair,
  arrays: Mapping[pathlib.Path, np.ndarray],
  *,
  skip_void: bool,
) -> list[listing.Fault]:
  """Faults of a pair whose files are all readable."""
  picture = arrays[pair.picture]
  faults = []
  for path in (pair.mask, *pair.extras.values()):
    if arrays[path].shape[:2] == picture.shape[:2]:
      continue
    reason = (
      f"has {_size(arrays[path])} pixels (width x height), but its picture"
      f" {reprs.path(pair.picture)} {_size(picture)}; resize the mask"
      " (nearest neighbour) or replace the one that is wrong"
    )
    if arrays[path].shape[:2] == picture.shape[1::-1]:
      reason += (
        "; one of them lies on its side, perhaps because of its EXIF data"
      )
    faults.append(listing.Fault(path, reason))
  if not skip_void and (arrays[pair.mask] == types.IGNORE_LABEL).all():
    reason = "is void everywhere; label some of it or remove the pair"
    faults.append(listing.Fault(pair.mask, reason))
  return faults


def _size(array: np.ndarray) -> str:
  return f"{array.shape[1]}x{array.shape[0]}"


def _hash_pair(
  known: Mapping[pathlib.Path, str], pair: listing.Pair
) -> list[str]:
  hashes = []
  for path in (pair.picture, pair.mask, *pair.extras.values()):
    try:
      digest = known.get(path) or hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
      digest = _UNREADABLE
    hashes.append(digest)
  return hashes


def _start_digest(found: listing.Listing) -> "hashlib._Hash":
  digest = hashlib.sha256(repr((found.class_names, found.settings)).encode())
  for path, _ in found.faults:
    # The name may be what is wrong: no UTF-8.
    digest.update(os.fsencode(f"fault {path.name}\n"))
  return digest


def _digest_pair(
  digest: "hashlib._Hash", pair: listing.Pair, hashes: Sequence[str]
) -> None:
  digest.update(f"{pair.split} {pair.name} {' '.join(hashes)}\n".encode())
