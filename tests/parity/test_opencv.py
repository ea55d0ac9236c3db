"""Comparisons with OpenCV's importer of Caffe's nets.

OpenCV reads a .prototxt and a .caffemodel that the tests write, and computes
the net with its own layers. It reads both formats of layers; it asks for the
blobs of a grouped convolution as Caffe has them, divides LRN's alpha by the
size, rounds poolings up, and crops, as Caffe does.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import models
from fcn_jax import upsampling
from fcn_jax.models import released
from fcn_jax.models.backbones import alexnet
from fcn_jax.models.backbones import googlenet
from fcn_jax.models.backbones import vgg
from fcn_jax.pretrained import loading
from tests.helpers import caffe_files
from tests.helpers import caffe_prototxt

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: make parity")

pytestmark = pytest.mark.parity

SIZES = ((64, 64), (65, 97), (128, 96), (100, 131), (33, 47))

# Means in the order of the channels in Caffe's nets, from the data layers and
# prototxt files of the authors.
VOC = (104.00699, 116.66877, 122.67892)
SIFT_FLOW = (114.578, 115.294, 108.353)
NYUD_COLOR = (116.190, 97.203, 92.318)
NYUD_HHA = (132.431, 94.076, 118.477)
NYUD_DEPTH = (7.844,)


@pytest.fixture
def narrow(monkeypatch):
  """The same networks with few channels, and fewer convolutions of VGG16."""

  def replace(architectures, name, **options):
    architecture = dataclasses.replace(architectures[name], **options)
    monkeypatch.setitem(architectures, name, architecture)

  widths = {"widths": (8, 8, 12, 12, 16), "head_width": 24}
  replace(vgg.ARCHITECTURES, "vgg16", depths=(2, 1, 2, 1, 1), **widths)
  replace(alexnet.ARCHITECTURES, "caffenet", **widths)
  replace(googlenet.ARCHITECTURES, "googlenet", width=0.125)
  # Their names are those of the wide ones, so shapes must not be remembered.
  monkeypatch.setattr(loading, "_template", loading._template.__wrapped__)


def random_params(model):
  """Parameters with which biases, normalisation and skips all matter."""
  images = jnp.zeros((1, 64, 64, model.num_channels))
  init = functools.partial(model.init, train=False)
  template = jax.eval_shape(init, jax.random.key(0), images)
  rng = np.random.default_rng(0)
  skip_scales = getattr(model, "skip_scales", (1.0, 1.0))
  scales = dict(zip(("score_pool4", "score_pool3"), skip_scales, strict=True))

  def draw(path, leaf):
    *_, layer, kind = (key.key for key in path)
    if kind == "bias":
      values = 30 * rng.standard_normal(leaf.shape, np.float32)
    else:
      fan_in = leaf.size // leaf.shape[-1]
      values = rng.standard_normal(leaf.shape, np.float32)
      values *= np.float32((2 / fan_in) ** 0.5)
    # Scores are of the order of one, with and without scaled skips.
    if layer.startswith("score"):
      values /= 100
      if kind == "kernel":
        values /= np.float32(scales.get(layer, 1))
    return values

  return jax.tree.map_with_path(draw, template)["params"]


def random_images(size, num_channels, seed):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (1, *size, num_channels)).astype(np.uint8)


def import_net(folder, net, **options):
  """The net in OpenCV, and its file of weights."""
  prototxt, weights = folder / "net.prototxt", folder / "net.caffemodel"
  prototxt.write_text("\n".join(net.text))
  caffe_files.write(weights, net.layers, **options)
  return cv2.dnn.readNetFromCaffe(str(prototxt), str(weights)), weights


def their_scores(net, inputs, output):
  """Runs a net on its inputs by name, pairs of channels and their means."""
  for name, (channels, mean) in inputs.items():
    values = channels.astype(np.float32) - np.array(mean, np.float32)
    net.setInput(np.ascontiguousarray(values.transpose(0, 3, 1, 2)), name)
  return net.forward(output).transpose(0, 2, 3, 1)


# Compiled in half the time; the program is not for its speed.
@functools.partial(
  jax.jit,
  static_argnums=0,
  compiler_options={"xla_backend_optimization_level": 0},
)
def our_scores(model, variables, images):
  maps = model.apply(variables, images, train=False)
  if isinstance(maps, dict):
    return {head: upsampling.to_pixels(one) for head, one in maps.items()}
  return upsampling.to_pixels(maps)


def error(ours, theirs):
  """The largest difference, relative to the largest score."""
  assert ours.shape == theirs.shape
  return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))


def load_all(path, model):
  """Variables from a file, of which all must be used."""
  variables, report = loading.load(path, model)
  assert not (report.unused or report.kept or report.reshaped)
  return variables


def assert_equal_on(sizes, model, net, path):
  """Compares a network of colours with one head."""
  variables = load_all(path, model)
  for seed, size in enumerate(sizes):
    images = random_images(size, 3, seed)
    theirs = their_scores(net, {"data": (images[..., ::-1], VOC)}, "score")
    assert theirs.shape[1:3] == size
    assert 0.3 < np.std(theirs) < 30
    ours = our_scores(model, variables, images)
    assert error(ours, theirs) < 1e-4
  return variables, images, theirs


@pytest.mark.parametrize(
  "name",
  [
    "voc-fcn32s",
    "voc-fcn16s",
    "voc-fcn8s",
    "voc-fcn8s-atonce",
    "voc-fcn-alexnet",
  ],
)
def test_scores_are_those_of_opencv(narrow, tmp_path, name):
  model = released.make(name)
  params = random_params(model)
  first = "conv1" if name == "voc-fcn-alexnet" else "conv1_1"
  caffe_net = caffe_prototxt.fcn(model, params, first=first)
  net, path = import_net(tmp_path, caffe_net)
  variables, images, theirs = assert_equal_on(SIZES, model, net, path)
  # Each skip has its part in these scores.
  for layer in params:
    if layer.startswith("score_pool"):
      without = dict(variables["params"])
      without[layer] = jax.tree.map(jnp.zeros_like, without[layer])
      ours = our_scores(model, {"params": without}, images)
      assert error(ours, theirs) > 0.1


def test_scores_from_the_older_format_are_those_of_opencv(narrow, tmp_path):
  model = released.make("voc-fcn32s")
  caffe_net = caffe_prototxt.fcn(model, random_params(model), first="conv1_1")
  net, path = import_net(tmp_path, caffe_net, v1=True, legacy_shape=True)
  assert_equal_on(SIZES[-1:], model, net, path)


def test_scores_of_full_width_are_those_of_opencv(tmp_path):
  model = released.make("voc-fcn8s")
  caffe_net = caffe_prototxt.fcn(model, random_params(model), first="conv1_1")
  net, path = import_net(tmp_path, caffe_net)
  del caffe_net
  assert path.stat().st_size > 537e6
  try:
    assert_equal_on(SIZES[-1:], model, net, path)
  finally:
    path.unlink()


def test_scores_of_both_heads_are_those_of_opencv(narrow, tmp_path):
  model = released.make("siftflow-fcn8s")
  caffe_net = caffe_prototxt.fcn(model, random_params(model), first="conv1_1")
  net, path = import_net(tmp_path, caffe_net)
  variables = load_all(path, model)
  images = random_images((65, 97), 3, 0)
  inputs = {"data": (images[..., ::-1], SIFT_FLOW)}
  ours = our_scores(model, variables, images)
  for head, output in (("semantic", "score_sem"), ("geometric", "score_geo")):
    theirs = their_scores(net, inputs, output)
    assert error(ours[head], theirs) < 1e-4
  assert ours["semantic"].shape[-1] == 33 and theirs.shape[-1] == 3


def test_scores_of_early_fusion_are_those_of_opencv(narrow, tmp_path):
  model = released.make("nyud-fcn32s-color-d")
  params = random_params(model)
  caffe_net = caffe_prototxt.fcn(model, params, first="conv1_1_bgrd")
  net, path = import_net(tmp_path, caffe_net)
  images = random_images((65, 97), 4, 0)
  inputs = {"data": (images[..., [2, 1, 0, 3]], NYUD_COLOR + NYUD_DEPTH)}
  ours = our_scores(model, load_all(path, model), images)
  assert error(ours, their_scores(net, inputs, "score")) < 1e-4


def test_scores_of_late_fusion_are_those_of_opencv(narrow, tmp_path):
  model = released.make("nyud-fcn32s-color-hha")
  caffe_net = caffe_prototxt.late_fusion(model, random_params(model))
  net, path = import_net(tmp_path, caffe_net)
  images = random_images((65, 97), 6, 0)
  inputs = {
    "color": (images[..., 2::-1], NYUD_COLOR),
    "hha": (images[..., 3:], NYUD_HHA),
  }
  ours = our_scores(model, load_all(path, model), images)
  assert error(ours, their_scores(net, inputs, "score")) < 1e-4


def test_scores_of_googlenet_are_those_of_opencv(narrow, tmp_path):
  model = models.FCN(5, backbone="googlenet", stride=32, padding="caffe")
  params = random_params(model)
  caffe_net = caffe_prototxt.fcn(model, params, first="conv1/7x7_s2")
  net, path = import_net(tmp_path, caffe_net)
  assert_equal_on(SIZES[1:2], model, net, path)
