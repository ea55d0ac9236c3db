"""The train step: images and labels to a new state, in one compiled call."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from fcn_jax import losses
from fcn_jax import models
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling

Sampler = Callable[[jax.Array, jax.Array], jax.Array]


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

  Attributes:
    loss: [] float32, the normalised loss that was minimised.
    loss_sum: [] float32, weighted sum of the pixel losses, in nats.
    num_sampled: [] int32, pixels in the loss, see `losses.num_kept`.
    num_valid: [] int32, pixels that are not void.
  """

  loss: jax.Array
  loss_sum: jax.Array
  num_sampled: jax.Array
  num_valid: jax.Array


@functools.partial(jax.jit, static_argnums=(1, 2))
def create_state(
  key: jax.Array,
  model: models.FCN,
  optimizer: optax.GradientTransformation,
) -> TrainState:
  """Initialises parameters, batch statistics and the optimizer.

  Compiled once for a model and an optimizer, whatever the key.

  Args:
    key: random key; equal keys give equal states.
    model: the network.
    optimizer: an optax chain.
  """
  # Shapes of parameters do not depend on the image; a small one will do.
  images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
  model_state = dict(model.init(key, images, train=False))
  params = model_state.pop("params")
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
  )


def make_train_step(
  model: models.FCN,
  optimizer: optax.GradientTransformation,
  *,
  sampler: Sampler = sampling.whole_image,
  normalize: losses.Normalization = "kept",
  rate: float | None = None,
) -> Callable[
  [TrainState, types.Batch, jax.Array], tuple[TrainState, StepMetrics]
]:
  """Compiles `train_step` for a model, an optimizer and a sampler.

  The state is donated: use only the returned one. One trace for each shape of
  the batch. On several devices, give a batch and a state that are sharded or
  replicated over a mesh.

  Args:
    model: the network.
    optimizer: an optax chain.
    sampler: which pixels enter the loss, see `sampling`.
    normalize: see `losses.normalizer`.
    rate: expected weight of a pixel, for `normalize="expected"` only.

  Returns:
    (state, batch, key) -> (state, metrics), with the key that `train_step`
    wants.
  """
  step = functools.partial(
    train_step,
    model,
    optimizer,
    sampler=sampler,
    normalize=normalize,
    rate=rate,
  )
  return jax.jit(step, donate_argnums=0)


def train_step(
  model: models.FCN,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  batch: types.Batch,
  key: jax.Array,
  *,
  sampler: Sampler,
  normalize: losses.Normalization,
  rate: float | None = None,
) -> tuple[TrainState, StepMetrics]:
  """One step of training on a batch, by loss sampling.

  Args:
    model: the network.
    optimizer: an optax chain.
    state: where training stands.
    batch: images [N, H, W, 3] and labels [N, H, W].
    key: the run's random key, the same at every step: `state.step` is folded
      into it.
    sampler: which pixels enter the loss.
    normalize: see `losses.normalizer`.
    rate: expected weight of a pixel, for `normalize="expected"` only.

  Returns:
    The new state, and the step's metrics.
  """
  sample_key, dropout_key = jax.random.split(
    jax.random.fold_in(key, state.step)
  )
  weights = sampler(sample_key, batch.labels)

  def loss_of(params):
    score_map, model_state = model.apply(
      {"params": params, **state.model_state},
      batch.images,
      train=True,
      rngs={"dropout": dropout_key},
      mutable=list(state.model_state),
    )
    logits = upsampling.to_pixels(score_map)
    pixel_losses = losses.pixel_cross_entropy(logits, batch.labels)
    loss_sum = jnp.sum(weights * pixel_losses)
    count = losses.normalizer(batch.labels, weights, normalize, rate)
    return losses.divide(loss_sum, count), (loss_sum, model_state)

  (loss, (loss_sum, model_state)), gradients = jax.value_and_grad(
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
  return new_state, StepMetrics(
    loss=loss,
    loss_sum=loss_sum,
    num_sampled=losses.num_kept(batch.labels, weights),
    num_valid=jnp.sum(sampling.valid_pixels(batch.labels), dtype=jnp.int32),
  )


def variables(state: TrainState) -> chex.ArrayTree:
  """The variables of the model, as `model.apply` wants them."""
  return {"params": state.params, **state.model_state}
