"""The train step: from images and labels to a new state, in one call."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.training import dynamic_scale as dynamic_scale_lib

from fcn_jax import checks
from fcn_jax import losses
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import reprs
from fcn_jax import types


class TrainState(NamedTuple):
  """All that changes in training; arrays only.

  Attributes:
    step: [] int32, number of steps taken.
    params: parameters, trained and frozen.
    model_state: the model's other variables (batch statistics), or empty.
    opt_state: state of the optimizer, with nothing for frozen parameters.
    dynamic_scale: for networks that compute in float16, what the loss is
      multiplied by while it is differentiated, see `dynamic_scale`; else None.
  """

  step: jax.Array
  params: types.Tree
  model_state: types.Tree
  opt_state: types.Tree
  dynamic_scale: dynamic_scale_lib.DynamicScale | None = None

  def __repr__(self) -> str:
    parts = ", ".join(f"{name}: {text}" for name, text in self._parts())
    return f"TrainState({parts})"

  def _repr_html_(self) -> str:
    return reprs.html_table(self._parts(), caption="TrainState")

  def _parts(self) -> list[tuple[str, str]]:
    step, *trees = self._asdict().items()
    return [
      (step[0], reprs.scalar(step[1])),
      *(
        (name, reprs.tree(arrays))
        for name, arrays in trees
        if arrays is not None
      ),
    ]


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
      parameters that are not frozen, before any clipping.
    is_finite: [] bool, whether loss and gradient are finite.
  """

  loss: jax.Array
  loss_sum: jax.Array
  num_sampled: jax.Array
  num_valid: jax.Array
  num_dropped: jax.Array
  gradient_norm: jax.Array
  is_finite: jax.Array

  def __repr__(self) -> str:
    items = ((name, reprs.scalar(one)) for name, one in self._asdict().items())
    return f"StepMetrics({', '.join(f'{name}={one}' for name, one in items)})"


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
  checks.key(key)
  # JAX takes options of the compiler outside of other programs only.
  is_inside = isinstance(jnp.zeros(()), jax.core.Tracer)
  create = _create_inside if is_inside else _create
  return create(key, model, optimizer)


def _created(key, model, optimizer):
  # Shapes of parameters do not depend on the image, but a smaller one would
  # leave some networks no cell.
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  variables = model.init(key, images, train=False)
  return state_from(variables, optimizer, model=model)


_create_inside = jax.jit(_created, static_argnums=(1, 2))
# It runs once, so compiling takes longer than running. On a CPU, this level of
# XLA's optimization takes a third of the default's time.
_create = jax.jit(
  _created,
  static_argnums=(1, 2),
  compiler_options={"xla_backend_optimization_level": 1},
)


def dynamic_scale(
  model: models.Network,
) -> dynamic_scale_lib.DynamicScale | None:
  """The scale of the loss before the first step; None except for float16.

  Small gradients vanish in float16, so the loss is multiplied by a large number
  while it is differentiated, and the gradient divided by it (Micikevicius et
  al., Mixed Precision Training, ICLR 2018, section 3.2). A step whose gradient
  overflows changes no parameter and halves the number, which doubles after 2000
  good steps.

  Args:
    model: the network.
  """
  if jnp.dtype(model.dtype) != jnp.float16:
    return None
  return dynamic_scale_lib.DynamicScale(
    fin_steps=jnp.zeros((), jnp.int32),
    scale=jnp.full((), 2.0**16, jnp.float32),
    minimum_scale=1.0,
  )


@functools.partial(jax.jit, static_argnums=1, static_argnames="model")
def state_from(
  variables: types.Variables,
  optimizer: optax.GradientTransformation,
  *,
  model: models.Network | None = None,
) -> TrainState:
  """The state before the first step, with parameters from elsewhere.

  Args:
    variables: of the model, `{"params": ..., ...}`, as from `pretrained.load`.
      They are copied, since a step donates its state.
    optimizer: an optax chain.
    model: the network; needed if it has frozen layers or computes in float16.
  """
  checks.variables(variables)
  # Without this, JAX may return the arrays themselves, not copies.
  model_state = dict(jax.tree.map(jnp.copy, variables))
  params = model_state.pop("params")
  trained = params if model is None else _trained(model, params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(trained),
    dynamic_scale=None if model is None else dynamic_scale(model),
  )


