"""The loss of single pixels, and the definition of the loss of a batch."""

import chex
import jax
import jax.numpy as jnp

from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.losses import normalization


def pixel_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, axis: int = -1
) -> jax.Array:
  """Softmax cross-entropy of every pixel, in nats.

  Args:
    logits: [..., C].
    labels: [...] int32, classes 0..C-1 or `IGNORE_LABEL`.
    axis: the axis of the classes in `logits`.

  Returns:
    [...] losses; 0, with zero gradient, where void, whatever the logits are;
    NaN where a label is neither void nor a class.
  """
  expected = list(labels.shape)
  expected.insert(axis % logits.ndim, logits.shape[axis])
  chex.assert_shape(logits, expected)
  num_classes = logits.shape[axis]
  is_void = labels == types.IGNORE_LABEL
  # Logits that are not finite would make the zero gradient of void NaN.
  logits = jnp.where(jnp.expand_dims(is_void, axis), 0, logits)
  shape = [1] * logits.ndim
  shape[axis] = num_classes
  classes = jnp.arange(num_classes, dtype=labels.dtype).reshape(shape)
  truth = jnp.expand_dims(labels, axis)
  # Comparing with all classes is faster here than indexing one of them,
  # especially in the backward pass.
  score = jnp.sum(jnp.where(classes == truth, logits, 0), axis=axis)
  score = jnp.where((labels >= 0) & (labels < num_classes), score, jnp.nan)
  losses = jax.nn.logsumexp(logits, axis=axis) - score
  return jnp.where(is_void, 0, losses)


def weighted_losses(
  logits: jax.Array, labels: jax.Array, weights: jax.Array, *, axis: int = -1
) -> jax.Array:
  """Weight times loss of every pixel; void where the weight is 0.

  Args:
    logits: [..., C].
    labels: [...] int32.
    weights: [...] float32.
    axis: the axis of the classes in `logits`.

  Returns:
    [...], in the dtype of the logits.
  """
  chex.assert_equal_shape((labels, weights))
  # Not 0 times the loss: neither it nor its gradient may be finite.
  labels = jnp.where(weights == 0, types.IGNORE_LABEL, labels)
  losses = pixel_cross_entropy(logits, labels, axis=axis)
  return weights.astype(losses.dtype) * losses


def masked_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  weights: jax.Array,
  *,
  normalize: normalization.Normalization,
  expected_sum: jax.Array | None = None,
) -> jax.Array:
  """Cross-entropy over the pixels that a sampler kept: the definition.

  `make` computes the same loss, and its gradient, from a score map.

  Args:
    logits: [N, H, W, C].
    labels: [N, H, W] int32, classes 0..C-1 or `IGNORE_LABEL`.
    weights: [N, H, W] float32 from a sampler; 0 leaves a pixel out.
    normalize: what the weighted sum is divided by, see `normalizer`.
    expected_sum: of the weights, for `normalize="expected"` only.

  Returns:
    Scalar; 0, with zero gradient, if no pixel is kept.

  Raises:
    ValueError: if `normalize` is unknown, or `expected_sum` missing.
  """
  total = jnp.sum(weighted_losses(logits, labels, weights))
  num_kept = normalization.num_kept(labels, weights)
  num_valid = sampling.num_valid(labels)
  count = normalization.normalizer(normalize, num_kept, num_valid, expected_sum)
  return normalization.divide(total, count)
