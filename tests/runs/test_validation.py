"""Scoring the network of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fcn_jax import data
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import train
from fcn_jax import types
from fcn_jax.runs import config
from fcn_jax.runs import validation
from tests.helpers import tiny_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_the_averaged_parameters_are_what_is_validated():
  params, ema = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
  optimizer = optimizers.with_ema(optax.sgd(0.1), decay=0.9)
  opt_state = optimizer.init(params)._replace(average=ema)
  state = train.TrainState(jnp.zeros((), jnp.int32), params, {}, opt_state)
  found = validation.predicting_state(state).params
  tiny_runs.assert_same_bits(found, ema)
  without = state._replace(opt_state=optax.sgd(0.1).init(params))
  found = validation.predicting_state(without).params
  tiny_runs.assert_same_bits(found, params)


@pytest.mark.slow
def test_labels_outside_the_images_are_an_error():
  model = models.FCN(num_classes=3, backbone="vgg_small", head_width=8)
  state = train.create_state(jax.random.key(0), model, optax.sgd(0.1))
  images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
  labels = jnp.zeros((1, 32, 32), jnp.int32)
  batch = types.Batch(images, labels, valid_sizes=jnp.array([[32, 30]]))
  with pytest.raises(ValueError, match="^64 pixels .* outside the images"):
    validation.evaluate(model, state, [batch])
  void = labels.at[:, :, 30:].set(types.IGNORE_LABEL)
  confusion = validation.evaluate(model, state, [batch._replace(labels=void)])
  assert confusion.sum() == 32 * 30


def test_scores_have_the_names_of_their_classes():
  confusion = np.array([[3, 1], [0, 4]])
  scores = validation.scores_by_name(confusion, ("ground", "tree"))
  assert scores["class_iu"] == pytest.approx({"ground": 3 / 4, "tree": 4 / 5})
  assert scores["mean_iu"] == pytest.approx((3 / 4 + 4 / 5) / 2)
  assert scores["pixel_accuracy"] == pytest.approx(7 / 8)


def test_pictures_are_shown_at_the_size_of_training():
  image = np.zeros((20, 30, 3), np.uint8)
  example = data.Example(image, np.zeros((20, 30), np.int32), "one")
  options = config.Data(resize=0.5)
  resized = validation.resized(options, example)
  assert resized.image.shape == (10, 15, 3)
  assert resized.label.shape == (10, 15)
  assert resized.name == "one"