def _trained(model: models.Network, params: types.Tree) -> types.Tree:
  """The parameters, or what stands for each, without those that are frozen."""
  return optimizers.masked(params, model.freezing.is_trained(params))


def make_train_step(
  model: models.Network,
  optimizer: optax.GradientTransformation,
  loss: losses.Loss | losses.Schedule = losses.make(),
  *,
  skip_nonfinite: bool = False,
  state_sharding: TrainState | None = None,
) -> Callable[
  [TrainState, types.Batch, jax.Array], tuple[TrainState, StepMetrics]
]:
  """Compiles `train_step` for a model, an optimizer and a loss.

  The state is donated: use only the returned one. JAX traces it once for each
  shape of the batch, and once more if some batches have `valid_sizes` and
  others do not. On several devices, give a batch and a state that are placed
  as `fcn_jax.sharding` says.

  Args:
    model: the network.
    optimizer: an optax chain.
    loss: from `losses.make`; by default that of the whole image. Or a
      `losses.Schedule` of such losses.
    skip_nonfinite: whether a step whose loss or gradient is not finite leaves
      everything but `TrainState.step` as it is. It always does in float16.
    state_sharding: see `train_step`; the returned state has it, too.

  Returns:
    (state, batch, key) -> (state, metrics), as `train_step` takes them.

  Raises:
    ValueError: if `loss` is no loss. The step raises one as `train_step`, or if
      the state was given to a step before.
  """
  _check_loss(loss)
  step = functools.partial(
    train_step,
    model,
    optimizer,
    loss,
    skip_nonfinite=skip_nonfinite,
    state_sharding=state_sharding,
  )
  # Otherwise the compiler chooses, and a state in other places is another
  # program.
  outputs = None if state_sharding is None else (state_sharding, None)
  compiled = jax.jit(step, donate_argnums=0, out_shardings=outputs)

  @functools.wraps(train_step)
  def checked_step(state, batch, key):
    # JAX would refuse some of what `train_step` checks with less clear words.
    _check_arguments(state, batch, key)
    return compiled(state, batch, key)

  # That of a function of three arguments, as of those of `jax.jit`.
  checked_step.__wrapped__ = compiled
  for name in ("lower", "trace", "_cache_size"):
    setattr(checked_step, name, getattr(compiled, name))
  return checked_step


