"""Names of Caffe's layers for the networks of this package.

They are those of the networks published for Caffe: the released FCNs (the
authors' repository), VGG (Simonyan and Zisserman), CaffeNet and GoogLeNet
(models/bvlc_* of Caffe).
"""

import functools
import pathlib
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import models
from fcn_jax.models import fcn
from fcn_jax.pretrained import entries as entries_lib
from fcn_jax.pretrained import transplanting
from fcn_jax.pretrained.formats import caffemodel

# Backbones whose layers have names in Caffe; those of the small ones are VGG's.
BACKBONES = (
  "vgg11",
  "vgg13",
  "vgg16",
  "vgg19",
  "vgg_small",
  "vgg13_small",
  "caffenet",
  "googlenet",
)

_BLOBS = {"kernel": 0, "bias": 1}
# Heads of the released nets for SIFT Flow.
_HEADS = {"semantic": "sem", "geometric": "geo"}
# GoogLeNet's layers outside its modules.
_GOOGLENET_STEM = {
  "conv1": "conv1/7x7_s2",
  "conv2_reduce": "conv2/3x3_reduce",
  "conv2": "conv2/3x3",
}


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a .caffemodel; see `caffemodel.read`.

  Returns:
    Each blob by the name of its layer and its number there: "conv1_1/0" is a
    kernel, "conv1_1/1" its bias.
  """
  return {
    f"{layer}/{number}": blob
    for layer, blobs in caffemodel.read(path).items()
    for number, blob in enumerate(blobs)
  }


def entries(
  model: models.Network, source: Collection[str] = ()
) -> list[entries_lib.Entry]:
  """Finds the name that each array of a network has in Caffe.

  Args:
    model: the network.
    source: names in a file. If a layer has several names, the one in the file
      is used, or else that of the released nets.

  Raises:
    ValueError: if Caffe has no names for the network, or the network's input
      normalization is not one of Caffe's.
  """
  inputs = _inputs(model)
  init = functools.partial(model.init, train=False)
  images = jnp.zeros((1, 224, 224, model.num_channels), jnp.uint8)
  template = jax.eval_shape(init, jax.random.key(0), images)
  first = model.chain().score[0].name
  result = []
  for ours, _ in transplanting.named(template):
    _, *modality, layer, kind = ours.split("/")
    suffix = "".join(modality)
    order = inputs[suffix].order
    names = _names(model.backbone, layer)
    if layer == first and len(order) == 4:
      # Early fusion: the released net, or one for colours to start from.
      names = (f"{layer}_bgrd", *names)
    candidates = [f"{name}{suffix}/{_BLOBS[kind]}" for name in names]
    theirs = next((c for c in candidates if c in source), candidates[0])
    is_first = layer == first and kind == "kernel"
    result.append(entries_lib.Entry(ours, theirs, order if is_first else None))
  return result


def layers(backbone: str) -> list[tuple[str, ...]]:
  """The names that each convolution of a backbone may have in Caffe."""
  file = models.fcn.backbones()[backbone]
  if file is models.backbones.googlenet:
    ours = [*_GOOGLENET_STEM]
    for module in file.INCEPTIONS:
      ours += [f"{module}_1x1", f"{module}_3x3", f"{module}_pool_proj"]
  else:
    made = file.ARCHITECTURES[backbone]
    layer_list = file.layer_list(made, "caffe")
    ours = [one.name for one in layer_list if one.name.startswith("conv")]
  first, *others = (_names(backbone, layer) for layer in ours)
  return [(*first, f"{ours[0]}_bgrd"), *others]


def check_fixed(
  path: str | pathlib.Path,
  source: Mapping[str, np.ndarray],
  model: models.Network,
) -> tuple[str, ...]:
  """Checks layers that are not trained, and so are not parameters here.

  Args:
    path: the file, for messages.
    source: its arrays, by the names that `read` gives them.
    model: the network.

  Returns:
    The names of these arrays.

  Raises:
    ValueError: if upsampling is not bilinear, or the scales of skips are not
      the network's `skip_scales`.
  """
  fixed = []
  for name, array in source.items():
    if not name.startswith("upscore"):
      continue
    layer, number = name.rsplit("/", 1)
    if not (_is_bilinear(array) if number == "0" else not np.any(array)):
      raise ValueError(
        f"{path}: layer {layer!r} is not bilinear interpolation. Networks "
        "with trained upsampling are not supported: the released nets, whose "
        "upsampling is fixed, are."
      )
    fixed.append(name)
  return (*fixed, *_check_scales(path, source, model))


def _check_scales(path, source, model):
  """The names of the layers that scale skips, if their scales are right."""
  fixed = []
  skip_scales = getattr(model, "skip_scales", (1.0, 1.0))
  for layers, ours in zip(model.chain().skips, skip_scales, strict=False):
    skip = layers[-1].name
    name = f"scale_{skip}/0"
    if name in source:
      fixed.append(name)
    elif not any(entry.startswith(f"score_{skip}") for entry in source):
      # A net without this skip: nothing to check.
      continue
    theirs = np.asarray(source.get(name, 1.0))
    if not np.allclose(theirs, ours, rtol=1e-5, atol=0):
      raise ValueError(
        f"{path}: {skip} is multiplied by {theirs.flat[0]:g} before it is "
        f"scored, and by {ours:g} in the network: make it with the right "
        f"skip_scales, {fcn.AT_ONCE_SCALES} (models.fcn.AT_ONCE_SCALES) for "
        "FCN-8s trained at once, (1.0, 1.0) for the others."
      )
  return fixed


def _is_bilinear(kernel):
  """Whether a transposed convolution interpolates each channel separately."""
  if kernel.ndim != 4 or kernel.shape[1] not in (1, kernel.shape[0]):
    return False
  size = kernel.shape[-1]
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  tent = 1 - np.abs(np.arange(size) - centre) / factor
  for channel, row in enumerate(kernel):
    expected = np.zeros_like(row)
    # With one group per channel, the row has only the channel itself.
    expected[channel % len(row)] = np.outer(tent, tent)
    if not np.allclose(row, expected, atol=1e-5):
      return False
  return True


def _inputs(model):
  """Input normalizations by modality, checked to be Caffe's."""
  if isinstance(model, models.FCNResNet) or model.backbone not in BACKBONES:
    raise ValueError(
      f"backbone {model.backbone} has not been published for Caffe: give a "
      "file of torchvision's weights, or make the network with one of the "
      f"backbones {', '.join(BACKBONES)}."
    )
  if model.normalization != "none":
    raise ValueError(
      f"the network has {model.normalization} normalization, but Caffe's "
      'networks have none: make it with normalization="none".'
    )
  if isinstance(model, models.LateFusion):
    inputs = dict(model.modalities)
  else:
    inputs = {"": model.inputs}
  for one in inputs.values():
    if set(one.scale) != {1.0}:
      raise ValueError(
        f"the network multiplies its pixels by {one.scale}, and weights of "
        "Caffe expect them in 0..255, less the mean: make it with "
        "inputs=fcn.models.input_normalization.CAFFE, or with the "
        "normalization that the weights were trained with."
      )
  return inputs


def _names(backbone, layer):
  """Names of a layer in Caffe, the released nets' own first."""
  if layer.startswith("score_"):
    names = [layer]
    for ours, theirs in _HEADS.items():
      if layer.endswith(f"_{ours}"):
        names = [layer.removesuffix(ours) + theirs, layer]
    # Some older nets have score-fr and score-pool4.
    return (*names, *(name.replace("_", "-") for name in names))
  if backbone == "googlenet":
    if layer.startswith("inception"):
      # inception_3a_5x5_reduce is 5x5_reduce of inception_3a.
      family, module, branch = layer.split("_", 2)
      return (f"{family}_{module}/{branch}",)
    return (_GOOGLENET_STEM[layer],)
  return (layer,)
