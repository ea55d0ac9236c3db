"""The papers' recipes, with Caffe's rules, and a modern one, as optax chains.

Caffe's stochastic gradient descent differs from the usual one in three ways:
the learning rate is inside the momentum (v = m v + lr (g + wd w); w -= v),
weight decay is added to the gradient before that, and biases learn at twice the
rate and are not decayed. The interpolation kernels, frozen in the released
nets, are not parameters here.

These recipes are for the sum over pixels (`normalize="sum"`), at the learning
rates of the released VGG16 nets: 1e-10 for stride 32, 1e-12 for 16, 1e-14 for
8. A sum at 1e-10 on 500x375 pixels equals a mean at about 1.9e-5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fcn_jax import types

# PAMI 2017 and the released solvers.
WEIGHT_DECAY = 5e-4


def caffe_sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float,
  weight_decay: float = WEIGHT_DECAY,
  bias_multiplier: float = 2.0,
) -> optax.GradientTransformation:
  """Stochastic gradient descent by Caffe's rules, see above.

  Kernels are arrays of two or more axes; all other parameters, including the
  scale and shift of a normalization, count as biases.

  Args:
    learning_rate: of the kernels; a number or a schedule of the step.
    momentum: share of the last update that is repeated.
    weight_decay: L2 penalty on kernels, coupled.
    bias_multiplier: learning rate of the biases relative to the kernels'.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=is_kernel),
    optax.masked(optax.scale(bias_multiplier), is_bias),
    optax.scale_by_learning_rate(learning_rate, flip_sign=False),
    optax.trace(decay=momentum),
    optax.scale(-1.0),
  )


def accumulation(
  learning_rate: optax.ScalarOrSchedule = 1e-10, *, batch: int = 20
) -> optax.GradientTransformation:
  """PAMI's gradient accumulation: momentum 0.9, mean over `batch` steps.

  Each step sees one image; parameters change at every `batch`-th step.
  """
  recipe = caffe_sgd(learning_rate, momentum=0.9)
  return optax.MultiSteps(recipe, batch).gradient_transformation()


def online(
  learning_rate: optax.ScalarOrSchedule = 1e-10,
) -> optax.GradientTransformation:
  """PAMI's online learning: one image a step, momentum 0.9."""
  return caffe_sgd(learning_rate, momentum=0.9)


def heavy(
  learning_rate: optax.ScalarOrSchedule = 1e-10,
) -> optax.GradientTransformation:
  """PAMI's heavy learning, its best: one image a step, momentum 0.99."""
  return caffe_sgd(learning_rate, momentum=0.99)


def adamw(
  peak_learning_rate: float,
  *,
  total_steps: int,
  warmup_steps: int = 0,
  power: float = 0.9,
  weight_decay: float = 1e-4,
) -> optax.GradientTransformation:
  """AdamW with linear warm-up and polynomial decay, for means of the loss.

  Args:
    peak_learning_rate: reached after the warm-up.
    total_steps: steps until the learning rate is 0.
    warmup_steps: steps of linear increase from 0, fewer than `total_steps`.
    power: exponent of the decay (1 - t) ** power.
    weight_decay: decoupled decay of the kernels; biases are not decayed.

  Raises:
    ValueError: if the warm-up does not end before the last step.
  """
  schedule = warmup_polynomial(
    peak_learning_rate,
    total_steps=total_steps,
    warmup_steps=warmup_steps,
    power=power,
  )
  return optax.adamw(schedule, weight_decay=weight_decay, mask=is_kernel)


def warmup_polynomial(
  peak: float, *, total_steps: int, warmup_steps: int, power: float
) -> optax.Schedule:
  """Linear increase from 0 to `peak`, then polynomial decay to 0."""
  if not 0 <= warmup_steps < total_steps:
    raise ValueError(
      f"{warmup_steps} warm-up steps of {total_steps} steps: the warm-up must "
      "end before the last step."
    )
  decay = optax.polynomial_schedule(
    peak, 0.0, power, total_steps - warmup_steps
  )
  if not warmup_steps:
    return decay
  warmup = optax.linear_schedule(0.0, peak, warmup_steps)
  return optax.join_schedules([warmup, decay], [warmup_steps])


class EmaState(NamedTuple):
  """State of `with_ema`.

  Attributes:
    average: moving average of the parameters.
    count: [] int32, updates that are in it.
    inner: state of the optimizer that makes the updates.
  """

  average: types.Tree
  count: jax.Array
  inner: types.Tree


def with_ema(
  optimizer: optax.GradientTransformation, *, decay: float
) -> optax.GradientTransformation:
  """Keeps an exponential moving average of the parameters beside them.

  It does not change training; predict with the average, which `ema_of` finds.
  The decay of update t is min(decay, (1 + t) / (10 + t)), so that the initial
  parameters are soon forgotten.

  Args:
    optimizer: makes the updates. If you accumulate gradients, put `with_ema`
      inside the accumulation, so that only real updates count.
    decay: share of the average that stays, per update; below 1.

  Raises:
    ValueError: if `decay` is not in 0..1, below 1.
  """
  if not 0 <= decay < 1:
    raise ValueError(f"decay is {decay}; it must be in 0..1, below 1.")

  def init(params):
    # A copy: the step donates its state, and no buffer can be donated twice.
    average = jax.tree.map(jnp.copy, params)
    return EmaState(average, jnp.zeros((), jnp.int32), optimizer.init(params))

  def update(gradients, state, params):
    updates, inner = optimizer.update(gradients, state.inner, params)
    count = state.count.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
    average = jax.tree.map(
      lambda old, new: old + share.astype(old.dtype) * (new - old),
      state.average,
      optax.apply_updates(params, updates),
    )
    return updates, EmaState(average, state.count + 1, inner)

  return optax.GradientTransformation(init, update)


def ema_of(
  opt_state: types.Tree, params: types.Tree | None = None
) -> types.Tree | None:
  """The averaged parameters that `with_ema` keeps; None if it does not.

  Args:
    opt_state: of the optimizer.
    params: of the same state. Frozen parameters have no average, so they are
      taken from here; without it, their places are empty.
  """
  is_average = lambda node: isinstance(node, EmaState)  # noqa: E731
  for node in jax.tree.leaves(opt_state, is_leaf=is_average):
    if is_average(node):
      average = node.average
      return average if params is None else merged(average, params)
  return None


def masked(tree: types.Tree, mask: types.Tree) -> types.Tree:
  """A tree without the arrays that a mask leaves out.

  Their places hold an `optax.MaskedNode`, as in `optax.masked`, which has no
  arrays: an optimizer of such parameters keeps nothing for them.

  Args:
    tree: such as parameters, or what stands for each of them.
    mask: a bool for each.
  """
  return jax.tree.map(
    lambda array, is_kept: array if is_kept else optax.MaskedNode(), tree, mask
  )


def merged(part: types.Tree, whole: types.Tree) -> types.Tree:
  """A tree of `masked`, with the missing arrays from the whole tree."""
  return jax.tree.map(
    lambda array, other: other if _is_missing(array) else array,
    part,
    whole,
    is_leaf=_is_missing,
  )


def _is_missing(node: types.Tree) -> bool:
  return isinstance(node, optax.MaskedNode)


def is_kernel(params: types.Tree) -> types.Tree:
  """Marks the arrays with two or more axes; a mask for optax."""
  return jax.tree.map(lambda array: array.ndim > 1, params)


def is_bias(params: types.Tree) -> types.Tree:
  """Marks the arrays that are not kernels; a mask for optax."""
  return jax.tree.map(lambda array: array.ndim <= 1, params)
