import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fcn_jax import optimizers

# Optax's Adam and MultiSteps mix integer counts with floats.
standard_promotion = functools.partial(jax.numpy_dtype_promotion, "standard")


def parameters():
  rng = np.random.default_rng(0)
  return {
    "conv": {
      "kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32),
      "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
    }
  }


def gradients(params, step):
  rng = np.random.default_rng(100 + step)
  return jax.tree.map(
    lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params
  )


def run(optimizer, num_steps):
  """Parameters after each step, under random gradients."""
  params = parameters()
  state = optimizer.init(params)

  @jax.jit
  def update(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  history = []
  for step in range(num_steps):
    params, state = update(params, state, gradients(params, step))
    history.append(params)
  return history


def caffe_loop(learning_rates, momentum, weight_decay, grads_of=gradients):
  """v = m v + lr (g + wd w); w -= v. Biases: twice lr, no decay."""
  params = parameters()
  weights = {k: np.asarray(v, float) for k, v in params["conv"].items()}
  velocity = {k: np.zeros_like(v) for k, v in weights.items()}
  history = []
  for step, rate in enumerate(learning_rates):
    grads = grads_of(params, step)["conv"]
    for name, lr_mult, decay_mult in (("kernel", 1, 1), ("bias", 2, 0)):
      gradient = np.asarray(grads[name], float)
      gradient = gradient + decay_mult * weight_decay * weights[name]
      velocity[name] = momentum * velocity[name] + lr_mult * rate * gradient
      weights[name] = weights[name] - velocity[name]
    history.append({"conv": dict(weights)})
  return history


def assert_close(found, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    found,
    expected,
  )


def test_caffe_sgd_agrees_with_a_loop_under_a_changing_learning_rate():
  rates = [0.1 if step < 10 else 0.01 * step for step in range(25)]
  table = jnp.asarray(rates)
  optimizer = optimizers.caffe_sgd(
    lambda step: table[step], momentum=0.9, weight_decay=0.05
  )
  expected = caffe_loop(rates, 0.9, 0.05)
  for found, wanted in zip(run(optimizer, 25), expected, strict=True):
    assert_close(found, wanted)


@pytest.mark.parametrize(
  "recipe, momentum", [(optimizers.online, 0.9), (optimizers.heavy, 0.99)]
)
def test_the_recipes_are_caffe_sgd_at_their_momentum(recipe, momentum):
  expected = caffe_loop([0.01] * 8, momentum, 5e-4)
  assert_close(run(recipe(0.01), 8)[-1], expected[-1])


def test_accumulation_is_a_step_with_the_mean_gradient():
  batch = 4

  def mean_gradient(params, step):
    grads = [gradients(params, batch * step + i) for i in range(batch)]
    return jax.tree.map(lambda *g: sum(g) / batch, *grads)

  with standard_promotion():
    history = run(optimizers.accumulation(0.1, batch=batch), 3 * batch)
  expected = caffe_loop([0.1] * 3, 0.9, 5e-4, mean_gradient)
  # Nothing changes before the batch is complete.
  assert_close(history[batch - 2], parameters())
  for found, wanted in zip(history[batch - 1 :: batch], expected, strict=True):
    assert_close(found, wanted)


def test_warmup_is_linear_and_decay_polynomial():
  schedule = optimizers.warmup_polynomial(
    0.2, total_steps=110, warmup_steps=10, power=0.9
  )
  steps = np.arange(0, 120)
  expected = np.where(
    steps < 10,
    0.2 * steps / 10,
    0.2 * np.maximum(0, 1 - (steps - 10) / 100) ** 0.9,
  )
  found = jax.vmap(schedule)(jnp.asarray(steps))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_without_warmup_the_first_step_has_the_peak_learning_rate():
  schedule = optimizers.warmup_polynomial(
    0.2, total_steps=100, warmup_steps=0, power=1.0
  )
  np.testing.assert_allclose(
    [schedule(0), schedule(50), schedule(100)], [0.2, 0.1, 0.0], atol=1e-7
  )


@pytest.mark.parametrize("warmup_steps", [100, 101, -1])
def test_a_warmup_that_does_not_end_is_an_error(warmup_steps):
  with pytest.raises(ValueError, match=f"{warmup_steps} warm-up steps of 100"):
    optimizers.adamw(0.1, total_steps=100, warmup_steps=warmup_steps)


@pytest.mark.slow
def test_adamw_decays_kernels_and_not_biases():
  optimizer = optimizers.adamw(0.1, total_steps=10, weight_decay=0.5)
  params = parameters()
  zeros = jax.tree.map(jnp.zeros_like, params)
  with standard_promotion():
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  kernel = params["conv"]["kernel"]
  np.testing.assert_allclose(
    updates["conv"]["kernel"], -0.1 * 0.5 * kernel, rtol=1e-5
  )
  assert not np.any(updates["conv"]["bias"])


def test_the_average_of_the_parameters_forgets_the_first_ones_soon():
  decay, params = 0.5, {"w": jnp.array([4.0])}
  optimizer = optimizers.with_ema(optax.sgd(1.0), decay=decay)
  state = optimizer.init(params)
  expected = 4.0
  for count in range(8):
    updates, state = optimizer.update({"w": jnp.array([0.5])}, state, params)
    params = optax.apply_updates(params, updates)
    share = min(decay, (1 + count) / (10 + count))
    expected = share * expected + (1 - share) * float(params["w"][0])
    average = optimizers.ema_of(state)
    np.testing.assert_allclose(average["w"], [expected], rtol=1e-6)
  assert optimizers.ema_of(optax.sgd(1.0).init(params)) is None
