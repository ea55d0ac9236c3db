"""The data set `cityscapes`: streets of 50 cities with 19 classes.

Its files are leftImg8bit_trainvaltest.zip (pictures) and
gtFine_trainvaltest.zip (masks), or what is in them: the masks
gtFine/train/<city>/<name>_gtFine_labelIds.png belong to the pictures
leftImg8bit/train/<city>/<name>_leftImg8bit.png, and likewise in val/. There is
no test split here: its labels are not public.
"""

import pathlib

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import builder
from fcn_jax.data.files import archives
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import matching

# Id in the masks, name and RGB of the classes that count in the benchmark, in
# the order of their train ids. All from cityscapesscripts/helpers/labels.py in
# github.com/mcordts/cityscapesScripts, commit 0bcc4a7.
_CLASSES = (
  (7, "road", (128, 64, 128)),
  (8, "sidewalk", (244, 35, 232)),
  (11, "building", (70, 70, 70)),
  (12, "wall", (102, 102, 156)),
  (13, "fence", (190, 153, 153)),
  (17, "pole", (153, 153, 153)),
  (19, "traffic light", (250, 170, 30)),
  (20, "traffic sign", (220, 220, 0)),
  (21, "vegetation", (107, 142, 35)),
  (22, "terrain", (152, 251, 152)),
  (23, "sky", (70, 130, 180)),
  (24, "person", (220, 20, 60)),
  (25, "rider", (255, 0, 0)),
  (26, "car", (0, 0, 142)),
  (27, "truck", (0, 0, 70)),
  (28, "bus", (0, 60, 100)),
  (31, "train", (0, 80, 100)),
  (32, "motorcycle", (0, 0, 230)),
  (33, "bicycle", (119, 11, 32)),
)
CLASS_NAMES = tuple(name for _, name, _ in _CLASSES)
PALETTE = tuple(color for _, _, color in _CLASSES)

# Ids in masks; those that are not in the table are void. The licence plate,
# which has the id -1 there, is not drawn into masks.
_LABEL_IDS = range(34)
_TRAIN_IDS = {label_id: i for i, (label_id, _, _) in enumerate(_CLASSES)}

# Our name of each split, and its folders'.
_FOLDERS = {"train": "train", "validation": "val"}
SPLITS = tuple(_FOLDERS)
LAYOUT = (
  "the folders leftImg8bit and gtFine, with train/<city>/*_leftImg8bit.png,"
  " train/<city>/*_gtFine_labelIds.png, and the same in val/"
)

_SITE = "https://www.cityscapes-dataset.com/downloads, with an account,"
# Without checksums: the site shows them to those who are logged in.
ARCHIVES = {
  "leftImg8bit_trainvaltest.zip": archives.Archive("leftImg8bit", _SITE),
  "gtFine_trainvaltest.zip": archives.Archive("gtFine", _SITE),
}


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds leftImg8bit and gtFine.

  Raises:
    ValueError: the folder is of another layout.
  """
  needed = [
    f"{kind}/{name}"
    for kind in ("leftImg8bit", "gtFine")
    for name in _FOLDERS.values()
  ]
  listing.check_folders("cityscapes", folder, needed, LAYOUT)
  pairs, faults, _ = matching.match(
    {
      split: (folder / "leftImg8bit" / name, folder / "gtFine" / name)
      for split, name in _FOLDERS.items()
    },
    root=folder,
    mask_suffixes=(".png",),
    endings=("_leftImg8bit", "_gtFine_labelIds"),
  )
  return listing.Listing(
    "cityscapes",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults,
    decode_mask=decode_mask,
  )


def decode_mask(content: bytes) -> np.ndarray:
  """Decodes a *_labelIds.png to [H, W] uint8, train ids 0..18 or void.

  Raises:
    ValueError: as `decoding.decode_mask`, or it has ids above 33.
  """
  return decoding.decode_labels(
    content,
    [_TRAIN_IDS.get(label_id, types.IGNORE_LABEL) for label_id in _LABEL_IDS],
    f", outside 0..{_LABEL_IDS[-1]}; a mask must hold the label ids of"
    " Cityscapes as published, not its train ids",
  )


class Cityscapes(builder.FilesBuilder):
  """TFDS builder of `cityscapes`."""

  DESCRIPTION = "Street scenes of 50 cities, 19 classes, fine annotations."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  find = staticmethod(find)
