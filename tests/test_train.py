import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn

KEY = jax.random.key(7)
MODEL = fcn.models.FCN(
  num_classes=3, backbone="vgg_small", stride=8, head_width=8
)
# Without dropout, for steps that are to be compared with one another.
PLAIN = MODEL.clone(dropout_rate=0.0)
SGD = fcn.optimizers.caffe_sgd(0.01, momentum=0.9, weight_decay=0.0)
SAMPLER = fcn.sampling.bernoulli(rate=0.5)


def example_batch(num_images=4, seed=0):
  """Colour tells the class; a border of void."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, (num_images, 4, 4)).repeat(8, 1).repeat(8, 2)
  noise = rng.integers(0, 60, (*labels.shape, 3))
  images = 80 * np.eye(3)[labels] + noise
  labels[:, :2] = fcn.types.IGNORE_LABEL
  return fcn.types.Batch(
    jnp.asarray(images, jnp.uint8), jnp.asarray(labels, jnp.int32)
  )


@pytest.fixture(scope="module")
def initial():
  """The state before training, on the host; score layers as well."""
  return jax.device_get(fcn.train.create_state(KEY, MODEL, SGD))


@pytest.fixture(scope="module")
def step():
  """A compiled step that fails when it is traced a second time."""
  with pytest.MonkeyPatch.context() as patch:
    traced = chex.assert_max_traces(fcn.train.train_step, n=1)
    patch.setattr(fcn.train, "train_step", traced)
    return fcn.train.make_train_step(
      MODEL, SGD, fcn.losses.make(sampler=SAMPLER)
    )


@pytest.fixture(scope="module")
def plain_step():
  return fcn.train.make_train_step(
    PLAIN, SGD, fcn.losses.make(normalize="valid")
  )


@pytest.fixture(scope="module")
def warm(initial):
  """A state whose scores are no longer zero."""
  rng = np.random.default_rng(3)
  params = jax.tree.map(
    lambda p: p + rng.normal(0, 0.02, p.shape).astype(p.dtype), initial.params
  )
  return initial._replace(params=params)


def run(step, state, num_steps, key=KEY):
  """The state after some steps, and each step's metrics."""
  state, history = jax.device_put(state), []
  for _ in range(num_steps):
    state, metrics = step(state, example_batch(), key)
    history.append(metrics)
  return jax.device_get((state, history))


def assert_close(found, expected, tolerance=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=tolerance, atol=tolerance
    ),
    jax.device_get(found),
    jax.device_get(expected),
  )


def test_a_new_net_scores_zero_and_has_taken_no_step(initial):
  assert initial.step == 0
  assert initial.model_state == {}
  for name, layer in initial.params.items():
    assert np.any(layer["kernel"]) != name.startswith("score")
    assert not np.any(layer["bias"])


@pytest.mark.slow
def test_the_loss_begins_at_that_of_chance_and_falls(step, initial):
  state, history = run(step, initial, 40)
  losses = [float(metrics.loss) for metrics in history]
  np.testing.assert_allclose(losses[0], np.log(3), rtol=1e-5)
  assert np.mean(losses[-5:]) < 0.5 * losses[0]
  assert state.step == 40


def test_five_steps_are_traced_once(step, initial):
  run(step, initial, 5)
  assert step._cache_size() == 1


def test_the_same_key_gives_the_same_parameters_bit_for_bit(step, initial):
  first, _ = run(step, initial, 3)
  second, _ = run(step, initial, 3)
  jax.tree.map(np.testing.assert_array_equal, first, second)
  other, _ = run(step, initial, 3, jax.random.key(8))
  differs = jax.tree.map(
    lambda a, b: np.any(a != b), first.params, other.params
  )
  assert any(jax.tree.leaves(differs))


def test_every_step_draws_another_sample(step, initial):
  _, history = run(step, initial, 4)
  assert len({int(metrics.num_sampled) for metrics in history}) > 1


