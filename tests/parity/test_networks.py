"""Networks with torchvision's weights are torchvision's networks, in PyTorch.

Narrow ones, in evaluation mode unless a test says otherwise. Their weights and
batch statistics are random, and are loaded from the files that PyTorch writes.

Gradients are compared in float64. In float32, PyTorch's own are up to 0.2 from
those that it has in float64 (measured for single arrays of a ResNet-101 of
this width): rounding turns a ReLU on or off that is near zero.
"""

import copy
import functools
import math
import pathlib
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import models
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.pretrained import loading
from fcn_jax.pretrained import torchvision_names
from tests.helpers import narrow

torch = pytest.importorskip(
  "torch", reason="PyTorch is not installed: make parity"
)
from experiments.benchmarks import torch_networks  # noqa: E402

pytestmark = pytest.mark.parity

NUM_CLASSES = 5
CLASSIFIERS = tuple(torchvision_names.CLASSIFIERS)
# One of each kind.
KINDS = ("vgg16", "vgg13_bn", "alexnet", "googlenet", "resnet50")
FCNS = ("fcn_resnet50", "fcn_resnet101")
# torchvision's documentation of its weights: of channels in 0..1, RGB.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUXILIARY_WEIGHT = 0.5
# Compiling is most of these tests' time: a fifth of it without optimisations.
QUICKLY = {
  "xla_backend_optimization_level": 0,
  "xla_cpu_use_fusion_emitters": False,
  "xla_llvm_disable_expensive_passes": True,
}


class Pair(NamedTuple):
  """One network in both packages, with the same weights."""

  model: models.Network
  variables: dict
  network: torch.nn.Module


@pytest.fixture(autouse=True, scope="module")
def settings():
  threads = torch.get_num_threads()
  torch.set_num_threads(2)
  with pytest.MonkeyPatch.context() as monkeypatch:
    narrow.backbones(monkeypatch)
    yield
  torch.set_num_threads(threads)


def make_network(name):
  if name == "alexnet":
    return torch_networks.AlexNet(
      narrow.ALEXNET_WIDTHS, narrow.HEAD_WIDTH, NUM_CLASSES
    )
  if name == "googlenet":
    return torch_networks.GoogLeNet(narrow.GOOGLENET_WIDTH, NUM_CLASSES)
  if name in FCNS:
    return torch_networks.FCN(
      torch_networks.RESNET_DEPTHS[name.removeprefix("fcn_")],
      narrow.RESNET_WIDTHS,
      NUM_CLASSES,
    )
  if name.startswith("resnet"):
    return torch_networks.ResNet(
      torch_networks.RESNET_DEPTHS[name],
      narrow.RESNET_WIDTHS,
      NUM_CLASSES,
    )
  return torch_networks.VGG(
    torch_networks.VGG_DEPTHS[name.removesuffix("_bn")],
    narrow.VGG_WIDTHS,
    narrow.HEAD_WIDTH,
    NUM_CLASSES,
    normalized=name.endswith("_bn"),
  )


def make_model(name, num_classes=NUM_CLASSES):
  if name in FCNS:
    backbone = name.removeprefix("fcn_")
    return models.FCNResNet(num_classes, backbone=backbone, auxiliary=True)
  backbone = torchvision_names.CLASSIFIERS[name]
  return models.FCN(
    num_classes,
    backbone=backbone,
    stride=32,
    padding="torchvision",
    inputs=narrow.inputs(backbone),
  )


@torch.no_grad()
def randomize(network, images):
  """Random weights, and batch statistics not far from those of the images."""
  norms, last = [], None
  for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      norms.append(module)
      torch.nn.init.uniform_(module.weight, 0.5, 1.5)
      torch.nn.init.normal_(module.bias, std=0.3)
      module.momentum = 1.0
    elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
      torch.nn.init.kaiming_normal_(module.weight)
      if module.bias is not None:
        torch.nn.init.normal_(module.bias, std=0.3)
        last = module
  network.train()(images)
  for module in norms:
    deviation = module.running_var.sqrt()
    module.running_mean += 0.5 * deviation * torch.randn_like(deviation)
    module.running_var *= 0.5 + torch.rand_like(deviation)
    module.momentum = 0.1
  network.eval()
  # Scores of the order of one.
  outputs = network(images)
  if isinstance(outputs, dict):
    last, outputs = network.classifier[-1], outputs["out"]
    network.aux_classifier[-1].weight /= 10
  scale = (outputs - last.bias.view(1, -1, *(1,) * (outputs.ndim - 2))).std()
  last.weight /= scale


def save_and_load(network, model):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "weights.pth")
    torch.save(network.state_dict(), path)
    variables, report = loading.load(path, model)
  assert not (*report.kept, *report.reshaped, *report.unused)
  return variables


