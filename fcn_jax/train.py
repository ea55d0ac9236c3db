"""The train step: from images and labels to a new state, in one call."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from fcn_jax import losses
from fcn_jax import models
from fcn_jax import types


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
  """Metrics of one step, as sums and counts to divide on the host.

  With several heads, sums and counts are those of the main one.

  Attributes:
    loss: [] float32, the normalised loss that was minimised, of all heads.
    loss_sum: [] float32, weighted sum of the pixel losses.
    num_sampled: [] int32, pixels in the loss, see `losses.num_kept`.
    num_valid: [] int32, pixels that are not void.
    num_dropped: [] int32, see `losses.LossTerms`.
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


def create_state(
  key: jax.Array,
  model: models.Network,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """Initialises parameters, batch statistics and the optimizer.

  Compiled once for a model and an optimizer; the key may change.

  Args:
    key: random key; equal keys give equal states.
    model: the network.
    optimizer: an optax chain.
  """
  # JAX takes options of the compiler outside of other programs only.
  is_inside = isinstance(key, jax.core.Tracer)
  create = _create_inside if is_inside else _create
  return create(key, model, optimizer)


def _created(key, model, optimizer):
  # Shapes of parameters do not depend on the image, but a smaller one would
  # leave some networks no cell.
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  return state_from(model.init(key, images, train=False), optimizer)


_create_inside = jax.jit(_created, static_argnums=(1, 2))
# It runs once, so compiling takes longer than running. On a CPU, this level of
# XLA's optimization takes a third of the default's time.
_create = jax.jit(
  _created,
  static_argnums=(1, 2),
  compiler_options={"xla_backend_optimization_level": 1},
)


@functools.partial(jax.jit, static_argnums=1)
def state_from(
  variables: chex.ArrayTree, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step, with parameters from elsewhere.

  Args:
    variables: of the model, `{"params": ..., ...}`, as from `pretrained.load`.
      They are copied, since a step donates its state.
    optimizer: an optax chain.
  """
  # Without this, JAX may return the arrays themselves, not copies.
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
  loss: losses.Loss | losses.Schedule = losses.make(),
  *,
  skip_nonfinite: bool = False,
) -> Callable[
  [TrainState, types.Batch, jax.Array], tuple[TrainState, StepMetrics]
]:
  """Compiles `train_step` for a model, an optimizer and a loss.

  The state is donated: use only the returned one. JAX traces it once for each
  shape of the batch, and once more if some batches have `valid_sizes` and
  others do not. On several devices, give a batch and a state that are sharded
  or replicated over a mesh.

  Args:
    model: the network.
    optimizer: an optax chain.
    loss: from `losses.make`; by default that of the whole image. Or a
      `losses.Schedule` of such losses.
    skip_nonfinite: whether a step whose loss or gradient is not finite leaves
      everything but `TrainState.step` as it is.

  Returns:
    (state, batch, key) -> (state, metrics), as `train_step` takes them.
  """
  step = functools.partial(
    train_step, model, optimizer, loss, skip_nonfinite=skip_nonfinite
  )
  return jax.jit(step, donate_argnums=0)


def train_step(
  model: models.Network,
  optimizer: optax.GradientTransformation,
  loss: losses.Loss | losses.Schedule,
  state: TrainState,
  batch: types.Batch,
  key: jax.Array,
  *,
  skip_nonfinite: bool = False,
) -> tuple[TrainState, StepMetrics]:
  """One step of training on a batch, by loss sampling.

  Args:
    model: the network.
    optimizer: an optax chain.
    loss: from `losses.make`, or a `losses.Schedule`. With several heads, each
      has this loss, with pixels of its own, and the model's `head_weights` are
      the weights of their sum.
    state: where training stands.
    batch: images [N, H, W, 3] and labels [N, H, W]; labels outside the images
      are void. With `valid_sizes`, the network does not see what is outside.
    key: the run's random key, the same at every step: `state.step` is folded
      into it.
    skip_nonfinite: see `make_train_step`.

  Returns:
    The new state, and the step's metrics.

  Raises:
    ValueError: if labels are not those of the model's heads.
  """
  _check_heads(model, batch.labels)
  if isinstance(loss, losses.Schedule):
    loss = loss.at(state.step)
  keys = jax.random.split(jax.random.fold_in(key, state.step))

  def loss_of(params):
    return _loss_of_heads(model, loss, state, params, batch, keys)

  (total, (terms, model_state)), gradients = jax.value_and_grad(
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
  # The norm of float32 gradients can overflow where no gradient does; do not
  # trust such a step either.
  is_finite = jnp.isfinite(total) & jnp.isfinite(gradient_norm)
  if skip_nonfinite:
    kept = state._replace(step=new_state.step)
    new_state = jax.tree.map(
      lambda new, old: jnp.where(is_finite, new, old), new_state, kept
    )
  return new_state, StepMetrics(
    loss=total,
    loss_sum=terms.loss_sum,
    num_sampled=terms.num_kept,
    num_valid=terms.num_valid,
    num_dropped=terms.num_dropped,
    gradient_norm=gradient_norm,
    is_finite=is_finite,
  )


def _loss_of_heads(model, loss, state, params, batch, keys):
  """The weighted loss of all heads; terms of the main head, new model state."""
  sample_key, dropout_key = keys
  score_maps, model_state = model.apply(
    {"params": params, **state.model_state},
    batch.images,
    train=True,
    valid_sizes=batch.valid_sizes,
    rngs={"dropout": dropout_key},
    mutable=list(state.model_state),
  )
  total, terms = jnp.zeros(()), {}
  for number, (head, score_map) in enumerate(
    models.heads.by_name(score_maps).items()
  ):
    is_own = isinstance(batch.labels, Mapping)
    labels = batch.labels[head] if is_own else batch.labels
    head_key = jax.random.fold_in(sample_key, number) if number else sample_key
    terms[head] = loss(head_key, score_map, labels)
    total += model.head_weights[head] * terms[head].loss
  return total, (terms[models.heads.main_head(model)], model_state)


def _check_heads(model, labels):
  """Raises a `ValueError` if labels are not those of a model's heads."""
  heads = model.heads
  if isinstance(labels, Mapping):
    if labels.keys() != heads.keys():
      raise ValueError(
        f"labels are those of the heads {', '.join(labels)}, but the network "
        f"has {', '.join(heads) or 'one'}: give the labels of each of its "
        "heads by name, or one array for all."
      )
  elif len({*heads.values()}) > 1:
    raise ValueError(
      f"the network's heads have different classes, {heads}: give the labels "
      "of each by its name, {name: labels}."
    )


def variables(state: TrainState) -> chex.ArrayTree:
  """The variables of the model, as `model.apply` takes them."""
  return {"params": state.params, **state.model_state}
