"""The data set `folder`: pictures and masks of your own.

    images/cat.jpg      a picture in any common format
    masks/cat.png       its labels: grey, palette or colours, without loss

or the same in train/, validation/ (or val/, valid/) and test/. Without these,
a fifth of the pictures, chosen by a hash of their names, are for validation.

What the values of the masks mean stands in an optional `classes.json`:

    {"classes": [{"name": "background", "value": 0, "color": [0, 0, 0]},
                 {"name": "cell", "value": 255, "color": [255, 0, 0]}],
     "ignore": [128, [255, 255, 255]]}

`value` is the grey value or palette index of a class; without it, classes have
0, 1, 2 and so on. `color` is its RGB in figures, and in masks that are
coloured. A class may also be given as its name only. Values and colours under
"ignore" are void, as is 255 if no class has it.

Without the file, the masks are scanned. If nearly all have the values 0 and 255
only, these are background and foreground. Otherwise each value except 255,
which is void, is a class, in their order. Coloured masks need the file.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax import types
from fcn_jax.data import builder
from fcn_jax.data import files
from fcn_jax.data import listing

CLASSES_FILE = "classes.json"
SPLITS = ("train", "validation", "test")
LAYOUT = (
  "images/ with pictures and masks/ with masks of the same names, or these two"
  " in each of train/, validation/ and test/"
)

# What people call the folder of a split.
_SPLIT_FOLDERS = {
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid"),
  "test": ("test", "testing"),
}
_VALIDATION_SHARE = 0.2
_MAX_CLASSES = types.IGNORE_LABEL
# Share of the masks that must agree for the others to be faulty, and the least
# number of masks for which such a judgement is made.
_MAJORITY = 0.9
_MIN_MASKS = 10
