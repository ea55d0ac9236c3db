"""Checks of the attributes and images of networks."""

import numbers
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from fcn_jax import types


def choice(name: str, value: str | int, choices: Sequence[str | int]) -> None:
  """Raises a `ValueError` if an attribute is not one of its choices."""
  if value not in choices:
    raise ValueError(
      f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}."
    )


def num_classes(heads: Mapping[str, int]) -> None:
  """Raises a `ValueError` if a head has no or too many classes."""
  if not heads:
    raise ValueError("num_classes has no head; give at least one.")
  if len(heads) > 1 and "" in heads:
    raise ValueError("num_classes has a head without a name among several.")
  for head, number in heads.items():
    if not isinstance(number, numbers.Integral):
      raise ValueError(
        f"num_classes is {number!r}; this network has one number of classes."
      )
    if not 1 <= number <= types.IGNORE_LABEL:
      raise ValueError(
        f"num_classes is {number}{f' for {head}' if head else ''}; it must be "
        f"in 1..{types.IGNORE_LABEL}, as label {types.IGNORE_LABEL} is void."
      )


def images(
  images: jax.Array, valid_sizes: jax.Array | None, num_channels: int
) -> jax.Array | None:
  """Checks shapes, and returns `valid_sizes` clipped to the images.

  Args:
    images: must be [N, H, W, num_channels].
    valid_sizes: must be [N, 2] int32, or None.
    num_channels: of the network's inputs.

  Raises:
    ValueError: if the images or valid_sizes have another shape.
  """
  if images.ndim != 4 or images.shape[-1] != num_channels:
    raise ValueError(
      f"images have shape {images.shape}; they must be [N, H, W, "
      f"{num_channels}]. For a single image, give image[None]."
    )
  if valid_sizes is None:
    return None
  if valid_sizes.shape != (images.shape[0], 2):
    raise ValueError(
      f"valid_sizes have shape {valid_sizes.shape}; they must be [N, 2], a "
      f"height and a width for each of the {images.shape[0]} images."
    )
  return jnp.clip(
    valid_sizes, 1, jnp.array([images.shape[1:3]], valid_sizes.dtype)
  )
