"""From options to network, optimizer and loss."""

import dataclasses
import pathlib
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fcn_jax import data
from fcn_jax import losses
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import runs
from fcn_jax import types
from fcn_jax.runs import build
from fcn_jax.runs import config

pytestmark = pytest.mark.usefixtures("standard_promotion")

BASE = runs.Train(run=config.Run(pathlib.Path("runs/base")))
# They keep what they keep; there is no rate to choose.
WITHOUT_RATE = (
  "whole_image",
  "one_per_square",
  "center_pixel",
  "class_weighted",
)


@pytest.fixture(scope="module")
def dataset(prepared_dir):
  return data.load("shapes/tiny", split="train", prepared_dir=prepared_dir)


@pytest.fixture(scope="module")
def labels(dataset):
  """Labels [4, 64, 64], void at the top."""
  result = np.stack([dataset.source[i].label[:64, :64] for i in range(4)])
  result[:, :8] = types.IGNORE_LABEL
  return jnp.asarray(result)


def terms_of(loss, labels, scores=None):
  """The terms of a loss at random scores, one a pixel."""
  if scores is None:
    scores = jax.random.normal(jax.random.key(1), (*labels.shape, 6))
  score_map = types.ScoreMap(scores, 1, 0.0, labels.shape[1:], "clamp")
  return loss(jax.random.key(0), score_map, labels)


