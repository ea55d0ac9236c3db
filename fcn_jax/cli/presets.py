"""Presets of `fcn-jax train`.

The comment above a preset gives the hardware, the time and the score to expect.
A score is "seen" if we measured it ourselves; others are from

  CVPR 2015, PAMI 2017: the FCN papers, see the citation in the README;
  released nets: the authors' own, scored on the 736 images of VOC 2011's
    validation split that are not in the training set.
"""

import pathlib
from typing import Any

from fcn_jax.runs import config as config_lib


def _train(name: str, **options: Any) -> config_lib.Train:
  """Options of a run in runs/NAME."""
  run = config_lib.Run(pathlib.Path("runs", name))
  return config_lib.Train(run=run).replace(**options)


def _papers(name: str, dataset: str = "voc2012", **options: Any):
  """A net of the papers: heavy learning of whole pictures, one a step."""
  recipe = {
    "dataset": dataset,
    "backbone": "vgg16",
    "stride": 32,
    "padding": "caffe",
    "normalization": "none",
    "dropout_rate": 0.5,
    "crop_size": None,
    "scale_range": (1.0, 1.0),
    "flip": False,
    "batch_size": 1,
    "normalize": "sum",
    "optimizer": "sgd",
    "schedule": "constant",
    "momentum": 0.99,
    "weight_decay": 5e-4,
    "learning_rate": 1e-10,
    "warmup_steps": 0,
    "steps": 100_000,
    "validate_every": 4000,
    "save_every": 1000,
    "validation_batch": 1,
    "num_threads": 8,
  }
  return _train(name, **(recipe | options))


def _refined(stride: int, init: str, learning_rate: float) -> dict[str, Any]:
  """A net with finer skips, from a trained net of twice the stride."""
  init = pathlib.Path("runs", init)
  return {"stride": stride, "init": init, "learning_rate": learning_rate}


# ImageNet classifiers, made by `fcn-jax convert` of the files named in the
# documentation.
_VGG16 = pathlib.Path("runs/vgg16_imagenet")
# A network that begins with the convolutions of VGG16 alone, as
# `fcn-jax convert import VGG16 --partial` makes them: fc6 and fc7 are smaller,
# and begin at random.
VGG16_CONVOLUTIONS = {
  "backbone": "vgg16",
  "init": pathlib.Path("runs/vgg16_conv"),
  "inputs": "caffe",
  "normalization": "none",
  "head_width": 512,
  "learning_rate": 1e-4,
}
_CAFFENET = pathlib.Path("runs/caffenet_imagenet")
_RESNET50 = pathlib.Path("runs/resnet50_imagenet")

_CONTEXT = {"dataset": "pascal_context", "inputs": "pascal_context"}
# SIFT Flow has no validation split.
_SIFT_FLOW = {
  "dataset": "sift_flow",
  "second_labels": "geometric",
  "validation_split": "test",
  "inputs": "sift_flow",
}
_COLORS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
# Some streets of CamVid are filmed at dusk.
_DUSK = {
  "brightness": 0.3,
  "contrast": 0.4,
  "saturation": 0.4,
  "gamma_range": (0.6, 1.5),
}

