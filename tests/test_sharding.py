import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn
from fcn_jax import sharding
from tests.helpers import tiny_networks

KEY = jax.random.key(7)
SGD = fcn.optimizers.caffe_sgd(0.01, momentum=0.9, weight_decay=0.0)


def shape(*sides):
  return jax.ShapeDtypeStruct(sides, jnp.float32)


@pytest.mark.parametrize(
  "sides, expected",
  [
    ((3, 3, 64, 512), (None, None, None, ("data", "rows"))),
    ((3, 3, 128, 64), (None, None, ("data", "rows"))),
    ((1, 1, 128, 128), (None, None, None, ("data", "rows"))),
    ((3, 3, 63, 65), ()),
    ((64,), ()),
  ],
)
def test_the_state_is_split_along_the_largest_axis_that_devices_divide(
  sides, expected
):
  mesh = sharding.make_mesh(row_shards=2)
  assert sharding.fully_sharded(mesh, shape(*sides)).spec == jax.P(*expected)


def test_devices_that_cannot_form_groups_are_counted():
  with pytest.raises(ValueError, match="row_shards is 3, but there are 4"):
    sharding.make_mesh(row_shards=3)


def batch(height=64, num_images=4):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, (num_images, height // 8, 4))
  labels = labels.repeat(8, 1).repeat(8, 2)
  images = 80 * np.eye(3)[labels] + rng.integers(0, 60, (*labels.shape, 3))
  labels[:, :3] = fcn.types.IGNORE_LABEL
  return fcn.types.Batch(images.astype(np.uint8), labels.astype(np.uint8))


def state_of(model, optimizer):
  state = fcn.train.create_state(KEY, model, optimizer)
  rng = np.random.default_rng(1)
  # Score layers begin at zero, and would stop the gradient.
  params = jax.tree.map(
    lambda p: p + rng.normal(0, 0.02, p.shape).astype(p.dtype), state.params
  )
  return jax.device_get(state._replace(params=params))


def trained(model, optimizer, loss, *, mesh, fsdp=False, batches=None):
  """The losses of some steps, and the last state, on a mesh."""
  state = state_of(model, optimizer)
  placed = jax.tree.map(lambda _: sharding.replicated(mesh), state)
  if fsdp:
    placed = sharding.fully_sharded(mesh, state, min_elements=1)
  step = fcn.train.make_train_step(
    model, optimizer, loss, state_sharding=placed
  )
  state, losses = jax.device_put(state, placed), []
  batches = batches or [batch()] * 3
  for one in fcn.data.to_device(batches, sharding=sharding.of_images(mesh)):
    state, metrics = step(state, one, KEY)
    losses.append(float(metrics.loss))
  # Neither the places of the state nor the program change with the steps.
  jax.tree.map(lambda x, s: chex.assert_equal(x.sharding, s), state, placed)
  assert step._cache_size() == 1
  return losses, state


def one_device():
  return sharding.make_mesh(jax.devices()[:1])


def assert_close(found, expected, tolerance=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance),
    *map(jax.device_get, (found, expected)),
  )


@pytest.fixture
def model(monkeypatch):
  tiny_networks.add_tiny(monkeypatch)
  return fcn.models.FCN(3, backbone="tiny", normalization="batch")


def with_all_states():
  """EMA, momentum, and gradients that are averaged over two steps."""
  return optax.MultiSteps(
    fcn.optimizers.with_ema(SGD, decay=0.9), 2
  ).gradient_transformation()


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_fsdp_gives_the_same_losses_and_a_quarter_of_the_state(model):
  loss = fcn.losses.make(sampler=fcn.sampling.bernoulli(rate=0.5))
  optimizer = with_all_states()
  expected, state = trained(model, optimizer, loss, mesh=one_device())
  found, split = trained(
    model, optimizer, loss, mesh=sharding.make_mesh(), fsdp=True
  )
  assert_close((found, split), (expected, state))
  sizes = {}
  for array in jax.tree.leaves(split):
    for shard in array.addressable_shards:
      sizes[shard.device] = sizes.get(shard.device, 0) + shard.data.nbytes
  total = sum(array.nbytes for array in jax.tree.leaves(state))
  # Biases of three classes and the first kernel's channels stay whole.
  assert max(sizes.values()) < 0.3 * total


SAMPLERS = {
  "places": fcn.sampling.places(rate=1 / 16),
  "blocks": fcn.sampling.bernoulli(rate=0.5),
  "pixels": fcn.sampling.bernoulli(rate=0.5, unit="pixel"),
}


@pytest.mark.long
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", SAMPLERS)
def test_images_that_are_split_by_rows_give_the_same_losses(model, name):
  def loss(row_shards):
    return fcn.losses.make(sampler=SAMPLERS[name], row_shards=row_shards)

  expected, state = trained(model, SGD, loss(1), mesh=one_device())
  mesh = sharding.make_mesh(row_shards=2)
  found, split = trained(model, SGD, loss(2), mesh=mesh, fsdp=True)
  assert_close((found, split), (expected, state))
