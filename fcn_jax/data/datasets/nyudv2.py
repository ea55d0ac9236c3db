"""The data set `nyudv2`: indoor scenes in colour and depth, 40 classes.

This is the form that the authors of the FCN papers published: the crops and the
40 classes of Gupta et al. The extra feature "depth" has the values of the depth
files, and "hha" has three channels made from them (horizontal disparity, height
above ground, angle with gravity).

The papers train on "train+validation", 795 pictures, and report on `test`.
"""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists
from fcn_jax.data.files import matlab

# Names and their order: data/nyud/classes.txt in
# github.com/shelhamer/fcn.berkeleyvision.org, with its spelling. In the files,
# classes are numbered from 1, and 0 is void (nyud_layers.py there).
CLASS_NAMES = (
  "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window",
  "bookshelf", "picture", "counter", "blinds", "desk", "shelves", "curtain",
  "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
  "refridgerator", "television", "paper", "towel", "shower curtain", "box",
  "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub",
  "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
PALETTE = palettes.voc_palette(num_classes=len(CLASS_NAMES))

# Our name of each split, and its list.
_LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
SPLITS = tuple(_LISTS)
# The lengths of the lists in data/nyud of that repository.
COUNTS = {"train": 381, "validation": 414, "test": 654}

_FOLDERS = ("data/images", "data/depth", "data/hha", "segmentation")
LAYOUT = (
  f"the folders {', '.join(_FOLDERS)} and the lists"
  f" {', '.join(_LISTS.values())}, here or in nyud: unpack"
  " http://dl.caffe.berkeleyvision.org/nyud.tar.gz, and put the lists beside"
  " data and segmentation; they are in data/nyud of"
  " https://github.com/shelhamer/fcn.berkeleyvision.org."
  " nyu_depth_v2_labeled.mat is another form of the data set, with other"
  " classes and without HHA, and is not read"
)


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds data and segmentation, or nyud.

  Raises:
    ValueError: a folder or a list is missing or broken.
  """
  root = folder / "nyud" if (folder / "nyud").is_dir() else folder
  listing.check_folders("nyudv2", root, _FOLDERS, LAYOUT)
  missing = [name for name in _LISTS.values() if not (root / name).exists()]
  if missing:
    raise ValueError(
      f"nyudv2: {root} has no list {', '.join(missing)}; expected {LAYOUT}"
    )
  paths = {split: root / file for split, file in _LISTS.items()}
  splits, faults = lists.read_all(paths, root=folder)
  pairs, missing, notes = lists.find_pairs(
    splits,
    lambda split, name: _pair(split, name, root),
    root=folder,
    because=paths,
    counts=COUNTS,
  )
  return listing.Listing(
    "nyudv2",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults + missing,
    decode_mask=_decode_mask,
    decode_extras={"depth": _decode_depth, "hha": _decode_hha},
    notes=notes,
  )


def _pair(split: str, name: str, root: pathlib.Path) -> listing.Pair:
  return listing.Pair(
    split,
    name,
    root / "data" / "images" / f"img_{name}.png",
    root / "segmentation" / f"img_{name}.mat",
    {
      "depth": root / "data" / "depth" / f"img_{name}.png",
      "hha": root / "data" / "hha" / f"img_{name}.png",
    },
  )


def _decode_mask(content: bytes) -> np.ndarray:
  return matlab.decode_labels(
    content, "segmentation", num_classes=len(CLASS_NAMES)
  )


def _decode_depth(content: bytes) -> np.ndarray:
  depth = decoding.decode_values(content)
  if depth.ndim != 2:
    raise ValueError("has colours where depths are expected")
  return depth.astype(np.uint16)


def _decode_hha(content: bytes) -> np.ndarray:
  hha = decoding.decode_values(content)
  if hha.ndim != 3:
    raise ValueError("has one channel where the three of HHA are expected")
  return hha


class Nyudv2(builder.FilesBuilder):
  """TFDS builder of `nyudv2`."""

  DESCRIPTION = "Indoor scenes in colour and depth, 40 classes."
  LAYOUT = LAYOUT
  SPLITS = SPLITS
  EXTRAS = {
    "depth": tfds.features.Image(
      shape=(None, None, 1), dtype=np.uint16, encoding_format="png"
    ),
    "hha": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
  }
  find = staticmethod(find)
