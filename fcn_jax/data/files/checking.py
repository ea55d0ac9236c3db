"""Reads all files of a data set, and reports contents and faults."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fcn_jax import types
from fcn_jax.data.files import listing
from fcn_jax.data.files import threads

# Stands for the hash of a file that cannot be read.
_UNREADABLE = "unreadable"
# A larger share of void than this may be a mistake.
_MUCH_VOID = 0.05


class Measured(NamedTuple):
  """What was found in the files of one pair.

  Attributes:
    pair: the files.
    size: height and width in pixels.
    class_counts: [256] int64, pixels of each label, void included.
    histogram: [3, 256] int64, pixels of each value of each channel, R, G, B.
    hashes: SHA-256 of the picture, the mask and the further files.
    num_bytes: of the picture's file.
  """

  pair: listing.Pair
  size: tuple[int, int]
  class_counts: np.ndarray
  histogram: np.ndarray
  hashes: Sequence[str] = ()
  num_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Survey:
  """What was found in all files of a listing.

  Attributes:
    listing: what was read.
    measured: the pairs without a fault, in the order of the listing, and
      without those that `Listing.skip_void` leaves out.
    faults: of the listing and of the files, in the order of their paths.
    fingerprint: see `fingerprint`.
  """

  listing: listing.Listing
  measured: Sequence[Measured]
  faults: Sequence[listing.Fault]
  fingerprint: str

  def check(self, *, skip_bad: bool = False) -> None:
    """Raises a `ValueError` that names the faults, unless they are skipped.

    Args:
      skip_bad: whether the pairs without a fault are enough; there must be one
        at least.
    """
    if self.faults and not (skip_bad and self.measured):
      raise ValueError(listing.describe(self.listing.name, self.faults))


def survey(found: listing.Listing, *, num_threads: int | None = None) -> Survey:
  """Reads every file of a listing, with a progress bar.

  A pair is good if all of its files can be decoded and have the same size, and
  its mask has a pixel that is not void.

  Args:
    found: the files.
    num_threads: how many threads; None for the number of cores. Each needs
      memory for one decoded pair.
  """
  measured, faults = [], list(found.faults)
  digest = _start_digest(found)
  # Threads: Pillow decodes outside of Python's lock.
  outcomes = threads.in_parallel(
    functools.partial(_measure, found),
    found.pairs,
    num_threads=num_threads,
    title=f"checking {found.name}",
  )
  for pair, (outcome, hashes) in zip(found.pairs, outcomes, strict=True):
    _digest_pair(digest, pair, hashes)
    if not isinstance(outcome, Measured):
      faults.extend(outcome)
    elif outcome.class_counts[: types.IGNORE_LABEL].any():
      measured.append(outcome)
  return Survey(
    listing=found,
    measured=measured,
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
    _hash_pair,
    found.pairs,
    num_threads=num_threads,
    title=f"comparing {found.name}",
  )
  for pair, values in zip(found.pairs, hashes, strict=True):
    _digest_pair(digest, pair, values)
  return digest.hexdigest()


def _measure(
  found: listing.Listing, pair: listing.Pair
) -> tuple[Measured | list[listing.Fault], list[str]]:
  """What the files of a pair hold, or what is wrong; and their hashes."""
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
  if faults:
    return faults, hashes
  measured = measure(pair, arrays[pair.picture], arrays[pair.mask])
  return measured._replace(hashes=hashes, num_bytes=num_bytes), hashes


def measure(
  pair: listing.Pair, picture: np.ndarray, label: np.ndarray
) -> Measured:
  """Counts what is in a picture, [H, W, 3] uint8, and a label, [H, W] uint8."""
  return Measured(
    pair,
    size=label.shape,
    class_counts=count_values(label),
    histogram=count_values(picture).reshape(3, 256),
  )


def describe_void(
  found: listing.Listing, measured: Sequence[Measured]
) -> list[str]:
  """Says what 255 means and how common void is; warns if it is common.

  Args:
    found: the files.
    measured: what is in the good ones.
  """
  if not measured:
    return []
  counts = sum(one.class_counts for one in measured)
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
      f"255 in masks is the class {found.class_names[label]},"
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
      f" {pair.picture} {_size(picture)}; resize the mask (nearest neighbour)"
      " or replace the one that is wrong"
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


def _hash_pair(pair: listing.Pair) -> list[str]:
  hashes = []
  for path in (pair.picture, pair.mask, *pair.extras.values()):
    try:
      hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError:
      hashes.append(_UNREADABLE)
  return hashes


def _start_digest(found: listing.Listing) -> "hashlib._Hash":
  digest = hashlib.sha256(repr((found.class_names, found.settings)).encode())
  for path, _ in found.faults:
    digest.update(f"fault {path.name}\n".encode())
  return digest


def _digest_pair(
  digest: "hashlib._Hash", pair: listing.Pair, hashes: Sequence[str]
) -> None:
  digest.update(f"{pair.split} {pair.name} {' '.join(hashes)}\n".encode())