def terms_and_pixels(loss, labels):
  """The terms of a loss, and which pixels have a gradient."""

  @jax.jit
  def gradient_of(scores):
    def loss_sum(scores):
      terms = terms_of(loss, labels, scores)
      return terms.loss_sum, terms

    return jax.grad(loss_sum, has_aux=True)(scores)

  scores = jax.random.normal(jax.random.key(1), (*labels.shape, 6))
  # A score a pixel: the gradient of each is that of its own loss.
  gradient, terms = gradient_of(scores)
  return jax.device_get(terms), np.any(gradient, axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", get_args(config.Sampler))
def test_every_sampler_can_be_chosen_and_leaves_out_void(dataset, labels, name):
  rate = 1.0 if name in WITHOUT_RATE else 0.25
  # Its weights are not 0 and 1.
  normalize = "sum" if name == "uncertain_weighted" else "kept"
  options = BASE.replace(
    sampler=name,
    rate=rate,
    normalize=normalize,
    batch_size=4,
    crop_size=(64, 64),
  )
  if name == "center_pixel":
    with pytest.raises(ValueError, match="another without patches"):
      options.check()
    # A patch is as large as the crops here.
    options = options.replace(
      patches="random", patch_size=(64, 64), patches_per_image=1
    )
  options.check()
  terms, pixels = terms_and_pixels(build.loss(options, dataset), labels)
  assert pixels.shape == labels.shape
  assert not pixels[:, :8].any()
  assert terms.num_kept == pixels.sum()
  kept = np.mean(pixels[:, 8:])
  # Most losses at random scores are above the threshold of harder_than.
  if rate < 1 and name != "harder_than":
    assert 0.02 < kept < 0.5
  assert kept > 0
  divisor = terms.num_kept if normalize == "kept" else 1
  np.testing.assert_allclose(terms.loss, terms.loss_sum / divisor, rtol=1e-6)


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ({}, losses.cross_entropy),
    (
      {"label_smoothing": 0.2},
      losses.smoothed_cross_entropy(smoothing=0.2),
    ),
    ({"pixel_loss": "focal", "gamma": 3.0}, losses.focal(gamma=3.0)),
    (
      {"pixel_loss": "symmetric_cross_entropy"},
      losses.symmetric_cross_entropy(),
    ),
    (
      {"pixel_loss": "generalized_cross_entropy"},
      losses.generalized_cross_entropy(),
    ),
  ],
)
def test_the_loss_of_a_pixel_is_the_one_that_is_named(options, expected):
  logits = jax.random.normal(jax.random.key(0), (4, 9))
  labels = jnp.arange(9, dtype=jnp.int32) % 4
  found = build.pixel_loss(BASE.replace(**options).loss)
  np.testing.assert_array_equal(found(logits, labels), expected(logits, labels))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("options", "count"),
  [
    ({"normalize": "sum"}, lambda terms: 1),
    ({"normalize": "valid"}, lambda terms: terms.num_valid),
    ({"normalize": "expected"}, lambda terms: 0.25 * terms.num_valid),
    # Of images with void as many pixels are kept as of others.
    (
      {"sampler": "fixed_count", "normalize": "expected"},
      lambda terms: terms.num_kept,
    ),
    (
      {"sampler": "one_per_square", "rate": 1.0, "normalize": "expected"},
      lambda terms: terms.num_valid / 64,
    ),
    (
      {
        "sampler": "one_per_square",
        "rate": 1.0,
        "side": 4,
        "normalize": "expected",
      },
      lambda terms: terms.num_valid / 16,
    ),
  ],
)
def test_the_loss_is_divided_as_the_options_say(
  dataset, labels, options, count
):
  options = {"sampler": "bernoulli", "rate": 0.25} | options
  loss = build.loss(BASE.replace(**options), dataset)
  terms = jax.device_get(jax.jit(lambda labels: terms_of(loss, labels))(labels))
  np.testing.assert_allclose(
    terms.loss, terms.loss_sum / count(terms), rtol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [
    {"sampler": "class_balanced", "rate": 0.1, "min_probability": 0.05},
    {"sampler": "class_balanced", "rate": 0.1, "redistribute": True},
    {"sampler": "near_boundary", "rate": 0.5, "rate_elsewhere": 0.1},
  ],
)
def test_an_unbiased_loss_is_expected_to_be_that_of_all_pixels(
  dataset, labels, options
):
  options = {"batch_size": 4, "crop_size": (64, 64)} | options
  options = BASE.replace(unbiased=True, normalize="expected", **options)
  options.check()
  sampler = build.sampler(options, dataset)
  pixel_losses = jnp.asarray(
    np.random.default_rng(0).exponential(size=labels.shape).astype(np.float32)
  )

  @jax.jit
  def sums(keys):
    return jax.lax.map(
      lambda key: jnp.sum(sampler.draw(key, labels) * pixel_losses), keys
    )

  found = np.asarray(sums(jax.random.split(jax.random.key(0), 300)))
  whole = np.sum(pixel_losses, where=labels != types.IGNORE_LABEL)
  assert abs(found.mean() - whole) < 5 * found.std() / np.sqrt(len(found))
  # A wrong weight would show.
  assert found.std() < 0.1 * whole
  assert sampler.expected_sum(labels) == np.sum(labels != types.IGNORE_LABEL)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("options", "expected"),
  [
    pytest.param(
      {"region_loss": "dice"}, losses.dice(), marks=pytest.mark.long
    ),
    pytest.param(
      {"region_loss": "jaccard"}, losses.jaccard(), marks=pytest.mark.long
    ),
    pytest.param(
      {
        "region_loss": "tversky",
        "false_positives": 0.4,
        "false_negatives": 0.9,
      },
      losses.tversky(alpha=0.4, beta=0.9),
      marks=pytest.mark.long,
    ),
    pytest.param(
      {"region_loss": "lovasz_softmax"}, None, marks=pytest.mark.long
    ),
  ],
)
def test_a_loss_of_regions_is_added_or_stands_alone(
  dataset, labels, options, expected
):
  sampler = {"sampler": "fixed_count", "rate": 0.25}
  both, alone, of_pixels = (
    jax.jit(lambda labels, loss=loss: terms_of(loss, labels).loss)(labels)
    for loss in (
      build.loss(BASE.replace(**sampler, **more), dataset)
      for more in (
        options | {"region_weight": 0.5},
        options | {"pixel_loss": "none"},
        {},
      )
    )
  )
  np.testing.assert_allclose(both, of_pixels + 0.5 * alone, rtol=1e-5)
  sampler = build.sampler(BASE.replace(**sampler), dataset)
  if expected is None:
    loss = losses.lovasz_softmax(sampler=sampler)
  else:
    loss = losses.make(expected, sampler=sampler)
  np.testing.assert_allclose(alone, terms_of(loss, labels).loss, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [
    {"sampler": "hardest", "crop_size": (64, 64), "patches_per_image": 2},
    {"sampler": "fixed_count", "crop_size": None, "patches_per_image": 2},
    {
      "sampler": "fixed_count_in_batch",
      "crop_size": (64, 64),
      "patches": "grid",
      "patch_stride": (32, 32),
    },
  ],
)
def test_the_rate_of_a_sampler_is_that_of_the_pixels_of_patches(
  dataset, options
):
  of_patches = {"patches": "random", "patch_size": (32, 32), "batch_size": 2}
  options = of_patches | options
  chosen = BASE.replace(rate=0.25, **options)
  chosen.check()
  assert chosen.num_seen == 2 * (options.get("patches_per_image") or 4)
  labels = jnp.zeros((chosen.num_seen, 32, 32), jnp.int32)
  loss = build.loss(chosen, dataset)
  terms = jax.jit(lambda labels: terms_of(loss, labels))(labels)
  assert terms.num_kept == labels.size / 4


