"""The names that torchvision gives to the arrays of its networks.

A name says at which place of which container a layer is. Layers that
torchvision does not have (scores of skips, several heads) keep the names of
this package, so that the way back loses nothing.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import chex
import numpy as np

from fcn_jax import models
from fcn_jax.models import input_normalization
from fcn_jax.pretrained import entries as entries_lib
from fcn_jax.pretrained import transplanting

_VGGS = ("vgg11", "vgg13", "vgg16", "vgg19")
# torchvision's classifiers, and the backbones that they are here.
CLASSIFIERS = {
  **{name: name for name in _VGGS},
  **{f"{name}_bn": f"{name}_bn" for name in _VGGS},
  "alexnet": "alexnet",
  "googlenet": "googlenet_bn",
  "resnet50": "resnet50",
  "resnet101": "resnet101",
}

# How many batches running averages are of, which nothing here depends on.
_COUNTER = "num_batches_tracked"
_PYTORCH_KINDS = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
# Where torchvision's FCNs have the backbone.
_BACKBONE = "backbone."
# fc6, fc7 and the scores in the classifiers of VGGs and of AlexNet, where
# dropout comes after and before a dense layer.
_VGG_CLASSIFIER = ("classifier.0", "classifier.3", "classifier.6")
_ALEXNET_CLASSIFIER = ("classifier.1", "classifier.4", "classifier.6")
_GOOGLENET_STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
_GOOGLENET_BRANCHES = {
  "1x1": "branch1",
  "3x3_reduce": "branch2.0",
  "3x3": "branch2.1",
  "5x5_reduce": "branch3.0",
  "5x5": "branch3.1",
  "pool_proj": "branch4.1",
}


class _Layer(NamedTuple):
  """A convolution or dense layer, and the batch normalisation after it.

  Attributes:
    ours: its name in this package.
    theirs: its name in torchvision.
    norm: name of the normalisation in torchvision; None if there is none.
    has_bias: whether the layer itself has one.
  """

  ours: str
  theirs: str
  norm: str | None = None
  has_bias: bool = True


def entries(
  model: models.Network, source: Mapping[str, np.ndarray]
) -> list[entries_lib.Entry]:
  """Which arrays of a state dict are which of a network.

  Args:
    model: the network.
    source: the state dict. That of a ResNet classifier may begin a
      `models.FCNResNet`, and that of torchvision's FCN an `models.FCN`; what
      the one has and the other has not is listed all the same.

  Returns:
    One entry for each array of the network, parameters and batch statistics.

  Raises:
    ValueError: if torchvision has no such network, or its weights are for
      other pixels than the network sees.
  """
  table = _entries(model, source)
  name, expected = "TORCHVISION", input_normalization.TORCHVISION
  if model.backbone == "googlenet_bn":
    name, expected = "INCEPTION", input_normalization.INCEPTION
  num = expected.num_channels
  # More channels may follow.
  seen = input_normalization.InputNormalization(
    *(values[:num] for values in _fields(model.inputs))
  )
  if seen != expected:
    raise ValueError(
      f"torchvision's weights of {model.backbone} are for other pixels than "
      f"this network sees, which has inputs={model.inputs}. Make it with "
      f"inputs=fcn.models.input_normalization.{name}."
    )
  return table


def is_ignored(name: str) -> bool:
  """Whether an array of a state dict is of no use here: counts of batches."""
  return name.endswith(f".{_COUNTER}")


def guess(source: Mapping[str, np.ndarray]) -> str | None:
  """The torchvision network that a state dict is of.

  Args:
    source: the state dict, of any numbers of channels and classes.

  Returns:
    One of `CLASSIFIERS`, or "fcn_resnet50" or "fcn_resnet101", which have an
    auxiliary head if "aux_classifier.4.weight" is in the source. None if it is
    of none of these.
  """
  prefix = _prefix(source, "")
  heads = ("classifier.", "aux_classifier.", "aux1.", "aux2.", "fc.", "score_")
  found = {
    name.removeprefix(prefix)
    for name in source
    if not name.startswith(heads) and not is_ignored(name)
  }
  for name, backbone in CLASSIFIERS.items():
    layers = _backbone(backbone)
    if found != {entry.theirs for layer in layers for entry in _arrays(layer)}:
      continue
    if "resnet" in name and not _is_resnet(source, prefix):
      return None
    if not prefix:
      return name
    # Other networks on these backbones have no convolution there.
    return f"fcn_{name}" if "classifier.0.weight" in source else None
  return None


def state_dict(
  model: models.Network, variables: chex.ArrayTree
) -> dict[str, np.ndarray]:
  """The arrays of a network as torchvision's network has them.

  torchvision's GoogLeNet must be made with `aux_logits=False`, and an FCN of
  this package has more layers if it has skips or several heads. What is done to
  the pixels is not part of a state dict: PyTorch must give the network
  (image - mean) * scale of `model.inputs`, RGB in 0..255.

  Args:
    model: the network.
    variables: its variables, `{"params": ..., ...}`.

  Returns:
    Arrays by torchvision's names: kernels [outputs, inputs, rows, columns],
    those of dense layers [outputs, inputs * rows * columns].

  Raises:
    ValueError: if torchvision has no such network, or the variables are of
      another one.
  """
  arrays, table = dict(transplanting.named(variables)), _entries(model, {})
  differences = arrays.keys() ^ {entry.ours for entry in table}
  if differences:
    raise ValueError(
      f"the variables are not those of this network on {model.backbone}; "
      f"these are only in one of both: {', '.join(sorted(differences))}."
    )
  dense = () if isinstance(model, models.FCNResNet) else ("classifier.", "fc.")
  result = {}
  for ours, theirs, _ in table:
    array = entries_lib.to_theirs(np.asarray(arrays[ours]))
    if theirs.startswith(dense):
      array = array.reshape(len(array), -1) if array.ndim == 4 else array
    result[theirs] = array
    if theirs.endswith(".running_var"):
      counter = f"{theirs.removesuffix('running_var')}{_COUNTER}"
      result[counter] = np.zeros((), np.int64)
  return result


def plain_state_dict(variables: chex.ArrayTree) -> dict[str, np.ndarray]:
  """A state dict of a network that torchvision does not have.

  Args:
    variables: of any network of this package, `{"params": ..., ...}`.

  Returns:
    Arrays in PyTorch's layout, kernels [outputs, inputs, rows, columns], and
    with its names for them, after those of the layers here: `conv1_1.weight`,
    `conv1_1_norm.running_mean`.
  """
  result = {}
  for name, array in transplanting.named(variables):
    _, *layer, kind = name.split("/")
    theirs = ".".join([*layer, _PYTORCH_KINDS[kind]])
    result[theirs] = entries_lib.to_theirs(np.asarray(array))
  return result


def _entries(model, source):
  """As `entries`, whatever the network does to the pixels."""
  _check_published(model)
  if isinstance(model, models.FCNResNet):
    prefix, heads = _prefix(source, _BACKBONE), _fcn_heads(model)
  else:
    prefix, heads = _prefix(source, ""), _scores(model)
  first, *others = _backbone(model.backbone)
  table = list(_arrays(first, prefix))
  table[0] = table[0]._replace(order=model.inputs.order)
  for layer in others:
    table += _arrays(layer, prefix)
  for layer in heads:
    table += _arrays(layer)
  return table


def _check_published(model):
  remedy = (
    "Take weights for Caffe (a .caffemodel), or train it from the beginning."
  )
  if isinstance(model, models.LateFusion):
    raise ValueError(
      "torchvision publishes no network of several modalities, as LateFusion "
      f"is. {remedy}"
    )
  if model.backbone not in CLASSIFIERS.values():
    raise ValueError(
      f"torchvision publishes no {model.backbone}; it has "
      f"{', '.join(CLASSIFIERS.values())}. {remedy}"
    )
  own = _architecture(model.backbone).normalization
  if model.normalization != own:
    raise ValueError(
      f"torchvision publishes no {model.backbone} with normalization="
      f"{model.normalization!r}; its own is {own!r}. Make the network with "
      "that, or train it from the beginning."
    )


def _architecture(backbone):
  return models.fcn.backbones()[backbone].ARCHITECTURES[backbone]


def _fields(inputs):
  return inputs.mean, inputs.scale, inputs.order


def _prefix(source, default):
  """What the names of the backbone begin with in a state dict."""
  if not source:
    return default
  is_fcn = any(name.startswith(_BACKBONE) for name in source)
  return _BACKBONE if is_fcn else ""


def _is_resnet(source, prefix):
  """Whether it is not a wider one or one in groups, of the same names."""
  outputs, inputs = source[f"{prefix}layer1.0.conv2.weight"].shape[:2]
  (expanded,) = source[f"{prefix}layer1.0.bn3.weight"].shape
  return (
    inputs == outputs
    and expanded == models.backbones.resnet.EXPANSION * outputs
  )


def _arrays(layer: _Layer, prefix: str = "") -> Iterator[entries_lib.Entry]:
  """The arrays of one layer, its kernel first."""
  ours, theirs = layer.ours, prefix + layer.theirs
  yield entries_lib.Entry(f"params/{ours}/kernel", f"{theirs}.weight")
  if layer.has_bias:
    yield entries_lib.Entry(f"params/{ours}/bias", f"{theirs}.bias")
  if layer.norm is None:
    return
  norm = prefix + layer.norm
  yield entries_lib.Entry(f"params/{ours}_norm/scale", f"{norm}.weight")
  yield entries_lib.Entry(f"params/{ours}_norm/bias", f"{norm}.bias")
  yield entries_lib.Entry(
    f"batch_stats/{ours}_norm/mean", f"{norm}.running_mean"
  )
  yield entries_lib.Entry(f"batch_stats/{ours}_norm/var", f"{norm}.running_var")


def _backbone(backbone: str) -> list[_Layer]:
  """The layers of a backbone, without fc6 and fc7."""
  architecture = _architecture(backbone)
  if isinstance(architecture, models.backbones.googlenet.Architecture):
    return list(_googlenet())
  if isinstance(architecture, models.backbones.resnet.Architecture):
    return list(_resnet(architecture.depths))
  file = models.fcn.backbones()[backbone]
  normalized = architecture.normalization == "batch"
  return list(
    _features(
      file.layer_list(architecture, "torchvision"), normalized=normalized
    )
  )


def _features(layers, *, normalized):
  """Convolutions of VGGs and of AlexNet: places in a list of all layers."""
  place = 0
  for layer in layers:
    if layer.name.startswith("pool"):
      place += 1
    elif layer.name.startswith("conv"):
      norm = f"features.{place + 1}" if normalized else None
      yield _Layer(layer.name, f"features.{place}", norm)
      # Before the ReLU there may be a normalisation.
      place += 3 if normalized else 2


def _googlenet():
  for ours, theirs in _GOOGLENET_STEM.items():
    yield _Layer(ours, f"{theirs}.conv", f"{theirs}.bn", has_bias=False)
  for module in models.backbones.googlenet.INCEPTIONS:
    for ours, theirs in _GOOGLENET_BRANCHES.items():
      branch = f"{module.replace('_', '')}.{theirs}"
      yield _Layer(
        f"{module}_{ours}", f"{branch}.conv", f"{branch}.bn", has_bias=False
      )


def _resnet(depths):
  yield _Layer("conv1", "conv1", "bn1", has_bias=False)
  for number, depth in enumerate(depths, start=1):
    for i in range(depth):
      ours, theirs = f"layer{number}_{i}", f"layer{number}.{i}"
      for k in (1, 2, 3):
        yield _Layer(
          f"{ours}_conv{k}",
          f"{theirs}.conv{k}",
          f"{theirs}.bn{k}",
          has_bias=False,
        )
      if not i:
        shortcut = f"{theirs}.downsample"
        yield _Layer(
          f"{ours}_downsample",
          f"{shortcut}.0",
          f"{shortcut}.1",
          has_bias=False,
        )


def _scores(model: models.FCN) -> Iterator[_Layer]:
  """What an FCN has after its backbone: fc6 and fc7, and the score layers."""
  file = models.fcn.backbones()[model.backbone]
  classifier = {
    models.backbones.vgg: _VGG_CLASSIFIER,
    models.backbones.alexnet: _ALEXNET_CLASSIFIER,
  }.get(file, ("fc",))
  *hidden, last = classifier
  for ours, theirs in zip(("fc6", "fc7"), hidden, strict=False):
    yield _Layer(ours, theirs)
  names = [layers[-1].name for layers in model.chain().skips]
  for head in model.heads:
    suffix = f"_{head}" if head else ""
    yield _Layer(f"score_fr{suffix}", f"score_fr{suffix}" if head else last)
    for name in names:
      yield _Layer(f"score_{name}{suffix}", f"score_{name}{suffix}")


def _fcn_heads(model: models.FCNResNet) -> Iterator[_Layer]:
  """The heads of torchvision's FCN."""
  for name in ("classifier", "aux_classifier"):
    if name == "classifier" or model.auxiliary:
      yield _Layer(f"{name}_conv", f"{name}.0", f"{name}.1", has_bias=False)
      yield _Layer(f"score_{name}", f"{name}.4")
