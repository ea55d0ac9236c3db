"""Which examples of a batch a process loads."""

import types

import jax
import numpy as np
import pytest

from fcn_jax.data.pipeline import loading


def sharding_over(*spec, shape=(4,), order=None):
  devices = np.array(jax.devices()[:4])
  devices = devices if order is None else devices[order]
  mesh = jax.sharding.Mesh(devices.reshape(shape), ("a", "b")[: len(shape)])
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))


def seen_by(sharding, devices):
  """The sharding as a process sees it whose devices these are."""
  return types.SimpleNamespace(
    num_devices=sharding.num_devices,
    addressable_devices_indices_map=lambda shape: {
      device: index
      for device, index in sharding.devices_indices_map(shape).items()
      if device in devices
    },
  )


@pytest.mark.parametrize(
  ("sharding", "shares"),
  [
    (sharding_over("a"), [(0, 2), (1, 2)]),
    # Each process has half of the rows of each image, or of some images.
    (sharding_over(None, "a"), [(0, 1), (0, 1)]),
    (sharding_over("a", "b", shape=(2, 2)), [(0, 2), (1, 2)]),
    (sharding_over("b", "a", shape=(2, 2)), [(0, 1), (0, 1)]),
    (sharding_over(), [(0, 1), (0, 1)]),
  ],
)
def test_a_process_loads_what_its_devices_need(sharding, shares):
  devices = jax.devices()
  for number, expected in enumerate(shares):
    own = seen_by(sharding, devices[2 * number : 2 * number + 2])
    found = loading.shares_of(own)
    assert tuple(found.values()) == expected
    span = loading.Loading(**found).share(8)
    needed = own.addressable_devices_indices_map((8, 8, 8, 8)).values()
    rows = {row for index in needed for row in range(8)[index[0]]}
    assert rows == {*range(8)[span]}


def test_one_process_loads_all():
  assert loading.shares_of(sharding_over("a")) == {
    "process_index": 0,
    "process_count": 1,
  }


def test_examples_that_do_not_lie_side_by_side_are_refused():
  sharding = sharding_over("a", order=[0, 2, 1, 3])
  with pytest.raises(ValueError, match="by their process_index"):
    loading.shares_of(seen_by(sharding, jax.devices()[:2]))
