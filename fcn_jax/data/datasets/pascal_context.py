"""The data set `pascal_context`: scenes labelled all over, 60 classes.

PASCAL-Context labels the pictures of VOC 2010 with 459 names. The 59 most
frequent ones are the classes of the papers; everything else is class 0,
background. There is no void.

The splits are VOC 2010's lists train and val, as in the FCN papers.
"""

import pathlib

import numpy as np

from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import archives
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists
from fcn_jax.data.files import matlab

# The 59 classes in the papers' order, and the number of each in the label maps.
# Names: data/pascal-context/classes-59.txt in
# github.com/shelhamer/fcn.berkeleyvision.org; numbers: those of the same names
# in classes-400.txt there, which is the labels.txt of PASCAL-Context.
_NUMBERS = {
  "aeroplane": 2, "bicycle": 23, "bird": 25, "boat": 31, "bottle": 34,
  "bus": 45, "car": 59, "cat": 65, "chair": 72, "cow": 98, "diningtable": 397,
  "dog": 113, "horse": 207, "motorbike": 258, "person": 284, "pottedplant": 308,
  "sheep": 347, "sofa": 368, "train": 416, "tvmonitor": 427, "bag": 9,
  "bed": 18, "bench": 22, "book": 33, "building": 44, "cabinet": 46,
  "ceiling": 68, "clothes": 80, "computer": 85, "cup": 104, "door": 115,
  "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187,
  "ground": 189, "keyboard": 220, "light": 232, "mountain": 259, "mouse": 260,
  "curtain": 105, "platform": 296, "sign": 355, "plate": 295, "road": 324,
  "rock": 326, "shelves": 349, "sidewalk": 354, "sky": 360, "snow": 366,
  "bedcloth": 19, "track": 415, "tree": 420, "truck": 424, "wall": 440,
  "water": 445, "window": 454, "wood": 458,
}  # fmt: skip
# The names that labels.txt has for these classes, apart from spaces
# (pascalcontext_layers.py there).
_OTHER_NAMES = {
  "diningtable": "table",
  "bedcloth": "bedclothes",
  "clothes": "cloth",
}
_NUM_NAMES = 459

CLASS_NAMES = ("background", *_NUMBERS)
PALETTE = palettes.voc_palette(num_classes=len(CLASS_NAMES))

# Our name of each split, and VOC's.
_LISTS = {"train": "train", "validation": "val"}
SPLITS = tuple(_LISTS)
# SUMMARY.md in github.com/dataset-ninja/PASCAL-context.
COUNTS = {"train": 4998, "validation": 5105}

_VOC = "VOCdevkit/VOC2010"
# Where people unpack it: beside VOCdevkit, or often in it.
_LABELS = ("trainval", f"{_VOC}/trainval")
LAYOUT = f"{_VOC} and {' or '.join(_LABELS)} (MATLAB files)"

ARCHIVES = {
  # MD5: torchvision/datasets/voc.py in github.com/pytorch/vision.
  "VOCtrainval_03-May-2010.tar": archives.Archive(
    holds=f"{_VOC}/JPEGImages",
    source="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/",
    checksum="da459979d0c395079b5c75ee67908abb",
  ),
  # The publisher's checksum is not known.
  "trainval.tar.gz": archives.Archive(
    holds=_LABELS[0],
    source="https://cs.stanford.edu/~roozbeh/pascal-context/",
    instead=_LABELS[1:],
  ),
}


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds VOCdevkit and the labels.

  Raises:
    ValueError: a folder or a list is missing or broken, or labels.txt has other
      numbers for the names.
  """
  labels = _LABELS[0] if (folder / _LABELS[0]).is_dir() else _LABELS[1]
  needed = (f"{_VOC}/JPEGImages", labels)
  listing.check_folders("pascal_context", folder, needed, LAYOUT)
  _check_numbers(folder, (folder / labels).parent / "labels.txt")
  paths = {
    split: folder / _VOC / "ImageSets" / "Main" / f"{name}.txt"
    for split, name in _LISTS.items()
  }
  splits, faults = lists.read_all(paths, root=folder)
  pairs, missing, notes = lists.find_pairs(
    splits,
    lambda split, name: listing.Pair(
      split,
      name,
      folder / _VOC / "JPEGImages" / f"{name}.jpg",
      folder / labels / f"{name}.mat",
    ),
    root=folder,
    because=paths,
    counts=COUNTS,
  )
  return listing.Listing(
    "pascal_context",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults + missing,
    decode_mask=_decode_mask,
    notes=notes,
  )


def _check_numbers(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Raises a `ValueError` if there is a labels.txt with other numbers."""
  if not path.exists():
    return
  reason = listing.why_not_readable(path, folder)
  if reason:
    raise ValueError(f"pascal_context: {path} {reason}")
  numbers = {}
  for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
    number, _, name = line.partition(":")
    numbers[name.replace(" ", "").strip()] = number.strip()
  wrong = [
    name
    for name, number in _NUMBERS.items()
    if numbers.get(_OTHER_NAMES.get(name, name)) != str(number)
  ]
  if wrong:
    raise ValueError(
      f"pascal_context: {path} has other numbers than expected, or none, for"
      f" {', '.join(wrong[:5])}; download it again from"
      f" {ARCHIVES['trainval.tar.gz'].source}"
    )


def _decode_mask(content: bytes) -> np.ndarray:
  numbers = matlab.decode_ids(content, "LabelMap", highest=_NUM_NAMES)
  return _CLASS_OF_NUMBER[numbers]


_CLASS_OF_NUMBER = np.zeros(_NUM_NAMES + 1, np.uint8)
_CLASS_OF_NUMBER[list(_NUMBERS.values())] = np.arange(1, len(CLASS_NAMES))


class PascalContext(builder.FilesBuilder):
  """TFDS builder of `pascal_context`."""

  DESCRIPTION = "VOC 2010 labelled all over: 59 classes and background."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  find = staticmethod(find)
