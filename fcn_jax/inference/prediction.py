"""Prediction for a batch of whole images."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp

from fcn_jax import checks
from fcn_jax import label_bits
from fcn_jax import models
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax import valid_region
from fcn_jax.losses import region_losses
from fcn_jax.losses import strips


def predict(
  model: models.Network,
  variables: types.Variables,
  images: jax.Array,
  valid_sizes: jax.Array | None = None,
  *,
  head: str | None = None,
  activation: region_losses.Activation = "softmax",
  row_shards: int = 1,
) -> jax.Array:
  """The likeliest class of every pixel, or all of its classes.

  It is computed strip by strip, without an array of all logits.

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    images: [N, H, W, 3] uint8 or float, RGB in 0..255; any size. Other
      channels if the network has others.
    valid_sizes: [N, 2] int32, height and width of each image inside its array,
      as in `Batch`; None if the images fill their arrays.
    head: which head of a network with several; None for the main one.
    activation: "sigmoid" for networks that were trained with
      `losses.sigmoid_cross_entropy`.
    row_shards: how many devices share the rows of an image, of which there are
      a multiple of this and the stride, see `fcn_jax.sharding`.

  Returns:
    [N, H, W]; `IGNORE_LABEL` outside the images. With "softmax" int32, classes
    0..C-1, the lowest one if several are equally likely. With "sigmoid" the
    classes whose probability is at least 0.5, uint32 as from
    `losses.bit_masks`; if C is 1, int32, 0 and 1.

  Raises:
    ValueError: if the network has no such head, one class and "softmax", or
      more classes than bit masks and "sigmoid"; if variables are not those of
      the network, images have the wrong shape, dtype or range, or devices
      cannot share the rows.
  """
  checks.variables(variables)
  checks.images(images, valid_sizes, num_channels=model.num_channels)
  checks.pixels(images)
  return compiled_predict(
    model,
    variables,
    images,
    valid_sizes,
    head=head,
    activation=activation,
    row_shards=row_shards,
  )


@functools.partial(
  jax.jit,
  static_argnums=0,
  static_argnames=("head", "activation", "row_shards"),
)
def compiled_predict(
  model: models.Network,
  variables: types.Variables,
  images: jax.Array,
  valid_sizes: jax.Array | None = None,
  *,
  head: str | None = None,
  activation: region_losses.Activation = "softmax",
  row_shards: int = 1,
) -> jax.Array:
  """What `predict` calls after its checks, which do not suit tiles."""
  check(activation, models.heads.num_classes(model, head))
  score_map = models.heads.predicted_scores(
    model, variables, images, valid_sizes, head=head
  )
  return _labels(score_map, valid_sizes, activation, row_shards)


@functools.partial(jax.jit, static_argnums=0, static_argnames="activation")
def predict_with_probabilities(
  model: models.Network,
  variables: types.Variables,
  images: jax.Array,
  valid_sizes: jax.Array | None = None,
  *,
  activation: region_losses.Activation = "softmax",
) -> tuple[jax.Array, jax.Array]:
  """The classes of `predict` and their probabilities, in one pass.

  A largest probability may belong to another class: rounding makes some
  probabilities equal whose logits are not.

  Args:
    model: the network.
    variables: see `predict`.
    images: see `predict`.
    valid_sizes: see `predict`.
    activation: see `predict`.

  Returns:
    [N, H, W] as from `predict`, and [N, H, W, C] float32.
  """
  score_map = models.heads.predicted_scores(
    model, variables, images, valid_sizes
  )
  labels = _labels(score_map, valid_sizes, activation)
  return labels, probabilities_of(score_map, activation)


def probabilities_of(
  score_map: types.ScoreMap, activation: region_losses.Activation
) -> jax.Array:
  """Probabilities of the classes at every pixel, [N, H, W, C]."""
  of_logits = jax.nn.softmax if activation == "softmax" else jax.nn.sigmoid
  return of_logits(upsampling.to_pixels(score_map))


def _labels(
  score_map: types.ScoreMap,
  valid_sizes: jax.Array | None,
  activation: region_losses.Activation,
  row_shards: int = 1,
) -> jax.Array:
  """See `predict`."""

  def of_logits(logits):
    if activation == "softmax":
      return jnp.argmax(logits, axis=-2).astype(jnp.int32)
    return labels_of(jnp.moveaxis(logits, -2, -1) >= 0)

  classes = strips.map_strips(of_logits, score_map, row_shards=row_shards)
  if valid_sizes is None:
    return classes
  is_inside = valid_region.inside(valid_sizes, classes.shape[1:])
  return jnp.where(is_inside, classes, types.IGNORE_LABEL)


def labels_of(is_there: jax.Array) -> jax.Array:
  """Labels of the classes that are there.

  Args:
    is_there: [..., C] bool, an array of NumPy or JAX.

  Returns:
    [...] uint32 bit masks; int32, 0 and 1, if C is 1.
  """
  if is_there.shape[-1] == 1:
    return is_there[..., 0].astype(jnp.int32)
  return label_bits.bit_masks(is_there)


def check(activation: str, num_classes: int) -> None:
  """Raises a `ValueError` if an activation cannot be that of the classes."""
  if activation not in get_args(region_losses.Activation):
    raise ValueError(
      f'activation is {activation!r}; choose "softmax" or "sigmoid".'
    )
  if activation == "softmax" and num_classes == 1:
    raise ValueError(
      "the network has one class, whose softmax is 1 everywhere: give "
      'activation="sigmoid", which predicts 0 and 1.'
    )
  if activation == "sigmoid" and num_classes > label_bits.MAX_CLASSES:
    raise ValueError(
      f"the network has {num_classes} classes; a bit mask has room for "
      f"{label_bits.MAX_CLASSES}."
    )
