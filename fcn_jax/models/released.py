"""The fifteen networks that the authors of the FCN papers released, for Caffe.

They have the geometry and the input normalization of their weights, which are
on the authors' server: append the name of the file to `SERVER`.
`pretrained.load` reads them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

from fcn_jax.models import fcn
from fcn_jax.models import input_normalization
from fcn_jax.models import late_fusion

SERVER = "http://dl.caffe.berkeleyvision.org/"


@dataclasses.dataclass(frozen=True)
class Released:
  """One released network, and how the authors trained it.

  Attributes:
    network: makes the network.
    data_set: the data set that it was trained on.
    starts_from: classifiers of ILSVRC ("vgg16" or "caffenet") or released nets
      that its parameters came from; two for late fusion.
    learning_rate: constant.
    file: name of its weights; None if these were not released.
    mean_iu: published scores in percent, by split.
    momentum: of gradient descent.
    batch: images whose gradients are averaged in a step.
    normalize: of the loss, see `losses`.
  """

  network: Callable[[], fcn.FCN | late_fusion.LateFusion]
  data_set: str
  starts_from: tuple[str, ...]
  learning_rate: float
  file: str | None
  mean_iu: Mapping[str, float] = dataclasses.field(default_factory=dict)
  momentum: float = 0.99
  batch: int = 1
  normalize: Literal["sum", "valid"] = "sum"


def _fcn(num_classes, stride, inputs, **options):
  return functools.partial(
    fcn.FCN,
    num_classes,
    stride=stride,
    padding="caffe",
    inputs=inputs,
    **options,
  )


def _voc(stride, starts_from, learning_rate, file, mean_iu, **options):
  return Released(
    _fcn(21, stride, input_normalization.CAFFE, **options),
    "PASCAL VOC 2011 and SBD",
    (starts_from,),
    learning_rate,
    f"{file}.caffemodel",
    mean_iu,
  )


def _pascal_context(stride, starts_from, learning_rate):
  return Released(
    _fcn(60, stride, input_normalization.PASCAL_CONTEXT),
    "PASCAL-Context",
    (starts_from,),
    learning_rate,
    f"pascalcontext-fcn{stride}s-heavy.caffemodel",
  )


def _sift_flow(stride, starts_from, learning_rate):
  heads = {"semantic": 33, "geometric": 3}
  return Released(
    _fcn(heads, stride, input_normalization.SIFT_FLOW),
    "SIFT Flow",
    (starts_from,),
    learning_rate,
    f"siftflow-fcn{stride}s-heavy.caffemodel",
  )


def _nyud(inputs, file):
  return Released(_fcn(40, 32, inputs), "NYUDv2", ("vgg16",), 1e-10, file=file)


# By the names of the authors' repository. Scores are those of its README, on
# the part of VOC 2011's validation set that is not in SBD's training set
# (seg11valid), and on VOC 2012's test set; recipes are those of its solvers.
NETWORKS = {
  "voc-fcn32s": _voc(
    32, "vgg16", 1e-10, "fcn32s-heavy-pascal", {"seg11valid": 63.6}
  ),
  "voc-fcn16s": _voc(
    16, "voc-fcn32s", 1e-12, "fcn16s-heavy-pascal", {"seg11valid": 65.0}
  ),
  "voc-fcn8s": _voc(
    8,
    "voc-fcn16s",
    1e-14,
    "fcn8s-heavy-pascal",
    {"seg11valid": 65.5, "seg12test": 67.2},
  ),
  "voc-fcn8s-atonce": _voc(
    8,
    "vgg16",
    1e-10,
    "fcn8s-atonce-pascal",
    {"seg11valid": 65.4},
    skip_scales=fcn.AT_ONCE_SCALES,
  ),
  "voc-fcn-alexnet": dataclasses.replace(
    _voc(
      32,
      "caffenet",
      1e-4,
      "fcn-alexnet-pascal",
      {"seg11valid": 48.0},
      backbone="caffenet",
    ),
    momentum=0.9,
    batch=20,
    normalize="valid",
  ),
  "pascalcontext-fcn32s": _pascal_context(32, "vgg16", 1e-10),
  "pascalcontext-fcn16s": _pascal_context(16, "pascalcontext-fcn32s", 1e-12),
  "pascalcontext-fcn8s": _pascal_context(8, "pascalcontext-fcn16s", 1e-14),
  "siftflow-fcn32s": _sift_flow(32, "vgg16", 1e-10),
  "siftflow-fcn16s": _sift_flow(16, "siftflow-fcn32s", 1e-12),
  "siftflow-fcn8s": _sift_flow(8, "siftflow-fcn16s", 1e-12),
  "nyud-fcn32s-color": _nyud(
    input_normalization.NYUD_COLOR, "nyud-fcn32s-color-heavy.caffemodel"
  ),
  "nyud-fcn32s-hha": _nyud(
    input_normalization.NYUD_HHA, "nyud-fcn32s-hha-heavy.caffemodel"
  ),
  "nyud-fcn32s-color-d": _nyud(input_normalization.NYUD_COLOR_DEPTH, None),
  "nyud-fcn32s-color-hha": Released(
    functools.partial(
      late_fusion.LateFusion,
      40,
      {
        "color": input_normalization.NYUD_COLOR,
        "hha": input_normalization.NYUD_HHA,
      },
      stride=32,
      padding="caffe",
    ),
    "NYUDv2",
    ("nyud-fcn32s-color", "nyud-fcn32s-hha"),
    1e-12,
    "nyud-fcn32s-color-hha-heavy.caffemodel",
  ),
}


def make(name: str) -> fcn.FCN | late_fusion.LateFusion:
  """Makes a released network.

  Args:
    name: one of `NETWORKS`, such as "voc-fcn8s".

  Raises:
    ValueError: if there is no network of that name.
  """
  if name not in NETWORKS:
    raise ValueError(
      f"no network {name!r} was released; choose one of {', '.join(NETWORKS)}."
    )
  return NETWORKS[name].network()
