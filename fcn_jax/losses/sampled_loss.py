"""The loss of a score map under a sampler, in whichever form is fastest."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import typing_extensions

from fcn_jax import checks
from fcn_jax import label_bits
from fcn_jax import reprs
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.losses import choice
from fcn_jax.losses import forms
from fcn_jax.losses import normalization
from fcn_jax.losses import pixel_losses
from fcn_jax.losses import region_losses
from fcn_jax.losses import sigmoid_losses


class LossTerms(NamedTuple):
  """A loss, with the sum and the counts behind it.

  Attributes:
    loss: [] float32, the normalised loss; 0, with zero gradient, if no pixel
      is kept.
    loss_sum: [] float32, weighted sum of the pixel losses, in nats for
      cross-entropy; for a loss of regions, the loss times `num_kept`.
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
Loss = typing_extensions.TypeAliasType(
  "Loss", Callable[[jax.Array, types.ScoreMap, jax.Array], LossTerms]
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Described:
  """A `Loss` that says how it was made.

  Attributes:
    compute: the loss.
    description: what `repr` shows.
  """

  compute: Loss
  description: str = ""

  def __call__(
    self, key: jax.Array, score_map: types.ScoreMap, labels: jax.Array
  ) -> LossTerms:
    """The terms of the loss."""
    return self.compute(key, score_map, labels)

  def __repr__(self) -> str:
    return self.description


class Schedule(NamedTuple):
  """A loss that depends on the step, such as one whose rate rises.

      rate = optax.linear_schedule(1 / 16, 1.0, 1000)
      losses.Schedule(
        lambda step: losses.make(
          sampler=sampling.bernoulli(rate=rate(step), max_rate=1.0)
        )
      )

  Attributes:
    at: from the number of the step, [] int32, to its loss. All steps share one
      program, so what depends on the step is traced: a rate, or a weight of
      `weighted_sum`.
  """

  at: Callable[[jax.Array], Loss]


@reprs.described
def make(
  loss: pixel_losses.PixelLoss
  | region_losses.RegionLoss = pixel_losses.cross_entropy,
  *,
  sampler: sampling.Sampler = sampling.whole_image(),
  normalize: normalization.Normalization = "kept",
  form: choice.LossForm = "auto",
  capacity: int | None = None,
  row_shards: int = 1,
) -> Loss:
  """Makes the loss of a score map at the pixels that a sampler keeps.

  With cross-entropy its value is that of `masked_cross_entropy`. In all forms
  but "logits" the gradient is computed together with the value and has no
  further derivative; weights have no gradient.

  Args:
    loss: of pixels: from logits [..., C, P] and labels [..., P] (int32, classes
      0..C-1) to losses [..., P]; differentiable once. It need not know of void
      pixels and of those that are left out: what it returns there is ignored.
      Or a loss of regions, such as `dice`.
    sampler: which pixels enter the loss, see `sampling`.
    normalize: see `normalizer`; a loss of regions is not divided.
    form: how the loss is computed; all forms give the same numbers. "logits":
      from the logits of all pixels. "strips": all pixels, but strip by strip.
      "blocks": the blocks of pixels between four cells that hold a sampled
      pixel. "places": for samplers that keep the same places in all blocks.
      "pixels": the sampled pixels only. "auto": the fastest, by kind of device,
      sampler and number of classes.
    capacity: for the form "pixels" only: the most pixels of an image that it
      has room for; those beyond are left out and counted in
      `LossTerms.num_dropped`. None asks the sampler for its bound, which is too
      small less than once in 1e9 steps, see `sampling.capacity`.
    row_shards: how many devices share the rows of an image, see
      `fcn_jax.sharding`; the form is then "strips". Samplers that
      sort the pixels of an image still collect these on each device.

  Returns:
    A function of a random key, a score map and labels [N, H, W] to the terms.

  Raises:
    TypeError: if `sampler` is not a `Sampler`.
    ValueError: if `form` or `normalize` is unknown, the form cannot be computed
      by rows, `normalize` is "expected"
      and the sampler does not state an expected sum, the form is "places" and
      the sampler keeps no places, `capacity` is less than 1, or missing where
      the form is "pixels" and the sampler does not say how many pixels it
      keeps. The loss raises one if a batch has 2^31 pixels or more, which int32
      cannot count, if the form is "places" and the sampler does not repeat with
      the stride of the score map, if the number of rows is not a multiple of
      the stride and `row_shards`, or if the dtype of the labels is that of bit
      masks for `cross_entropy`, or not for `sigmoid_cross_entropy`.
  """
  check_sampler(sampler)
  check_capacity(capacity)
  _check_normalization(normalize, sampler)
  _check_form(form, capacity, sampler)
  # "auto" is not to drop pixels on one device and keep them on another.
  problem = forms.Problem(
    loss, sampler, capacity if form == "pixels" else None, row_shards
  )
  _check_rows(form, row_shards)
  is_of_regions = isinstance(loss, region_losses.RegionLoss)
  if is_of_regions and "pixel_losses" in sampler.needs:
    raise ValueError(
      "the sampler chooses pixels by their losses, which a loss of regions "
      "does not have: use another sampler."
    )

  def sampled_loss(
    key: jax.Array, score_map: types.ScoreMap, labels: jax.Array
  ) -> LossTerms:
    check_labels(score_map, labels)
    _check_kind(loss, score_map, labels)
    if form == "logits":
      sums = forms.sums_of_logits(problem, score_map, labels, key)
    else:
      compute = functools.partial(choice.compute, problem, form)
      sums = _sums(compute, score_map, labels, key)
    num_valid = sampling.num_valid(labels)
    expected_sum = None
    if normalize == "expected":
      options = forms.known(sampler, score_map)
      expected_sum = sampler.expected_sum(labels, **options)
    count = normalization.normalizer(
      "kept" if is_of_regions else normalize,
      sums.num_kept,
      num_valid,
      expected_sum,
    )
    return LossTerms(
      loss=normalization.divide(sums.loss_sum, count),
      loss_sum=sums.loss_sum,
      num_kept=sums.num_kept,
      num_valid=num_valid,
      num_dropped=sums.num_dropped,
    )

  return Described(sampled_loss)


@reprs.described
def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
  """A loss that is a weighted sum of others, such as Dice and cross-entropy.

  All have the same random key, so losses with equal samplers have equal pixels;
  a compiled step draws their random numbers once.

  Args:
    *terms: weights, and losses that `make` or `lovasz_softmax` returned. The
      counts of `LossTerms` are those of the first.

  Raises:
    ValueError: if there is no term.
  """
  if not terms:
    raise ValueError("give at least one pair of a weight and a loss.")

  def loss(key, score_map, labels):
    results = [of_term(key, score_map, labels) for _, of_term in terms]
    weights = [weight for weight, _ in terms]

    def total(values):
      return sum(w * value for w, value in zip(weights, values, strict=True))

    return results[0]._replace(
      loss=total([result.loss for result in results]),
      loss_sum=total([result.loss_sum for result in results]),
    )

  return Described(loss)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(compute, score_map, labels, key):
  """The sums of `compute`, differentiable once by the scores."""
  return compute(score_map, labels, key)[0]


def _sums_backward(compute, gradient, cotangent):
  del compute
  gradient = jax.tree.map(lambda scores: cotangent.loss_sum * scores, gradient)
  return gradient, None, None


_sums.defvjp(lambda compute, *arrays: compute(*arrays), _sums_backward)


def check_labels(score_map: types.ScoreMap, labels: jax.Array) -> None:
  """Raises an error if labels do not fit a score map, or are too many."""
  checks.labels(labels, of_pictures=True)
  expected = (len(score_map.scores), *score_map.image_size)
  if labels.shape != expected:
    raise ValueError(
      f"labels have shape {labels.shape}, but the images of the score map are "
      f"{list(expected)}: give a label for each of their pixels."
    )
  if labels.size >= 2**31:
    raise ValueError(
      f"labels of shape {labels.shape} are {labels.size} pixels; a batch may "
      "have 2^31 - 1: make it smaller."
    )


def _check_kind(loss, score_map, labels):
  """Raises a `ValueError` for bit masks instead of classes, or the reverse.

  Of the two losses that say which they need. With others, labels of the wrong
  kind are no classes, so the loss is NaN.
  """
  is_mask = labels.dtype == jnp.uint32
  if loss is pixel_losses.cross_entropy and is_mask:
    raise ValueError(
      "labels are uint32, so they are bit masks, and cross_entropy needs "
      "numbers of classes: give int32, or losses.sigmoid_cross_entropy."
    )
  num_classes = score_map.scores.shape[-1]
  if loss is pixel_losses.cross_entropy and num_classes == 1:
    raise ValueError(
      "the network has one class, whose cross-entropy is 0: give it 2 classes, "
      "as the background is one, too; or losses.sigmoid_cross_entropy."
    )
  if loss is sigmoid_losses.sigmoid_cross_entropy and num_classes > 1:
    label_bits.check(labels)


def check_sampler(sampler: sampling.Sampler) -> None:
  """Raises a `TypeError` unless it is a `Sampler`."""
  if not isinstance(sampler, sampling.Sampler):
    raise TypeError(
      f"sampler is {sampler!r}, not a Sampler: give one of `sampling`, called "
      "with its options, such as sampling.bernoulli(rate=0.25), or make your "
      "own with sampling.Sampler(draw=...)."
    )


def check_capacity(capacity: int | None) -> None:
  """Raises a `ValueError` if there is no room for a pixel."""
  if capacity is not None and capacity < 1:
    raise ValueError(f"capacity is {capacity}; it is at least 1 pixel.")


def _check_normalization(normalize, sampler):
  normalization.check(normalize)
  if normalize == "expected" and sampler.expected_sum is None:
    raise ValueError(
      'normalize is "expected", but the sampler does not state the expected '
      'sum of its weights: use another, such as "kept".'
    )


def _check_rows(form, row_shards):
  if row_shards < 1:
    raise ValueError(f"row_shards is {row_shards}; it is at least 1.")
  if row_shards > 1 and form not in ("auto", "strips"):
    raise ValueError(
      f'form is "{form}", but {row_shards} devices share the rows of an image: '
      'use "strips", or "auto", which is then the same.'
    )


def _check_form(form, capacity, sampler):
  known = get_args(choice.LossForm)
  if form not in known:
    raise ValueError(f"form is {form!r}; choose one of {', '.join(known)}.")
  is_known = capacity is not None or sampler.max_count is not None
  if form == "pixels" and not is_known:
    raise ValueError(
      'form is "pixels", but the sampler does not say how many pixels of '
      "an image it keeps: give the capacity."
    )
  if form == "places" and sampler.places is None:
    raise ValueError(
      'form is "places", but the sampler does not keep the same places in all '
      'blocks, as sampling.places does: use another form, such as "auto".'
    )
