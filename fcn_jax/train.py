"""The train step: images and labels to a new state, in one compiled call."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
import optax

from fcn_jax import losses
from fcn_jax import models
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling

Sampler = Callable[..., jax.Array]
LossForm = Literal["auto", "logits", "strips", "pixels"]

# When the sampled form is the fastest: a sampled pixel costs as much as a few
# pixels in strips, and then some, whatever the number of classes. Both
# constants are from two CPU cores; see experiments/benchmarks/loss_head.py.
_SAMPLED_SHARE = 0.6
_SAMPLED_CLASSES = 20


class TrainState(NamedTuple):
  """All that changes in training; arrays only.

  Attributes:
    step: [] int32, number of steps taken.
    params: trained parameters.
    model_state: the model's other variables (batch statistics), or empty.
    opt_state: state of the optimizer.
  """

  step: jax.Array
  params: chex.ArrayTree
  model_state: chex.ArrayTree
  opt_state: optax.OptState


class StepMetrics(NamedTuple):
  """What one step tells, as sums and counts to divide on the host.

  With several heads, sums and counts are those of the main one.

  Attributes:
    loss: [] float32, the normalised loss that was minimised, of all heads.
    loss_sum: [] float32, weighted sum of the pixel losses, in nats.
    num_sampled: [] int32, pixels in the loss, see `losses.num_kept`.
    num_valid: [] int32, pixels that are not void.
    num_dropped: [] int32, sampled pixels that are not in the loss because
      there was no room for them; see `make_train_step`.
    gradient_norm: [] float32, Euclidean norm of the gradient of all
      parameters, before any clipping.
    is_finite: [] bool, whether loss and gradient are finite.
  """

  loss: jax.Array
  loss_sum: jax.Array
  num_sampled: jax.Array
  num_valid: jax.Array
  num_dropped: jax.Array
  gradient_norm: jax.Array
  is_finite: jax.Array


@functools.partial(jax.jit, static_argnums=(1, 2))
def create_state(
  key: jax.Array,
  model: models.Network,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """Initialises parameters, batch statistics and the optimizer.

  Compiled once for a model and an optimizer, whatever the key.

  Args:
    key: random key; equal keys give equal states.
    model: the network.
    optimizer: an optax chain.
  """
  # Shapes of parameters do not depend on the image. In a smaller one some
  # networks have no cell left.
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  return state_from(model.init(key, images, train=False), optimizer)


@functools.partial(jax.jit, static_argnums=1)
def state_from(
  variables: chex.ArrayTree, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step, with parameters from elsewhere.

  Args:
    variables: of the model, `{"params": ..., ...}`, such as `weights.load`
      gives. They are copied: a step, which is given the state, leaves them.
    optimizer: an optax chain.
  """
  # Without this JAX may hand on the arrays themselves.
  model_state = dict(jax.tree.map(jnp.copy, variables))
  params = model_state.pop("params")
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
  )


