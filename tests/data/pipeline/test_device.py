import chex
import jax
import numpy as np
import pytest

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.pipeline import device


def _batch(number, *, size=4, with_valid_sizes=True):
  return types.Batch(
    np.full((size, 6, 8, 3), number, np.uint8),
    np.full((size, 6, 8), number, np.int32),
    np.full((size, 2), number, np.int32) if with_valid_sizes else None,
  )


@pytest.mark.parametrize("with_valid_sizes", [True, False])
@pytest.mark.parametrize("buffer_size", [0, 1, 2, 10])
def test_batches_arrive_on_the_device_in_order_and_unchanged(
  buffer_size, with_valid_sizes
):
  batches = [
    _batch(number, with_valid_sizes=with_valid_sizes) for number in range(5)
  ]
  moved = list(device.to_device(batches, buffer_size=buffer_size))
  assert all(isinstance(batch.images, jax.Array) for batch in moved)
  chex.assert_trees_all_equal(moved, batches)
  chex.assert_trees_all_equal_dtypes(moved, batches)


def test_batches_are_taken_as_far_ahead_as_asked_and_no_further():
  taken = []

  def batches():
    for number in range(6):
      taken.append(number)
      yield _batch(number)

  moved = device.to_device(batches(), buffer_size=2)
  assert taken == []
  for number in range(6):
    assert next(moved).images[0, 0, 0, 0] == number
    assert len(taken) == min(6, number + 3)
  with pytest.raises(StopIteration):
    next(moved)


def test_a_sharding_spreads_the_examples_over_the_devices():
  mesh = jax.make_mesh(
    (4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec("data")
  )
  (batch,) = device.to_device([_batch(3, size=8)], sharding=sharding)
  for array, expected in zip(batch, _batch(3, size=8), strict=True):
    assert array.sharding.is_equivalent_to(sharding, array.ndim)
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
  "num_classes, dtype", [(254, np.uint8), (255, np.int32), (None, np.int32)]
)
def test_labels_of_few_classes_are_copied_as_bytes(num_classes, dtype):
  batch = _batch(3)
  labels = {"a": batch.labels, "b": np.full_like(batch.labels, 255)}
  (moved,) = device.to_device(
    [batch._replace(labels=labels)], num_classes=num_classes
  )
  for name, expected in labels.items():
    assert moved.labels[name].dtype == dtype
    np.testing.assert_array_equal(moved.labels[name], expected)


def test_an_error_in_the_data_reaches_the_training_loop():
  source = [
    data.Example(
      np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 9, np.int32), "broken"
    )
  ]
  batches = data.train_batches(
    source,
    batch_size=1,
    augmentation=data.Augmentation(crop_size=(4, 4)),
    seed=0,
    num_classes=5,
  )
  with pytest.raises(ValueError, match="broken"):
    next(device.to_device(batches))


def test_a_negative_buffer_is_refused_at_once():
  with pytest.raises(ValueError, match="not -1"):
    device.to_device([], buffer_size=-1)
