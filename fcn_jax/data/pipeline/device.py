"""Copies batches to the device, ahead of the step that needs them."""

import collections
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

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
    num_classes: of the labels, the most if there are several heads. int32
      labels of fewer than 255 classes are copied as uint8: a quarter of the
      bytes. None leaves their dtype.
    sharding: of the leading axis, over the devices of all processes; None for
      the default device.
    buffer_size: batches on the device besides the one in use.

  Yields:
    The batches on the device; with a sharding, those of all processes as one.

  Raises:
    ValueError: `buffer_size` is negative.
  """
  if buffer_size < 0:
    raise ValueError(f"buffer_size must be at least 0, not {buffer_size}")

  is_small = num_classes is not None and num_classes < types.IGNORE_LABEL

  def put(batch: types.Batch) -> types.Batch:
    if is_small:
      batch = batch._replace(labels=jax.tree.map(_in_bytes, batch.labels))
    if sharding is None:
      return jax.device_put(batch)
    return jax.tree.map(
      lambda array: jax.make_array_from_process_local_data(sharding, array),
      batch,
    )

  return _ahead(map(put, batches), buffer_size)


def _in_bytes(labels):
  """int32 labels of fewer than 255 classes as uint8."""
  if labels.dtype != np.int32:
    return labels
  where = jnp.where if isinstance(labels, jax.Array) else np.where
  # What is neither void nor a class stays that.
  is_known = (labels >= 0) & (labels <= types.IGNORE_LABEL)
  return where(is_known, labels, types.IGNORE_LABEL - 1).astype(np.uint8)


def _ahead(
  batches: Iterator[types.Batch], buffer_size: int
) -> Iterator[types.Batch]:
  waiting = collections.deque()
  for batch in batches:
    waiting.append(batch)
    if len(waiting) > buffer_size:
      yield waiting.popleft()
  yield from waiting