def make_train_step(
  model: models.Network,
  optimizer: optax.GradientTransformation,
  *,
  sampler: Sampler = sampling.whole_image,
  normalize: losses.Normalization = "kept",
  rate: float | None = None,
  form: LossForm = "auto",
  capacity: int | None = None,
  skip_nonfinite: bool = False,
) -> Callable[
  [TrainState, types.Batch, jax.Array], tuple[TrainState, StepMetrics]
]:
  """Compiles `train_step` for a model, an optimizer and a sampler.

  The state is donated: use only the returned one. One trace for each shape of
  the batch, and one more if some batches have `valid_sizes` and others have
  not. On several devices, give a batch and a state that are sharded or
  replicated over a mesh.

  Args:
    model: the network.
    optimizer: an optax chain.
    sampler: which pixels enter the loss, see `sampling`.
    normalize: see `losses.normalizer`.
    rate: expected weight of a pixel, for `normalize="expected"` only.
    form: how the loss is computed; all give the same numbers. "logits": from
      the logits of all pixels. "strips": strip by strip, without them.
      "pixels": at the sampled pixels only. "auto": sampled, if the sampler
      keeps few enough pixels for that to be the fastest, else strips.
    capacity: most pixels of an image for which the sampled form has room;
      those beyond are left out and counted in `StepMetrics.num_dropped`. None
      is what the sampler says of itself, see `sampling.capacity`: too little
      less than once in 1e9 steps.
    skip_nonfinite: whether a step whose loss or gradient is not finite leaves
      everything but `TrainState.step` as it is.

  Returns:
    (state, batch, key) -> (state, metrics), with the key that `train_step`
    wants.

  Raises:
    ValueError: if `form` is unknown, or the capacity less than 1; when the
      step is traced, if the form is "pixels", and neither `capacity` is given
      nor the sampler says how many pixels it keeps.
  """
  if form not in get_args(LossForm):
    raise ValueError(
      f"form is {form!r}; choose one of {', '.join(get_args(LossForm))}."
    )
  if capacity is not None and capacity < 1:
    raise ValueError(f"capacity is {capacity}; it is at least 1 pixel.")
  step = functools.partial(
    train_step,
    model,
    optimizer,
    sampler=sampler,
    normalize=normalize,
    rate=rate,
    form=form,
    capacity=capacity,
    skip_nonfinite=skip_nonfinite,
  )
  return jax.jit(step, donate_argnums=0)


def train_step(
  model: models.Network,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  batch: types.Batch,
  key: jax.Array,
  *,
  sampler: Sampler,
  normalize: losses.Normalization,
  rate: float | None = None,
  form: LossForm = "auto",
  capacity: int | None = None,
  skip_nonfinite: bool = False,
) -> tuple[TrainState, StepMetrics]:
  """One step of training on a batch, by loss sampling.

  Args:
    model: the network.
    optimizer: an optax chain.
    state: where training stands.
    batch: images [N, H, W, 3] and labels [N, H, W]; labels outside the images
      are void. With `valid_sizes`, the network does not see what is outside.
      The losses of several heads are summed with the model's `head_weights`.
    key: the run's random key, the same at every step: `state.step` is folded
      into it.
    sampler: which pixels enter the loss.
    normalize: see `losses.normalizer`.
    rate: expected weight of a pixel, for `normalize="expected"` only.
    form: see `make_train_step`.
    capacity: see `make_train_step`.
    skip_nonfinite: see `make_train_step`.

  Returns:
    The new state, and the step's metrics.

  Raises:
    ValueError: if labels are not those of the model's heads.
  """
  sample_key, dropout_key = jax.random.split(
    jax.random.fold_in(key, state.step)
  )
  main_head = models.heads.main_head(model)
  _check_heads(model, batch.labels)

  def loss_of(params):
    score_maps, model_state = model.apply(
      {"params": params, **state.model_state},
      batch.images,
      train=True,
      valid_sizes=batch.valid_sizes,
      rngs={"dropout": dropout_key},
      mutable=list(state.model_state),
    )
    loss, terms = jnp.zeros(()), {}
    for head, score_map in models.heads.by_name(score_maps).items():
      labels = _labels_of(batch, head)
      terms[head] = _loss_terms(
        score_map,
        labels,
        _draw(sampler, sample_key, score_map, labels),
        form=form,
        capacity=_capacity(form, capacity, sampler, score_map),
      )
      count = losses.normalizer(
        normalize, terms[head].num_kept, losses.num_valid(labels), rate
      )
      loss_of_head = losses.divide(terms[head].loss_sum, count)
      loss += model.head_weights[head] * loss_of_head
    return loss, (terms[main_head], model_state)

  (loss, (terms, model_state)), gradients = jax.value_and_grad(
    loss_of, has_aux=True
  )(state.params)
  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params
  )
  new_state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    model_state=model_state,
    opt_state=opt_state,
  )
  gradient_norm = optax.tree.norm(gradients)
  # The norm of float32 gradients can overflow where no gradient does; that is
  # as little to be trusted.
  is_finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
  if skip_nonfinite:
    kept = state._replace(step=new_state.step)
    new_state = jax.tree.map(
      lambda new, old: jnp.where(is_finite, new, old), new_state, kept
    )
  return new_state, StepMetrics(
    loss=loss,
    loss_sum=terms.loss_sum,
    num_sampled=terms.num_kept,
    num_valid=losses.num_valid(_labels_of(batch, main_head)),
    num_dropped=terms.num_dropped,
    gradient_norm=gradient_norm,
    is_finite=is_finite,
  )


