"""The data set `ade20k`: scenes of all kinds with 150 classes.

These are the pictures and classes of the scene parsing challenge of 2016
(SceneParse150), from ADEChallengeData2016.zip or what is in it: the masks
annotations/training/<name>.png belong to the pictures
images/training/<name>.jpg, and likewise in validation/; objectInfo150.txt has
the names of the classes. In the masks 0 is void and 1..150 are the classes.

A few masks of the training set are void everywhere (14 according to
github.com/CSAILVision/semantic-segmentation-pytorch/issues/298) and are left
out, since nothing can be learnt from them.
"""

import pathlib

import numpy as np

from fcn_jax import types
from fcn_jax.data.datasets import builder
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import archives
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing
from fcn_jax.data.files import matching

NUM_CLASSES = 150
NAMES_FILE = "objectInfo150.txt"

# Our name of each split, and its folders'.
_FOLDERS = {"train": "training", "validation": "validation"}
SPLITS = tuple(_FOLDERS)
LAYOUT = (
  "the folder ADEChallengeData2016, or in it images and annotations, both with"
  f" training and validation, and {NAMES_FILE}"
)

# The top folder in the archive.
_TOP = "ADEChallengeData2016"
ARCHIVES = {
  "ADEChallengeData2016.zip": archives.Archive(
    _TOP,
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    # SHA-1, from scripts/datasets/ade20k.py in github.com/dmlc/gluon-cv.
    "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
    # Users may give the folder in the archive, or the one around it.
    instead=("annotations",),
  )
}

# PASCAL VOC's colours, without the first: black is for void.
PALETTE = palettes.voc_palette(num_classes=NUM_CLASSES + 1)[1:]


def find(folder: pathlib.Path) -> listing.Listing:
  """Lists the files of ADEChallengeData2016, or of the folder around it.

  Raises:
    ValueError: the folder is of another layout, or its list of classes is not
      the one of 150.
  """
  top = folder / _TOP if (folder / _TOP).is_dir() else folder
  needed = [
    f"{kind}/{name}"
    for kind in ("images", "annotations")
    for name in _FOLDERS.values()
  ]
  listing.check_folders("ade20k", top, needed, LAYOUT)
  class_names = _class_names(top / NAMES_FILE, root=folder)
  pairs, faults, _ = matching.match(
    {
      split: (top / "images" / name, top / "annotations" / name)
      for split, name in _FOLDERS.items()
    },
    root=folder,
    mask_suffixes=(".png",),
  )
  return listing.Listing(
    "ade20k",
    pairs,
    class_names=class_names,
    palette=PALETTE,
    faults=faults,
    decode_mask=_decode_mask,
    skip_void=True,
  )


def _class_names(path: pathlib.Path, *, root: pathlib.Path) -> tuple[str, ...]:
  """The names in the table of classes: those before the first comma."""
  reason = listing.why_not_readable(path, root)
  if reason:
    raise ValueError(
      f"ade20k: {path}, which has the names of the classes, {reason}; it is in"
      " ADEChallengeData2016.zip"
    )
  # Columns: Idx, Ratio, Train, Val, Name; there are spaces around some values.
  lines = path.read_text("utf-8", errors="replace").splitlines()
  rows = [line.split("\t") for line in lines[1:] if line.strip()]
  if [row[0].strip() for row in rows] != [
    str(number) for number in range(1, NUM_CLASSES + 1)
  ] or any(len(row) != 5 for row in rows):
    raise ValueError(
      f"ade20k: {path} is not a table of the classes 1 to {NUM_CLASSES} with"
      " five columns; take it from ADEChallengeData2016.zip again"
    )
  return tuple(row[4].partition(",")[0].strip() for row in rows)


def _decode_mask(content: bytes) -> np.ndarray:
  return decoding.decode_labels(
    content,
    [types.IGNORE_LABEL, *range(NUM_CLASSES)],
    f", outside 0..{NUM_CLASSES} (0 is void, 1 to {NUM_CLASSES} are classes);"
    " map them to those",
  )


class Ade20k(builder.FilesBuilder):
  """TFDS builder of `ade20k`."""

  DESCRIPTION = "Scenes of all kinds, 150 classes (SceneParse150)."
  LAYOUT = LAYOUT
  ARCHIVES = ARCHIVES
  SPLITS = SPLITS
  find = staticmethod(find)
