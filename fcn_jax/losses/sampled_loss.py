"""The loss of a score map under a sampler, in whichever form is fastest."""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp

from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import blocks
from fcn_jax.losses import listed_pixels
from fcn_jax.losses import normalization
from fcn_jax.losses import pixel_losses
from fcn_jax.losses import strips

LossForm = Literal["auto", "logits", "strips", "blocks", "pixels"]

# When "pixels" is the fastest form: a listed pixel costs as much as a few
# pixels in strips, plus a constant that does not depend on the number of
# classes. Both constants are from two CPU cores; see
# experiments.benchmarks.loss_head.
_LISTED_SHARE = 0.6
_LISTED_CLASSES = 20


class LossTerms(NamedTuple):
  """A loss, with the sum and the counts behind it.

  Attributes:
    loss: [] float32, the normalised loss; 0, with zero gradient, if no pixel
      is kept.
    loss_sum: [] float32, weighted sum of the pixel losses, in nats.
    num_kept: [] int32, pixels in the loss, see `num_kept`.
    num_valid: [] int32, pixels that are not void.
    num_dropped: [] int32, sampled pixels that are not in the loss because
      their list had no room for them.
  """

  loss: jax.Array
  loss_sum: jax.Array
  num_kept: jax.Array
  num_valid: jax.Array
  num_dropped: jax.Array


# (key, score_map, labels [N, H, W]) -> terms.
Loss = Callable[[jax.Array, types.ScoreMap, jax.Array], LossTerms]


def make(
  *,
  sampler: sampling.Sampler = sampling.whole_image(),
  normalize: normalization.Normalization = "kept",
  form: LossForm = "auto",
  capacity: int | None = None,
) -> Loss:
  """Makes the loss of a score map at the pixels that a sampler keeps.

  Its value is that of `masked_cross_entropy`. In all forms but "logits" the
  gradient is computed together with the value and has no further derivative;
  weights have no gradient.

  Args:
    sampler: which pixels enter the loss, see `sampling`.
    normalize: see `normalizer`.
    form: how the loss is computed; all forms give the same numbers. "logits":
      from the logits of all pixels. "strips": strip by strip, without them.
      "blocks": in the blocks of pixels between four cells that hold a sampled
      pixel. "pixels": at the sampled pixels only. "auto": "pixels" if the
      sampler keeps few enough pixels for that to be the fastest, else "strips".
    capacity: the most pixels of an image that the form "pixels" has room for;
      those beyond are left out and counted in `LossTerms.num_dropped`. None
      asks the sampler for its bound, which is too small less than once in 1e9
      steps, see `sampling.capacity`.

  Returns:
    A function of a random key, a score map and labels [N, H, W] to the terms.

  Raises:
    TypeError: if `sampler` is not a `Sampler`.
    ValueError: if `form` or `normalize` is unknown, `normalize` is "expected"
      and the sampler does not state an expected sum, `capacity` is less than 1,
      or missing where the form is "pixels" and the sampler does not say how
      many pixels it keeps. The loss raises one if a batch has 2^31 pixels or
      more, which int32 cannot count.
  """
  _check_sampler(sampler, normalize)
  _check_form(form, capacity, sampler)

  def loss(
    key: jax.Array, score_map: types.ScoreMap, labels: jax.Array
  ) -> LossTerms:
    num_images = len(score_map.scores)
    chex.assert_shape(labels, (num_images, *score_map.image_size))
    if labels.size >= 2**31:
      raise ValueError(
        f"labels of shape {labels.shape} are {labels.size} pixels; a batch may "
        "have 2^31 - 1: make it smaller."
      )
    weights = _draw(sampler, key, score_map, labels)
    length = _list_length(form, capacity, sampler, score_map)
    if length is not None:
      sums = _sum_listed(score_map, labels, weights, length)
    else:
      sum_of = {"logits": _sum_logits, "blocks": _sum_blocks}
      sums = sum_of.get(form, _sum_strips)(score_map, labels, weights)
    num_valid = sampling.num_valid(labels)
    expected_sum = None
    if normalize == "expected":
      expected_sum = sampler.expected_sum(labels)
    count = normalization.normalizer(
      normalize, sums.num_kept, num_valid, expected_sum
    )
    return LossTerms(
      loss=normalization.divide(sums.loss_sum, count),
      loss_sum=sums.loss_sum,
      num_kept=sums.num_kept,
      num_valid=num_valid,
      num_dropped=sums.num_dropped,
    )

  return loss


def loss_map(score_map: types.ScoreMap, labels: jax.Array) -> jax.Array:
  """The loss of every pixel, without gradient, for sampling hard examples.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32.

  Returns:
    [N, H, W] losses in nats, 0 where void.
  """
  return strips.map_strips(
    functools.partial(pixel_losses.pixel_cross_entropy, axis=1),
    jax.lax.stop_gradient(score_map),
    (labels,),
  )


