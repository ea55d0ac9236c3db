"""The data set `oxford_pets`: cats and dogs in front of their background.

Its files are images.tar.gz and annotations.tar.gz of the Oxford-IIIT Pet
Dataset, or what is in them: images/<name>.jpg with the masks
annotations/trimaps/<name>.png, and the lists annotations/trainval.txt and
annotations/test.txt, whose lines begin with a name. In the masks 1 is the pet,
2 the background and 3 the border between them, which is void here.

The lists know no validation split. A fifth of the names in trainval.txt, chosen
by a hash, is for validation, and the others for training; test.txt is the test
split as it is. Pictures that are in no list are left out.
"""

import functools
import hashlib
import pathlib
import re

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import builder
from fcn_jax.data.files import archives
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing

CLASS_NAMES = ("background", "pet")
# RGB of each class in figures: PASCAL VOC's for background and cat.
PALETTE = ((0, 0, 0), (64, 0, 0))

# What the values 0 to 3 of a trimap mean, from the README in the archive: 1 is
# the foreground, 2 the background, 3 not classified. 0 does not occur.
_LABELS = np.array([types.IGNORE_LABEL, 1, 0, types.IGNORE_LABEL], np.uint8)

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE = 0.2
_LISTS = ("trainval", "test")
LAYOUT = (
  "the folder images with pictures (JPEG), and the folder annotations with"
  " trimaps, trainval.txt and test.txt"
)

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
# SHA-256, from tensorflow_datasets/datasets/oxford_iiit_pet/checksums.tsv in
# github.com/tensorflow/datasets.
ARCHIVES = {
  "images.tar.gz": archives.Archive(
    "images",
    _SITE,
    "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
  ),
  "annotations.tar.gz": archives.Archive(
    "annotations",
    _SITE,
    "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
  ),
}

# A name of a file in one folder, and nothing that leads out of it.
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of an Oxford-IIIT Pet folder.

  Args:
    folder: the folder that holds images and annotations.

  Raises:
    ValueError: the folder is of another layout, or a list cannot be read.
  """
  needed = ["images", "annotations", "annotations/trimaps"]
  listing.check_folders("oxford_pets", folder, needed, LAYOUT)
  by_split: dict[str, list[listing.Pair]] = {split: [] for split in SPLITS}
  faults = []
  seen: set[str] = set()
  for name in _LISTS:
    path = folder / "annotations" / f"{name}.txt"
    for number, line in enumerate(_lines(path, root=folder), start=1):
      words = line.split()
      if not words or line.startswith("#"):
        continue
      reason = _why_no_name(words[0], seen)
      if reason:
        faults.append(listing.Fault(path, f"{reason} (line {number})"))
        continue
      seen.add(words[0])
      pair = listing.Pair(
        _split(words[0]) if name == "trainval" else name,
        words[0],
        folder / "images" / f"{words[0]}.jpg",
        folder / "annotations" / "trimaps" / f"{words[0]}.png",
      )
      wrong = [
        listing.Fault(file, f"{reason}; {path} names it")
        for file in (pair.picture, pair.mask)
        if (reason := listing.why_not_readable(file, folder))
      ]
      faults += wrong
      if not wrong:
        by_split[pair.split].append(pair)
  return listing.Listing(
    "oxford_pets",
    [pair for pairs in by_split.values() for pair in pairs],
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults,
    # Some pictures are GIF files, whatever their names say.
    decode_picture=functools.partial(decoding.decode_picture, first_frame=True),
    decode_mask=decode_mask,
  )


def _lines(path: pathlib.Path, *, root: pathlib.Path) -> list[str]:
  reason = listing.why_not_readable(path, root)
  if reason:
    raise ValueError(f"oxford_pets: {path}, a list of names, {reason}")
  return path.read_text("utf-8", errors="replace").splitlines()


def _why_no_name(name: str, seen: set[str]) -> str | None:
  if not _NAME.fullmatch(name):
    return (
      f"has {name[:80]!r} where the name of a picture is expected, without"
      " folders and suffix; take the list from annotations.tar.gz again"
    )
  if name in seen:
    return f"has the name {name}, which was in a list already; remove one"
  return None


def _split(name: str) -> str:
  """The same for a name on every machine, whatever other names there are."""
  digest = hashlib.sha256(name.encode()).digest()
  share = int.from_bytes(digest[:8]) / 2**64
  return "validation" if share < _VALIDATION_SHARE else "train"


def decode_mask(content: bytes) -> np.ndarray:
  """Decodes a trimap.

  Args:
    content: the bytes of a file in annotations/trimaps.

  Returns:
    [H, W] uint8: 0 is background, 1 the pet; the border is void.

  Raises:
    ValueError: as `files.decode_mask`, or it has values other than 1, 2 and 3.
  """
  mask = decoding.decode_mask(content)
  if mask.min() < 1 or mask.max() > 3:
    wrong = [int(value) for value in np.unique(mask) if not 1 <= value <= 3]
    raise ValueError(
      f"has the values {wrong[:8]}; a trimap has 1 (pet), 2 (background) and 3"
      " (border)"
    )
  return _LABELS[mask]


class OxfordPets(builder.FilesBuilder):
  """TFDS builder of `oxford_pets`."""

  DESCRIPTION = "Cats and dogs before their background (Oxford-IIIT Pet)."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  find = staticmethod(find)
