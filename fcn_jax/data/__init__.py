"""From data sets on disk to batches on the device.

    dataset = data.load("shapes", split="train")
    batches = data.train_batches(
      dataset.source,
      batch_size=4,
      augmentation=data.Augmentation(crop_size=(96, 96)),
      num_classes=dataset.num_classes,
      seed=0,
    )

Everything here uses NumPy on the host and works without TensorFlow.

- `load`, `splits`: data sets by name (`NAMES`), each a `Dataset` of `Example`s;
- `from_arrays`: a `Dataset` of pictures and labels in memory;
- `Classes`: those of a network, to score it on a folder that lacks some;
- `opened`: lists the files of a data set made of files (`FROM_FILES`);
- `class_frequencies`: how common the classes of a data set are;
- `train_batches`, `Augmentation`, `Loading`: batches for training;
- `eval_batches`: batches for evaluation;
- `fingerprint`: a hash of the training batches, to resume safely;
- `to_device`: copies batches to the device ahead of the step.

Packages: `datasets` (a module for each data set), `files` (decoding, archives,
checks), `pipeline` (transforms and batches).
"""

from fcn_jax.data import datasets
from fcn_jax.data import files
from fcn_jax.data import pipeline
from fcn_jax.data.datasets import FROM_FILES
from fcn_jax.data.datasets import NAMES
from fcn_jax.data.datasets import load
from fcn_jax.data.datasets import opened
from fcn_jax.data.datasets import splits
from fcn_jax.data.datasets.in_memory import from_arrays
from fcn_jax.data.examples import Classes
from fcn_jax.data.examples import Dataset
from fcn_jax.data.examples import Example
from fcn_jax.data.frequencies import Frequencies
from fcn_jax.data.frequencies import class_frequencies
from fcn_jax.data.pipeline import Augmentation
from fcn_jax.data.pipeline import Loading
from fcn_jax.data.pipeline import eval_batches
from fcn_jax.data.pipeline import fingerprint
from fcn_jax.data.pipeline import to_device
from fcn_jax.data.pipeline import train_batches

__all__ = [
  "Augmentation",
  "Classes",
  "Dataset",
  "Example",
  "FROM_FILES",
  "Frequencies",
  "Loading",
  "NAMES",
  "class_frequencies",
  "datasets",
  "eval_batches",
  "files",
  "fingerprint",
  "from_arrays",
  "load",
  "opened",
  "pipeline",
  "splits",
  "to_device",
  "train_batches",
]
