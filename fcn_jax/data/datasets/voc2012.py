"""The data set `voc2012`: PASCAL VOC with the extra labels of SBD, 21 classes.

The splits are those of the FCN papers. `train` is the training list of the
Semantic Boundaries Dataset (SBD), with its pictures and labels: 8,498.
`validation` has the pictures of VOC 2011's segmentation val that are not in
SBD's train, with the labels of VOC: 736. `validation2012` has those that VOC
2012's val adds, so that "validation+validation2012" is VOC 2012's val without
SBD's train: 904.

The other archives do not contain VOC 2011's list, and it cannot be derived from
them. It is required, since results on another validation split could not be
compared with the papers'. The list of the 736 names, which the authors of the
papers published, is enough.
"""

import pathlib

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import archives
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists
from fcn_jax.data.files import matlab

# In the order of their ids: data/pascal/classes.txt in
# github.com/shelhamer/fcn.berkeleyvision.org.
CLASS_NAMES = (
  "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
  "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
  "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PALETTE = palettes.voc_palette(num_classes=len(CLASS_NAMES))

SPLITS = ("train", "validation", "validation2012")
# How many names the published lists give. 8,498 and 736: README.md and
# seg11valid.txt in data/pascal of github.com/shelhamer/fcn.berkeleyvision.org;
# the 736 are all in VOC 2012's val. 904 is a count that others report.
COUNTS = {"train": 8498, "validation": 736, "validation2012": 904 - 736}

_VOC = "VOCdevkit/VOC2012"
_SBD = "benchmark_RELEASE/dataset"
# Where VOC 2011's list may be: as unpacked, moved to the other years, or the
# authors' list of the names that are left.
_VOC2011_LISTS = (
  "TrainVal/VOCdevkit/VOC2011/ImageSets/Segmentation/val.txt",
  "VOCdevkit/VOC2011/ImageSets/Segmentation/val.txt",
  "seg11valid.txt",
)
LAYOUT = f"{_VOC}, {_SBD} and one of the lists {', '.join(_VOC2011_LISTS)}"

# MD5: torchvision/datasets/voc.py and sbd.py in github.com/pytorch/vision.
ARCHIVES = {
  "VOCtrainval_11-May-2012.tar": archives.Archive(
    holds=_VOC,
    source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    checksum="6cd6e144f989b92b3379bac3b3de84fd",
  ),
  "benchmark.tgz": archives.Archive(
    holds=_SBD,
    source=(
      "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
      "semantic_contours/"
    ),
    checksum="82b4d87ceb2ed10f6038a1cba92111cb",
  ),
  # Only a list in it is needed.
  "VOCtrainval_25-May-2011.tar": archives.Archive(
    holds=_VOC2011_LISTS[0],
    source=(
      "http://host.robots.ox.ac.uk/pascal/VOC/voc2011/; or only"
      " seg11valid.txt, from https://github.com/shelhamer/"
      "fcn.berkeleyvision.org/tree/master/data/pascal"
    ),
    checksum="6c3384ef61512963050cb5d687e5bf1e",
    instead=_VOC2011_LISTS[1:],
  ),
}


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds VOCdevkit and benchmark_RELEASE.

  Raises:
    ValueError: a folder or a list is missing or broken.
  """
  voc, sbd = folder / _VOC, folder / _SBD
  needed = [f"{_VOC}/JPEGImages", f"{_VOC}/SegmentationClass"]
  needed += [f"{_SBD}/img", f"{_SBD}/cls"]
  listing.check_folders("voc2012", folder, needed, LAYOUT)
  paths = {
    "train": sbd / "train.txt",
    "validation": _voc2011_list(folder),
    "validation2012": voc / "ImageSets" / "Segmentation" / "val.txt",
  }
  splits, faults, taken = {}, [], set()
  for split, path in paths.items():
    names, wrong = lists.read(path, root=folder)
    faults += wrong
    # A later split has no names of an earlier one.
    splits[split] = [name for name in names if name not in taken]
    taken.update(names)
  pairs, missing, notes = lists.find_pairs(
    splits,
    lambda split, name: _pair(split, name, voc=voc, sbd=sbd),
    root=folder,
    because=paths,
    counts=COUNTS,
  )
  return listing.Listing(
    "voc2012",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults + missing,
    decode_mask=_decode_mask,
    notes=notes,
  )


def _voc2011_list(folder: pathlib.Path) -> pathlib.Path:
  for path in _VOC2011_LISTS:
    if (folder / path).exists():
      return folder / path
  name = "VOCtrainval_25-May-2011.tar"
  raise ValueError(
    f"voc2012: {folder} has no list of VOC 2011's validation pictures, which"
    f" would be {' or '.join(_VOC2011_LISTS)}; download {name} from"
    f" {ARCHIVES[name].source}, and put it there"
  )


def _pair(
  split: str, name: str, *, voc: pathlib.Path, sbd: pathlib.Path
) -> listing.Pair:
  if split == "train":
    return listing.Pair(
      split, name, sbd / "img" / f"{name}.jpg", sbd / "cls" / f"{name}.mat"
    )
  return listing.Pair(
    split,
    name,
    voc / "JPEGImages" / f"{name}.jpg",
    voc / "SegmentationClass" / f"{name}.png",
  )


def _decode_mask(content: bytes) -> np.ndarray:
  if matlab.is_matlab(content):
    mask = matlab.decode_ids(content, "GTcls", field="Segmentation")
  else:
    mask = decoding.decode_mask(content)
  wrong = ~np.isin(mask, [*range(len(CLASS_NAMES)), types.IGNORE_LABEL])
  if wrong.any():
    raise ValueError(
      f"has the class ids {np.unique(mask[wrong])[:8].tolist()}; classes are 0"
      f" to {len(CLASS_NAMES) - 1}, and {types.IGNORE_LABEL} is void"
    )
  return mask.astype(np.uint8)


class Voc2012(builder.FilesBuilder):
  """TFDS builder of `voc2012`."""

  DESCRIPTION = "PASCAL VOC and SBD, 21 classes, with the FCN papers' splits."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  find = staticmethod(find)
