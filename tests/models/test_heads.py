"""Networks with several heads, or of several networks: losses and scores."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn

KEY = jax.random.key(0)
VOID = fcn.types.IGNORE_LABEL
models = fcn.models
SGD = fcn.optimizers.caffe_sgd(0.01, momentum=0.9, weight_decay=0.0)
CLASSES = {"semantic": 5, "geometric": 3}


@pytest.fixture(scope="module", autouse=True)
def narrow():
  changes = {
    models.backbones.resnet: {"widths": (2, 3, 4, 5), "depths": (1, 1, 1, 1)},
    models.backbones.vgg: {"widths": (4, 4, 4, 4, 4), "head_width": 8},
  }
  with pytest.MonkeyPatch.context() as monkeypatch:
    for file, change in changes.items():
      for name, architecture in file.ARCHITECTURES.items():
        replaced = dataclasses.replace(architecture, **change)
        monkeypatch.setitem(file.ARCHITECTURES, name, replaced)
    yield


def two_heads(**options):
  options = {"stride": 16, "dropout_rate": 0.0} | options
  return models.FCN(CLASSES, backbone="vgg_small", **options)


def late_fusion(**options):
  modalities = {
    "color": models.input_normalization.NYUD_COLOR,
    "hha": models.input_normalization.NYUD_HHA,
  }
  return models.LateFusion(
    4, modalities, backbone="vgg_small", stride=16, **options
  )


def random_state(model, seed=0):
  """A state whose scores are not zero."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda: fcn.train.create_state(KEY, model, SGD))

  def draw(leaf):
    drawn = rng.normal(0.1, 0.3, leaf.shape)
    if leaf.ndim == 1:
      drawn = np.abs(drawn) + 0.5
    return jnp.asarray(drawn, leaf.dtype)

  params, model_state = jax.tree.map(draw, (shapes.params, shapes.model_state))
  return fcn.train.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=SGD.init(params),
  )


def images(*size, num_channels=3, num_images=2):
  rng = np.random.default_rng(0)
  shape = (num_images, *size, num_channels)
  return jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)


def labels(num_classes, *size, seed=0, num_images=2):
  rng = np.random.default_rng(seed)
  drawn = rng.integers(0, num_classes, (num_images, *size))
  # Different numbers of them are void.
  drawn[rng.random(drawn.shape) < 0.1 * (1 + seed)] = VOID
  return jnp.asarray(drawn, jnp.int32)


def loss_of(score_map, truth):
  weights = (truth != VOID).astype(jnp.float32)
  logits = fcn.upsampling.to_pixels(score_map)
  return fcn.losses.masked_cross_entropy(
    logits, truth, weights, normalize="kept"
  )


def step_of(model, **options):
  return fcn.train.make_train_step(model, SGD, fcn.losses.make(**options))


def copy(state):
  """A state that may be given away."""
  return jax.tree.map(jnp.copy, state)


@pytest.mark.long
def test_the_auxiliary_loss_counts_with_its_weight():
  model = models.FCNResNet(4, auxiliary=True, dropout_rate=0.0)
  assert model.head_weights == {"out": 1.0, "aux": 0.5}
  model = model.clone(auxiliary_weight=0.3)
  state = random_state(model)
  batch = fcn.types.Batch(images(33, 41), labels(4, 33, 41))

  @jax.jit
  def by_hand(params):
    score_maps, _ = model.apply(
      {"params": params, **state.model_state},
      batch.images,
      train=True,
      mutable=["batch_stats"],
    )
    assert set(score_maps) == {"out", "aux"}
    out, aux = (loss_of(score_maps[k], batch.labels) for k in ("out", "aux"))
    return out, aux

  out, aux = by_hand(state.params)
  assert abs(out - aux) > 0.01
  new_state, metrics = step_of(model, form="strips")(copy(state), batch, KEY)
  np.testing.assert_allclose(metrics.loss, out + 0.3 * aux, rtol=1e-5)
  num_valid = float(np.sum(np.asarray(batch.labels) != VOID))
  np.testing.assert_allclose(metrics.loss_sum, out * num_valid, rtol=1e-5)
  for name in ("score_classifier", "score_aux_classifier"):
    before, after = state.params[name], new_state.params[name]
    assert np.any(before["kernel"] != after["kernel"])


