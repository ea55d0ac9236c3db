"""Training with frozen layers: what stays, and what is not computed."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn
from fcn_jax import sharding
from tests import test_train

pytestmark = pytest.mark.usefixtures("standard_promotion")

KEY = jax.random.key(7)
MODEL = fcn.models.FCN(
  num_classes=3,
  backbone="fcn_basic",
  stride=16,
  normalization="batch",
  frozen="pool2",
)
FROZEN = ("conv1", "conv2")


def optimizer(*, accumulate=1):
  """Momentum, two moments, an average and clipping, all at once."""
  chain = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.masked(optax.add_decayed_weights(0.1), fcn.optimizers.is_kernel),
    optax.adam(0.01),
    optax.trace(0.5),
  )
  chain = fcn.optimizers.with_ema(chain, decay=0.9)
  if accumulate > 1:
    chain = optax.MultiSteps(chain, accumulate).gradient_transformation()
  return chain


def is_frozen(path):
  """Whether an array is one of the frozen layers."""
  text = jax.tree_util.keystr(path)
  return any(f"'{name}'" in text or f"'{name}_norm'" in text for name in FROZEN)


def frozen_arrays(tree):
  """The arrays of frozen layers, by their paths."""
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if is_frozen(path)
  }


@pytest.mark.slow
def test_frozen_arrays_stay_to_the_bit_for_twenty_steps_of_one_trace():
  chain = optimizer()
  with pytest.MonkeyPatch.context() as patch:
    traced = chex.assert_max_traces(fcn.train.train_step, n=1)
    patch.setattr(fcn.train, "train_step", traced)
    step = fcn.train.make_train_step(MODEL, chain, skip_nonfinite=True)
  state = fcn.train.create_state(KEY, MODEL, chain)
  # A new zero has another sign than this one, if anything is added.
  variables = fcn.train.variables(state)
  variables["params"]["conv1"]["bias"] *= -1
  state = fcn.train.state_from(variables, chain, model=MODEL)
  before = jax.device_get(state)
  for seed in range(20):
    state, metrics = step(state, test_train.example_batch(seed=seed), KEY)
    assert metrics.is_finite
  assert int(state.step) == 20
  for old, new, number in (
    (before.params, state.params, 8),
    (before.model_state, state.model_state, 4),
  ):
    stay, now = frozen_arrays(old), frozen_arrays(new)
    assert len(stay) == number
    for name, array in stay.items():
      assert array.tobytes() == now[name].tobytes(), name
    moved = {
      jax.tree_util.keystr(path): not np.array_equal(leaf, other)
      for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(old),
        jax.tree.leaves(jax.device_get(new)),
        strict=True,
      )
      if not is_frozen(path)
    }
    still = {name for name, has_moved in moved.items() if not has_moved}
    # The normalization takes the biases of convolutions away.
    assert all("['bias']" in name and "norm" not in name for name in still)
  average = fcn.optimizers.ema_of(state.opt_state, state.params)
  chex.assert_trees_all_equal_shapes(average, before.params)
  for name, array in frozen_arrays(before.params).items():
    assert array.tobytes() == frozen_arrays(average)[name].tobytes()
  assert not np.array_equal(
    average["score_fr"]["kernel"], state.params["score_fr"]["kernel"]
  )


NETWORKS = {
  "fcn": MODEL,
  "remat": MODEL.clone(remat="blocks"),
  "float16": MODEL.clone(dtype=jnp.float16),
  "two heads": MODEL.clone(num_classes={"a": 3, "b": 3}),
}


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_optimizer_has_nothing_for_frozen_arrays(name, accumulate):
  model, chain = NETWORKS[name], optimizer(accumulate=accumulate)
  before = jax.eval_shape(lambda: fcn.train.create_state(KEY, model, chain))
  params = jax.tree.leaves_with_path(before.params)
  trained = [leaf.size for path, leaf in params if not is_frozen(path)]
  assert len(trained) < len(params)
  # Two moments, the momentum and the average; accumulated gradients.
  copies = 4 if accumulate == 1 else 5
  sizes = [leaf.size for leaf in jax.tree.leaves(before.opt_state) if leaf.ndim]
  assert sum(sizes) == copies * sum(trained)
  assert not any(
    is_frozen(path) for path, _ in jax.tree.leaves_with_path(before.opt_state)
  )
  after, _ = jax.eval_shape(
    functools.partial(fcn.train.train_step, model, chain, fcn.losses.make()),
    before,
    test_train.example_batch(),
    KEY,
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(after, before)


@pytest.mark.slow
def test_no_gradient_of_frozen_layers_is_computed():
  chain = optax.sgd(0.1)

  def num_convolutions(frozen):
    """Convolutions of the step, forward and backward."""
    model = MODEL.clone(frozen=frozen, normalization="none")
    state = jax.eval_shape(lambda: fcn.train.create_state(KEY, model, chain))
    step = fcn.train.make_train_step(model, chain)
    text = step.lower(state, test_train.example_batch(), KEY).as_text()
    return text.count("stablehlo.convolution")

  whole, half, all_layers = map(num_convolutions, (None, "pool2", "backbone"))
  # Two layers each: the gradient of the kernel, and of the inputs unless these
  # are images or frozen features.
  assert (whole - half, half - all_layers) == (4, 3)


@pytest.mark.long
def test_frozen_layers_can_be_shared_out_over_devices():
  """FSDP: the step of several devices is that of one."""
  chain = optimizer()
  model = MODEL.clone(dropout_rate=0.0)
  state = jax.device_get(fcn.train.create_state(KEY, model, chain))
  mesh = sharding.make_mesh()
  shardings = sharding.fully_sharded(mesh, state, min_elements=64)
  kernel = shardings.params["conv2"]["kernel"]
  assert kernel.spec != jax.P()
  shared = fcn.train.make_train_step(model, chain, state_sharding=shardings)
  alone = fcn.train.make_train_step(model, chain)
  batch = test_train.example_batch(len(jax.devices()))
  there = jax.device_put(state, shardings)
  here = jax.device_put(state)
  for _ in range(2):
    there, _ = shared(
      there, jax.device_put(batch, sharding.of_numbers(mesh)), KEY
    )
    here, _ = alone(here, batch, KEY)
  assert there.params["conv2"]["kernel"].sharding == kernel
  for name, array in frozen_arrays(state.params).items():
    assert array.tobytes() == frozen_arrays(there.params)[name].tobytes()
  np.testing.assert_allclose(
    there.params["score_fr"]["kernel"],
    here.params["score_fr"]["kernel"],
    atol=1e-3,
  )


@pytest.mark.long
def test_a_gradient_that_overflows_float16_leaves_frozen_layers_too():
  model, chain = NETWORKS["float16"], optimizer()
  state = jax.device_get(fcn.train.create_state(KEY, model, chain))
  scale = state.dynamic_scale.replace(scale=jnp.float32(2.0**40))
  step = fcn.train.make_train_step(model, chain)
  after, metrics = step(
    state._replace(dynamic_scale=scale), test_train.example_batch(), KEY
  )
  assert not metrics.is_finite
  chex.assert_trees_all_equal(after.params, state.params)
  after, metrics = step(
    after._replace(dynamic_scale=state.dynamic_scale),
    *(test_train.example_batch(), KEY),
  )
  assert metrics.is_finite
  for name, array in frozen_arrays(state.params).items():
    assert array.tobytes() == frozen_arrays(after.params)[name].tobytes()


def test_a_state_for_all_layers_is_refused():
  chain = optimizer()
  state = jax.eval_shape(
    lambda: fcn.train.create_state(KEY, MODEL.clone(frozen=None), chain)
  )
  step = functools.partial(
    fcn.train.train_step, MODEL, chain, fcn.losses.make()
  )
  with pytest.raises(ValueError, match=r"layers up to pool2 .* model=model"):
    jax.eval_shape(step, state, test_train.example_batch(), KEY)