def test_the_old_state_is_donated(step, initial):
  state = jax.device_put(initial)
  step(state, example_batch(), KEY)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_a_step_moves_nothing_between_host_and_device(step, initial):
  state, batch, key = jax.device_put((initial, example_batch(), KEY))
  with jax.transfer_guard("disallow"):
    for _ in range(2):
      state, _ = step(state, batch, key)
  step = fcn.train.make_train_step(MODEL, SGD, fcn.losses.make(sampler=SAMPLER))
  assert "callback" not in step.lower(initial, batch, key).as_text()


@pytest.mark.slow
def test_a_batch_of_void_changes_nothing(plain_step, warm):
  batch = example_batch()
  void = jnp.full_like(batch.labels, fcn.types.IGNORE_LABEL)
  state, metrics = plain_step(
    jax.device_put(warm), batch._replace(labels=void), KEY
  )
  jax.tree.map(np.testing.assert_array_equal, state.params, warm.params)
  # No loss, pixel or gradient, and nothing that is not finite.
  assert jax.device_get(metrics) == (0, 0, 0, 0, 0, 0, True)


@pytest.mark.slow
def test_metrics_are_sums_and_counts_over_the_sampled_pixels(warm):
  batch = example_batch()
  mask = np.random.default_rng(5).random(batch.labels.shape) < 0.3
  mask &= np.asarray(batch.labels) != fcn.types.IGNORE_LABEL
  step = fcn.train.make_train_step(
    PLAIN,
    SGD,
    fcn.losses.make(
      sampler=fcn.sampling.Sampler(
        lambda key, labels: jnp.asarray(mask, jnp.float32)
      ),
      normalize="valid",
    ),
  )
  _, metrics = step(jax.device_put(warm), batch, KEY)
  logits = jax.jit(
    lambda p, x: fcn.upsampling.to_pixels(
      PLAIN.apply({"params": p}, x, train=False)
    )
  )(warm.params, batch.images)
  logits = np.asarray(logits, np.float64)
  truth = np.where(mask, batch.labels, 0)[..., None]
  score = np.take_along_axis(logits, truth, axis=-1)[..., 0]
  pixel_losses = np.log(np.exp(logits).sum(axis=-1)) - score
  num_valid = np.sum(np.asarray(batch.labels) != fcn.types.IGNORE_LABEL)
  assert metrics.num_sampled == mask.sum()
  assert metrics.num_valid == num_valid
  loss_sum = pixel_losses[mask].sum()
  np.testing.assert_allclose(metrics.loss_sum, loss_sum, rtol=1e-4)
  np.testing.assert_allclose(metrics.loss, loss_sum / num_valid, rtol=1e-4)


@pytest.mark.slow
def test_rate_1_is_the_step_on_the_whole_image(plain_step, warm):
  step = fcn.train.make_train_step(
    PLAIN,
    SGD,
    fcn.losses.make(
      sampler=fcn.sampling.bernoulli(rate=1.0),
      normalize="expected",
    ),
  )
  expected, _ = run(plain_step, warm, 1)
  assert_close(run(step, warm, 1)[0], expected)


@pytest.mark.long
@pytest.mark.parametrize(
  "form, sampler",
  [
    pytest.param(
      "pixels",
      fcn.sampling.bernoulli(rate=0.03, unit="pixel"),
      marks=pytest.mark.long,
    ),
    ("blocks", fcn.sampling.bernoulli(rate=0.5)),
    ("places", fcn.sampling.places(rate=0.25)),
  ],
)
def test_every_form_of_the_loss_takes_the_same_step(warm, form, sampler):
  found = {}
  for name in ("logits", form):
    step = fcn.train.make_train_step(
      PLAIN, SGD, fcn.losses.make(sampler=sampler, form=name)
    )
    found[name] = jax.device_get(
      step(jax.device_put(warm), example_batch(), KEY)
    )
  assert found["logits"][1].num_sampled > 0
  assert_close(found[form], found["logits"])