@pytest.mark.long
def test_heads_are_trained_on_their_own_labels():
  model = two_heads()
  assert models.heads.main_head(model) == "semantic"
  state = random_state(model)
  truths = {
    head: labels(number, 40, 48, seed=seed)
    for seed, (head, number) in enumerate(CLASSES.items())
  }
  batch = fcn.types.Batch(images(40, 48), truths)

  @jax.jit
  def by_hand(params):
    score_maps = model.apply({"params": params}, batch.images, train=False)
    return {
      head: loss_of(score_map, truths[head])
      for head, score_map in score_maps.items()
    }

  expected = by_hand(state.params)
  new_state, metrics = step_of(model)(copy(state), batch, KEY)
  np.testing.assert_allclose(
    metrics.loss, expected["semantic"] + expected["geometric"], rtol=1e-5
  )
  valid = {head: int(np.sum(one != VOID)) for head, one in truths.items()}
  assert valid["semantic"] != valid["geometric"]
  assert metrics.num_valid == metrics.num_sampled == valid["semantic"]
  np.testing.assert_allclose(
    metrics.loss_sum, expected["semantic"] * valid["semantic"], rtol=1e-5
  )
  for head in CLASSES:
    for layer in ("score_fr", "score_pool4"):
      name = f"{layer}_{head}"
      before, after = state.params[name], new_state.params[name]
      assert np.any(before["kernel"] != after["kernel"])
  # A head whose labels are all void is not trained.
  void = truths | {"geometric": jnp.full_like(truths["geometric"], VOID)}
  new_state, metrics = step_of(model)(
    copy(state), batch._replace(labels=void), KEY
  )
  np.testing.assert_allclose(metrics.loss, expected["semantic"], rtol=1e-5)
  name = "score_fr_geometric"
  chex.assert_trees_all_equal(new_state.params[name], state.params[name])


@pytest.mark.long
@pytest.mark.slow
def test_labels_are_shared_unless_each_head_has_its_own():
  model = models.FCN({"a": 4, "b": 4}, backbone="vgg_small", dropout_rate=0.0)
  state = random_state(model)
  truth = labels(4, 40, 48)
  batch = fcn.types.Batch(images(40, 48), truth)
  found, expected = (
    step_of(model)(copy(state), batch._replace(labels=one), KEY)
    for one in (truth, {"a": truth, "b": truth})
  )
  chex.assert_trees_all_equal(found, expected)


@pytest.mark.slow
def test_losses_of_several_heads_are_sampled_in_one_trace(monkeypatch):
  traced = chex.assert_max_traces(fcn.train.train_step, n=1)
  monkeypatch.setattr(fcn.train, "train_step", traced)
  model = two_heads()
  sampler = fcn.sampling.bernoulli(rate=0.5, unit="pixel")
  step = step_of(model, sampler=sampler, form="pixels")
  truths = {head: labels(number, 40, 48) for head, number in CLASSES.items()}
  batch = fcn.types.Batch(images(40, 48), truths)
  state, history = random_state(model), []
  for _ in range(3):
    state, metrics = step(state, batch, KEY)
    history.append(metrics)
  for metrics in history:
    assert 0.4 < metrics.num_sampled / metrics.num_valid < 0.6
    assert metrics.num_dropped == 0
    assert metrics.is_finite
  assert len({int(metrics.num_sampled) for metrics in history}) > 1


@pytest.mark.slow
def test_each_head_has_pixels_of_its_own():
  model = models.FCN({"a": 4, "b": 4}, backbone="vgg_small", dropout_rate=0.0)
  batch = fcn.types.Batch(images(40, 48), labels(4, 40, 48))
  values = jnp.arange(batch.labels.size, dtype=jnp.float32)

  def sum_of_kept_values(key, score_map, truth):
    kept = fcn.sampling.bernoulli(rate=0.5, unit="pixel").draw(key, truth)
    total = jnp.sum(kept.reshape(-1) * values)
    terms = fcn.losses.make()(key, score_map, truth)
    return terms._replace(loss=total, loss_sum=total)

  step = fcn.train.make_train_step(model, SGD, sum_of_kept_values)
  _, metrics = step(random_state(model), batch, KEY)
  of_a, of_b = metrics.loss_sum, metrics.loss - metrics.loss_sum
  assert abs(of_a - of_b) > 0.001 * of_a


@pytest.mark.slow
def test_the_classes_of_each_head_are_predicted_by_its_name():
  model = two_heads()
  variables = fcn.train.variables(random_state(model))
  pictures = images(40, 48)
  score_maps = jax.jit(functools.partial(model.apply, train=False))(
    variables, pictures
  )
  assert set(score_maps) == set(CLASSES)
  found = {
    head: np.asarray(
      fcn.inference.predict(model, variables, pictures, head=head)
    )
    for head in (None, *CLASSES)
  }
  for head in CLASSES:
    expected = np.argmax(fcn.upsampling.to_pixels(score_maps[head]), axis=-1)
    np.testing.assert_array_equal(found[head], expected)
  np.testing.assert_array_equal(found[None], found["semantic"])
  assert np.any(found["semantic"] != found["geometric"])
  tiled = fcn.inference.predict_tiled(model, variables, pictures[0])
  np.testing.assert_array_equal(tiled, found["semantic"][0])


