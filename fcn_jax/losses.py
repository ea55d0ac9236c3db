"""Per-pixel cross-entropy under a sampler's weights."""

from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

from fcn_jax import sampling
from fcn_jax import types

Normalization = Literal["sum", "valid", "kept", "expected"]


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross-entropy of every pixel, in nats.

  Args:
    logits: [..., C].
    labels: [...] int32, classes 0..C-1 or `IGNORE_LABEL`.

  Returns:
    [...] losses; 0, with zero gradient, where void; NaN where a label is
    neither void nor a class.
  """
  chex.assert_equal_shape_prefix((logits, labels), labels.ndim)
  chex.assert_rank(logits, labels.ndim + 1)
  void = labels == types.IGNORE_LABEL
  # A void label is no index into the classes: replace before, mask after.
  truth = jnp.where(void, 0, labels)
  # Nor is a negative one, which would count from the end.
  truth = jnp.where(truth < 0, logits.shape[-1], truth)
  score = jnp.take_along_axis(logits, truth[..., None], axis=-1)[..., 0]
  losses = jax.nn.logsumexp(logits, axis=-1) - score
  return jnp.where(void, 0.0, losses)


def masked_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  weights: jax.Array,
  *,
  normalize: Normalization,
  rate: float | None = None,
) -> jax.Array:
  """Cross-entropy over the pixels that a sampler kept.

  Args:
    logits: [N, H, W, C].
    labels: [N, H, W] int32, classes 0..C-1 or `IGNORE_LABEL`.
    weights: [N, H, W] float32 from a sampler; 0 leaves a pixel out.
    normalize: what the weighted sum is divided by, see `normalizer`.
    rate: expected weight of a pixel, for `normalize="expected"` only.

  Returns:
    Scalar; 0, with zero gradient, if no pixel is kept.

  Raises:
    ValueError: if `normalize` is unknown, or `rate` missing or superfluous.
  """
  chex.assert_equal_shape((labels, weights))
  total = jnp.sum(weights * pixel_cross_entropy(logits, labels))
  return divide(total, normalizer(labels, weights, normalize, rate))


def normalizer(
  labels: jax.Array,
  weights: jax.Array,
  normalize: Normalization,
  rate: float | None = None,
) -> jax.Array:
  """What a weighted sum of pixel losses is divided by.

  Args:
    labels: [N, H, W] int32.
    weights: [N, H, W] float32.
    normalize: "sum": 1, the plain sum of the released Caffe nets. "valid":
      the number of pixels that are not void. "kept": the number of pixels
      with a weight other than 0 that are not void. "expected": `rate` times
      the number of valid pixels; unlike "kept" it does not depend on the
      draw, so that the loss is an unbiased estimate of the whole-image mean.
    rate: expected weight of a valid pixel, in (0, 1].

  Returns:
    Scalar float32, 0 if there is no such pixel.

  Raises:
    ValueError: if `normalize` is unknown, or `rate` missing or superfluous.
  """
  if normalize not in get_args(Normalization):
    raise ValueError(
      f"normalize is {normalize!r}; choose one of "
      f"{', '.join(get_args(Normalization))}."
    )
  if (rate is not None) != (normalize == "expected"):
    raise ValueError(
      f"rate is {rate} with normalize={normalize!r}: give the sampling rate "
      'with normalize="expected", and only there.'
    )
  if normalize == "sum":
    return jnp.ones((), jnp.float32)
  if normalize == "kept":
    return num_kept(labels, weights).astype(jnp.float32)
  num_valid = jnp.sum(sampling.valid_pixels(labels))
  if normalize == "valid":
    return num_valid
  sampling.check_rate(rate)
  return rate * num_valid


def num_kept(labels: jax.Array, weights: jax.Array) -> jax.Array:
  """Number of pixels that are in the loss, [] int32.

  Args:
    labels: [N, H, W] int32.
    weights: [N, H, W] float32.
  """
  kept = (weights != 0) & (labels != types.IGNORE_LABEL)
  return jnp.sum(kept, dtype=jnp.int32)


def divide(total: jax.Array, count: jax.Array) -> jax.Array:
  """Divides; gives 0 with zero gradient where the count is 0."""
  return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0.0)
