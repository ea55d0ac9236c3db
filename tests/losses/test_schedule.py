"""Losses whose rate changes from step to step."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn
from fcn_jax import losses
from fcn_jax import sampling
from tests.helpers import score_maps

SAMPLERS = {
  "blocks": functools.partial(sampling.bernoulli, unit="block"),
  "pixels": functools.partial(sampling.bernoulli, unit="pixel"),
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", SAMPLERS)
def test_another_rate_is_no_new_program_and_has_the_same_loss(unit):
  make = SAMPLERS[unit]
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  key = jax.random.key(0)

  @jax.jit
  def of_rate(rate):
    loss = losses.make(sampler=make(rate=rate, max_rate=1.0))
    return loss(key, score_map, labels)

  plain = losses.make(sampler=make(rate=0.6))
  expected = jax.jit(lambda: plain(key, score_map, labels))()
  chex.assert_trees_all_close(of_rate(jnp.float32(0.6)), expected, rtol=1e-5)
  for rate in (0.3, 1.0):
    found = of_rate(jnp.float32(rate))
    share = found.num_kept / found.num_valid
    assert abs(share - rate) < 0.25
  assert of_rate._cache_size() == 1


@pytest.mark.slow
def test_another_count_is_no_new_program():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)

  @jax.jit
  def of_count(count):
    sampler = sampling.fixed_count(count=count, max_count=200)
    return losses.make(sampler=sampler)(jax.random.key(0), score_map, labels)

  for count in (10, 200):
    assert of_count(jnp.int32(count)).num_kept == 2 * count
  assert of_count._cache_size() == 1


def test_a_highest_rate_is_checked():
  with pytest.raises(ValueError, match=r"sampling rate is 1\.5"):
    sampling.bernoulli(rate=jnp.float32(0.5), max_rate=1.5)
  with pytest.raises(ValueError, match="max_count is 0"):
    sampling.fixed_count(count=jnp.int32(5), max_count=0)
  with pytest.raises(ValueError, match=r"rate is 0\.9, above max_rate, 0\.5"):
    sampling.bernoulli(rate=0.9, max_rate=0.5)
  with pytest.raises(ValueError, match="count is 9, above max_count, 5"):
    sampling.fixed_count(count=9, max_count=5)


def test_a_traced_count_above_the_highest_is_lowered_to_it():
  labels = score_maps.make_labels(score_maps.make_map())

  @jax.jit
  def num_kept(count):
    sampler = sampling.fixed_count(count=count, max_count=20)
    return jnp.sum(sampler.draw(jax.random.key(0), labels), axis=(1, 2))

  np.testing.assert_array_equal(num_kept(jnp.int32(50)), 20)


@pytest.mark.slow
def test_the_rate_of_a_step_follows_the_schedule_in_one_program():
  model = fcn.models.FCN(3, backbone="vgg_small", head_width=8)
  optimizer = optax.sgd(1e-3)
  rate = optax.linear_schedule(0.1, 1.0, 3)
  loss = losses.Schedule(
    lambda step: losses.make(
      sampler=sampling.bernoulli(rate=rate(step), max_rate=1.0)
    )
  )
  step = fcn.train.make_train_step(model, optimizer, loss)
  state = fcn.train.create_state(jax.random.key(0), model, optimizer)
  batch = fcn.types.Batch(
    np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 64, 64), np.int32)
  )
  shares = []
  for _ in range(5):
    state, metrics = step(state, batch, jax.random.key(0))
    shares.append(metrics.num_sampled / metrics.num_valid)
  assert shares[0] < shares[1] < shares[2] < 1
  assert shares[3] == shares[4] == 1
  assert step._cache_size() == 1
