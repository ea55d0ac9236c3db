"""The published networks with few channels, for tests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import models
from fcn_jax.models import input_normalization
from fcn_jax.pretrained import transplanting

VGG_WIDTHS = (8, 8, 12, 16, 16)
ALEXNET_WIDTHS = (8, 12, 16, 12, 12)
HEAD_WIDTH = 24
GOOGLENET_WIDTH = 1 / 8
RESNET_WIDTHS = (4, 8, 12, 16)


def make_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes those of torchvision narrow, under their own names."""
  changes = {
    models.backbones.vgg: {"widths": VGG_WIDTHS, "head_width": HEAD_WIDTH},
    models.backbones.alexnet: {
      "widths": ALEXNET_WIDTHS,
      "head_width": HEAD_WIDTH,
    },
    models.backbones.googlenet: {"width": GOOGLENET_WIDTH},
    models.backbones.resnet: {"widths": RESNET_WIDTHS},
  }
  for file, change in changes.items():
    for name, architecture in file.ARCHITECTURES.items():
      if name not in ("vgg_small", "caffenet"):
        narrow = dataclasses.replace(architecture, **change)
        monkeypatch.setitem(file.ARCHITECTURES, name, narrow)


def inputs(backbone: str) -> input_normalization.InputNormalization:
  """What torchvision's weights of a backbone ask for."""
  if backbone == "googlenet_bn":
    return input_normalization.INCEPTION
  return input_normalization.TORCHVISION


def random_variables(model: models.Network, seed: int = 0):
  """Variables of a network, random."""
  shapes = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0),
      jnp.zeros((1, 64, 64, model.num_channels), jnp.uint8),
      train=False,
    )
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes
  )


def arrays(variables) -> dict[str, np.ndarray]:
  """Arrays by their paths."""
  return dict(transplanting.named(variables))
