"""Random score maps, with labels and weights for them."""

import jax.numpy as jnp
import numpy as np

from fcn_jax import losses
from fcn_jax import types

# Strides with the offsets of padding "same", of the released nets (the crops
# 19, 27 and 31, and AlexNet's 18) and of a stack of unpadded layers.
GRIDS = [
  (8, 3.5, "clamp"), (8, 3.5, "zero"), (1, 0.0, "clamp"), (4, 9.0, "clamp"),
  (32, 12.5, "zero"), (16, -11.5, "zero"), (8, -23.5, "zero"),
  (32, 13.0, "zero"), (2, 0.5, "clamp"),
]  # fmt: skip


def make_map(
  *,
  stride=8,
  offset=3.5,
  edge="clamp",
  image_size=(37, 41),
  num_classes=5,
  num_images=2,
  dtype=np.float32,
):
  """Random scores, with as many cells as a network would give, about."""
  cells = [max(1, round((side - offset) / stride)) for side in image_size]
  shape = (num_images, *cells, num_classes)
  scores = 3 * np.random.default_rng(1).normal(size=shape).astype(dtype)
  return types.ScoreMap(jnp.asarray(scores), stride, offset, image_size, edge)


def make_labels(score_map, seed=2):
  rng = np.random.default_rng(seed)
  shape = (len(score_map.scores), *score_map.image_size)
  labels = rng.integers(0, score_map.scores.shape[-1], shape)
  labels[rng.random(shape) < 0.2] = types.IGNORE_LABEL
  return jnp.asarray(labels, jnp.int32)


def make_bit_masks(score_map, seed=2):
  """Labels of several classes a pixel, void as in `make_labels`."""
  labels = np.asarray(make_labels(score_map, seed))
  shape = (*labels.shape, score_map.scores.shape[-1])
  classes = np.random.default_rng(seed).random(shape) < 0.4
  is_void = jnp.asarray(labels == types.IGNORE_LABEL)
  return losses.bit_masks(jnp.asarray(classes), is_void=is_void)


def make_weights(labels, rate=0.3, seed=3):
  rng = np.random.default_rng(seed)
  kept = rng.random(labels.shape) < rate
  weights = kept * rng.uniform(0.5, 2.0, labels.shape)
  weights[np.asarray(labels) == types.IGNORE_LABEL] = 0
  return jnp.asarray(weights, jnp.float32)
