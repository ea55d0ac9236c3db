"""Which layers are frozen, by the name of the last one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import models
from fcn_jax.models import freezing

VGG = models.FCN(5, backbone="vgg16", stride=8)


def parameters(model):
  """The shapes of the parameters."""
  images = jax.ShapeDtypeStruct((1, 64, 64, model.num_channels), jnp.uint8)
  return jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), images
  )["params"]


def trained_layers(model):
  """Names of the layers that are trained."""
  marks = model.freezing.is_trained(parameters(model))
  return {name for name, arrays in marks.items() if all(arrays.values())}


@pytest.mark.parametrize("last", ["pool3", "conv3", "conv3_3"])
def test_a_vgg_is_frozen_up_to_a_layer_or_a_block(last):
  model = VGG.clone(frozen=last)
  names = {*parameters(model)}
  blocks = ("conv1_", "conv2_", "conv3_")
  assert trained_layers(model) == {
    name for name in names if not name.startswith(blocks)
  }
  # The score layer of a frozen block is one of the head's.
  assert "score_pool3" in trained_layers(model)


@pytest.mark.parametrize(
  ("model", "frozen", "trained"),
  [
    (
      models.FCN(5, backbone="resnet50", frozen="layer2_0"),
      {"conv1", "layer1_2_conv3", "layer2_0_downsample", "layer2_0_conv3_norm"},
      {"layer2_1_conv1", "layer3_0_downsample"},
    ),
    (
      models.FCNResNet(5, auxiliary=True, frozen="backbone"),
      {"conv1", "layer4_2_conv3", "layer4_2_conv3_norm"},
      {"classifier_conv", "classifier_conv_norm", "aux_classifier_conv"},
    ),
    (
      models.FCN(5, backbone="googlenet", stride=16, frozen="inception_3b"),
      {"conv2", "inception_3b_1x1", "inception_3b_pool_proj"},
      {"inception_4a_1x1", "score_fr"},
    ),
    (
      models.FCN({"a": 3, "b": 2}, backbone="vgg_small", frozen="backbone"),
      {"conv1_1", "fc7", "fc7_norm"},
      {"score_fr_a", "score_pool3_b"},
    ),
  ],
  ids=["resnet", "fcn_resnet", "googlenet", "two heads"],
)
def test_all_of_a_block_and_no_head_is_frozen(model, frozen, trained):
  names, found = {*parameters(model)}, trained_layers(model)
  if model.normalization != "batch":
    frozen = {name for name in frozen if not name.endswith("_norm")}
  assert frozen <= names - found
  assert trained <= found


def test_both_networks_of_a_late_fusion_are_frozen():
  inputs = models.input_normalization
  model = models.LateFusion(
    5,
    {"color": inputs.NYUD_COLOR, "hha": inputs.NYUD_HHA},
    backbone="vgg_small",
    frozen="backbone",
  )
  marks = model.freezing.is_trained(parameters(model))
  for network in ("color", "hha"):
    assert not marks[network]["conv1_1"]["kernel"]
    assert marks[network]["score_fr"]["kernel"]


@pytest.mark.parametrize(
  ("backbone", "message"),
  [
    ("vgg_small", "'conv9' .* give backbone, or one of conv1_1, .*pool5, fc6"),
    ("resnet50", "one of conv1, pool1, layer1, .*layer4, or a part of one"),
  ],
)
def test_a_layer_that_is_not_there_is_refused_with_the_names(backbone, message):
  with pytest.raises(ValueError, match=message):
    models.FCN(5, backbone=backbone, frozen="conv9")
  with pytest.raises(ValueError, match="no layer 'score_fr'"):
    models.FCN(5, backbone=backbone, frozen="score_fr")


def test_a_summary_says_what_is_frozen():
  plain, frozen = (
    fcn.summary(VGG.clone(frozen=last), image_size=64)
    for last in (None, "pool1")
  )
  num_frozen = 3 * 3 * 3 * 64 + 64 + 3 * 3 * 64 * 64 + 64
  assert frozen.num_frozen == num_frozen
  assert frozen.num_parameters == plain.num_parameters
  assert f"{num_frozen:,} of them frozen" in repr(frozen)
  assert "36,928 (frozen)" in repr(frozen)
  assert "frozen" not in repr(plain)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("frozen", "all_statistics", "changed"),
  [
    (None, False, ("conv1_1_norm", "conv2_1_norm", "fc7_norm")),
    ("pool1", False, ("conv2_1_norm", "fc7_norm")),
    (None, True, ()),
  ],
)
def test_frozen_statistics_are_used_and_stay(frozen, all_statistics, changed):
  model = models.FCN(
    2,
    backbone="vgg_small",
    stride=32,
    head_width=8,
    normalization="batch",
    dropout_rate=0.0,
    frozen=frozen,
    frozen_statistics=all_statistics,
  )
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (2, 32, 32, 3)), jnp.uint8)
  init = functools.partial(jax.jit, static_argnames="train")(model.init)
  variables = init(jax.random.key(0), images, train=False)
  # Running statistics that a new mean would change.
  before = jax.tree.map(lambda x: x + 1 / 3, variables["batch_stats"])
  variables = {**variables, "batch_stats": before}
  apply = functools.partial(jax.jit, static_argnames="train")(
    lambda variables, train: model.apply(
      variables, images, train=train, mutable=["batch_stats"]
    )
  )
  score_map, after = apply(variables, train=True)
  for name, statistics in after["batch_stats"].items():
    is_same = all(
      np.array_equal(statistics[kind], before[name][kind])
      for kind in ("mean", "var")
    )
    if name in ("conv1_1_norm", "conv2_1_norm", "fc7_norm"):
      assert is_same == (name not in changed), name
  if all_statistics:
    expected, _ = apply(variables, train=False)
    np.testing.assert_array_equal(score_map.scores, expected.scores)


def test_the_backbone_is_all_but_the_heads():
  params = parameters(models.FCNResNet(5, auxiliary=True))
  marks = freezing.in_backbone(params)
  heads = {name for name, one in marks.items() if not all(one.values())}
  assert heads == {
    "classifier_conv",
    "classifier_conv_norm",
    "score_classifier",
    "aux_classifier_conv",
    "aux_classifier_conv_norm",
    "score_aux_classifier",
  }