@functools.cache
def pair(name):
  torch.manual_seed(0)
  network, model = make_network(name), make_model(name)
  randomize(network, torch_images(name, images_of((224, 224), num=4)))
  return Pair(model, save_and_load(network, model), network)


def in_float64(name):
  """A copy of a pair."""
  model, variables, network = pair(name)
  return Pair(
    model.clone(dtype=jnp.float64, param_dtype=jnp.float64),
    jax.tree.map(lambda array: np.asarray(array, np.float64), variables),
    copy.deepcopy(network).double(),
  )


def images_of(size, num=1):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (num, *size, 3), dtype=np.uint8)


def torch_images(name, images):
  """Images as torchvision's transforms and networks have them."""
  values = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
  mean, deviation = (
    torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, DEVIATION)
  )
  values = (values - mean) / deviation
  if name == "googlenet":
    # transform_input, which is on where weights are torchvision's.
    values = values * (deviation / 0.5) + (mean - 0.5) / 0.5
  return values


def channels_last(tensor):
  return tensor.detach().permute(0, 2, 3, 1).numpy()


def close(ours, theirs, tolerance=1e-4):
  """Whether arrays differ by less than a part of the largest number."""
  ours = np.asarray(ours)
  assert ours.shape == theirs.shape
  error = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
  assert error <= tolerance, f"relative error {error:.1e}"


def apply(model, variables, images):
  """Features, and scores of the last layer, by name."""

  def captured(module, _):
    is_backbone = type(module).__name__ == "Backbone"
    return is_backbone or module.name == "score_fr"

  _, state = model.apply(
    variables,
    images,
    train=False,
    capture_intermediates=captured,
    mutable=["intermediates"],
  )
  state = state["intermediates"]
  features = state["__call__"][0]
  return features | {"score_fr": state["score_fr"]["__call__"][0]}


def check_features(ours, theirs):
  """That maps are equal which both networks have."""
  names = ours.keys() & theirs.keys()
  # What an FCN scores, at least.
  assert len(names) >= 3 and "score_fr" in names
  for name in names:
    close(ours[name], channels_last(theirs[name]))


def labels_of(size):
  """Random labels [1, h, w], void among them."""
  labels = np.random.default_rng(1).integers(0, NUM_CLASSES + 1, (1, *size))
  labels[labels == NUM_CLASSES] = types.IGNORE_LABEL
  labels[0, 0, 0] = 0
  return labels


def torch_loss(logits, labels):
  return torch.nn.functional.cross_entropy(
    logits, torch.from_numpy(labels), ignore_index=types.IGNORE_LABEL
  )


def loss_of(logits, labels):
  return losses.masked_cross_entropy(
    logits,
    jnp.asarray(labels, jnp.int32),
    jnp.ones(labels.shape),
    normalize="valid",
  )


def check_gradient(model, variables, network):
  """That the parameters, which are gradients, are those of PyTorch."""
  # The way back lays gradients out as it does parameters.
  ours = torchvision_names.state_dict(model, variables)
  theirs = {
    name: parameter.grad.numpy()
    for name, parameter in network.named_parameters()
  }
  assert len(theirs) == len(jax.tree.leaves(variables["params"]))
  errors = {}
  for name, expected in theirs.items():
    assert ours[name].shape == expected.shape
    size = np.linalg.norm(expected)
    assert size > 0, f"the gradient of {name} is zero"
    errors[name] = np.linalg.norm(ours[name] - expected) / size
  worst = max(errors, key=errors.get)
  assert errors[worst] <= 1e-3, f"{worst}: {errors[worst]:.1e}"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_and_scores_of_classifiers_are_those_of_torch(name):
  model, variables, network = pair(name)
  # Each pooling of each network has to round somewhere.
  images = images_of((131, 115))
  theirs = network.convolved(torch_images(name, images))
  ours = jax.jit(functools.partial(apply, model), compiler_options=QUICKLY)
  check_features(ours(variables, images), theirs)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_of_classifiers_are_those_of_torch(name):
  model, variables, network = in_float64(name)
  images = images_of((97, 161))
  theirs = network.convolved(torch_images(name, images).double())
  labels = labels_of(theirs["score_fr"].shape[2:])
  torch_loss(theirs["score_fr"], labels).backward()

  def loss(params):
    features = apply(model, variables | {"params": params}, images)
    return loss_of(features["score_fr"], labels), features

  with jax.enable_x64(True):
    gradient, ours = jax.jit(
      jax.grad(loss, has_aux=True), compiler_options=QUICKLY
    )(variables["params"])
  check_features(ours, theirs)
  check_gradient(model, variables | {"params": gradient}, network)


