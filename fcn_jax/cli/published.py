"""The networks whose weights are published, as options of runs."""

import dataclasses
import pathlib
from collections.abc import Mapping
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


def _classifier(backbone: str, inputs: str) -> Published:
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
    name: _classifier(
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
    f"caffe-{backbone}": _classifier(backbone, "caffe")
    for backbone in ("vgg16", "vgg19", "caffenet", "googlenet")
  },
}
NETWORKS = {**TORCHVISION, **CAFFE}


def class_table(dataset: str | None, num_classes: int) -> dict[str, Any]:
  """Names and colours of the classes, for checkpoints and other commands."""
  datasets = fcn.data.datasets
  known = {
    "voc2012": (datasets.voc2012.CLASS_NAMES, datasets.voc2012.PALETTE),
    "pascal_context": (
      datasets.pascal_context.CLASS_NAMES,
      datasets.pascal_context.PALETTE,
    ),
    "nyudv2": (datasets.nyudv2.CLASS_NAMES, datasets.nyudv2.PALETTE),
    "sift_flow": (datasets.sift_flow.CLASS_NAMES, datasets.sift_flow.PALETTE),
  }
  names, palette = known.get(dataset, ((), ()))
  if len(names) != num_classes:
    names = tuple(f"class {number}" for number in range(num_classes))
    if dataset == "sift_flow" and num_classes == 3:
      names = datasets.sift_flow.GEOMETRIC_NAMES
    palette = datasets.palettes.voc_palette(num_classes=num_classes)
  return {"names": list(names), "palette": np.asarray(palette).tolist()}


def guess(path: pathlib.Path) -> str:
  """Finds which of `NETWORKS` a file has the weights of.

  Raises:
    ValueError: if the file is damaged, or fits several networks or none.
  """
  if not fcn.pretrained.is_caffe(path):
    name = fcn.pretrained.torchvision_names.guess(
      fcn.pretrained.read_state_dict(path)
    )
    if name not in NETWORKS:
      raise ValueError(
        f"{path} is not a state dict of any of torchvision's networks that are "
        f"known here: {', '.join(TORCHVISION)}. If it is a variant of one of "
        "them, name that one as --network."
      )
    return name
  # Reports a damaged file as damaged, not as one that fits no network.
  fcn.pretrained.read_caffemodel(path)
  released = {
    name: one.network() for name, one in fcn.models.released.NETWORKS.items()
  }
  fitting = [name for name, model in released.items() if _fits(path, model)]
  if not fitting:
    num_unused = {
      name: len(report.unused)
      for name, one in CAFFE.items()
      if one.dataset is None and (report := _beginning(path, one.model()))
    }
    # The layers of VGG16 are among those of VGG19.
    fewest = min(num_unused.values(), default=0)
    fitting = [name for name, num in num_unused.items() if num == fewest]
  if len(fitting) != 1:
    which = f"may be any of {', '.join(fitting)}" if fitting else "is none"
    raise ValueError(
      f"{path} {which} of the published networks: name the one it is, or is a "
      f"variant of, as --network: {', '.join(CAFFE)}."
    )
  if fitting[0] not in NETWORKS:
    raise ValueError(
      f"{path} is {fitting[0]}, which sees more than the colours of pictures, "
      "as the commands have them. Load it in Python: fcn.pretrained.load(path, "
      f"fcn.models.released.make({fitting[0]!r}))."
    )
  return fitting[0]


def _fits(path, model):
  """Whether a file has the arrays of a network, no more and no fewer."""
  report = _compared(path, model)
  return report is not None and not (
    report.kept or report.reshaped or report.extended or report.unused
  )


def _beginning(path, model):
  """The report on a file that has all of a network except its score layers."""
  report = _compared(path, model)
  if report is None or report.reshaped or report.extended:
    return None
  return None if missing_in_backbone(report) else report


def missing_in_backbone(report: fcn.pretrained.Report) -> tuple[str, ...]:
  """The arrays, except score layers, that a network did not get from a file."""
  return tuple(
    name
    for name in (*report.kept, *report.reshaped, *report.extended)
    if not name.startswith("params/score_")
  )


def _compared(path, model):
  try:
    return fcn.pretrained.compare(path, model)
  except ValueError:
    # Upsampling or skips of another network.
    return None
