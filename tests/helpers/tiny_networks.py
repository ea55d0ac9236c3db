"""A tiny VGG that compiles quickly, and pictures for it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import models

# As many layers as show all that a VGG has.
TINY = dataclasses.replace(
  models.backbones.vgg.ARCHITECTURES["vgg_small"],
  widths=(8, 8, 8, 8, 8),
  depths=(1, 1, 1, 1, 1),
  head_width=8,
)


def add_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
  """Adds the backbone "tiny", with XLA's convolutions."""
  monkeypatch.setitem(models.backbones.vgg.ARCHITECTURES, "tiny", TINY)
  monkeypatch.setattr(
    models.convolution, "conv_general_dilated", jax.lax.conv_general_dilated
  )


def random_variables(model: models.Network, *, seed: int = 1):
  """Random parameters and statistics for pictures of three channels."""
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, 32, 32, 3)),
  )
  rng = np.random.default_rng(seed)

  def draw(leaf):
    scale = (2 * leaf.shape[-1] / leaf.size) ** 0.5 if leaf.ndim > 1 else 0.1
    return jnp.asarray(rng.normal(0, scale, leaf.shape), leaf.dtype)

  return jax.tree.map(draw, shapes)


def picture(height, width, *, patch=40, seed=0):
  """Noise, brighter in some patches than in others; [H, W, 3] uint8."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // patch + 1, width // patch + 1, 3))
  coarse = coarse.repeat(patch, axis=0).repeat(patch, axis=1)[:height, :width]
  noise = rng.integers(0, 256, (height, width, 3))
  return ((coarse + noise) // 2).astype(np.uint8)
