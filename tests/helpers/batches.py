"""Sources of examples, and batches of them with options in one row."""

import dataclasses

import numpy as np

from fcn_jax import data


def source(count, height=12, width=16, num_classes=5, step=1):
  """Examples whose pixels in the blue channel hold their number."""
  generator = np.random.default_rng(0)
  examples = []
  for index in range(count):
    size = (height + step * (index % 3), width - step * (index % 4))
    image = generator.integers(256, size=(*size, 3), dtype=np.uint8)
    image[..., 2] = index
    label = generator.integers(num_classes, size=size, dtype=np.int32)
    examples.append(data.Example(image, label, f"example_{index}"))
  return examples


def blank_source(sizes):
  """Black pictures of some sizes, all of class 0."""
  return [
    data.Example(np.zeros((*size, 3), np.uint8), np.zeros(size, np.int32), "")
    for size in sizes
  ]


class Counted(list):
  """A source that knows which of its examples were read."""

  def __init__(self, examples):
    super().__init__(examples)
    self.reads = []

  def __getitem__(self, index):
    self.reads.append(index)
    return super().__getitem__(index)


def options_of_train(**options):
  """Arguments of `train_batches`, from them and the fields of its options."""
  defaults = {"batch_size": 4, "crop_size": (8, 8), "seed": 0, "num_classes": 5}
  options = defaults | options
  return {
    "augmentation": data.Augmentation(**_take(data.Augmentation, options)),
    "loading": data.Loading(**_take(data.Loading, options)),
    **options,
  }


def train(examples, **options):
  return data.train_batches(examples, **options_of_train(**options))


def evaluate(examples, **options):
  options = {"num_classes": 5} | options
  loading = data.Loading(**_take(data.Loading, options))
  return data.eval_batches(examples, loading=loading, **options)


def _take(kind, options):
  names = {field.name for field in dataclasses.fields(kind)} & options.keys()
  return {name: options.pop(name) for name in names}
