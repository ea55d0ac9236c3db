"""The loss of single pixels, and the definition of the loss of a batch."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.losses import normalization

# (logits [..., C, P], labels [..., P] int32 of classes) -> losses [..., P].
PixelLoss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross-entropy, in nats: the pixel loss of the papers.

  Args:
    logits: [..., C, P].
    labels: [..., P] int32, classes 0..C-1.

  Returns:
    [..., P] losses; NaN where a label is not a class.
  """
  score = score_of_truth(logits, labels)
  return jax.nn.logsumexp(logits, axis=-2) - score


def score_of_truth(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """The logit of each pixel's own class.

  Args:
    logits: [..., C, P].
    labels: [..., P] int32, classes 0..C-1.

  Returns:
    [..., P]; NaN where a label is not a class.
  """
  is_truth, is_class = truth(logits, labels)
  score = jnp.sum(jnp.where(is_truth, logits, 0), axis=-2)
  return jnp.where(is_class, score, jnp.nan)


def truth(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Marks each pixel's own class, [..., C, P], and labels that are classes.

  Comparing with all classes is faster here than indexing one of them,
  especially in the backward pass.

  Raises:
    ValueError: if there is only one class.
  """
  num_classes = logits.shape[-2]
  if num_classes == 1:
    raise ValueError(
      "the logits have one class, whose softmax is 1 everywhere: use "
      'losses.sigmoid_cross_entropy, or activation="sigmoid" in a loss of '
      "regions, or give the network two classes."
    )
  shape = [1] * (logits.ndim - 2) + [num_classes, 1]
  classes = jnp.arange(num_classes, dtype=labels.dtype).reshape(shape)
  return classes == labels[..., None, :], (labels >= 0) & (labels < num_classes)


def weighted_losses(
  pixel_loss: PixelLoss,
  logits: jax.Array,
  labels: jax.Array,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Weight times loss of every pixel; void where the weight is 0.

  Args:
    pixel_loss: such as `cross_entropy`.
    logits: [..., C, P].
    labels: [..., P] integers, classes 0..C-1 or `IGNORE_LABEL`.
    weights: [..., P] float32; None for 1.

  Returns:
    [..., P], in the dtype of the logits; 0, with zero gradient, where void,
    whatever the logits are.
  """
  values = weighted_values(with_axis(pixel_loss), logits, labels, weights)
  return values[..., 0, :]


def with_axis(
  pixel_loss: PixelLoss,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """The pixel loss with an axis for values, [..., 1, P]."""
  return lambda logits, labels: pixel_loss(logits, labels)[..., None, :]


def weighted_values(
  function: Callable[[jax.Array, jax.Array], types.Tree],
  logits: jax.Array,
  labels: jax.Array,
  weights: jax.Array | None = None,
) -> types.Tree:
  """Weight times values of every pixel; see `weighted_losses`.

  Args:
    function: (logits [..., C, P], labels [..., P] int32) -> a tree of arrays
      [..., K, P].
    logits: [..., C, P].
    labels: [..., P] integers, classes 0..C-1 or `IGNORE_LABEL`.
    weights: [..., P] float32; None for 1.

  Returns:
    What `function` returns, weighted; 0 where void.
  """
  is_out = labels == types.IGNORE_LABEL
  if weights is not None:
    chex.assert_equal_shape((labels, weights))
    is_out = is_out | (weights == 0)
  # Not 0 times the loss: neither it nor its gradient may be finite.
  logits = jnp.where(is_out[..., None, :], 0, logits)
  # Bytes would wrap around where a loss computes with labels.
  classes = jnp.where(is_out, 0, labels).astype(jnp.int32)

  def weighted(values):
    if weights is not None:
      values = weights.astype(values.dtype)[..., None, :] * values
    return jnp.where(is_out[..., None, :], 0, values)

  return jax.tree.map(weighted, function(logits, classes))


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """`cross_entropy` of logits whose classes come last.

  Args:
    logits: [..., C].
    labels: [...] integers, classes 0..C-1 or `IGNORE_LABEL`.

  Returns:
    [...] losses; 0, with zero gradient, where void; NaN where a label is
    neither void nor a class.
  """
  chex.assert_shape(logits, (*labels.shape, None))
  logits, labels = logits[..., None], labels[..., None]
  return weighted_losses(cross_entropy, logits, labels)[..., 0]


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
  chex.assert_equal_shape((labels, weights))
  losses = pixel_cross_entropy(
    logits, jnp.where(weights == 0, types.IGNORE_LABEL, labels)
  )
  total = jnp.sum(weights.astype(losses.dtype) * losses)
  num_kept = normalization.num_kept(labels, weights)
  num_valid = sampling.num_valid(labels)
  count = normalization.normalizer(normalize, num_kept, num_valid, expected_sum)
  return normalization.divide(total, count)
