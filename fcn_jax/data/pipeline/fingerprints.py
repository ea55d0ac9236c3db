"""A hash of the training batches, to tell whether a run may resume."""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcn_jax.data.pipeline import training_batches

# Arguments of `train_batches` that do not change the sequence.
_NOT_OF_THE_SEQUENCE = (
  "source",
  "image_sizes",
  "holds_class",
  "first_batch",
  "loading",
)
# Fields of options that were added later: left out at their defaults, so that
# runs from before can resume.
_ADDED = (
  "foreground_share",
  "foreground_classes",
  "aspect_range",
  "rotation",
  "quarter_turns",
  "elastic_amplitude",
  "elastic_spacing",
  "copy_paste",
  "copy_paste_classes",
  "cutout_count",
  "cutout_size",
  "gamma_range",
  "noise",
)
# Examples whose contents are hashed.
_NUM_HASHED = 16


def fingerprint(source: Sequence[Any], **options: Any) -> str:
  """Returns a hash of what determines the sequence of training batches.

  Store it beside a checkpoint. Do not resume if it has changed.

  Args:
    source: the examples. Their number is hashed, and the names and contents of
      sixteen of them, evenly spread: other changes go unnoticed.
    **options: the arguments of `train_batches`. Those that do not change the
      sequence (`image_sizes`, `holds_class`, `first_batch`, `loading`) are
      not hashed.

  Raises:
    TypeError: `train_batches` has no such argument, or needs another.
  """
  signature = inspect.signature(training_batches.train_batches)
  bound = signature.bind(source, **options)
  bound.apply_defaults()
  hashed = {
    name: value
    for name, value in bound.arguments.items()
    if name not in _NOT_OF_THE_SEQUENCE
  }
  hashed["length"] = len(source)
  digest = hashlib.sha256(json.dumps(hashed, default=_plain).encode())
  count = min(len(source), _NUM_HASHED)
  for index in np.linspace(0, len(source) - 1, count).round().astype(int):
    example = source[int(index)]
    digest.update(f"{example.name} {example.label.shape}".encode())
    digest.update(example.image.tobytes())
    digest.update(example.label.astype(np.int32).tobytes())
  return digest.hexdigest()


def _plain(value: Any) -> Any:
  """Converts a dataclass or a NumPy number to what JSON can hold."""
  if dataclasses.is_dataclass(value):
    return {
      field.name: getattr(value, field.name)
      for field in dataclasses.fields(value)
      if field.name not in _ADDED or getattr(value, field.name) != field.default
    }
  return value.item()