@pytest.mark.parametrize("kind", ["median_frequency", "inverse_frequency"])
def test_classes_are_weighted_with_any_sampler(dataset, labels, kind):
  options = {"sampler": "fixed_count", "rate": 0.25}
  plain = build.loss(BASE.replace(**options), dataset)
  weighted = build.loss(BASE.replace(class_weights=kind, **options), dataset)
  weights = build.class_weights(data.class_frequencies(dataset), kind)
  one = jnp.where(labels == types.IGNORE_LABEL, labels, 1)
  found, of_plain = jax.jit(
    lambda: [terms_of(loss, one).loss for loss in (weighted, plain)]
  )()
  np.testing.assert_allclose(found, weights[1] * of_plain, rtol=1e-5)


def test_the_mean_weight_of_a_pixel_is_1_when_classes_are_weighed(dataset):
  frequencies = data.class_frequencies(dataset)
  weights = build.class_weights(frequencies)
  assert np.sum(frequencies.shares * weights) == pytest.approx(1)
  # In the ratios of median frequency balancing.
  assert weights * frequencies.shares_where_present == pytest.approx(
    np.full(6, weights[0] * frequencies.shares_where_present[0])
  )


@pytest.mark.parametrize(
  "options",
  [
    {"sampler": "class_weighted"},
    {"class_weights": "median_frequency"},
    {"class_weights": "inverse_frequency"},
  ],
)
def test_a_class_that_does_not_occur_has_no_weight_and_is_named(
  dataset, capsys, options
):
  names = (*dataset.class_names, "unicorn")
  palette = np.concatenate([dataset.palette, [[1, 2, 3]]])
  more = dataclasses.replace(dataset, class_names=names, palette=palette)
  build.loss(BASE.replace(**options), more)
  said = capsys.readouterr().err
  assert "has the class unicorn: its weight is 0." in said
  frequencies = data.class_frequencies(more)
  kind = options.get("class_weights", "median_frequency")
  weights = build.class_weights(frequencies, kind)
  assert weights[-1] == 0
  np.testing.assert_allclose(
    weights[:-1],
    build.class_weights(data.class_frequencies(dataset), kind),
    rtol=1e-6,
  )


