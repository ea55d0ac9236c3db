"""Scores the network of a run, and draws what it predicts."""

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
  ema = optimizers.ema_of(state.opt_state)
  return state if ema is None else state._replace(params=ema)


def evaluate(
  model: models.Network,
  state: train.TrainState,
  batches: Iterable[types.Batch],
) -> np.ndarray:
  """Confusion matrix [C, C] of a trained network, in int64."""
  variables = train.variables(state)
  num_classes = heads.num_classes(model)
  confusion = np.zeros((num_classes,) * 2, np.int64)
  for batch in batches:
    predictions = inference.predict(
      model, variables, batch.images, batch.valid_sizes
    )
    confusion += np.asarray(
      _confusion_matrix(batch.labels, predictions, num_classes=num_classes)
    )
  return confusion


_confusion_matrix = jax.jit(
  metrics.confusion_matrix, static_argnames="num_classes"
)


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
  palette: np.ndarray,
) -> np.ndarray:
  """An image, its labels and its prediction, side by side."""
  variables = train.variables(state)
  classes = inference.predict(model, variables, example.image[None])[0]
  image = combining.picture_of(example.image)
  overlays = [
    visualize.overlay(image, np.asarray(labels), palette)
    for labels in (example.label, classes)
  ]
  return np.concatenate([image, *overlays], axis=1)