def _check_heads(model, labels):
  """Raises a `ValueError` if labels are not those of a model's heads."""
  heads = model.heads
  if isinstance(labels, Mapping):
    if labels.keys() != heads.keys():
      raise ValueError(
        f"labels are those of the heads {', '.join(labels)}, and the network "
        f"has {', '.join(heads) or 'one'}: give the labels of each of its "
        "heads by name, or one array for all."
      )
  elif len({*heads.values()}) > 1:
    raise ValueError(
      f"the network's heads have different classes, {heads}: give the labels "
      "of each by its name, {name: labels}."
    )


def _labels_of(batch: types.Batch, head: str) -> jax.Array:
  """Labels of a head: its own, or those that all share."""
  if isinstance(batch.labels, Mapping):
    return batch.labels[head]
  return batch.labels


class _LossTerms(NamedTuple):
  loss_sum: jax.Array
  num_kept: jax.Array
  num_dropped: jax.Array


def asks_for_losses(sampler: Sampler) -> bool:
  """Whether a sampler has a parameter `pixel_losses`, as hard examples need."""
  return "pixel_losses" in inspect.signature(sampler).parameters


def _draw(
  sampler: Sampler,
  key: jax.Array,
  score_map: types.ScoreMap,
  labels: jax.Array,
) -> jax.Array:
  """Weights of the pixels; losses are computed only if the sampler asks."""
  if asks_for_losses(sampler):
    pixel_losses = losses.pixel_losses(score_map, labels)
    return sampler(key, labels, pixel_losses=pixel_losses)
  return sampler(key, labels)


def _capacity(
  form: LossForm,
  capacity: int | None,
  sampler: Sampler,
  score_map: types.ScoreMap,
) -> int | None:
  """Length of the list of sampled pixels; None if they are not listed."""
  if form in ("logits", "strips"):
    return None
  if capacity is None:
    shape = (len(score_map.scores), *score_map.image_size)
    capacity = sampling.capacity.of_sampler(sampler, shape)
  if form == "pixels":
    if capacity is None:
      raise ValueError(
        'form is "pixels", but the sampler does not say how many pixels of '
        "an image it keeps: give the capacity."
      )
    return capacity
  num_pixels = math.prod(score_map.image_size)
  num_classes = score_map.scores.shape[-1]
  cost = (num_classes + _SAMPLED_CLASSES) / (_SAMPLED_SHARE * num_classes)
  pays = capacity is not None and capacity * cost < num_pixels
  return capacity if pays else None


def _loss_terms(
  score_map: types.ScoreMap,
  labels: jax.Array,
  weights: jax.Array,
  *,
  form: LossForm,
  capacity: int | None,
) -> _LossTerms:
  """The weighted sum of the pixel losses, and of how many pixels it is."""
  if capacity is not None:
    sample = sampling.compact(weights, capacity=capacity)
    return _LossTerms(
      losses.sampled_sum(score_map, labels, sample),
      losses.num_kept(losses.labels_of(sample, labels), sample.weights),
      sample.num_dropped,
    )
  if form == "logits":
    logits = upsampling.to_pixels(score_map)
    loss_sum = jnp.sum(losses.weighted_losses(logits, labels, weights))
  else:
    loss_sum = losses.dense_sum(score_map, labels, weights)
  return _LossTerms(
    loss_sum, losses.num_kept(labels, weights), jnp.zeros((), jnp.int32)
  )


def variables(state: TrainState) -> chex.ArrayTree:
  """The variables of the model, as `model.apply` wants them."""
  return {"params": state.params, **state.model_state}
