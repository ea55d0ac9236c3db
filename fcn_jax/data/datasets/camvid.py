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

# In the order of the ids in the SegNet protocol, where they have the names Sky,
# Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian and
# Bicyclist.
CLASS_NAMES = (
  "sky",
  "building",
  "pole",
  "road",
  "pavement",
  "tree",
  "sign",
  "fence",
  "car",
  "pedestrian",
  "bicyclist",
)

# RGB of each class in figures: the colours of CamVid's own label pictures.
PALETTE = (
  (128, 128, 128),
  (128, 0, 0),
  (192, 192, 128),
  (128, 64, 128),
  (0, 0, 192),
  (128, 128, 0),
  (192, 128, 128),
  (64, 64, 128),
  (64, 0, 128),
  (64, 64, 0),
  (0, 128, 192),
)

# The id of void in the masks on disk.
VOID_ID = 11

# Our name of each split, and the folder of its pictures. The masks' folder has
# "annot" behind that.
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
SPLITS = tuple(_FOLDERS)
LAYOUT = (
  "the folders train, val, test with pictures (PNG or JPEG) and trainannot,"
  " valannot, testannot with masks of the same names (PNG)"
)


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of a CamVid folder.

  Args:
    folder: the folder that holds train, trainannot and the others.

  Raises:
    ValueError: the folder is empty or of another layout.
  """
  needed = [
    name + ending for name in _FOLDERS.values() for ending in ("", "annot")
  ]
  listing.check_folders("camvid", folder, needed, LAYOUT)
  pairs, faults = [], []
  for split, name in _FOLDERS.items():
    matched = listing.match(
      folder / name,
      folder / f"{name}annot",
      root=folder,
      split=split,
      mask_suffixes=(".png",),
    )
    pairs += matched[0]
    faults += matched[1]
  return listing.Listing(
    "camvid",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults,
    decode_mask=_decode_mask,
  )


def _decode_mask(content: bytes) -> np.ndarray:
  mask = decoding.decode_mask(content)
  if mask.max() > VOID_ID:
    wrong = [int(value) for value in np.unique(mask) if value > VOID_ID]
    raise ValueError(
      f"has the class ids {wrong[:8]}, outside 0..{VOID_ID} (0 to"
      f" {VOID_ID - 1} are classes, {VOID_ID} is void); map them to those"
    )
  return np.where(mask == VOID_ID, np.uint8(types.IGNORE_LABEL), mask)


class Camvid(builder.FilesBuilder):
  """TFDS builder of `camvid`."""

  DESCRIPTION = "Street scenes from a car, 11 classes (SegNet protocol)."
  LAYOUT = LAYOUT
  SPLITS = SPLITS
  find = staticmethod(find)
