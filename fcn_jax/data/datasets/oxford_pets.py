"""The data set `oxford_pets`: cats and dogs in front of their background.

Its files are images.tar.gz and annotations.tar.gz of the Oxford-IIIT Pet
Dataset, or what is in them: images/<name>.jpg with the masks
annotations/trimaps/<name>.png, and the lists annotations/trainval.txt and
annotations/test.txt, whose lines begin with a name. In the masks 1 is the pet,
2 the background and 3 the border between them, which is void here.

There is no list for validation: a fifth of the names in trainval.txt, chosen by
a hash, is for validation, and the others are for training. Pictures that are in
no list are left out.
"""

import functools
import pathlib

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import builder
from fcn_jax.data.files import archives
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists

CLASS_NAMES = ("background", "pet")
# RGB of each class in figures: PASCAL VOC's for background and cat.
PALETTE = ((0, 0, 0), (64, 0, 0))

# What the values 0 to 3 of a trimap mean, from the README in the archive: 1 is
# the foreground, 2 the background, 3 not classified. 0 does not occur.
_LABELS = (-1, 1, 0, types.IGNORE_LABEL)

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE = 0.2
# Lines in test.txt.
COUNTS = {"test": 3669}
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


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds images and annotations.

  Raises:
    ValueError: the folder is of another layout, or a list cannot be read.
  """
  needed = ["images", "annotations", "annotations/trimaps"]
  listing.check_folders("oxford_pets", folder, needed, LAYOUT)
  paths = {
    name: folder / "annotations" / f"{name}.txt"
    for name in ("trainval", "test")
  }
  names, faults = lists.read_all(paths, root=folder, columns=True)
  splits = {"train": [], "validation": [], "test": names["test"]}
  for name in names["trainval"]:
    is_validation = listing.share_of_name(name) < _VALIDATION_SHARE
    splits["validation" if is_validation else "train"].append(name)
  pairs, missing, notes = lists.find_pairs(
    splits,
    lambda split, name: listing.Pair(
      split,
      name,
      folder / "images" / f"{name}.jpg",
      folder / "annotations" / "trimaps" / f"{name}.png",
    ),
    root=folder,
    because={split: paths.get(split, paths["trainval"]) for split in SPLITS},
    counts=COUNTS,
  )
  return listing.Listing(
    "oxford_pets",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults + missing,
    # Some pictures are GIF files, whatever their names say.
    decode_picture=functools.partial(decoding.decode_picture, first_frame=True),
    decode_mask=decode_mask,
    notes=notes,
  )


def decode_mask(content: bytes) -> np.ndarray:
  """Decodes a trimap to [H, W] uint8: 0 background, 1 pet, and void.

  Raises:
    ValueError: as `decoding.decode_mask`, or it has other values than 1 to 3.
  """
  return decoding.decode_labels(
    content,
    _LABELS,
    "; a trimap has 1 (pet), 2 (background) and 3 (border)",
  )


class OxfordPets(builder.FilesBuilder):
  """TFDS builder of `oxford_pets`."""

  DESCRIPTION = "Cats and dogs before their background (Oxford-IIIT Pet)."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  find = staticmethod(find)
