"""What the weighted sum of the pixel losses is divided by."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fcn_jax import types

Normalization = Literal["sum", "valid", "kept", "expected"]


def check(normalize: Normalization) -> None:
  """Raises a `ValueError` if `normalize` is unknown."""
  if normalize not in get_args(Normalization):
    raise ValueError(
      f"normalize is {normalize!r}; choose one of "
      f"{', '.join(get_args(Normalization))}."
    )


def normalizer(
  normalize: Normalization,
  num_kept: jax.Array,
  num_valid: jax.Array,
  expected_sum: jax.Array | None = None,
) -> jax.Array:
  """What a weighted sum of pixel losses is divided by.

  Args:
    normalize: "sum": 1, for the plain sum of the released Caffe nets. "valid":
      the number of pixels that are not void. "kept": the number of pixels
      with a weight other than 0 that are not void, for weights of 0 and 1.
      "expected": the expected sum of the weights. Unlike "kept" it does not
      depend on the draw: if all valid pixels have the same expected weight, the
      loss is an unbiased estimate of the whole-image mean.
    num_kept: [] int32, see the function `num_kept`.
    num_valid: [] int32, see `sampling.num_valid`.
    expected_sum: [] float32, for "expected" only, see `sampling.Sampler`.

  Returns:
    Scalar float32, 0 if there is no such pixel. Counts above 2^24 are rounded.

  Raises:
    ValueError: if `normalize` is unknown, or `expected_sum` is missing.
  """
  check(normalize)
  if normalize == "expected":
    if expected_sum is None:
      raise ValueError(
        'normalize is "expected", but the expected sum of the weights is not '
        "given."
      )
    return jnp.asarray(expected_sum, jnp.float32)
  if normalize == "sum":
    return jnp.ones((), jnp.float32)
  count = num_kept if normalize == "kept" else num_valid
  return count.astype(jnp.float32)


def num_kept(labels: jax.Array, weights: jax.Array) -> jax.Array:
  """Number of pixels in the loss, [] int32: kept and not void.

  Args:
    labels: [...] int32.
    weights: [...] float32.
  """
  kept = (weights != 0) & (labels != types.IGNORE_LABEL)
  return jnp.sum(kept, dtype=jnp.int32)


def divide(total: jax.Array, count: jax.Array) -> jax.Array:
  """Divides; gives 0 with zero gradient where the count is 0."""
  count = count.astype(total.dtype)
  return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)