def train_step(
  model: models.Network,
  optimizer: optax.GradientTransformation,
  loss: losses.Loss | losses.Schedule,
  state: TrainState,
  batch: types.Batch,
  key: jax.Array,
  *,
  skip_nonfinite: bool = False,
  state_sharding: TrainState | None = None,
) -> tuple[TrainState, StepMetrics]:
  """One step of training on a batch, by loss sampling.

  Parameters of frozen layers stay as they are, to the bit. No gradient of them
  is computed, and none of the layers before the first trained one. The
  optimizer does not see them: masks that it uses are given trees with an
  `optax.MaskedNode` in their places.

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
    state_sharding: a `jax.sharding.NamedSharding` for each array of the state,
      such as `sharding.fully_sharded`. Parameters are gathered for the network,
      and gradients are summed where their shard is. None leaves both to the
      compiler, which is right if every device holds the state.

  Returns:
    The new state, and the step's metrics.

  Raises:
    ValueError: if the state is no `TrainState`, the key no random key, shapes
      or dtypes of the batch are wrong, labels are not those of the model's
      heads, the network computes in float16 and the state has no
      `dynamic_scale`, or the optimizer's state is not for its frozen layers.
  """
  _check_arguments(state, batch, key)
  _check_heads(model, batch.labels)
  if state.dynamic_scale is None and jnp.dtype(model.dtype) == jnp.float16:
    raise ValueError(
      "the network computes in float16, but the state has no dynamic_scale: "
      "give state._replace(dynamic_scale=fcn.train.dynamic_scale(model))."
    )
  if model.freezing.number:
    _check_frozen(model, optimizer, state)
  if isinstance(loss, losses.Schedule):
    loss = loss.at(state.step)
  keys = jax.random.split(jax.random.fold_in(key, state.step))

  params, scale = state.params, state.dynamic_scale
  if state_sharding is not None:
    # Left to itself, the compiler exchanges activations instead.
    whole = jax.tree.map(_replicated, state_sharding.params)
    params = jax.lax.with_sharding_constraint(params, whole)

  def loss_of(trained):
    whole = optimizers.merged(trained, params)
    return _loss_of_heads(model, loss, state, whole, batch, keys)

  if scale is None:
    (total, (terms, model_state)), gradients = jax.value_and_grad(
      loss_of, has_aux=True
    )(_trained(model, params))
  else:
    scale, _, (total, (terms, model_state)), gradients = scale.value_and_grad(
      loss_of, has_aux=True
    )(_trained(model, params))
  if state_sharding is not None:
    gradients = jax.lax.with_sharding_constraint(
      gradients, _trained(model, state_sharding.params)
    )
  trained = _trained(model, state.params)
  updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
  trained = optax.apply_updates(trained, updates)
  new_state = TrainState(
    step=state.step + 1,
    params=optimizers.merged(trained, state.params),
    model_state=model_state,
    opt_state=opt_state,
    dynamic_scale=scale,
  )
  gradient_norm = optax.tree.norm(gradients)
  # The norm of float32 gradients can overflow where no gradient does; do not
  # trust such a step either.
  is_finite = jnp.isfinite(total) & jnp.isfinite(gradient_norm)
  if skip_nonfinite or scale is not None:
    kept = state._replace(step=new_state.step, dynamic_scale=scale)
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


def _replicated(sharding):
  return jax.sharding.NamedSharding(sharding.mesh, jax.P())


def _loss_of_heads(model, loss, state, params, batch, keys):
  """The weighted loss of all heads; terms of the main head, new model state."""
  sample_key, dropout_key = keys
  with models.checks.fitting_variables():
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


def _check_loss(loss):
  """Raises a `ValueError` unless it takes a key, a score map and labels."""
  if isinstance(loss, losses.Schedule):
    return
  try:
    inspect.signature(loss).bind("key", "score_map", "labels")
  except TypeError:
    raise ValueError(
      f"loss is {reprs.value(loss)}, which does not take a key, a score map "
      "and labels: give one that losses.make returned, such as "
      "losses.make(loss) or losses.make(sampler=sampler)."
    ) from None


def _check_arguments(state, batch, key):
  """Raises a `ValueError` if a step cannot take these."""
  if not isinstance(state, TrainState):
    raise ValueError(
      f"state is a {type(state).__name__}, not a TrainState: give one of "
      "train.create_state, or train.state_from(variables, optimizer)."
    )
  # All arrays of a state are donated together.
  checks.not_donated(state.step, "the arrays of this state")
  checks.batch(batch)
  checks.key(key)


def _check_frozen(model, optimizer, state):
  """Raises a `ValueError` if an optimizer's state has frozen parameters."""
  expected = jax.eval_shape(optimizer.init, _trained(model, state.params))
  if jax.tree.structure(expected) != jax.tree.structure(state.opt_state):
    raise ValueError(
      f"the network's layers up to {model.frozen} are frozen, but the state of "
      "the optimizer is not made for that: give a state of "
      "train.create_state(key, model, optimizer), or of "
      "train.state_from(variables, optimizer, model=model)."
    )


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


def variables(state: TrainState) -> types.Variables:
  """The variables of the model, as `model.apply` takes them."""
  return {"params": state.params, **state.model_state}
