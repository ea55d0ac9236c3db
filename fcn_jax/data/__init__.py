"""Where examples come from: data sets on disk, transforms, the pipeline.

    dataset = data.load("shapes", split="train")
    batches = data.pipeline.train_batches(dataset.source, batch_size=4, ...)

Everything here is NumPy on the host, and works without TensorFlow.
"""

from fcn_jax.data import ade20k
from fcn_jax.data import archives
from fcn_jax.data import batching
from fcn_jax.data import builder
from fcn_jax.data import camvid
from fcn_jax.data import checking
from fcn_jax.data import cityscapes
from fcn_jax.data import combining
from fcn_jax.data import datasets
from fcn_jax.data import device
from fcn_jax.data import examples
from fcn_jax.data import files
from fcn_jax.data import folder
from fcn_jax.data import listing
from fcn_jax.data import nyudv2
from fcn_jax.data import oxford_pets
from fcn_jax.data import padding
from fcn_jax.data import palettes
from fcn_jax.data import pascal_context
from fcn_jax.data import photometric
from fcn_jax.data import pipeline
from fcn_jax.data import prepared
from fcn_jax.data import resuming
from fcn_jax.data import shapes
from fcn_jax.data import sift_flow
from fcn_jax.data import threads
from fcn_jax.data import transforms
from fcn_jax.data import voc2012
from fcn_jax.data.datasets import FROM_FILES
from fcn_jax.data.datasets import NAMES
from fcn_jax.data.datasets import load
from fcn_jax.data.datasets import opened
from fcn_jax.data.datasets import splits
from fcn_jax.data.examples import Dataset
from fcn_jax.data.examples import Example

__all__ = [
  "Dataset",
  "Example",
  "FROM_FILES",
  "NAMES",
  "ade20k",
  "archives",
  "batching",
  "builder",
  "camvid",
  "checking",
  "cityscapes",
  "combining",
  "datasets",
  "device",
  "examples",
  "files",
  "folder",
  "listing",
  "load",
  "nyudv2",
  "opened",
  "oxford_pets",
  "padding",
  "palettes",
  "pascal_context",
  "photometric",
  "pipeline",
  "prepared",
  "resuming",
  "shapes",
  "sift_flow",
  "splits",
  "threads",
  "transforms",
  "voc2012",
]
