"""Names in torchvision's state dicts, without PyTorch."""

import functools

import numpy as np
import pytest

from fcn_jax import models
from fcn_jax.models import input_normalization
from fcn_jax.pretrained import entries
from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained import transplanting
from tests.helpers import narrow

BACKBONES = tuple(torchvision_names.CLASSIFIERS.values())


@pytest.fixture(autouse=True, scope="module")
def _narrow():
  with pytest.MonkeyPatch.context() as monkeypatch:
    narrow.backbones(monkeypatch)
    yield


def fcn(backbone, num_classes=3, **options):
  options.setdefault("inputs", narrow.inputs(backbone))
  return models.FCN(num_classes, backbone=backbone, **options)


def names(model, source=None):
  return {
    entry.ours: entry.theirs
    for entry in torchvision_names.entries(model, source or {})
  }


def some_names(*theirs):
  return {name: np.zeros(()) for name in theirs}


NETWORKS = {
  **{backbone: fcn(backbone) for backbone in BACKBONES},
  "several heads": fcn("vgg11_bn", {"semantic": 3, "geometric": 2}, stride=16),
  "fcn_resnet50": models.FCNResNet(3),
  "fcn_resnet50 with aux": models.FCNResNet(3, auxiliary=True),
  "fcn_resnet101": models.FCNResNet(3, backbone="resnet101"),
}


@functools.cache
def variables_of(name):
  return narrow.random_variables(NETWORKS[name])


def state_dict_of(name):
  return torchvision_names.state_dict(NETWORKS[name], variables_of(name))


# From the containers in torchvision's source: places count ReLUs and poolings.
@pytest.mark.parametrize(
  "name, expected",
  [
    ("vgg11", {"conv1_1": "features.0", "conv5_2": "features.18"}),
    ("vgg13", {"conv1_2": "features.2", "conv5_2": "features.22"}),
    ("vgg16", {"conv2_1": "features.5", "conv5_3": "features.28"}),
    ("vgg19", {"conv3_4": "features.16", "conv5_4": "features.34"}),
    ("vgg16", {"fc6": "classifier.0", "fc7": "classifier.3"}),
    ("vgg16", {"score_fr": "classifier.6", "score_pool4": "score_pool4"}),
    ("vgg11_bn", {"conv5_2": "features.25", "fc6": "classifier.0"}),
    ("vgg13_bn", {"conv1_2": "features.3", "conv5_2": "features.31"}),
    ("vgg16_bn", {"conv2_1": "features.7", "conv5_3": "features.40"}),
    ("vgg19_bn", {"conv3_4": "features.23", "conv5_4": "features.49"}),
    ("alexnet", {"conv2": "features.3", "conv5": "features.10"}),
    ("alexnet", {"fc6": "classifier.1", "fc7": "classifier.4"}),
    ("alexnet", {"score_fr": "classifier.6", "score_pool1": "score_pool1"}),
    ("googlenet_bn", {"conv2_reduce": "conv2.conv", "conv2": "conv3.conv"}),
    ("googlenet_bn", {"inception_4e_5x5": "inception4e.branch3.1.conv"}),
    ("googlenet_bn", {"score_fr": "fc"}),
    ("resnet50", {"layer3_5_conv3": "layer3.5.conv3", "score_fr": "fc"}),
    ("resnet101", {"layer2_0_downsample": "layer2.0.downsample.0"}),
    (
      "several heads",
      {
        "score_fr_semantic": "score_fr_semantic",
        "score_pool4_geometric": "score_pool4_geometric",
      },
    ),
    ("fcn_resnet50", {"conv1": "backbone.conv1"}),
    ("fcn_resnet50", {"classifier_conv": "classifier.0"}),
    ("fcn_resnet50", {"score_classifier": "classifier.4"}),
    ("fcn_resnet50 with aux", {"aux_classifier_conv": "aux_classifier.0"}),
  ],
)
def test_kernels_have_the_names_of_torchvision(name, expected):
  found = names(NETWORKS[name])
  for ours, theirs in expected.items():
    assert found[f"params/{ours}/kernel"] == f"{theirs}.weight"


@pytest.mark.parametrize(
  "name, ours, theirs",
  [
    ("vgg16_bn", "conv1_1_norm", "features.1"),
    ("vgg16_bn", "conv5_3_norm", "features.41"),
    ("googlenet_bn", "inception_3a_1x1_norm", "inception3a.branch1.bn"),
    ("resnet50", "conv1_norm", "bn1"),
    ("resnet50", "layer4_0_downsample_norm", "layer4.0.downsample.1"),
    ("fcn_resnet50", "layer1_2_conv2_norm", "backbone.layer1.2.bn2"),
    ("fcn_resnet50", "classifier_conv_norm", "classifier.1"),
  ],
)
def test_normalisations_have_the_names_of_torchvision(name, ours, theirs):
  found = names(NETWORKS[name])
  assert found[f"params/{ours}/scale"] == f"{theirs}.weight"
  assert found[f"params/{ours}/bias"] == f"{theirs}.bias"
  assert found[f"batch_stats/{ours}/mean"] == f"{theirs}.running_mean"
  assert found[f"batch_stats/{ours}/var"] == f"{theirs}.running_var"


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_lost_on_the_way_to_torchvision_and_back(name):
  model, state_dict = NETWORKS[name], state_dict_of(name)
  variables = dict(transplanting.named(variables_of(name)))
  table = torchvision_names.entries(model, state_dict)
  assert {entry.ours for entry in table} == variables.keys()
  used = {entry.theirs for entry in table}
  assert len(used) == len(table)
  assert used == {x for x in state_dict if not torchvision_names.is_ignored(x)}
  for ours, theirs, order in table:
    array = state_dict[theirs]
    assert array.flags.c_contiguous
    back = entries.to_ours(array, variables[ours].shape, order)
    np.testing.assert_array_equal(back, variables[ours])


