"""The data set `sift_flow`: outdoor scenes with two labelings.

The label is one of 33 semantic classes; the extra feature "geometric" is one of
three geometric classes. `test` has the 200 pictures in TestSet1.txt, in its
order; `train` has all others except two without labels.

The papers leave the classes that no test picture has out of the semantic
scores: cow, desert and moon.
"""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import archives
from fcn_jax.data.files import listing
from fcn_jax.data.files import lists
from fcn_jax.data.files import matlab

# Names, their order, and the two pictures without labels:
# data/sift-flow/classes.txt in github.com/shelhamer/fcn.berkeleyvision.org. In
# the files, classes are numbered from 1.
CLASS_NAMES = (
  "awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car",
  "cow", "crosswalk", "desert", "door", "fence", "field", "grass", "moon",
  "mountain", "person", "plant", "pole", "river", "road", "rock", "sand", "sea",
  "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree",
  "window",
)  # fmt: skip
GEOMETRIC_NAMES = ("sky", "horizontal", "vertical")
PALETTE = palettes.voc_palette(num_classes=len(CLASS_NAMES))
_UNLABELED = ("highway_bost181", "street_urb506")

SPLITS = ("train", "test")
# As many as trainval.txt and test.txt beside classes.txt.
COUNTS = {"train": 2486, "test": 200}

# Pictures, and both kinds of labels, are in a folder of this name.
_INNER = "spatial_envelope_256x256_static_8outdoorcategories"
_PICTURES = f"Images/{_INNER}"
_SEMANTIC = f"SemanticLabels/{_INNER}"
_GEOMETRIC = f"GeoLabels/{_INNER}"
_LIST = "TestSet1.txt"
LAYOUT = (
  f"the folders {_PICTURES} (JPEG), {_SEMANTIC} and {_GEOMETRIC} (MATLAB) and"
  f" the list {_LIST}"
)

# The publisher's checksum is not known.
ARCHIVES = {
  "SiftFlowDataset.zip": archives.Archive(
    holds="SemanticLabels",
    source="http://www.cs.unc.edu/~jtighe/Papers/ECCV10/siftflow/",
  ),
}


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of the folder that holds Images, SemanticLabels and so on.

  Raises:
    ValueError: a folder or the list is missing or broken.
  """
  needed = (_PICTURES, _SEMANTIC, _GEOMETRIC)
  listing.check_folders("sift_flow", folder, needed, LAYOUT)
  path = folder / _LIST
  test, faults = lists.read(
    path, root=folder, prefix=f"{_INNER}/", suffix=".jpg"
  )
  rest = _names(folder / _PICTURES, ".jpg") | _names(folder / _SEMANTIC, ".mat")
  splits = {
    "train": sorted(rest.difference(test, _UNLABELED)),
    "test": [name for name in test if name not in _UNLABELED],
  }
  pairs, missing, notes = lists.find_pairs(
    splits,
    lambda split, name: _pair(split, name, folder),
    root=folder,
    because={
      "train": "there is a picture or semantic label of this name",
      "test": path,
    },
    counts=COUNTS,
  )
  return listing.Listing(
    "sift_flow",
    pairs,
    class_names=CLASS_NAMES,
    palette=PALETTE,
    faults=faults + missing,
    decode_mask=_decode_semantic,
    decode_extras={"geometric": _decode_geometric},
    notes=notes,
  )


def _names(folder: pathlib.Path, suffix: str) -> set[str]:
  """Names of files, but not of those that an operating system adds."""
  return {
    path.stem
    for path in folder.iterdir()
    if path.suffix == suffix and not path.name.startswith(".")
  }


def _pair(split: str, name: str, folder: pathlib.Path) -> listing.Pair:
  return listing.Pair(
    split,
    name,
    folder / _PICTURES / f"{name}.jpg",
    folder / _SEMANTIC / f"{name}.mat",
    {"geometric": folder / _GEOMETRIC / f"{name}.mat"},
  )


def _decode_semantic(content: bytes) -> np.ndarray:
  return matlab.decode_labels(content, "S", num_classes=len(CLASS_NAMES))


def _decode_geometric(content: bytes) -> np.ndarray:
  # -1 is void; so is 0 for the authors of the papers.
  return matlab.decode_labels(
    content, "S", num_classes=len(GEOMETRIC_NAMES), lowest=-1
  )


class SiftFlow(builder.FilesBuilder):
  """TFDS builder of `sift_flow`."""

  DESCRIPTION = "Outdoor scenes with 33 semantic and 3 geometric classes."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  EXTRAS = {
    "geometric": tfds.features.Image(
      shape=(None, None, 1), encoding_format="png"
    )
  }
  find = staticmethod(find)
