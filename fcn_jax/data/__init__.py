"""Where examples come from: data sets on disk, transforms, the pipeline.

    dataset = data.load("shapes", split="train")
    batches = data.train_batches(dataset.source, batch_size=4, ...)

Everything here is NumPy on the host, and works without TensorFlow.

- `datasets`: one module for each data set, and loading by name;
- `files`: bytes to arrays, archives, and checking what people have;
- `pipeline`: transforms, batches, and batches on the device.
"""

from fcn_jax.data import datasets
from fcn_jax.data import files
from fcn_jax.data import pipeline
from fcn_jax.data.datasets import FROM_FILES
from fcn_jax.data.datasets import NAMES
from fcn_jax.data.datasets import load
from fcn_jax.data.datasets import opened
from fcn_jax.data.datasets import splits
from fcn_jax.data.examples import Dataset
from fcn_jax.data.examples import Example
from fcn_jax.data.pipeline import eval_batches
from fcn_jax.data.pipeline import fingerprint
from fcn_jax.data.pipeline import to_device
from fcn_jax.data.pipeline import train_batches

__all__ = [
  "Dataset",
  "Example",
  "FROM_FILES",
  "NAMES",
  "datasets",
  "eval_batches",
  "files",
  "fingerprint",
  "load",
  "opened",
  "pipeline",
  "splits",
  "to_device",
  "train_batches",
]