@pytest.mark.slow
def test_pixels_without_room_are_counted_in_the_metrics(warm):
  step = fcn.train.make_train_step(
    PLAIN, SGD, fcn.losses.make(form="pixels", capacity=100)
  )
  _, metrics = step(jax.device_put(warm), example_batch(), KEY)
  num_images = len(example_batch().labels)
  assert metrics.num_sampled == 100 * num_images
  assert metrics.num_dropped == metrics.num_valid - 100 * num_images > 0


@pytest.mark.slow
def test_hard_examples_are_chosen_by_the_losses_of_the_step(warm):
  sampler = fcn.sampling.hardest(count=50)
  batch = example_batch()
  step = fcn.train.make_train_step(PLAIN, SGD, fcn.losses.make(sampler=sampler))
  _, metrics = step(jax.device_put(warm), batch, KEY)
  score_map = jax.jit(lambda p, x: PLAIN.apply({"params": p}, x, train=False))(
    warm.params, batch.images
  )
  pixel_losses = fcn.losses.loss_map(score_map, batch.labels)
  pixel_losses = np.sort(np.reshape(pixel_losses, (len(batch.labels), -1)))
  assert metrics.num_sampled == 50 * len(batch.labels)
  np.testing.assert_allclose(
    metrics.loss, pixel_losses[:, -50:].mean(), rtol=1e-4
  )


@pytest.mark.slow
def test_several_devices_take_the_step_of_one(plain_step, warm):
  devices = jax.devices()
  assert len(devices) > 1
  mesh = jax.make_mesh(
    (len(devices),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.PartitionSpec
  everywhere = jax.sharding.NamedSharding(mesh, spec())
  shared_out = jax.sharding.NamedSharding(mesh, spec("batch"))
  found = plain_step(
    jax.device_put(warm, everywhere),
    jax.device_put(example_batch(len(devices)), shared_out),
    jax.device_put(KEY, everywhere),
  )
  expected = plain_step(jax.device_put(warm), example_batch(len(devices)), KEY)
  assert len(found[0].step.sharding.device_set) == len(devices)
  assert_close(found, expected)


@pytest.mark.slow
def test_accumulated_images_make_the_step_of_their_batch(plain_step, warm):
  batch = example_batch()
  count = len(batch.labels)
  optimizer = optax.MultiSteps(SGD, count).gradient_transformation()
  step = fcn.train.make_train_step(
    PLAIN, optimizer, fcn.losses.make(normalize="valid")
  )
  # MultiSteps mixes integer counts with floats.
  with jax.numpy_dtype_promotion("standard"):
    state = warm._replace(opt_state=optimizer.init(warm.params))
    state = jax.device_put(state)
    for i in range(count):
      state, _ = step(
        state,
        batch._replace(
          images=batch.images[i : i + 1], labels=batch.labels[i : i + 1]
        ),
        KEY,
      )
  # All images have equally many valid pixels: a mean of means is the mean.
  expected, _ = plain_step(jax.device_put(warm), batch, KEY)
  assert_close(state.params, expected.params)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), state.params, warm.params
  )
  assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow
def test_batch_statistics_are_part_of_the_state():
  model = PLAIN.clone(normalization="batch")
  state, _ = jax.eval_shape(
    functools.partial(fcn.train.train_step, model, SGD, fcn.losses.make()),
    before := jax.eval_shape(lambda: fcn.train.create_state(KEY, model, SGD)),
    example_batch(),
    KEY,
  )
  assert set(state.model_state) == {"batch_stats"}
  chex.assert_trees_all_equal_shapes_and_dtypes(state, before)
  assert set(fcn.train.variables(state)) == {"params", "batch_stats"}


