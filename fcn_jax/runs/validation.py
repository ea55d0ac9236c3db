"""Scores the network of a run, and draws what it predicts."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from fcn_jax import data
from fcn_jax import inference
from fcn_jax import metrics
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import train
from fcn_jax import types
from fcn_jax import visualize
from fcn_jax.data.pipeline import combining
from fcn_jax.data.pipeline import transforms
from fcn_jax.models import heads
from fcn_jax.runs import config as config_lib


def predicting_state(state: train.TrainState) -> train.TrainState:
  """The state with the averaged parameters, if the run keeps them."""
  ema = optimizers.ema_of(state.opt_state, state.params)
  return state if ema is None else state._replace(params=ema)


def evaluate(
  model: models.Network,
  state: train.TrainState,
  batches: Iterable[types.Batch],
  *,
  row_shards: int = 1,
) -> np.ndarray:
  """Confusion matrix [C, C] of a trained network, in int64.

  Args:
    model: the network.
    state: with its parameters.
    batches: images and labels.
    row_shards: how many devices share the rows of an image.

  Raises:
    ValueError: if a batch has labels outside its images.
  """
  variables = train.variables(state)
  num_classes = heads.num_classes(model)
  confusion = np.zeros((num_classes,) * 2, np.int64)
  for batch in batches:
    predictions = inference.predict(
      model,
      variables,
      batch.images,
      batch.valid_sizes,
      row_shards=row_shards,
    )
    counts, num_unpredicted = _compare(batch.labels, predictions, num_classes)
    if num_unpredicted:
      raise ValueError(
        f"{num_unpredicted} pixels of a batch have a label, but lie outside "
        "the images: make the labels beyond `valid_sizes` void, "
        f"{types.IGNORE_LABEL}."
      )
    confusion += np.asarray(counts)
  return confusion


@functools.partial(jax.jit, static_argnames="num_classes")
def _compare(labels, predictions, num_classes):
  """The confusion matrix of a batch, and the number of unpredicted pixels."""
  return (
    metrics.confusion_matrix(labels, predictions, num_classes=num_classes),
    metrics.num_unpredicted(labels, predictions, num_classes=num_classes),
  )


def with_rows(batch: types.Batch, multiple: int) -> types.Batch:
  """A batch with more rows, up to a multiple that devices can share.

  Args:
    batch: with `valid_sizes`; arrays of NumPy.
    multiple: of the number of rows; there are two of it at least.
  """
  height = batch.labels.shape[1]
  more = max(2 * multiple, -(-height // multiple) * multiple) - height
  images = np.pad(batch.images, ((0, 0), (0, more), (0, 0), (0, 0)))
  labels = np.pad(
    batch.labels,
    ((0, 0), (0, more), (0, 0)),
    constant_values=types.IGNORE_LABEL,
  )
  return batch._replace(images=images, labels=labels)


def scores_by_name(
  confusion: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
  """The scores of a confusion matrix, with `class_iu` by class name."""
  scores = metrics.scores(confusion)._asdict()
  class_iu = scores.pop("class_iu").tolist()
  return {**scores, "class_iu": dict(zip(class_names, class_iu, strict=True))}


def resized(options: config_lib.Data, example: data.Example) -> data.Example:
  """An example at the size at which the network is trained and scored."""
  image, label = transforms.rescale(
    example.image, example.label, factor=options.resize
  )
  return example._replace(image=image, label=label)


def picture(
  model: models.Network,
  state: train.TrainState,
  example: data.Example,
  dataset: data.Dataset,
) -> np.ndarray:
  """An image of a data set, its labels and its prediction, side by side."""
  variables = train.variables(state)
  classes = inference.predict(model, variables, example.image[None])[0]
  image = combining.picture_of(example.image)
  overlays = [
    visualize.overlay(
      image,
      np.asarray(labels),
      dataset.palette,
      background=visualize.background_of(dataset.class_names),
    )
    for labels in (example.label, classes)
  ]
  return np.concatenate([image, *overlays], axis=1)
