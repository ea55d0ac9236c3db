"""Copies batches to the device, ahead of the step that needs them."""

import collections
import functools
from collections.abc import Iterable, Iterator

import jax

from fcn_jax import label_bytes
from fcn_jax import types


def to_device(
  batches: Iterable[types.Batch],
  *,
  num_classes: int | None = None,
  sharding: jax.sharding.Sharding | None = None,
  buffer_size: int = 2,
) -> Iterator[types.Batch]:
  """Copies batches to the device while the steps before them run.

  JAX copies and computes in the background, so it is enough to ask for a copy
  early, without a thread. The state of an iterator is then ahead of the steps:
  resume by the number of the batch (`first_batch` of `train_batches`).

  Args:
    batches: on the host, with the examples of this process only.
    num_classes: of the labels, the most if there are several heads. Those of
      fewer than 255 classes are copied as bytes, see `label_bytes`. None leaves
      their dtype.
    sharding: of images [N, H, W, ...] over the devices of all processes, see
      `fcn_jax.sharding`; None for the default device.
    buffer_size: batches on the device besides the one in use.

  Yields:
    The batches on the device; with a sharding, those of all processes as one.

  Raises:
    ValueError: `buffer_size` is negative, or there are several processes and no
      sharding.
  """
  if buffer_size < 0:
    raise ValueError(f"buffer_size must be at least 0, not {buffer_size}")

  if sharding is None and jax.process_count() > 1:
    raise ValueError(
      f"there are {jax.process_count()} processes, and each would train on its "
      "own examples only: give the sharding of a batch over the devices of all."
    )

  def put(batch: types.Batch) -> types.Batch:
    if num_classes is not None:
      in_bytes = functools.partial(
        label_bytes.in_bytes, num_classes=num_classes
      )
      batch = batch._replace(labels=jax.tree.map(in_bytes, batch.labels))
    if sharding is None:
      return jax.device_put(batch)
    return jax.tree.map(
      lambda array: jax.make_array_from_process_local_data(
        _without_rows(sharding) if array.ndim < 3 else sharding, array
      ),
      batch,
    )

  return _ahead(map(put, batches), buffer_size)


def _without_rows(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
  """For arrays that have no rows of pixels, such as `valid_sizes`."""
  if not isinstance(sharding, jax.sharding.NamedSharding):
    return sharding
  return jax.sharding.NamedSharding(sharding.mesh, jax.P(*sharding.spec[:1]))


def _ahead(
  batches: Iterator[types.Batch], buffer_size: int
) -> Iterator[types.Batch]:
  waiting = collections.deque()
  for batch in batches:
    waiting.append(batch)
    if len(waiting) > buffer_size:
      yield waiting.popleft()
  yield from waiting
