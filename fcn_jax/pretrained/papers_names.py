"""The papers' names of layers in state dicts: `conv1_1.weight`, `fc6.bias`.

pytorch-fcn (github.com/wkentaro/pytorch-fcn) publishes the papers' networks
with these names, and this package exports networks that torchvision does not
have with them.
"""

import functools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import models
from fcn_jax import types
from fcn_jax.pretrained import caffe_names
from fcn_jax.pretrained import entries as entries_lib
from fcn_jax.pretrained import transplanting

_KINDS = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def entries(model: models.Network) -> list[entries_lib.Entry]:
  """Finds the name that each array of a network has.

  Args:
    model: the network; any of this package.

  Returns:
    One entry for each array, in `order` of the network's own channels for the
    kernels of first layers.
  """
  if isinstance(model, models.LateFusion):
    orders = {name: inputs.order for name, inputs in model.modalities}
  else:
    orders = {"": model.inputs.order}
  result = []
  for ours in _paths(model):
    _, *modality, layer, kind = ours.split("/")
    is_first = layer in transplanting.FIRST_LAYERS and kind == "kernel"
    order = orders["".join(modality)] if is_first else None
    result.append(entries_lib.Entry(ours, _name(ours), order))
  return result


def state_dict(variables: types.Variables) -> dict[str, np.ndarray]:
  """The arrays of any network in PyTorch's layout.

  Args:
    variables: `{"params": ..., ...}`.

  Returns:
    Arrays by name, kernels [outputs, inputs, rows, columns].
  """
  return {
    _name(ours): entries_lib.to_theirs(np.asarray(array))
    for ours, array in transplanting.named(variables)
  }


def check_upsampling(
  path: object, source: Mapping[str, np.ndarray], model: models.Network
) -> tuple[str, ...]:
  """Checks that layers `upscore*` of a file are bilinear.

  Returns:
    Their names.

  Raises:
    ValueError: if one is not bilinear interpolation.
  """
  blobs = {
    f"{name.removesuffix(suffix)}{blob}": name
    for suffix, blob in ((".weight", "/0"), (".bias", "/1"))
    for name in source
    if name.startswith("upscore") and name.endswith(suffix)
  }
  arrays = {blob: np.asarray(source[name]) for blob, name in blobs.items()}
  fixed = caffe_names.check_fixed(path, arrays, model)
  return tuple(blobs[blob] for blob in fixed)


def num_skips(names: Iterable[str]) -> int:
  """The number of skips in a file of an FCN with one head."""
  return sum(
    name.startswith("score_") and name.endswith(".weight") for name in names
  ) - ("score_fr.weight" in names)


@functools.lru_cache(maxsize=4)
def _paths(model):
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  init = functools.partial(model.init, train=False)
  template = jax.eval_shape(init, jax.random.key(0), images)
  return tuple(name for name, _ in transplanting.named(template))


def _name(ours):
  _, *layer, kind = ours.split("/")
  return ".".join([*layer, _KINDS[kind]])
