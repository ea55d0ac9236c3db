"""Per-pixel cross-entropy under a sampler's weights.

One loss in three forms, equal in value and gradient:

- `masked_cross_entropy`, of the logits of all pixels: the definition;
- `dense_cross_entropy`, of a score map under weights for all pixels, which
  makes the logits strip by strip;
- `sampled_cross_entropy`, of a score map at a list of sampled pixels, whose
  cost is that of these pixels.

The gradients of the last two are made together with the value: they have no
further derivative. Weights are constants there.
"""

import functools
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.losses import sweeps

Normalization = Literal["sum", "valid", "kept", "expected"]


def pixel_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, axis: int = -1
) -> jax.Array:
  """Softmax cross-entropy of every pixel, in nats.

  Args:
    logits: [..., C].
    labels: [...] int32, classes 0..C-1 or `IGNORE_LABEL`.
    axis: the axis of the classes in `logits`.

  Returns:
    [...] losses; 0, with zero gradient, where void; NaN where a label is
    neither void nor a class.
  """
  expected = list(labels.shape)
  expected.insert(axis % logits.ndim, logits.shape[axis])
  chex.assert_shape(logits, expected)
  num_classes = logits.shape[axis]
  shape = [1] * logits.ndim
  shape[axis] = num_classes
  classes = jnp.arange(num_classes, dtype=labels.dtype).reshape(shape)
  truth = jnp.expand_dims(labels, axis)
  # A comparison with all classes: quicker here than looking one of them up,
  # forwards and even more so backwards.
  score = jnp.sum(jnp.where(classes == truth, logits, 0), axis=axis)
  score = jnp.where((labels >= 0) & (labels < num_classes), score, jnp.nan)
  losses = jax.nn.logsumexp(logits, axis=axis) - score
  return jnp.where(labels == types.IGNORE_LABEL, 0, losses)


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
  total = jnp.sum(weighted_losses(logits, labels, weights))
  counts = num_kept(labels, weights), num_valid(labels)
  return divide(total, normalizer(normalize, *counts, rate))


def dense_cross_entropy(
  score_map: types.ScoreMap,
  labels: jax.Array,
  weights: jax.Array,
  *,
  normalize: Normalization,
  rate: float | None = None,
) -> jax.Array:
  """`masked_cross_entropy` of a score map, without the logits of all pixels.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32, classes 0..C-1 or `IGNORE_LABEL`.
    weights: [N, H, W] float32 from a sampler; 0 leaves a pixel out.
    normalize: what the weighted sum is divided by, see `normalizer`.
    rate: expected weight of a pixel, for `normalize="expected"` only.

  Returns:
    Scalar; 0, with zero gradient, if no pixel is kept.

  Raises:
    ValueError: if `normalize` is unknown, or `rate` missing or superfluous.
  """
  total = dense_sum(score_map, labels, weights)
  counts = num_kept(labels, weights), num_valid(labels)
  return divide(total, normalizer(normalize, *counts, rate))


def sampled_cross_entropy(
  score_map: types.ScoreMap,
  labels: jax.Array,
  sample: sampling.PixelSample,
  *,
  normalize: Normalization,
  rate: float | None = None,
) -> jax.Array:
  """`masked_cross_entropy` of a score map at the sampled pixels only.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32, classes 0..C-1 or `IGNORE_LABEL`.
    sample: pixels and weights, from `sampling.compact`.
    normalize: what the weighted sum is divided by, see `normalizer`; pixels
      for which the sample had no room are not "kept".
    rate: expected weight of a pixel, for `normalize="expected"` only.

  Returns:
    Scalar; 0, with zero gradient, if no pixel is kept.

  Raises:
    ValueError: if `normalize` is unknown, or `rate` missing or superfluous.
  """
  total = sampled_sum(score_map, labels, sample)
  sampled_labels = labels_of(sample, labels)
  counts = num_kept(sampled_labels, sample.weights), num_valid(labels)
  return divide(total, normalizer(normalize, *counts, rate))


