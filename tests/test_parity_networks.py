"""Networks with torchvision's weights are torchvision's networks, in PyTorch.

Narrow ones, in evaluation mode unless a test says otherwise. Their weights and
batch statistics are random, and are loaded from the files that PyTorch writes.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import narrow_networks
import numpy as np
import pytest

from fcn_jax import losses
from fcn_jax import models
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.weights import loading
from fcn_jax.weights import torchvision

torch = pytest.importorskip(
  "torch", reason="PyTorch is not installed: make parity"
)
import torch_networks  # noqa: E402

pytestmark = pytest.mark.parity

NUM_CLASSES = 5
# Of a ResNet: the last features of a classifier are the mean of these.
CLASSIFIERS = tuple(torchvision.CLASSIFIERS)
# One of each kind.
KINDS = ("vgg16", "vgg13_bn", "alexnet", "googlenet", "resnet50")
FCNS = ("fcn_resnet50", "fcn_resnet101")
# torchvision's documentation of its weights: of channels in 0..1, RGB.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUXILIARY_WEIGHT = 0.5


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
    narrow_networks.make_narrow(monkeypatch)
    yield
  torch.set_num_threads(threads)


def make_network(name):
  if name == "alexnet":
    return torch_networks.AlexNet(
      narrow_networks.ALEXNET_WIDTHS, narrow_networks.HEAD_WIDTH, NUM_CLASSES
    )
  if name == "googlenet":
    return torch_networks.GoogLeNet(
      narrow_networks.GOOGLENET_WIDTH, NUM_CLASSES
    )
  if name in FCNS:
    return torch_networks.FCN(
      torch_networks.RESNET_DEPTHS[name.removeprefix("fcn_")],
      narrow_networks.RESNET_WIDTHS,
      NUM_CLASSES,
    )
  if name.startswith("resnet"):
    return torch_networks.ResNet(
      torch_networks.RESNET_DEPTHS[name],
      narrow_networks.RESNET_WIDTHS,
      NUM_CLASSES,
    )
  return torch_networks.VGG(
    torch_networks.VGG_DEPTHS[name.removesuffix("_bn")],
    narrow_networks.VGG_WIDTHS,
    narrow_networks.HEAD_WIDTH,
    NUM_CLASSES,
    normalized=name.endswith("_bn"),
  )


def make_model(name, num_classes=NUM_CLASSES):
  if name in FCNS:
    backbone = name.removeprefix("fcn_")
    return models.FCNResNet(num_classes, backbone=backbone, auxiliary=True)
  backbone = torchvision.CLASSIFIERS[name]
  return models.FCN(
    num_classes,
    backbone=backbone,
    stride=32,
    padding="torchvision",
    inputs=narrow_networks.inputs(backbone),
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


def save_and_load(network, model, path, **options):
  torch.save(network.state_dict(), path)
  return loading.load(path, model, **options)


@functools.cache
def pair(name):
  torch.manual_seed(0)
  network, model = make_network(name), make_model(name)
  randomize(network, torch_images(name, images_of((224, 224), num=4)))
  return network, model


@pytest.fixture
def both(request, tmp_path):
  network, model = pair(request.param)
  variables, report = save_and_load(network, model, tmp_path / "weights.pth")
  assert not (*report.kept, *report.reshaped, *report.unused)
  return request.param, Pair(model, variables, network)


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
  assert ours.shape == theirs.shape
  error = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
  assert error <= tolerance, f"relative error {error:.1e}"


def apply(model, variables, images):
  """The score map, and features and scores of the last layer by name."""

  def captured(module, _):
    is_trunk = type(module).__name__ == "Trunk"
    return is_trunk or module.name == "score_fr"

  scored, state = model.apply(
    variables,
    images,
    train=False,
    capture_intermediates=captured,
    mutable=["intermediates"],
  )
  state = state["intermediates"]
  features = state["__call__"][0]
  return scored, features | {"score_fr": state["score_fr"]["__call__"][0]}


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


def check_gradient(model, gradient, batch_stats, network):
  """That the gradient of each parameter is that of PyTorch."""
  # The way back lays gradients out as it does parameters.
  ours = torchvision.state_dict(
    model,
    {"params": gradient} | {"batch_stats": batch_stats}
    if batch_stats
    else {"params": gradient},
  )
  theirs = {
    name: parameter.grad.numpy()
    for name, parameter in network.named_parameters()
  }
  assert theirs.keys() == {
    name
    for name in ours
    if "running_" not in name and not torchvision.is_ignored(name)
  }
  errors = {}
  for name, expected in theirs.items():
    assert ours[name].shape == expected.shape
    size = np.linalg.norm(expected)
    assert size > 0, f"the gradient of {name} is zero"
    errors[name] = np.linalg.norm(ours[name] - expected) / size
  worst = max(errors, key=errors.get)
  assert errors[worst] <= 1e-3, f"{worst}: {errors[worst]:.1e}"


@pytest.mark.parametrize("both", CLASSIFIERS, indirect=True)
def test_features_scores_and_gradients_are_those_of_torch(both):
  name, (model, variables, network) = both
  images = images_of((97, 161))
  network.zero_grad()
  theirs = network.convolved(torch_images(name, images))
  labels = labels_of(theirs["score_fr"].shape[2:])
  loss = torch_loss(theirs["score_fr"], labels)
  loss.backward()

  @functools.partial(jax.value_and_grad, has_aux=True)
  def ours(params):
    _, features = apply(model, variables | {"params": params}, images)
    return loss_of(features["score_fr"], labels), features

  (our_loss, features), gradient = jax.jit(ours)(variables["params"])
  check_features(features, theirs)
  np.testing.assert_allclose(our_loss, loss.item(), rtol=1e-4)
  batch_stats = variables.get("batch_stats")
  check_gradient(model, gradient, batch_stats, network)


@pytest.mark.parametrize("size", [(131, 99)])
@pytest.mark.parametrize("both", KINDS, indirect=True)
def test_features_of_images_of_other_odd_sizes_are_those_of_torch(both, size):
  name, (model, variables, network) = both
  images = images_of(size)
  theirs = network.convolved(torch_images(name, images))
  _, features = jax.jit(functools.partial(apply, model))(variables, images)
  check_features(features, theirs)


@pytest.mark.parametrize("both", KINDS, indirect=True)
def test_at_its_own_size_the_centre_is_the_classifier_of_dense_layers(both):
  name, (model, variables, network) = both
  images = images_of((224, 224))
  expected = network(torch_images(name, images)).detach().numpy()
  score_map = jax.jit(functools.partial(model.apply, train=False))(
    variables, images
  )
  scores = np.asarray(score_map.scores)
  if name == "resnet50":
    # Its dense layer sees the mean of the map, and so the mean of its scores.
    centre = scores.mean((1, 2))
  else:
    rows, columns = scores.shape[1:3]
    centre = scores[:, rows // 2, columns // 2]
  close(centre, expected)


@pytest.mark.parametrize("both", FCNS, indirect=True)
def test_logits_and_gradients_of_fcn_resnet_are_those_of_torch(both):
  name, (model, variables, network) = both
  images, labels = images_of((65, 97)), labels_of((65, 97))
  network.zero_grad()
  theirs = network(torch_images(name, images))
  loss = torch_loss(theirs["out"], labels)
  loss = loss + AUXILIARY_WEIGHT * torch_loss(theirs["aux"], labels)
  loss.backward()

  @functools.partial(jax.value_and_grad, has_aux=True)
  def ours(params):
    maps = model.apply(variables | {"params": params}, images, train=False)
    logits = {head: upsampling.to_pixels(maps[head]) for head in maps}
    out, aux = (loss_of(logits[head], labels) for head in ("out", "aux"))
    return out + AUXILIARY_WEIGHT * aux, logits

  (our_loss, logits), gradient = jax.jit(ours)(variables["params"])
  assert logits.keys() == theirs.keys()
  for head in logits:
    close(logits[head], channels_last(theirs[head]))
  np.testing.assert_allclose(our_loss, loss.item(), rtol=1e-4)
  check_gradient(model, gradient, variables["batch_stats"], network)


@pytest.mark.parametrize("size", [(97, 129), (64, 96)])
@pytest.mark.parametrize("both", FCNS[:1], indirect=True)
def test_logits_of_other_sizes_are_those_of_torch(both, size):
  name, (model, variables, network) = both
  images = images_of(size)
  theirs = network(torch_images(name, images))
  maps = jax.jit(functools.partial(model.apply, train=False))(variables, images)
  # Multiples of 8 keep their stride; others are resized in the network.
  assert maps["out"].stride == (8 if size == (64, 96) else 1)
  for head in ("out", "aux"):
    logits = jax.jit(upsampling.to_pixels)(maps[head])
    close(logits, channels_last(theirs[head]))


def test_fcn_resnet50_of_full_width_has_the_logits_of_torch(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(
    models.resnet.ARCHITECTURES,
    "resnet50",
    models.resnet.Architecture(torch_networks.RESNET_DEPTHS["resnet50"]),
  )
  torch.manual_seed(0)
  network = torch_networks.FCN(
    torch_networks.RESNET_DEPTHS["resnet50"], (64, 128, 256, 512), 21
  )
  images = images_of((65, 97))
  inputs = torch_images("fcn_resnet50", images)
  randomize(network, inputs)
  model = make_model("fcn_resnet50", num_classes=21)
  variables, _ = save_and_load(network, model, tmp_path / "weights.pth")
  sizes = [math.prod(a.shape) for a in jax.tree.leaves(variables["params"])]
  assert sum(sizes) == 35_322_218
  theirs = network(inputs)
  maps = jax.jit(functools.partial(model.apply, train=False))(variables, images)
  for head in ("out", "aux"):
    logits = jax.jit(upsampling.to_pixels)(maps[head])
    close(logits, channels_last(theirs[head]))


@pytest.mark.parametrize("both", ["vgg11_bn"], indirect=True)
def test_batch_normalisation_is_that_of_torch_in_training(both):
  name, (model, variables, network) = both
  network = make_network(name)
  network.load_state_dict(pair(name)[0].state_dict())
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
  ours = torchvision.state_dict(model, variables | state)
  before, after = pair(name)[0].state_dict(), network.state_dict()
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
