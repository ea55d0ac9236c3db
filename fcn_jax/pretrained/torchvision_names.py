"""Names of arrays in torchvision's networks; converts state dicts both ways."""

from collections.abc import Mapping

import numpy as np

from fcn_jax import models
from fcn_jax import types
from fcn_jax.models import input_normalization
from fcn_jax.pretrained import entries as entries_lib
from fcn_jax.pretrained import torchvision_layers
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

# Counts the batches in the running averages; not used here.
_COUNTER = "num_batches_tracked"
# Where torchvision's FCNs have the backbone.
_BACKBONE = "backbone."


def entries(
  model: models.Network,
  source: Mapping[str, np.ndarray],
  *,
  order: tuple[int, ...] | None = None,
) -> list[entries_lib.Entry]:
  """Matches the arrays of a state dict with those of a network.

  Args:
    model: the network.
    source: the state dict. That of a ResNet classifier also fits an
      `models.FCNResNet`, and that of torchvision's FCN an `models.FCN`; arrays
      that only one of them has are listed too.
    order: image channels in the order of the file, if its weights were not
      trained as torchvision's are, but for the network's input normalization.

  Returns:
    One entry for each array of the network, parameters and batch statistics.

  Raises:
    ValueError: if torchvision has no such network, or its weights are for
      another input normalization than the network's.
  """
  table = _entries(model, source, order)
  if order is not None:
    return table
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
      f"torchvision's weights of {model.backbone} need another input "
      f"normalization than this network's inputs={model.inputs}. Make it with "
      f"inputs=fcn.models.input_normalization.{name}."
    )
  return table


def has(model: models.Network) -> bool:
  """Whether torchvision has such a network."""
  try:
    _check_published(model)
  except ValueError:
    return False
  return True


def is_ignored(name: str) -> bool:
  """Whether an array of a state dict is not used here: counts of batches."""
  return name.endswith(f".{_COUNTER}")


def guess(source: Mapping[str, np.ndarray]) -> str | None:
  """Finds the torchvision network that a state dict belongs to.

  Args:
    source: the state dict, of any numbers of channels and classes.

  Returns:
    One of `CLASSIFIERS`, or "fcn_resnet50" or "fcn_resnet101", which have an
    auxiliary head if "aux_classifier.4.weight" is in the source. None for any
    other network.
  """
  prefix = _prefix(source, "")
  heads = ("classifier.", "aux_classifier.", "aux1.", "aux2.", "fc.", "score_")
  found = {
    name.removeprefix(prefix)
    for name in source
    if not name.startswith(heads) and not is_ignored(name)
  }
  for name, backbone in CLASSIFIERS.items():
    layers = torchvision_layers.backbone(backbone)
    if found != {
      entry.theirs
      for layer in layers
      for entry in torchvision_layers.arrays(layer)
    }:
      continue
    if "resnet" in name and not _is_resnet(source, prefix):
      return None
    if not prefix or all(other.startswith(prefix) for other in source):
      return name
    # Other networks on these backbones have no convolution there.
    return f"fcn_{name}" if "classifier.0.weight" in source else None
  return None


def state_dict(
  model: models.Network, variables: types.Variables
) -> dict[str, np.ndarray]:
  """The arrays of a network as torchvision's network has them.

  torchvision's GoogLeNet must be made with `aux_logits=False`, and an FCN of
  this package has more layers if it has skips or several heads. A state dict
  does not have the input normalization: in PyTorch, give the network
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
      f"the variables are not those of this network on {model.backbone}; these "
      f"are only in one of the two: {', '.join(sorted(differences))}."
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


def _entries(model, source, order=None):
  """As `entries`, whatever the input normalization."""
  _check_published(model)
  if isinstance(model, models.FCNResNet):
    prefix, heads = (
      _prefix(source, _BACKBONE),
      torchvision_layers.fcn_heads(model),
    )
  else:
    prefix, heads = _prefix(source, ""), torchvision_layers.scores(model)
  first, *others = torchvision_layers.backbone(model.backbone)
  table = list(torchvision_layers.arrays(first, prefix))
  table[0] = table[0]._replace(order=order or model.inputs.order)
  for layer in others:
    table += torchvision_layers.arrays(layer, prefix)
  for layer in heads:
    table += torchvision_layers.arrays(layer)
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
  own = torchvision_layers.architecture(model.backbone).normalization
  if model.normalization != own:
    raise ValueError(
      f"torchvision publishes no {model.backbone} with normalization="
      f"{model.normalization!r}; its own is {own!r}. Make the network with "
      "that, or train it from the beginning."
    )


def _fields(inputs):
  return inputs.mean, inputs.scale, inputs.order


def _prefix(source, default):
  """The prefix of the backbone's names in a state dict."""
  if not source:
    return default
  is_fcn = any(name.startswith(_BACKBONE) for name in source)
  return _BACKBONE if is_fcn else ""


def _is_resnet(source, prefix):
  """Whether it is not a wide ResNet or ResNeXt, which have the same names."""
  outputs, inputs = source[f"{prefix}layer1.0.conv2.weight"].shape[:2]
  (expanded,) = source[f"{prefix}layer1.0.bn3.weight"].shape
  return (
    inputs == outputs
    and expanded == models.backbones.resnet.EXPANSION * outputs
  )