@pytest.mark.slow
def test_a_step_that_is_not_finite_can_leave_all_but_its_number(warm):
  step = fcn.train.make_train_step(
    PLAIN, SGD, fcn.losses.make(normalize="valid"), skip_nonfinite=True
  )
  batch = example_batch()
  images = batch.images.astype(jnp.float32)
  bad = batch._replace(images=images.at[0, 5, 5, 0].set(jnp.nan))
  state, metrics = step(jax.device_put(warm), bad, KEY)
  assert not metrics.is_finite
  assert int(state.step) == int(warm.step) + 1
  jax.tree.map(
    np.testing.assert_array_equal, state, warm._replace(step=state.step)
  )
  good, metrics = step(state, batch._replace(images=images), KEY)
  assert metrics.is_finite
  # Without momentum from before, the kernels move by rate times gradient.
  moved = jax.tree.map(
    lambda new, old: (new - old) / 0.01 / (1 if new.ndim > 1 else 2),
    good.params,
    warm.params,
  )
  norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(moved)))
  np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-3)


def test_a_state_from_variables_leaves_them_to_their_owner():
  model = fcn.models.FCN(3, backbone="vgg_small", head_width=8, stride=32)
  optimizer = optax.sgd(0.1)
  first = fcn.train.create_state(jax.random.key(0), model, optimizer)
  variables = fcn.train.variables(first)
  state = fcn.train.state_from(variables, optimizer)
  chex.assert_trees_all_equal(state, first)
  # As a train step does.
  take = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0
  )
  assert take(state).step == 1
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(variables))


@pytest.mark.long
@pytest.mark.usefixtures("standard_promotion")
def test_a_network_of_one_logit_learns_two_classes():
  model = PLAIN.clone(num_classes=1)
  loss = fcn.losses.make(fcn.losses.sigmoid_cross_entropy, sampler=SAMPLER)
  optimizer = optax.adamw(3e-3)
  step = fcn.train.make_train_step(model, optimizer, loss)
  state = fcn.train.create_state(KEY, model, optimizer)

  def batch(seed):
    # Of three colours, the second is class 1.
    images, labels, *_ = example_batch(seed=seed)
    is_void = labels == fcn.types.IGNORE_LABEL
    return fcn.types.Batch(
      images, jnp.where(is_void, labels, labels % 2).astype(jnp.int32)
    )

  for seed in range(80):
    state, _ = step(state, batch(seed), KEY)
  images, labels, *_ = batch(1000)
  found = fcn.inference.predict(
    model, fcn.train.variables(state), images, activation="sigmoid"
  )
  confusion = fcn.metrics.confusion_matrix(labels, found, num_classes=2)
  scores = fcn.metrics.scores(confusion)
  assert min(scores.class_iu) > 0.7, scores


@pytest.fixture(scope="module")
def half():
  """A network that computes in float16, its step and its first state."""
  model = PLAIN.clone(dtype=jnp.float16)
  step = fcn.train.make_train_step(
    model, SGD, fcn.losses.make(normalize="valid")
  )
  return model, step, jax.device_get(fcn.train.create_state(KEY, model, SGD))


@pytest.mark.long
def test_a_step_in_float16_is_that_in_float32_rounded(half, plain_step):
  _, step, state = half
  batch = example_batch()
  _, expected = plain_step(state._replace(dynamic_scale=None), batch, KEY)
  after, metrics = step(state, batch, KEY)
  np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-3)
  np.testing.assert_allclose(
    metrics.gradient_norm, expected.gradient_norm, rtol=1e-2
  )
  assert after.dynamic_scale.scale == 2.0**16
  assert after.dynamic_scale.fin_steps == 1


@pytest.mark.slow
def test_a_gradient_that_overflows_float16_halves_the_scale_only(half):
  _, step, state = half
  scale = state.dynamic_scale.replace(scale=jnp.float32(2.0**40))
  after, metrics = step(
    state._replace(dynamic_scale=scale), example_batch(), KEY
  )
  assert not metrics.is_finite
  assert after.dynamic_scale.scale == 2.0**39
  assert after.step == 1
  chex.assert_trees_all_equal(after.params, state.params)
  chex.assert_trees_all_equal(after.opt_state, state.opt_state)


def test_float16_without_a_scale_is_refused(half):
  _, step, state = half
  with pytest.raises(ValueError, match=r"has no dynamic_scale: give state"):
    step(state._replace(dynamic_scale=None), example_batch(), KEY)
