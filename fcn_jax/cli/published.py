"""The networks whose weights are published, as options of runs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

import fcn_jax as fcn
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib


@dataclasses.dataclass(frozen=True)
class Published:
  """A network whose weights are published.

  Attributes:
    options: options of a run that make the network.
    num_classes: of its score layer, or of each head by name.
    dataset: the data set with these classes; None for a classifier, whose
      classes are not kept.
  """

  options: dict[str, Any]
  num_classes: int | Mapping[str, int]
  dataset: str | None

  def config(self, workdir: pathlib.Path) -> config_lib.Train:
    """The options of a run that begins with these weights."""
    config = config_lib.Train(run=config_lib.Run(workdir))
    return config.replace(dataset=self.dataset or "folder", **self.options)

  def model(self) -> fcn.models.Network:
    """The network."""
    return build.model(self.config(pathlib.Path("unused")), self.num_classes)


# Data sets of the released networks, by their names here.
_DATASETS = {
  "PASCAL VOC 2011 and SBD": "voc2012",
  "PASCAL-Context": "pascal_context",
  "NYUDv2": "nyudv2",
  "SIFT Flow": "sift_flow",
}
_INPUTS = {
  getattr(fcn.models.input_normalization, name.upper()): name
  for name in get_args(config_lib.Inputs)
}


def _released() -> dict[str, Published]:
  """The released FCNs that see colours."""
  result = {}
  for name, released in fcn.models.released.NETWORKS.items():
    model = released.network()
    if (
      model.num_channels != 3
      or model.inputs == fcn.models.input_normalization.NYUD_HHA
    ):
      continue
    options = {
      "backbone": model.backbone,
      "stride": model.stride,
      "padding": model.padding,
      "inputs": _INPUTS[model.inputs],
      "at_once": model.skip_scales == fcn.models.fcn.AT_ONCE_SCALES,
      "normalization": model.normalization,
      "dropout_rate": model.dropout_rate,
    }
    dataset = _DATASETS[released.data_set]
    classes = model.heads if len(model.heads) > 1 else model.num_classes
    result[name] = Published(options, classes, dataset)
  return result


def classifier(backbone: str, inputs: str) -> Published:
  """A classifier of ImageNet, as the beginning of an FCN."""
  model = fcn.models.FCN(1, backbone=backbone)
  options = {
    "backbone": backbone,
    "stride": 32,
    "inputs": inputs,
    "normalization": model.normalization,
  }
  return Published(options, 1, None)


def _torchvision_fcn(backbone: str) -> Published:
  """Torchvision's FCNs, of COCO's images with VOC's classes."""
  options = {
    "architecture": "fcn_resnet",
    "backbone": backbone,
    "auxiliary": True,
    "inputs": "torchvision",
    "normalization": "batch",
  }
  return Published(options, 21, "voc2012")


def _torchvision() -> dict[str, Published]:
  classifiers = fcn.pretrained.torchvision_names.CLASSIFIERS
  result = {
    name: classifier(
      backbone, "inception" if name == "googlenet" else "torchvision"
    )
    for name, backbone in classifiers.items()
  }
  for backbone in ("resnet50", "resnet101"):
    result[f"fcn_{backbone}"] = _torchvision_fcn(backbone)
  return result


TORCHVISION = _torchvision()
CAFFE = {
  **_released(),
  # VGG_ILSVRC_16_layers, VGG_ILSVRC_19_layers, bvlc_reference_caffenet and
  # bvlc_googlenet.
  **{
    f"caffe-{backbone}": classifier(backbone, "caffe")
    for backbone in ("vgg16", "vgg19", "caffenet", "googlenet")
  },
}
NETWORKS = {**TORCHVISION, **CAFFE}


def class_table(
  dataset: str | None, num_classes: int, names: Sequence[str] = ()
) -> dict[str, Any]:
  """Names and colours of the classes, for checkpoints and other commands.

  Args:
    dataset: whose classes they are, if it has so many.
    num_classes: of the network.
    names: of the classes, if the user gave them.
  """
  datasets = fcn.data.datasets
  module = getattr(datasets, (dataset or "").partition("/")[0], None)
  known = tuple(getattr(module, "CLASS_NAMES", ()))
  palette = datasets.palettes.voc_palette(num_classes=num_classes)
  if len(known) == num_classes:
    palette = module.PALETTE
  elif dataset == "sift_flow" and num_classes == 3:
    known = datasets.sift_flow.GEOMETRIC_NAMES
  else:
    known = tuple(f"class {number}" for number in range(num_classes))
  return {
    "names": list(names or known),
    "palette": np.asarray(palette).tolist(),
  }
