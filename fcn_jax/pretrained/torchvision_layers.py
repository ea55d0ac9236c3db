"""The layers of torchvision's networks, with our names and theirs.

In torchvision, the name of a layer is its path in the containers. Layers that
torchvision does not have (scores of skips, several heads) keep the names of
this package, so that converting back loses nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fcn_jax import models
from fcn_jax.pretrained import entries

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


class Layer(NamedTuple):
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


def arrays(layer: Layer, prefix: str = "") -> Iterator[entries.Entry]:
  """The arrays of one layer, its kernel first."""
  ours, theirs = layer.ours, prefix + layer.theirs
  yield entries.Entry(f"params/{ours}/kernel", f"{theirs}.weight")
  if layer.has_bias:
    yield entries.Entry(f"params/{ours}/bias", f"{theirs}.bias")
  if layer.norm is None:
    return
  norm = prefix + layer.norm
  yield entries.Entry(f"params/{ours}_norm/scale", f"{norm}.weight")
  yield entries.Entry(f"params/{ours}_norm/bias", f"{norm}.bias")
  yield entries.Entry(f"batch_stats/{ours}_norm/mean", f"{norm}.running_mean")
  yield entries.Entry(f"batch_stats/{ours}_norm/var", f"{norm}.running_var")


def architecture(backbone: str) -> Any:
  """The architecture of a backbone."""
  return models.fcn.backbones()[backbone].ARCHITECTURES[backbone]


def backbone(name: str) -> list[Layer]:
  """The layers of a backbone, without fc6 and fc7."""
  file, made = models.fcn.backbones()[name], architecture(name)
  if file is models.backbones.googlenet:
    return list(_googlenet())
  if file is models.backbones.resnet:
    return list(_resnet(made.depths))
  layers = file.layer_list(made, "torchvision")
  return list(_features(layers, normalized=made.normalization == "batch"))


def _features(layers, *, normalized):
  """Convolutions of VGGs and of AlexNet: numbers in a list of all layers."""
  number = 0
  for layer in layers:
    if layer.name.startswith("pool"):
      number += 1
    elif layer.name.startswith("conv"):
      norm = f"features.{number + 1}" if normalized else None
      yield Layer(layer.name, f"features.{number}", norm)
      # The ReLU, and maybe a normalization before it, count too.
      number += 3 if normalized else 2


def _googlenet():
  for ours, theirs in _GOOGLENET_STEM.items():
    yield Layer(ours, f"{theirs}.conv", f"{theirs}.bn", has_bias=False)
  for module in models.backbones.googlenet.INCEPTIONS:
    for ours, theirs in _GOOGLENET_BRANCHES.items():
      branch = f"{module.replace('_', '')}.{theirs}"
      yield Layer(
        f"{module}_{ours}", f"{branch}.conv", f"{branch}.bn", has_bias=False
      )


def _resnet(depths):
  yield Layer("conv1", "conv1", "bn1", has_bias=False)
  for number, depth in enumerate(depths, start=1):
    for i in range(depth):
      ours, theirs = f"layer{number}_{i}", f"layer{number}.{i}"
      for k in (1, 2, 3):
        yield Layer(
          f"{ours}_conv{k}",
          f"{theirs}.conv{k}",
          f"{theirs}.bn{k}",
          has_bias=False,
        )
      if not i:
        shortcut = f"{theirs}.downsample"
        yield Layer(
          f"{ours}_downsample",
          f"{shortcut}.0",
          f"{shortcut}.1",
          has_bias=False,
        )


def scores(model: models.FCN) -> Iterator[Layer]:
  """The layers of an FCN after its backbone: fc6, fc7 and the score layers."""
  file = models.fcn.backbones()[model.backbone]
  classifier = {
    models.backbones.vgg: _VGG_CLASSIFIER,
    models.backbones.alexnet: _ALEXNET_CLASSIFIER,
  }.get(file, ("fc",))
  *hidden, last = classifier
  for ours, theirs in zip(("fc6", "fc7"), hidden, strict=False):
    yield Layer(ours, theirs)
  names = [layers[-1].name for layers in model.chain().skips]
  for head in model.heads:
    suffix = f"_{head}" if head else ""
    yield Layer(f"score_fr{suffix}", f"score_fr{suffix}" if head else last)
    for name in names:
      yield Layer(f"score_{name}{suffix}", f"score_{name}{suffix}")


def fcn_heads(model: models.FCNResNet) -> Iterator[Layer]:
  """The heads of torchvision's FCN."""
  for name in ("classifier", "aux_classifier"):
    if name == "classifier" or model.auxiliary:
      yield Layer(f"{name}_conv", f"{name}.0", f"{name}.1", has_bias=False)
      yield Layer(f"score_{name}", f"{name}.4")
