import dataclasses
import functools

import jax
import numpy as np
import pytest

from fcn_jax import models
from fcn_jax.models import input_normalization
from fcn_jax.models import released
from fcn_jax.pretrained import caffe_names
from fcn_jax.pretrained import loading
from tests.helpers import caffe_files
from tests.helpers import caffe_prototxt

VGG16 = [
  f"conv{block}_{i}"
  for block, depth in enumerate((2, 2, 3, 3, 3), start=1)
  for i in range(1, depth + 1)
]
VGG16 += ["fc6", "fc7"]
CAFFENET = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
INCEPTION = ["1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj"]
GOOGLENET = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"] + [
  f"inception_{module}/{branch}"
  for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
  for branch in INCEPTION
]


def layers(model, source=()):
  """Names of Caffe's layers, each of which must have a kernel and a bias."""
  names = [entry.theirs for entry in caffe_names.entries(model, source)]
  kernels = {name.removesuffix("/0") for name in names if name.endswith("/0")}
  biases = {name.removesuffix("/1") for name in names if name.endswith("/1")}
  assert kernels == biases and len(names) == 2 * len(kernels)
  return kernels


def small(**options):
  return models.FCN(
    **{
      "num_classes": 3,
      "backbone": "vgg_small",
      "head_width": 8,
      "padding": "caffe",
      "inputs": input_normalization.CAFFE,
    }
    | options
  )


def random_params(model):
  rng = np.random.default_rng(0)
  images = jax.ShapeDtypeStruct((1, 64, 64, model.num_channels), np.float32)
  init = functools.partial(model.init, train=False)
  template = jax.eval_shape(init, jax.random.key(0), images)["params"]
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, np.float32), template
  )


@pytest.mark.parametrize(
  "name, scores",
  [
    ("voc-fcn32s", ["score_fr"]),
    ("voc-fcn16s", ["score_fr", "score_pool4"]),
    ("voc-fcn8s", ["score_fr", "score_pool4", "score_pool3"]),
    ("voc-fcn8s-atonce", ["score_fr", "score_pool4", "score_pool3"]),
    ("siftflow-fcn32s", ["score_fr_sem", "score_fr_geo"]),
    (
      "siftflow-fcn8s",
      [
        f"score_{layer}_{head}"
        for layer in ("fr", "pool4", "pool3")
        for head in ("sem", "geo")
      ],
    ),
  ],
)
def test_layers_have_the_names_of_the_released_nets(name, scores):
  assert layers(released.make(name)) == {*VGG16, *scores}


def test_small_backbones_have_the_layers_of_the_wide_ones():
  for name, wide in {"vgg_small": "vgg11", "vgg13_small": "vgg13"}.items():
    assert layers(small(backbone=name)) == layers(small(backbone=wide))


def test_layers_of_caffenet_and_googlenet_have_the_names_of_the_model_zoo():
  caffenet = released.make("voc-fcn-alexnet")
  assert layers(caffenet) == {*CAFFENET, "score_fr"}
  googlenet = models.FCN(3, backbone="googlenet", stride=32)
  assert layers(googlenet) == {*GOOGLENET, "score_fr"}


def test_layers_of_late_fusion_end_with_their_modality():
  model = released.make("nyud-fcn32s-color-hha")
  assert layers(model) == {
    name + modality
    for name in (*VGG16, "score_fr")
    for modality in ("color", "hha")
  }
  table = {entry.theirs: entry for entry in caffe_names.entries(model)}
  assert table["conv1_1color/0"].ours == "params/color/conv1_1/kernel"
  assert table["conv1_1color/0"].order == (2, 1, 0)
  assert table["conv1_1hha/0"].order == (0, 1, 2)


def test_early_fusion_takes_its_own_first_layer_or_that_of_colours():
  model = released.make("nyud-fcn32s-color-d")
  expected = {*VGG16, "score_fr"} - {"conv1_1"}
  assert layers(model) == expected | {"conv1_1_bgrd"}
  source = ["conv1_1/0", "conv1_1/1"]
  assert layers(model, source) == expected | {"conv1_1"}


