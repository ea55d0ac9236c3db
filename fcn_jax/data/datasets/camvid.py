"""The data set `camvid`: street scenes with 11 classes, from a folder.

The folder is laid out as in the SegNet protocol: pictures (PNG or JPEG) in
train/, val/ and test/, and for each a mask of the same name (PNG, 8-bit class
ids) in trainannot/, valannot/ and testannot/. Id 11 is void.
"""

import pathlib

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import builder
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import matching

# In the order of the ids in the SegNet protocol, where they have the names Sky,
# Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian and
# Bicyclist.
CLASS_NAMES = (
  "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
  "pedestrian", "bicyclist",
)  # fmt: skip

# RGB of each class in figures: the colours of CamVid's own label pictures.
PALETTE = (
  (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192),
  (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0),
  (0, 128, 192),
)  # fmt: skip

# The id of void in the masks on disk.
VOID_ID = len(CLASS_NAMES)

# Our name of each split, and the folder of its pictures. The folder of its
# masks has "annot" behind that.
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
SPLITS = tuple(_FOLDERS)
LAYOUT = (
  "the folders train, val, test with pictures (PNG or JPEG) and trainannot,"
  " valannot, testannot with masks of the same names (PNG)"
)


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds train, trainannot and so on.

  Raises:
    ValueError: the folder is empty or of another layout.
  """
  needed = [
    name + ending for name in _FOLDERS.values() for ending in ("", "annot")
  ]
  listing.check_folders("camvid", folder, needed, LAYOUT)
  pairs, faults, _ = matching.match(
    {
      split: (folder / name, folder / f"{name}annot")
      for split, name in _FOLDERS.items()
    },
    root=folder,
    mask_suffixes=(".png",),
  )
  return listing.Listing(
    "camvid",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults,
    decode_mask=_decode_mask,
  )


def _decode_mask(content: bytes) -> np.ndarray:
  return decoding.decode_labels(
    content,
    [*range(len(CLASS_NAMES)), types.IGNORE_LABEL],
    f", outside 0..{VOID_ID} (0 to {VOID_ID - 1} are classes, {VOID_ID} is"
    " void); map them to those",
  )


class Camvid(builder.FilesBuilder):
  """TFDS builder of `camvid`."""

  DESCRIPTION = "Street scenes from a car, 11 classes (SegNet protocol)."
  LAYOUT = LAYOUT
  SPLITS = SPLITS
  find = staticmethod(find)
