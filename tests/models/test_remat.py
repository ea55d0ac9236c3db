"""Blocks that the backward pass computes again, `remat="blocks"`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import models
from tests.helpers import tiny_networks

IMAGES = jnp.asarray(tiny_networks.picture(64, 48)[None])


def initial(model):
  shape = functools.partial(model.init, train=True)
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  return jax.eval_shape(shape, keys, IMAGES)


@pytest.mark.parametrize(
  "backbone",
  ["vgg16", "fcn_basic", pytest.param("googlenet_bn", marks=pytest.mark.slow)],
)
def test_variables_keep_their_names(backbone):
  model = models.FCN(3, backbone=backbone)
  assert initial(model.clone(remat="blocks")) == initial(model)


@pytest.mark.slow
def test_variables_of_residual_networks_keep_their_names():
  model = models.FCNResNet(3, auxiliary=True)
  assert initial(model.clone(remat="blocks")) == initial(model)


def test_other_values_and_networks_without_blocks_are_refused():
  with pytest.raises(ValueError, match="remat is 'all'"):
    models.FCN(3, remat="all")
  with pytest.raises(ValueError, match='remat is "blocks", but alexnet'):
    models.FCN(3, backbone="alexnet", remat="blocks")


def loss_of(model, params, statistics):
  score_map, new = model.apply(
    {"params": params, **statistics},
    IMAGES,
    train=True,
    rngs={"dropout": jax.random.key(3)},
    mutable=["batch_stats"],
  )
  return jnp.sum(jnp.sin(score_map.scores)), new


def num_recomputed(model, variables):
  statistics = {"batch_stats": variables["batch_stats"]}
  gradient = jax.grad(functools.partial(loss_of, model), has_aux=True)
  jaxpr = jax.make_jaxpr(gradient)(variables["params"], statistics)
  return str(jaxpr).count("remat2[")


@pytest.mark.long
def test_gradients_statistics_and_dropout_stay_the_same(monkeypatch):
  tiny_networks.add_tiny(monkeypatch)
  model = models.FCN(
    3, backbone="tiny", normalization="batch", dropout_rate=0.5
  )
  again = model.clone(remat="blocks")
  variables = tiny_networks.random_variables(model)
  statistics = {"batch_stats": variables["batch_stats"]}
  # Each of the five blocks.
  assert num_recomputed(model, variables) == 0
  assert num_recomputed(again, variables) >= 5
  expected, found = (
    jax.jit(jax.value_and_grad(functools.partial(loss_of, one), has_aux=True))(
      variables["params"], statistics
    )
    for one in (model, again)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    found,
    expected,
  )


def test_predictions_compute_nothing_again(monkeypatch):
  tiny_networks.add_tiny(monkeypatch)
  model = models.FCN(3, backbone="tiny", remat="blocks")
  predict = functools.partial(model.apply, train=False)
  variables = tiny_networks.random_variables(model)
  assert "remat2[" not in str(jax.make_jaxpr(predict)(variables, IMAGES))
