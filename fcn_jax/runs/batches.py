"""The data of a run: its splits, its training batches, its validation."""

import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.pipeline import combining
from fcn_jax.data.pipeline import foreground
from fcn_jax.data.pipeline import loading as loading_lib
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import training_batches as training_batches_lib
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import processes


def data_dir_of(
  dataset: str, data_dir: pathlib.Path | None
) -> pathlib.Path | None:
  """The folder of a data set's files, as given, or from the environment."""
  named = dataset in data.FROM_FILES and dataset != "folder"
  if named and data_dir is None:
    # A data set that is already prepared does not need it.
    folder = os.environ.get(f"{dataset.upper()}_DIR")
    return pathlib.Path(folder) if folder else None
  return data_dir


def load_split(
  options: config_lib.Data,
  split: str,
  *,
  with_second_labels: bool = False,
  classes: data.Classes | None = None,
) -> data.Dataset:
  """Prepares and opens one split, with the channels that the network sees.

  Args:
    options: which data set, and how.
    split: its name.
    with_second_labels: whether to add the labels of a second head.
    classes: those of a network that is to be scored; see `data.load`.

  Raises:
    ValueError: if there is no such data set or split, it lacks a modality or
      labels, its folder is needed and not given, or files in it have faults.
    FileNotFoundError: if the folder does not exist.
  """
  extras = list(combining.EXTRAS[options.modalities])
  second = options.second_labels if with_second_labels else None
  with processes.in_turn():
    dataset = data.load(
      options.dataset,
      split=split,
      data_dir=data_dir_of(options.dataset, options.data_dir),
      prepared_dir=options.prepared_dir,
      skip_bad=options.skip_bad,
      extras=(*extras, second) if second else tuple(extras),
      classes=classes,
      group_by=options.group_by,
      verify=options.verify,
    )
  dataset = combining.with_channels(dataset, options.modalities)
  return combining.with_labels(dataset, second) if second else dataset


def with_steps(config: config_lib.Train) -> config_lib.Train:
  """The options with the number of steps that `epochs` stands for, if given.

  Raises:
    ValueError: see `load_split`.
  """
  if config.epochs is None:
    return config
  num_examples = len(load_split(config.data, "train").source)
  steps = math.ceil(config.epochs * num_examples / config.data.batch_size)
  return config.replace(steps=steps)


class TrainingBatches(NamedTuple):
  """The training batches of a run.

  Attributes:
    source: the examples.
    options: arguments of `data.train_batches`.
    fingerprint: of the sequence; runs with the same one have the same batch k.
    cut: (key, batch of images) -> batch of patches; None trains on the images.
    key: random key of the patches.
  """

  source: Sequence[Any]
  options: dict[str, Any]
  fingerprint: str
  cut: Callable[[jax.Array, types.Batch], types.Batch] | None
  key: jax.Array

  def starting_at(self, first_batch: int) -> Iterator[types.Batch]:
    """Endless batches of images, from a given number on.

    Close the iterator when done.
    """
    return data.train_batches(
      self.source, first_batch=first_batch, **self.options
    )

  def patches_of(
    self,
    batches: Iterable[types.Batch],
    *,
    first_batch: int,
    sharding: jax.sharding.Sharding | None = None,
  ) -> Iterator[types.Batch]:
    """Cuts batches into patches, on the devices where they are.

    Args:
      batches: from `starting_at`.
      first_batch: number of the first one.
      sharding: of the leading axis of images and patches alike.

    Yields:
      The batches of patches; without `cut`, the batches themselves.
    """
    if self.cut is None:
      yield from batches
      return
    cut = jax.jit(self.cut, out_shardings=sharding)
    for number, batch in enumerate(batches, start=first_batch):
      yield cut(jax.random.fold_in(self.key, number), batch)

  def names(self, number: int) -> list[str]:
    """Names of the examples in a batch."""
    names = ("batch_size", "seed", "augmentation", "holds_class")
    indices = data.pipeline.indices_of_batch(
      len(self.source),
      number=number,
      **{name: self.options[name] for name in names},
    )
    return [self.source[index].name for index in indices]