def test_score_layers_may_have_hyphens():
  model = small()
  source = [
    f"score-{name}/{i}" for name in ("fr", "pool4", "pool3") for i in (0, 1)
  ]
  assert set(source) < {e.theirs for e in caffe_names.entries(model, source)}


def test_other_heads_keep_their_names():
  model = small(num_classes={"things": 2, "stuff": 3}, stride=32)
  assert {"score_fr_things", "score_fr_stuff"} < layers(model)


def test_only_the_first_kernel_has_an_order_of_channels():
  for entry in caffe_names.entries(small()):
    first = entry.ours == "params/conv1_1/kernel"
    assert entry.order == ((2, 1, 0) if first else None)
    assert entry.theirs.endswith("/0") == entry.ours.endswith("kernel")


@pytest.mark.parametrize(
  "model",
  [
    models.FCN(3, backbone="resnet50"),
    models.FCN(3, backbone="alexnet", stride=32),
    models.FCN(3, backbone="googlenet_bn", stride=32),
    models.FCN(3, backbone="vgg16_bn"),
    models.FCNResNet(3),
    models.LateFusion(3, {"a": input_normalization.CAFFE}, backbone="alexnet"),
  ],
)
def test_networks_that_caffe_has_not_are_refused(model):
  with pytest.raises(ValueError, match="published for Caffe.*caffenet"):
    caffe_names.entries(model)


def test_normalization_is_refused():
  with pytest.raises(ValueError, match='batch.*normalization="none"'):
    caffe_names.entries(small(normalization="batch"))


@pytest.mark.parametrize(
  "model",
  [
    small(inputs=None),
    models.LateFusion(
      3, {"a": input_normalization.CAFFE, "b": input_normalization.TORCHVISION}
    ),
  ],
)
def test_pixels_that_are_scaled_are_refused(model):
  with pytest.raises(ValueError, match=r"input_normalization\.CAFFE"):
    caffe_names.entries(model)


def test_bilinear_upsampling_is_fixed():
  source = {
    "upscore2/0": caffe_prototxt.bilinear(3, 4),
    "upscore_pool4_sem/0": caffe_prototxt.bilinear(3, 4),
    # One group a channel.
    "upscore8/0": caffe_prototxt.bilinear(1, 16).repeat(3, axis=0),
    "upscore/0": caffe_prototxt.bilinear(2, 63),
    "upscore/1": np.zeros(2, np.float32),
    "conv1_1/0": np.ones((4, 3, 3, 3), np.float32),
  }
  fixed = caffe_names.check_fixed("net.caffemodel", source, small())
  assert fixed == tuple(source)[:-1]


def changed(place, value):
  kernel = caffe_prototxt.bilinear(3, 4)
  kernel[place] = value
  return kernel


@pytest.mark.parametrize(
  "name, array",
  [
    ("upscore2/0", changed((0, 0, 1, 1), 0.57)),
    ("upscore2/0", changed((2, 1, 0, 0), 0.01)),
    ("upscore2/0", np.zeros((3, 3, 4, 4), np.float32)),
    ("upscore2/0", np.zeros((3, 5, 4, 4), np.float32)),
    ("upscore2/0", np.zeros(3, np.float32)),
    ("upscore2/1", np.ones(3, np.float32)),
  ],
)
def test_trained_upsampling_is_refused(name, array):
  with pytest.raises(ValueError, match="net.caffemodel.*'upscore2'.*bilinear"):
    caffe_names.check_fixed("net.caffemodel", {name: array}, small())


def scaled(pool4, pool3):
  source = {
    f"score_{pool}/{i}": np.ones(3, np.float32)
    for pool in ("pool4", "pool3")
    for i in (0, 1)
  }
  if pool4:
    source["scale_pool4/0"] = np.full(96, pool4, np.float32)
    source["scale_pool3/0"] = np.full(64, pool3, np.float32)
  return source


