"""Data sets: one module each, and loading by name."""

from fcn_jax.data.datasets import ade20k
from fcn_jax.data.datasets import camvid
from fcn_jax.data.datasets import cityscapes
from fcn_jax.data.datasets import folder
from fcn_jax.data.datasets import from_tfds
from fcn_jax.data.datasets import in_memory
from fcn_jax.data.datasets import nyudv2
from fcn_jax.data.datasets import oxford_pets
from fcn_jax.data.datasets import palettes
from fcn_jax.data.datasets import pascal_context
from fcn_jax.data.datasets import shapes
from fcn_jax.data.datasets import sift_flow
from fcn_jax.data.datasets import voc2012
from fcn_jax.data.datasets.by_name import FROM_FILES
from fcn_jax.data.datasets.by_name import NAMES
from fcn_jax.data.datasets.by_name import load
from fcn_jax.data.datasets.by_name import opened
from fcn_jax.data.datasets.by_name import splits

__all__ = [
  "FROM_FILES",
  "NAMES",
  "ade20k",
  "camvid",
  "cityscapes",
  "folder",
  "from_tfds",
  "in_memory",
  "load",
  "nyudv2",
  "opened",
  "oxford_pets",
  "palettes",
  "pascal_context",
  "shapes",
  "sift_flow",
  "splits",
  "voc2012",
]