class _Sums(NamedTuple):
  loss_sum: jax.Array
  num_kept: jax.Array
  num_dropped: jax.Array


def _sum_logits(score_map, labels, weights):
  logits = upsampling.to_pixels(score_map)
  losses = pixel_losses.weighted_losses(logits, labels, weights)
  return _sums_of_all(jnp.sum(losses), labels, weights)


def _sum_strips(score_map, labels, weights):
  chex.assert_equal_shape((labels, weights))
  function = functools.partial(pixel_losses.weighted_losses, axis=1)
  loss_sum = strips.sum_strips(function, score_map, (labels, weights))
  return _sums_of_all(loss_sum, labels, weights)


def _sum_blocks(score_map, labels, weights):
  num_classes = score_map.scores.shape[-1]
  sorted_labels = blocks.split(
    score_map, _in_bytes(labels, num_classes), fill=types.IGNORE_LABEL
  )
  arrays = sorted_labels, blocks.split(score_map, weights, fill=0)
  function = functools.partial(pixel_losses.weighted_losses, axis=2)
  kept = jnp.any(arrays[1] != 0, axis=2).astype(jnp.float32)
  listed = sampling.compact(kept[..., None], capacity=kept.shape[1])
  loss_sum = blocks.sum_listed(
    function, score_map, listed.indices, listed.num_used, arrays
  )
  return _sums_of_all(loss_sum, labels, weights)


def _in_bytes(labels, num_classes):
  """Labels as uint8 if no label changes its meaning."""
  last = types.IGNORE_LABEL - 1
  if num_classes > last:
    return labels
  # What is neither void nor a class stays that.
  known = (labels >= 0) & (labels <= types.IGNORE_LABEL)
  return jnp.where(known, labels, last).astype(jnp.uint8)


def _sums_of_all(loss_sum, labels, weights):
  num_kept = normalization.num_kept(labels, weights)
  return _Sums(loss_sum, num_kept, jnp.zeros((), jnp.int32))


def _sum_listed(score_map, labels, weights, capacity):
  sample = sampling.compact(weights, capacity=capacity)
  flat = labels.reshape(len(labels), -1)
  listed_labels = jnp.take_along_axis(flat, sample.indices, axis=1)
  loss_sum = listed_pixels.sum_listed(
    pixel_losses.weighted_losses,
    score_map,
    sample.indices,
    jnp.max(sample.num_used),
    (listed_labels, sample.weights),
  )
  num_kept = normalization.num_kept(listed_labels, sample.weights)
  return _Sums(loss_sum, num_kept, sample.num_dropped)


def _draw(sampler, key, score_map, labels):
  """Weights [N, H, W]; the losses are computed only if the sampler asks."""
  if sampler.needs_losses:
    losses = loss_map(score_map, labels)
    return sampler.draw(key, labels, pixel_losses=losses)
  return sampler.draw(key, labels)


def _check_sampler(sampler, normalize):
  if not isinstance(sampler, sampling.Sampler):
    raise TypeError(
      f"sampler is {sampler!r}, not a Sampler: give one of `sampling`, called "
      "with its options, such as sampling.bernoulli(rate=0.25), or make your "
      "own with sampling.Sampler(draw=...)."
    )
  normalization.check(normalize)
  if normalize == "expected" and sampler.expected_sum is None:
    raise ValueError(
      'normalize is "expected", but the sampler does not state the expected '
      'sum of its weights: use another, such as "kept".'
    )


def _check_form(form, capacity, sampler):
  if form not in get_args(LossForm):
    raise ValueError(
      f"form is {form!r}; choose one of {', '.join(get_args(LossForm))}."
    )
  if capacity is not None and capacity < 1:
    raise ValueError(f"capacity is {capacity}; it is at least 1 pixel.")
  is_known = capacity is not None or sampler.max_count is not None
  if form == "pixels" and not is_known:
    raise ValueError(
      'form is "pixels", but the sampler does not say how many pixels of '
      "an image it keeps: give the capacity."
    )


def _list_length(form, capacity, sampler, score_map):
  """Length of the list of sampled pixels; None if they are not listed."""
  if form in ("logits", "strips", "blocks"):
    return None
  if capacity is None:
    shape = (len(score_map.scores), *score_map.image_size)
    capacity = sampling.capacity.of_sampler(sampler, shape)
  if form == "pixels" or capacity is None:
    return capacity
  num_pixels = math.prod(score_map.image_size)
  num_classes = score_map.scores.shape[-1]
  cost = (num_classes + _LISTED_CLASSES) / (_LISTED_SHARE * num_classes)
  return capacity if capacity * cost < num_pixels else None