def test_dense_layers_are_matrices_and_convolutions_are_not():
  state_dict = state_dict_of("vgg16")
  shapes = {name: array.shape for name, array in state_dict.items()}
  assert shapes["features.5.weight"] == (8, 8, 3, 3)
  assert shapes["classifier.0.weight"] == (24, 16 * 7 * 7)
  assert shapes["classifier.6.weight"] == (3, 24)
  assert shapes["score_pool4.weight"] == (3, 16, 1, 1)
  state_dict = state_dict_of("fcn_resnet50")
  assert state_dict["classifier.4.weight"].shape == (3, 16, 1, 1)


def test_the_way_back_counts_no_batches():
  state_dict = state_dict_of("vgg11_bn")
  counters = [name for name in state_dict if torchvision_names.is_ignored(name)]
  assert len(counters) == 8
  assert counters[0] == "features.1.num_batches_tracked"
  assert state_dict[counters[0]].dtype == np.int64
  assert state_dict[counters[0]].shape == ()


def test_variables_of_another_network_have_no_way_back():
  variables = variables_of("vgg13")
  with pytest.raises(ValueError, match="only in one of the two: .*conv3_3"):
    torchvision_names.state_dict(NETWORKS["vgg16"], variables)


def test_the_classifier_of_a_resnet_begins_an_fcn_and_the_reverse():
  found = names(models.FCNResNet(3), some_names("conv1.weight", "fc.weight"))
  assert found["params/conv1/kernel"] == "conv1.weight"
  assert found["params/classifier_conv/kernel"] == "classifier.0.weight"
  found = names(NETWORKS["resnet50"], some_names("backbone.conv1.weight"))
  assert found["params/conv1/kernel"] == "backbone.conv1.weight"
  assert found["params/score_fr/kernel"] == "fc.weight"


@pytest.mark.parametrize(
  "options, message",
  [
    (
      {"backbone": "vgg16"},
      "vgg16 .* inputs=.*input_normalization.TORCHVISION",
    ),
    (
      {"backbone": "googlenet_bn", "inputs": input_normalization.TORCHVISION},
      "googlenet_bn .* inputs=.*input_normalization.INCEPTION",
    ),
    ({"backbone": "caffenet"}, "publishes no caffenet.* for Caffe"),
    ({"backbone": "googlenet"}, "publishes no googlenet; .* googlenet_bn.*"),
    ({"backbone": "vgg_small"}, "publishes no vgg_small"),
    (
      {"normalization": "group", "inputs": input_normalization.TORCHVISION},
      "publishes no vgg16 with normalization='group'; its own is 'none'",
    ),
  ],
)
def test_a_network_that_torchvision_does_not_have_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    torchvision_names.entries(models.FCN(3, **options), {})


def test_torchvision_has_no_late_fusion():
  model = models.LateFusion(
    3, {"color": input_normalization.CAFFE, "hha": input_normalization.CAFFE}
  )
  with pytest.raises(ValueError, match="LateFusion .* for Caffe"):
    torchvision_names.entries(model, {})


def test_a_fourth_channel_may_follow_the_colours():
  colors = input_normalization.TORCHVISION
  inputs = input_normalization.InputNormalization(
    (*colors.mean, 7.8), (*colors.scale, 1.0), (0, 1, 2, 3)
  )
  first, *others = torchvision_names.entries(fcn("vgg16", inputs=inputs), {})
  assert first == ("params/conv1_1/kernel", "features.0.weight", (0, 1, 2, 3))
  assert all(entry.order is None for entry in others)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_names.CLASSIFIERS)
def test_a_state_dict_tells_of_which_network_it_is(name):
  state_dict = state_dict_of(torchvision_names.CLASSIFIERS[name])
  # Of torchvision's own there are none.
  state_dict = {k: v for k, v in state_dict.items() if "score_" not in k}
  assert torchvision_names.guess(state_dict) == name
  backbone = {k: v for k, v in state_dict.items() if "classifier" not in k}
  assert torchvision_names.guess(backbone) == name
  old = {
    k: v for k, v in backbone.items() if not torchvision_names.is_ignored(k)
  }
  assert torchvision_names.guess(old) == name
  assert (
    torchvision_names.guess(backbone | some_names("features.99.weight")) is None
  )


@pytest.mark.parametrize(
  "name", ["fcn_resnet50", "fcn_resnet50 with aux", "fcn_resnet101"]
)
def test_a_state_dict_of_an_fcn_tells_so(name):
  assert torchvision_names.guess(state_dict_of(name)) == name.split()[0]


def test_networks_of_other_kinds_are_not_taken_for_known_ones():
  assert torchvision_names.guess({}) is None
  fcn_resnet = state_dict_of("fcn_resnet50")
  # DeepLab's head has several branches in this place.
  renamed = {
    name.replace("classifier.0.", "classifier.0.convs.0.0."): array
    for name, array in fcn_resnet.items()
  }
  assert torchvision_names.guess(renamed) is None
  resnet = state_dict_of("resnet50")
  grouped = np.zeros((8, 2, 3, 3), np.float32)
  resnext = resnet | {"layer1.0.conv2.weight": grouped}
  assert torchvision_names.guess(resnext) is None
  wide = np.zeros((8, 8, 3, 3), np.float32)
  assert (
    torchvision_names.guess(resnet | {"layer1.0.conv2.weight": wide}) is None
  )
