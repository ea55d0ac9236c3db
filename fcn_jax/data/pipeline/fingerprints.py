"""Whether a run may go on: what its batches follow from, as one string."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcn_jax.data.pipeline import loader

# Arguments of `train_batches` that leave the sequence as it is.
_NOT_OF_THE_SEQUENCE = (
  "source",
  "image_sizes",
  "first_batch",
  "num_threads",
  "num_workers",
  "prefetch_buffer_size",
  "process_index",
  "process_count",
)
# Examples whose contents enter a fingerprint.
_NUM_FINGERPRINTED = 16


def fingerprint(source: Sequence[Any], **options: Any) -> str:
  """Returns a hash of what the sequence of training batches follows from.

  Store it beside a checkpoint, and refuse to resume with another.

  Args:
    source: the examples. Their number enters, and the names and contents of
      sixteen of them, evenly spread: a change of any other goes unnoticed.
    **options: the arguments of `pipeline.train_batches`, defaults included or
      not. What leaves the sequence as it is (`first_batch`, the numbers of
      threads, workers and processes) does not enter.

  Raises:
    TypeError: an argument is unknown to `pipeline.train_batches`, or missing.
  """
  bound = inspect.signature(loader.train_batches).bind(source, **options)
  bound.apply_defaults()
  entering = {
    name: value
    for name, value in bound.arguments.items()
    if name not in _NOT_OF_THE_SEQUENCE
  }
  entering["length"] = len(source)
  # Numbers may be NumPy's.
  text = json.dumps(
    entering, sort_keys=True, default=lambda value: value.item()
  )
  digest = hashlib.sha256(text.encode())
  count = min(len(source), _NUM_FINGERPRINTED)
  for index in np.linspace(0, len(source) - 1, count).round().astype(int):
    example = source[int(index)]
    digest.update(f"{example.name} {example.label.shape}".encode())
    digest.update(example.image.tobytes())
    digest.update(example.label.astype(np.int32).tobytes())
  return digest.hexdigest()