@pytest.mark.parametrize("recipe", ["sgd", "adamw"])
def test_groups_of_parameters_have_their_learning_rates(recipe):
  """A smaller rate is that of another run; no rate is decayed for biases."""

  def moved(**options):
    chain = build.optimizer(
      config.Optimizer(
        optimizer=recipe, schedule="constant", warmup_steps=0, **options
      )
    )
    params = {
      name: {"kernel": jnp.ones((1, 1, 2, 2)), "bias": jnp.ones(2)}
      for name in ("conv1_1", "score_fr")
    }
    state = chain.init(params)
    total = jax.tree.map(jnp.zeros_like, params)
    for number in range(1, 4):
      gradients = jax.tree.map(lambda x, number=number: number * x, params)
      # The parameters stay, so that the decay is the same whatever the rate.
      updates, state = chain.update(gradients, state, params)
      total = jax.tree.map(jnp.add, total, updates)
    return total

  plain = moved()
  scaled = moved(backbone_multiplier=0.1, bias_multiplier=4.0)
  of_bias = 4.0 / (2.0 if recipe == "sgd" else 1.0)
  for layer, of_layer in (("conv1_1", 0.1), ("score_fr", 1.0)):
    for name, factor in (("kernel", 1.0), ("bias", of_bias)):
      np.testing.assert_allclose(
        scaled[layer][name] / plain[layer][name],
        np.full(plain[layer][name].shape, of_layer * factor),
        rtol=1e-4,
      )


def test_without_multipliers_the_optimizer_is_that_of_earlier_runs():
  params = {"conv1_1": {"kernel": jnp.ones((1, 1, 2, 2))}}
  found, expected = (
    jax.tree.structure(chain.init(params))
    for chain in (
      build.optimizer(config.Optimizer()),
      optax.adamw(
        build.schedule(config.Optimizer()), mask=optimizers.is_kernel
      ),
    )
  )
  assert found == expected


def test_accumulated_gradients_make_one_update_of_their_clipped_mean():
  optimizer = build.optimizer(
    config.Optimizer(
      optimizer="sgd",
      momentum=0.0,
      weight_decay=0.0,
      schedule="constant",
      warmup_steps=0,
      learning_rate=0.5,
      clip_norm=1.0,
      accumulate=2,
      ema_decay=0.0,
    )
  )
  params = {"kernel": jnp.zeros((1, 2))}
  state = optimizer.init(params)
  for gradient in ([[6.0, 0.0]], [[0.0, 8.0]]):
    updates, state = optimizer.update(
      {"kernel": jnp.array(gradient)}, state, params
    )
    params = optax.apply_updates(params, updates)
  # The mean is (3, 4), of norm 5.
  np.testing.assert_allclose(params["kernel"], [[-0.3, -0.4]], rtol=1e-6)
  average = optimizers.ema_of(state)
  np.testing.assert_allclose(average["kernel"], params["kernel"], rtol=1e-6)


def test_the_learning_rate_rises_and_then_falls_or_stays():
  options = config.Optimizer(
    steps=40, warmup_steps=8, accumulate=2, learning_rate=0.1, power=1.0
  )
  schedule = build.schedule(options)
  assert schedule(0) == 0 and schedule(2) == pytest.approx(0.05)
  assert schedule(4) == pytest.approx(0.1)
  assert schedule(12) == pytest.approx(0.05)
  assert schedule(20) == pytest.approx(0, abs=1e-9)
  options = config.Optimizer(schedule="constant", warmup_steps=8)
  assert build.schedule(options)(4) == pytest.approx(options.learning_rate / 2)
  assert build.schedule(options)(900) == pytest.approx(options.learning_rate)


def test_the_network_is_as_the_options_say():
  options = BASE.replace(
    backbone="vgg16", stride=16, padding="caffe", inputs="caffe", head_width=8
  )
  model = build.model(options, 21)
  assert model == models.FCN(
    21,
    backbone="vgg16",
    stride=16,
    padding="caffe",
    inputs=models.input_normalization.CAFFE,
    head_width=8,
    dropout_rate=0.1,
    normalization="batch",
  )
  options = BASE.replace(architecture="fcn_resnet", backbone="resnet50")
  assert isinstance(build.model(options, 21), models.FCNResNet)
  options = BASE.replace(modalities="color_hha")
  assert isinstance(build.model(options, 40), models.LateFusion)
  options = BASE.replace(second_labels="geometric")
  model = build.model(options, 33)
  assert model.heads == {"semantic": 33, "geometric": 3}