PRESETS = {
  # Two CPU cores, 2 minutes.
  "shapes": (
    "Generated shapes, small backbone: two minutes on two CPU cores.",
    _train(
      "shapes", steps=300, validate_every=100, save_every=50, log_every=10
    ),
  ),
  # Any hardware. The score depends on the pictures; on a GPU, raise crop_size
  # and steps.
  "folder": (
    "Pictures and masks of your own, small backbone, from scratch: 10 to 30 "
    "minutes on two CPU cores.",
    _train(
      "folder",
      dataset="folder",
      crop_size=(192, 192),
      ema_decay=0.99,
      **_COLORS,
    ),
  ),
  # Two CPU cores, 40 minutes. Seen: mean IU on the test split at native size
  # 53.8 (best by validation), 55.7 (the same, three scales and mirrored).
  "camvid_small": (
    "CamVid at three quarters of its size, small backbone: under an hour on "
    "two CPU cores.",
    _train(
      "camvid_small_train",
      dataset="camvid",
      resize=0.75,
      # Poles are a few pixels wide.
      backbone="vgg13_small",
      stride=2,
      batch_size=6,
      crop_size=(192, 256),
      scale_range=(0.6, 1.5),
      # Of classes with more than 1 / 22 of the pixels, only a part is kept.
      sampler="class_balanced",
      rate=0.5,
      steps=5600,
      learning_rate=4e-3,
      weight_decay=1e-2,
      warmup_steps=100,
      ema_decay=0.995,
      validate_every=700,
      save_every=200,
      **_DUSK,
    ),
  ),
  # Two CPU cores, one to two hours. Seen: mean IU on the test split at native
  # size 60.6. The documentation says how the run that it begins with is made.
  "camvid_pretrained": (
    "CamVid at full size, VGG16 pretrained, its lower half frozen: one to two "
    "hours on two CPU cores.",
    _train(
      "camvid_pretrained",
      dataset="camvid",
      freeze=("pool3",),
      stride=4,
      dropout_rate=0.5,
      crop_size=(192, 256),
      scale_range=(0.6, 1.3),
      sampler="class_balanced",
      rate=0.5,
      warmup_steps=50,
      weight_decay=1e-2,
      # Without normalization, norms of 200 to 700 were seen.
      clip_norm=100.0,
      ema_decay=0.99,
      steps=2000,
      validate_every=300,
      save_every=100,
      validation_batch=1,
      **VGG16_CONVOLUTIONS,
      **_DUSK,
    ),
  ),
  # One GPU with 40 GB, hours; not run by us. Expected: mean IU 50 to 55 on the
  # test split (published, without pretraining: 52.1 for a reproduction of
  # ENet).
  "camvid": (
    "CamVid at full size, VGG16 with batch norm from scratch: a GPU.",
    _train(
      "camvid_vgg16",
      dataset="camvid",
      backbone="vgg16",
      head_width=1024,
      dropout_rate=0.5,
      dtype="bfloat16",
      crop_size=(352, 480),
      scale_range=(0.5, 2.0),
      brightness=0.3,
      contrast=0.3,
      saturation=0.3,
      learning_rate=1e-3,
      warmup_steps=500,
      weight_decay=1e-3,
      clip_norm=5.0,
      ema_decay=0.999,
      steps=20_000,
      validate_every=1000,
      log_every=50,
      num_threads=8,
    ),
  ),
  # One GPU with 12 GB; days on the GPU of the papers. We have not run any of
  # the papers' nets below. Expected (released nets): mean IU 63.6.
  "voc_fcn32s": (
    "The papers' FCN-32s on VOC, from VGG16.",
    _papers("voc_fcn32s", init=_VGG16),
  ),
  # Expected (released nets): mean IU 65.0.
  "voc_fcn16s": (
    "The papers' FCN-16s on VOC, from a trained FCN-32s.",
    _papers("voc_fcn16s", **_refined(16, "voc_fcn32s", 1e-12)),
  ),
  # Expected (released nets): mean IU 65.5.
  "voc_fcn8s": (
    "The papers' FCN-8s on VOC, from a trained FCN-16s.",
    _papers("voc_fcn8s", **_refined(8, "voc_fcn16s", 1e-14)),
  ),
  # Expected (released nets): mean IU 65.4.
  "voc_fcn8s_at_once": (
    "The papers' FCN-8s on VOC in one go, from VGG16.",
    _papers("voc_fcn8s_at_once", stride=8, at_once=True, init=_VGG16),
  ),
  # PAMI's comparison of recipes: 20 images an update.
  "voc_fcn32s_accumulated": (
    "The papers' FCN-32s, 20 images an update, from VGG16.",
    _papers("voc_fcn32s_accumulated", momentum=0.9, accumulate=20, init=_VGG16),
  ),
  # PAMI's comparison of recipes: momentum 0.9.
  "voc_fcn32s_online": (
    "The papers' FCN-32s on VOC, online, momentum 0.9, from VGG16.",
    _papers("voc_fcn32s_online", momentum=0.9, init=_VGG16),
  ),
  # Expected (released nets): mean IU 48.0. There the backbone's biases have the
  # learning rate and decay of its kernels.
  "voc_fcn_alexnet": (
    "The papers' FCN-AlexNet on VOC, 20 images an update, from CaffeNet.",
    _papers(
      "voc_fcn_alexnet",
      backbone="caffenet",
      normalize="valid",
      learning_rate=1e-4,
      momentum=0.9,
      accumulate=20,
      init=_CAFFENET,
    ),
  ),
  # Expected for the best of the three (CVPR 2015, best FCN, 59 classes): mean
  # IU 35.1.
  "pascal_context_fcn32s": (
    "The papers' FCN-32s on PASCAL-Context, from VGG16.",
    _papers("pascal_context_fcn32s", init=_VGG16, **_CONTEXT),
  ),
  "pascal_context_fcn16s": (
    "The papers' FCN-16s on PASCAL-Context, from a trained FCN-32s.",
    _papers(
      "pascal_context_fcn16s",
      **_refined(16, "pascal_context_fcn32s", 1e-12),
      **_CONTEXT,
    ),
  ),
  "pascal_context_fcn8s": (
    "The papers' FCN-8s on PASCAL-Context, from a trained FCN-16s.",
    _papers(
      "pascal_context_fcn8s",
      **_refined(8, "pascal_context_fcn16s", 1e-14),
      **_CONTEXT,
    ),
  ),
  # Expected: below 34.0, the mean IU of the best FCN of CVPR 2015 there, which
  # sees the depth as well. The papers train on the validation split, too.
  "nyud_fcn32s_color": (
    "The papers' FCN-32s on NYUDv2, colour only, from VGG16.",
    _papers("nyud_fcn32s_color", "nyudv2", inputs="nyud_color", init=_VGG16),
  ),
  # Expected: below 34.0. In the papers the three channels begin with the
  # kernels of blue, green and red; here with those of red, green and blue.
  "nyud_fcn32s_hha": (
    "The papers' FCN-32s on NYUDv2, HHA only, from VGG16.",
    _papers(
      "nyud_fcn32s_hha",
      "nyudv2",
      modalities="hha",
      inputs="nyud_hha",
      init=_VGG16,
    ),
  ),
  # Expected: below 34.0.
  "nyud_fcn32s_color_d": (
    "The papers' early fusion on NYUDv2, colour and depth, from VGG16.",
    _papers(
      "nyud_fcn32s_color_d",
      "nyudv2",
      modalities="color_depth",
      inputs="nyud_color_depth",
      init=_VGG16,
    ),
  ),
  # One GPU with 24 GB. Expected: at most 34.0.
  "nyud_fcn32s_color_hha": (
    "The papers' late fusion on NYUDv2, from trained nets for colour and HHA.",
    _papers(
      "nyud_fcn32s_color_hha",
      "nyudv2",
      modalities="color_hha",
      learning_rate=1e-12,
      init=pathlib.Path("runs/nyud_fcn32s_color"),
      init_hha=pathlib.Path("runs/nyud_fcn32s_hha"),
    ),
  ),
  # Expected (CVPR 2015, best FCN): mean IU 39.5, and geometric accuracy 94.3,
  # which `fcn-jax evaluate` does not measure: it scores the main head.
  "siftflow_fcn32s": (
    "The papers' two-headed FCN-32s on SIFT Flow, from VGG16.",
    _papers("siftflow_fcn32s", init=_VGG16, **_SIFT_FLOW),
  ),
  "siftflow_fcn16s": (
    "The papers' two-headed FCN-16s on SIFT Flow, from a trained FCN-32s.",
    _papers(
      "siftflow_fcn16s",
      **_refined(16, "siftflow_fcn32s", 1e-12),
      **_SIFT_FLOW,
    ),
  ),
  "siftflow_fcn8s": (
    "The papers' two-headed FCN-8s on SIFT Flow, from a trained FCN-16s.",
    _papers(
      "siftflow_fcn8s", **_refined(8, "siftflow_fcn16s", 1e-12), **_SIFT_FLOW
    ),
  ),
  # One GPU with 16 GB; not run by us at this size. The score depends on the
  # pictures.
  "folder_fcn_resnet50": (
    "Pictures and masks of your own, torchvision's FCN from ResNet-50.",
    _train(
      "folder_fcn_resnet50",
      dataset="folder",
      architecture="fcn_resnet",
      backbone="resnet50",
      auxiliary=True,
      crop_size=(480, 480),
      scale_range=(0.5, 2.0),
      learning_rate=1e-4,
      warmup_steps=200,
      clip_norm=5.0,
      ema_decay=0.99,
      steps=5000,
      num_threads=8,
      init=_RESNET50,
      **_COLORS,
    ),
  ),
}