def test_a_head_that_is_not_there_is_an_error_that_names_those_that_are():
  model = two_heads()
  with pytest.raises(ValueError, match="no head 'x'; it has semantic, geom"):
    fcn.inference.predict(model, {"params": {}}, images(32, 32), head="x")
  model = models.FCN(3, backbone="vgg_small")
  with pytest.raises(ValueError, match="no head 'x'; it has only an unnamed"):
    fcn.inference.predict(model, {"params": {}}, images(32, 32), head="x")
  assert models.heads.num_classes(two_heads(), "geometric") == 3
  assert models.heads.num_classes(two_heads()) == 5


@pytest.mark.parametrize(
  "num_classes, message",
  [
    ({}, "no head"),
    ({"a": 3, "b": 0}, "num_classes is 0 for b"),
    ({"a": 256}, "num_classes is 256 for a"),
  ],
)
def test_heads_without_classes_are_refused(num_classes, message):
  with pytest.raises(ValueError, match=message):
    models.FCN(num_classes, backbone="vgg_small")


@pytest.mark.slow
def test_late_fusion_is_the_mean_of_the_scores_of_its_networks():
  model = late_fusion()
  assert model.num_channels == 6
  state = random_state(model)
  assert set(state.params) == {"color", "hha"}
  pictures = images(40, 48, num_channels=6)
  apply = functools.partial(model.apply, train=False)
  found = jax.jit(apply)({"params": state.params}, pictures)
  alone = []
  for name, inputs, channels in (
    ("color", models.input_normalization.NYUD_COLOR, np.s_[..., :3]),
    ("hha", models.input_normalization.NYUD_HHA, np.s_[..., 3:]),
  ):
    network = models.FCN(4, backbone="vgg_small", stride=16, inputs=inputs)
    score = jax.jit(functools.partial(network.apply, train=False))
    alone.append(score({"params": state.params[name]}, pictures[channels]))
  color, hha = (np.asarray(one.scores) for one in alone)
  assert np.std(color - hha) > 1e-3
  np.testing.assert_allclose(found.scores, (color + hha) / 2, rtol=1e-5)
  assert found.image_size == (40, 48)
  assert (found.stride, found.offset) == (alone[0].stride, alone[0].offset)


@pytest.mark.long
@pytest.mark.slow
def test_late_fusion_trains_both_networks_and_drops_out_differently():
  model = late_fusion(dropout_rate=0.5)
  state = random_state(model)
  # Equal networks of equal pictures would have equal gradients.
  params = {name: state.params["color"] for name in ("color", "hha")}
  equal = dict.fromkeys(("color", "hha"), models.input_normalization.NYUD_COLOR)
  model = model.clone(modalities=equal)
  state = state._replace(params=params, opt_state=SGD.init(params))
  pictures = jnp.tile(images(40, 48), (1, 1, 1, 2))
  batch = fcn.types.Batch(pictures, labels(4, 40, 48))
  new_state, metrics = step_of(model)(copy(state), batch, KEY)
  assert metrics.is_finite
  color, hha = (
    new_state.params[name]["score_fr"]["kernel"] for name in ("color", "hha")
  )
  before = params["color"]["score_fr"]["kernel"]
  assert np.any(color != before)
  assert np.any(hha != before)
  assert np.any(color != hha)


def test_images_without_the_channels_of_all_modalities_are_refused():
  model = late_fusion()
  with pytest.raises(ValueError, match=r"must be \[N, H, W, 6\]"):
    model.init(KEY, images(32, 32), train=False)
  with pytest.raises(ValueError, match="modalities are empty"):
    models.LateFusion(4, {}, backbone="vgg_small")


@pytest.mark.slow
def test_labels_that_are_not_those_of_the_heads_are_refused():
  images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
  labels = jnp.zeros((1, 32, 32), jnp.int32)
  for num_classes, given, message in (
    ({"semantic": 5, "geometric": 3}, labels, "different classes"),
    ({"semantic": 5, "geometric": 3}, {"semantic": labels}, "of each of its"),
    (5, {"semantic": labels}, "has one"),
  ):
    model = fcn.models.FCN(num_classes, backbone="vgg_small")
    optimizer = optax.sgd(0.1)
    state = jax.eval_shape(
      lambda key, model=model, optimizer=optimizer: fcn.train.create_state(
        key, model, optimizer
      ),
      jax.random.key(0),
    )
    step = fcn.train.make_train_step(model, optimizer)
    with pytest.raises(ValueError, match=message):
      jax.eval_shape(
        step, state, fcn.types.Batch(images, given), jax.random.key(1)
      )


def test_a_nameless_head_among_several_and_dicts_for_one_are_refused():
  with pytest.raises(ValueError, match="without a name"):
    fcn.models.FCN({"": 5, "x": 3})
  inputs = {"color": fcn.models.input_normalization.NYUD_COLOR}
  with pytest.raises(ValueError, match="one number of classes"):
    fcn.models.LateFusion({"semantic": 5}, inputs)