def dense_sum(
  score_map: types.ScoreMap, labels: jax.Array, weights: jax.Array
) -> jax.Array:
  """Weighted sum of the losses of all pixels, made strip by strip.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32.
    weights: [N, H, W] float32.

  Returns:
    Scalar, in nats.
  """
  _check_shape(score_map, labels)
  chex.assert_equal_shape((labels, weights))
  return sweeps.sum_strips(
    functools.partial(weighted_losses, axis=1), score_map, (labels, weights)
  )


def sampled_sum(
  score_map: types.ScoreMap, labels: jax.Array, sample: sampling.PixelSample
) -> jax.Array:
  """Weighted sum of the losses of the sampled pixels.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32.
    sample: pixels and weights.

  Returns:
    Scalar, in nats.
  """
  _check_shape(score_map, labels)
  return sweeps.sum_samples(
    weighted_losses,
    score_map,
    sample.indices,
    jnp.max(sample.num_used),
    (labels_of(sample, labels), sample.weights),
  )


def pixel_losses(score_map: types.ScoreMap, labels: jax.Array) -> jax.Array:
  """The loss of every pixel, detached from the scores: no gradient.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32.

  Returns:
    [N, H, W] losses in nats, 0 where void, as samplers of hard examples want
    them.
  """
  return sweeps.map_strips(
    functools.partial(pixel_cross_entropy, axis=1),
    jax.lax.stop_gradient(score_map),
    (labels,),
  )


def weighted_losses(
  logits: jax.Array, labels: jax.Array, weights: jax.Array, *, axis: int = -1
) -> jax.Array:
  """Weight times loss of every pixel; 0 where the weight is 0.

  Args:
    logits: [..., C].
    labels: [...] int32.
    weights: [...] float32.
    axis: the axis of the classes in `logits`.

  Returns:
    [...], in the dtype of the logits.
  """
  chex.assert_equal_shape((labels, weights))
  losses = pixel_cross_entropy(logits, labels, axis=axis)
  # Not 0 times the loss, which may be NaN.
  return jnp.where(weights == 0, 0, weights.astype(losses.dtype) * losses)


def _check_shape(score_map: types.ScoreMap, labels: jax.Array) -> None:
  num_images = len(score_map.scores)
  chex.assert_shape(labels, (num_images, *score_map.image_size))


def labels_of(sample: sampling.PixelSample, labels: jax.Array) -> jax.Array:
  """Labels of the sampled pixels, [N, K] int32, of labels [N, H, W]."""
  flat = labels.reshape(len(labels), -1)
  return jnp.take_along_axis(flat, sample.indices, axis=1)


def normalizer(
  normalize: Normalization,
  num_kept: jax.Array,
  num_valid: jax.Array,
  rate: float | None = None,
) -> jax.Array:
  """What a weighted sum of pixel losses is divided by.

  Args:
    normalize: "sum": 1, the plain sum of the released Caffe nets. "valid":
      the number of pixels that are not void. "kept": the number of pixels
      with a weight other than 0 that are not void, for weights of 0 and 1.
      "expected": `rate` times the number of valid pixels; unlike "kept" it
      does not depend on the draw, so that the loss is an unbiased estimate of
      the whole-image mean.
    num_kept: [] int32, see `num_kept`.
    num_valid: [] int32, see `num_valid`.
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
    return num_kept.astype(jnp.float32)
  if normalize == "valid":
    return num_valid.astype(jnp.float32)
  sampling.check_rate(rate)
  return rate * num_valid.astype(jnp.float32)


def num_kept(labels: jax.Array, weights: jax.Array) -> jax.Array:
  """Number of pixels that are in the loss, [] int32.

  Args:
    labels: [N, H, W] int32.
    weights: [N, H, W] float32.
  """
  kept = (weights != 0) & (labels != types.IGNORE_LABEL)
  return jnp.sum(kept, dtype=jnp.int32)


def num_valid(labels: jax.Array) -> jax.Array:
  """Number of pixels that are not void, [] int32, of labels [...] int32."""
  return jnp.sum(labels != types.IGNORE_LABEL, dtype=jnp.int32)


def divide(total: jax.Array, count: jax.Array) -> jax.Array:
  """Divides; gives 0 with zero gradient where the count is 0."""
  count = count.astype(total.dtype)
  return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)