@pytest.mark.parametrize("name", KINDS)
def test_at_its_own_size_the_centre_is_the_classifier_of_dense_layers(name):
  model, variables, network = pair(name)
  images = images_of((224, 224))
  expected = network(torch_images(name, images)).detach().numpy()
  scored = functools.partial(model.apply, train=False)
  score_map = jax.jit(scored, compiler_options=QUICKLY)(variables, images)
  scores = np.asarray(score_map.scores)
  if name == "resnet50":
    # Its dense layer sees the mean of the map, and so the mean of its scores.
    centre = scores.mean((1, 2))
  else:
    rows, columns = scores.shape[1:3]
    centre = scores[:, rows // 2, columns // 2]
  close(centre, expected)


@pytest.mark.parametrize(
  "name, size",
  [
    ("fcn_resnet50", (65, 97)),
    ("fcn_resnet50", (98, 127)),
    ("fcn_resnet50", (64, 96)),
    ("fcn_resnet101", (97, 129)),
  ],
)
def test_logits_of_fcn_resnet_are_those_of_torch(name, size):
  check_logits(*pair(name), images_of(size))


def logits_of(model, variables, images):
  maps = model.apply(variables, images, train=False)
  # Multiples of 8 keep their stride; others are resized in the network.
  is_multiple = all(side % 8 == 0 for side in images.shape[1:3])
  assert maps["out"].stride == (8 if is_multiple else 1)
  return {head: upsampling.to_pixels(maps[head]) for head in maps}


def check_logits(model, variables, network, images, options=QUICKLY):
  theirs = network(torch_images("fcn", images))
  ours = jax.jit(functools.partial(logits_of, model), compiler_options=options)(
    variables, images
  )
  assert ours.keys() == theirs.keys() == {"out", "aux"}
  for head in ours:
    close(ours[head], channels_last(theirs[head]))


@pytest.mark.parametrize("name", FCNS)
def test_gradients_of_fcn_resnet_are_those_of_torch(name):
  model, variables, network = in_float64(name)
  images, labels = images_of((65, 97)), labels_of((65, 97))
  theirs = network(torch_images(name, images).double())
  out, aux = (torch_loss(theirs[head], labels) for head in ("out", "aux"))
  (out + AUXILIARY_WEIGHT * aux).backward()

  def loss(params):
    logits = logits_of(model, variables | {"params": params}, images)
    out, aux = (loss_of(logits[head], labels) for head in ("out", "aux"))
    return out + AUXILIARY_WEIGHT * aux

  with jax.enable_x64(True):
    gradient = jax.jit(jax.grad(loss), compiler_options=QUICKLY)(
      variables["params"]
    )
  check_gradient(model, variables | {"params": gradient}, network)


def test_fcn_resnet50_of_full_width_has_the_logits_of_torch(monkeypatch):
  monkeypatch.setitem(
    models.backbones.resnet.ARCHITECTURES,
    "resnet50",
    models.backbones.resnet.Architecture(
      torch_networks.RESNET_DEPTHS["resnet50"]
    ),
  )
  torch.manual_seed(0)
  network = torch_networks.FCN(
    torch_networks.RESNET_DEPTHS["resnet50"], (64, 128, 256, 512), 21
  )
  images = images_of((65, 97))
  randomize(network, torch_images("fcn", images))
  model = make_model("fcn_resnet50", num_classes=21)
  variables = save_and_load(network, model)
  sizes = [math.prod(a.shape) for a in jax.tree.leaves(variables["params"])]
  assert sum(sizes) == 35_322_218
  check_logits(model, variables, network, images)


def test_batch_normalisation_is_that_of_torch_in_training():
  name = "vgg11_bn"
  model, variables, original = pair(name)
  network = copy.deepcopy(original)
  numbers = {}
  for path, module in network.named_modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
    elif isinstance(module, torch.nn.BatchNorm2d):
      module.register_forward_hook(
        lambda _, inputs, __, path=path: numbers.update(
          {path: inputs[0][:, 0].numel()}
        )
      )
  images = images_of((49, 65), num=2)
  theirs = network.train().convolved(torch_images(name, images))["score_fr"]
  scored, state = model.clone(dropout_rate=0.0).apply(
    variables, images, train=True, mutable=["batch_stats"]
  )
  close(scored.scores, channels_last(theirs), 1e-3)
  ours = torchvision_names.state_dict(model, variables | state)
  before, after = original.state_dict(), network.state_dict()
  assert numbers
  for path, number in numbers.items():
    mean, variance = f"{path}.running_mean", f"{path}.running_var"
    close(ours[mean], after[mean].numpy(), 1e-3)
    # PyTorch normalises by the variance of the batch as it is, and averages
    # the unbiased one; Flax averages the one it normalises by.
    kept = 0.9 * before[variance].numpy()
    unbiased = after[variance].numpy() - kept
    expected = kept + unbiased * (number - 1) / number
    close(ours[variance], expected, 1e-3)
    assert np.all(ours[variance] < after[variance].numpy())