def training_batches(
  config: config_lib.Train,
  dataset: data.Dataset,
  *,
  sharding: jax.sharding.Sharding | None = None,
) -> TrainingBatches:
  """The training batches.

  Args:
    config: the options.
    dataset: the split to train on.
    sharding: of batches; this process loads what its devices need. None for
      all.

  Raises:
    ValueError: if the data set has fewer examples than a batch, a patch does
      not fit into the images, or an option of the pipeline is out of range.
  """
  shares = {} if sharding is None else loading_lib.shares_of(sharding)
  size = config.data.batch_size
  if size > len(dataset.source):
    raise ValueError(
      f"{config.run.workdir.name} needs {size} images per step, but the data "
      f"set has {len(dataset.source)}: give --batch-size {len(dataset.source)} "
      "or less."
    )
  image_sizes = None
  if config.augmentation.crop_size is None:
    image_sizes = padding.image_sizes(
      dataset.source, num_threads=config.data.num_threads
    )
    _check_patches(config, image_sizes)
  num_classes = build.heads(config.data, dataset.num_classes)
  holds_class = None
  if config.augmentation.needs_classes:
    holds_class = foreground.holds_class(
      dataset.source,
      num_classes=num_classes,
      num_threads=config.data.num_threads,
    )
  options = {
    "batch_size": size,
    "augmentation": config.augmentation,
    "resize_factor": config.data.resize,
    "num_classes": num_classes,
    "seed": config.run.seed,
  }
  fingerprint = data.fingerprint(dataset.source, **options)
  loading = data.Loading(
    num_threads=config.data.num_threads,
    num_workers=config.data.num_workers,
    **shares,
  )
  options |= {
    "image_sizes": image_sizes,
    "holds_class": holds_class,
    "loading": loading,
  }
  *_, key = build.random_keys(config.run.seed)
  cut = build.cut(config.patches, dataset.num_classes)
  batches = TrainingBatches(dataset.source, options, fingerprint, cut, key)
  # The pipeline checks its options when it is made.
  data.train_batches(dataset.source, **options).close()
  return batches


def _check_patches(config: config_lib.Train, image_sizes: np.ndarray) -> None:
  """Raises a `ValueError` if a batch may be too small for the patches."""
  if config.patches.patches == "none":
    return
  sizes = training_batches_lib.sizes_of_batches(
    image_sizes,
    batch_size=config.data.batch_size,
    augmentation=config.augmentation,
    resize_factor=config.data.resize,
  )
  for size in sizes:
    config.patches.check_image(size)


def validation_batches(
  config: config_lib.Groups,
  dataset: data.Dataset,
  *,
  sharding: jax.sharding.Sharding | None = None,
) -> Iterable[types.Batch]:
  """The validation batches, which can be used again and again.

  Args:
    config: the options.
    dataset: the split to score.
    sharding: of batches; this process loads what its devices need. None for
      all.
  """
  shares = {} if sharding is None else loading_lib.shares_of(sharding)
  return data.eval_batches(
    dataset.source,
    batch_size=config.run.validation_batch,
    num_sizes=config.augmentation.num_sizes,
    resize_factor=config.data.resize,
    num_classes=dataset.num_classes,
    loading=data.Loading(num_threads=config.data.num_threads, **shares),
  )


def shown(config: config_lib.Groups, dataset: data.Dataset) -> list[int]:
  """Numbers of the images that people are shown, evenly spread."""
  length = len(dataset.source)
  count = min(config.run.num_pictures, length)
  return [int(i) for i in (np.arange(count) + 0.5) * length / count]


def class_table(dataset: data.Dataset) -> dict[str, Any]:
  """Describes the classes, for checkpoints and other commands."""
  return {
    "names": list(dataset.class_names),
    "palette": np.asarray(dataset.palette).tolist(),
    "masks": dataset.masks,
  }
