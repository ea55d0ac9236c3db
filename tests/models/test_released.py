import functools
import itertools

import jax
import jax.numpy as jnp
import pytest

from fcn_jax import geometry
from fcn_jax import models
from fcn_jax.models import released

# Channels of the images, classes, learning rate and crops of each net, read
# off the authors' prototxt files.
NETS = {
  "voc-fcn32s": (3, 21, 1e-10, (19,)),
  "voc-fcn16s": (3, 21, 1e-12, (5, 27)),
  "voc-fcn8s": (3, 21, 1e-14, (5, 9, 31)),
  "voc-fcn8s-atonce": (3, 21, 1e-10, (5, 9, 31)),
  "voc-fcn-alexnet": (3, 21, 1e-4, (18,)),
  "pascalcontext-fcn32s": (3, 60, 1e-10, (19,)),
  "pascalcontext-fcn16s": (3, 60, 1e-12, (5, 27)),
  "pascalcontext-fcn8s": (3, 60, 1e-14, (5, 9, 31)),
  "siftflow-fcn32s": (3, (33, 3), 1e-10, (19,)),
  "siftflow-fcn16s": (3, (33, 3), 1e-12, (5, 27)),
  "siftflow-fcn8s": (3, (33, 3), 1e-12, (5, 9, 31)),
  "nyud-fcn32s-color": (3, 40, 1e-10, (19,)),
  "nyud-fcn32s-hha": (3, 40, 1e-10, (19,)),
  "nyud-fcn32s-color-d": (4, 40, 1e-10, (19,)),
  "nyud-fcn32s-color-hha": (6, 40, 1e-12, (19,)),
}
SCORES = {32: ["fr"], 16: ["fr", "pool4"], 8: ["fr", "pool4", "pool3"]}
PARAMETERS_OF_FC7 = 4096 * 4096 + 4096


def shapes_of(model):
  images = jnp.zeros((1, 33, 47, model.num_channels))
  init = functools.partial(model.init_with_output, train=False)
  return jax.eval_shape(init, jax.random.key(0), images)


def test_the_released_networks_are_those_of_the_authors_repository():
  assert list(released.NETWORKS) == list(NETS)


@pytest.mark.parametrize("name", NETS)
def test_released_networks_have_the_layers_and_crops_of_theirs(name):
  num_channels, num_classes, _, crops = NETS[name]
  model = released.make(name)
  assert model.num_channels == num_channels
  assert model.padding == "caffe"
  assert model.chain().crop_offsets() == crops
  maps, variables = shapes_of(model)
  maps = maps if isinstance(maps, dict) else {"": maps}
  if isinstance(num_classes, int):
    num_classes = (num_classes,)
  for head, classes in zip(model.heads, num_classes, strict=True):
    assert maps[head].scores.shape[-1] == classes
  assert {one.edge for one in maps.values()} == {"zero"}

  params = variables["params"]
  modalities = ("color", "hha") if num_channels == 6 else ("",)
  heads = ("_semantic", "_geometric") if len(num_classes) == 2 else ("",)
  for modality, (head, classes), score in itertools.product(
    modalities, zip(heads, num_classes, strict=True), SCORES[model.stride]
  ):
    layers = params[modality] if modality else params
    kernel = layers[f"score_{score}{head}"]["kernel"]
    assert kernel.shape[-1] == classes
    assert sum(p.size for p in layers["fc7"].values()) == PARAMETERS_OF_FC7
    scores = [layer for layer in layers if layer.startswith("score")]
    assert len(scores) == len(heads) * len(SCORES[model.stride])
    side, seen = (11, 355) if "alexnet" in name else (3, 404)
    first = layers["conv1" if "alexnet" in name else "conv1_1"]["kernel"]
    assert first.shape[:3] == (side, side, 3 if modality else num_channels)
    # Table 1 of CVPR 2015.
    assert geometry.receptive_field(model.chain().score) == seen


@pytest.mark.parametrize("name", NETS)
def test_recipes_are_those_of_the_authors_solvers(name):
  net = released.NETWORKS[name]
  assert net.learning_rate == NETS[name][2]
  accumulated = (0.9, 20, "valid")
  online = (0.99, 1, "sum")
  expected = accumulated if name == "voc-fcn-alexnet" else online
  assert (net.momentum, net.batch, net.normalize) == expected


@pytest.mark.parametrize("name", NETS)
def test_nets_start_from_classifiers_or_nets_of_the_next_coarser_stride(name):
  data_set, *_ = name.split("-")
  net, stride = released.NETWORKS[name], released.make(name).stride
  if name == "voc-fcn-alexnet":
    assert net.starts_from == ("caffenet",)
  elif name == "nyud-fcn32s-color-hha":
    assert net.starts_from == ("nyud-fcn32s-color", "nyud-fcn32s-hha")
  elif stride == 32 or name == "voc-fcn8s-atonce":
    assert net.starts_from == ("vgg16",)
  else:
    assert net.starts_from == (f"{data_set}-fcn{2 * stride}s",)


# In the order in which the nets have their channels: BGR but for HHA.
MEANS = {
  "voc": (104.00699, 116.66877, 122.67892),
  "pascalcontext": (104.007, 116.669, 122.679),
  "siftflow": (114.578, 115.294, 108.353),
  "nyud-fcn32s-color": (116.190, 97.203, 92.318),
  "nyud-fcn32s-hha": (132.431, 94.076, 118.477),
  "nyud-fcn32s-color-d": (116.190, 97.203, 92.318, 7.844),
}


@pytest.mark.parametrize("name", NETS)
def test_means_are_those_of_the_authors_data_layers(name):
  model = released.make(name)
  if isinstance(model, models.LateFusion):
    inputs = dict(model.modalities)
    assert list(inputs) == ["color", "hha"]
  else:
    inputs = {"": model.inputs}
  for modality, one in inputs.items():
    key = f"nyud-fcn32s-{modality}" if modality else name
    mean = MEANS.get(key) or MEANS[key.split("-")[0]]
    assert tuple(one.mean[channel] for channel in one.order) == mean
    assert one.order[:3] == ((0, 1, 2) if "hha" in key else (2, 1, 0))


def test_only_at_once_scales_its_skips():
  for name in NETS:
    scales = getattr(released.make(name), "skip_scales", (1, 1))
    expected = (0.01, 0.0001) if name == "voc-fcn8s-atonce" else (1, 1)
    assert scales == expected


def test_files_are_named_once_and_those_of_voc_otherwise_than_the_others():
  files = [net.file for net in released.NETWORKS.values() if net.file]
  assert len(set(files)) == len(files) == 14
  assert released.NETWORKS["voc-fcn8s"].file == "fcn8s-heavy-pascal.caffemodel"
  context = released.NETWORKS["pascalcontext-fcn8s"]
  assert context.file == "pascalcontext-fcn8s-heavy.caffemodel"
  assert released.NETWORKS["nyud-fcn32s-color-d"].file is None


def test_unknown_names_are_refused_with_the_known_ones():
  with pytest.raises(ValueError, match="'fcn8s'.*voc-fcn8s-atonce"):
    released.make("fcn8s")


def test_each_network_is_an_own_one_of_the_package():
  networks = [released.make(name) for name in NETS]
  assert all(isinstance(one, models.Network) for one in networks)
  assert len(set(networks)) == len(networks)