def test_scales_of_skips_are_fixed_if_they_are_the_networks_own():
  at_once = small(skip_scales=models.fcn.AT_ONCE_SCALES)
  fixed = caffe_names.check_fixed("a file", scaled(0.01, 0.0001), at_once)
  assert fixed == ("scale_pool4/0", "scale_pool3/0")
  assert caffe_names.check_fixed("a file", scaled(None, None), small()) == ()
  # A classifier to begin from.
  assert caffe_names.check_fixed("a file", {"fc6/0": np.ones(1)}, at_once) == ()


@pytest.mark.parametrize(
  "scales, model",
  [
    ((0.01, 0.0001), small()),
    ((0.01, 0.001), small(skip_scales=models.fcn.AT_ONCE_SCALES)),
    ((None, None), small(skip_scales=models.fcn.AT_ONCE_SCALES)),
  ],
)
def test_other_scales_of_skips_are_refused(scales, model):
  with pytest.raises(ValueError, match="pool. is multiplied.*AT_ONCE_SCALES"):
    caffe_names.check_fixed("a file", scaled(*scales), model)


@pytest.mark.parametrize("v1", [False, True])
def test_all_of_a_file_is_loaded_or_named(tmp_path, v1):
  model, path = small(), tmp_path / "net.caffemodel"
  params = random_params(model)
  net = caffe_prototxt.fcn(model, params, first="conv1_1")
  caffe_files.write(path, net.layers, v1=v1, legacy_shape=v1)
  variables, report = loading.load(path, model)
  jax.tree.map(np.testing.assert_array_equal, variables, {"params": params})
  assert len(report.copied) == len(jax.tree.leaves(params))
  assert sum(map(len, report)) == len(report.copied) + len(report.fixed)
  assert set(report.fixed) == {"upscore2/0", "upscore_pool4/0", "upscore8/0"}


def test_a_classifier_is_the_beginning_of_an_fcn(tmp_path):
  model, path = (
    small(stride=32, inputs=input_normalization.NYUD_COLOR_DEPTH),
    tmp_path / "c",
  )
  classifier = small(stride=32)
  params = random_params(classifier)
  net = caffe_prototxt.fcn(classifier, params, first="conv1_1")
  dense = {
    name: ("InnerProduct", [blobs[0].reshape(len(blobs[0]), -1), blobs[1]])
    for name, (_, blobs) in net.layers.items()
    if name.startswith("fc")
  }
  dense["fc8"] = ("InnerProduct", [np.ones((5, 8), np.float32)])
  convolutions = {
    name: layer for name, layer in net.layers.items() if "score" not in name
  }
  caffe_files.write(path, convolutions | dense, v1=True, legacy_shape=True)
  variables, report = loading.load(path, model, partial=True)
  loaded = variables["params"]
  np.testing.assert_array_equal(
    loaded["fc6"]["kernel"], params["fc6"]["kernel"]
  )
  assert set(report.converted) == {"params/fc6/kernel", "params/fc7/kernel"}
  # The papers' early fusion: the depth begins as the mean of the colours.
  colours = params["conv1_1"]["kernel"]
  first = loaded["conv1_1"]["kernel"]
  np.testing.assert_array_equal(first[:, :, :3], colours)
  np.testing.assert_allclose(first[:, :, 3], colours.mean(axis=2), rtol=1e-5)
  assert report.extended == ("params/conv1_1/kernel",)
  assert report.unused == ("fc8/0",)
  assert not np.any(loaded["score_fr"]["kernel"])


def test_kernels_of_groups_keep_their_order(tmp_path, monkeypatch):
  architecture = models.backbones.alexnet.ARCHITECTURES["caffenet"]
  narrow = dataclasses.replace(architecture, widths=(4, 4, 4, 4, 4))
  monkeypatch.setitem(
    models.backbones.alexnet.ARCHITECTURES, "caffenet", narrow
  )
  model = small(backbone="caffenet", stride=32)
  params, path = random_params(model), tmp_path / "net.caffemodel"
  assert params["conv2"]["kernel"].shape == (5, 5, 2, 4)
  net = caffe_prototxt.fcn(model, params, first="conv1")
  caffe_files.write(path, net.layers)
  variables, _ = loading.load(path, model)
  jax.tree.map(np.testing.assert_array_equal, variables, {"params": params})
