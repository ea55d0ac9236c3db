"""Checks of the attributes, images and parameters of networks."""

import contextlib
import numbers
from collections.abc import Iterator, Mapping, Sequence

import flax.errors
import jax
import jax.numpy as jnp

from fcn_jax import checks
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
    ValueError: if the images or valid_sizes have another shape or dtype.
  """
  checks.images(images, valid_sizes, num_channels=num_channels)
  if valid_sizes is None:
    return None
  return jnp.clip(
    valid_sizes, 1, jnp.array([images.shape[1:3]], valid_sizes.dtype)
  )


@contextlib.contextmanager
def fitting_variables() -> Iterator[None]:
  """Says in a sentence that variables are those of another network.

  Raises:
    ValueError: for Flax's errors about the shapes and names of variables.
  """
  try:
    yield
  except (
    flax.errors.ScopeParamShapeError,
    flax.errors.ScopeParamNotFoundError,
    flax.errors.ScopeVariableNotFoundError,
    flax.errors.ScopeCollectionNotFound,
  ) as error:
    # Flax's sentence has the name of the layer and, after a dash, an address.
    fact = str(error).partition(" (https://")[0].rstrip(". ")
    raise ValueError(
      "the variables do not fit the network: they are from another one, such "
      "as with another num_classes or backbone, or incomplete. Give those of "
      f"this network, as from fcn.train.variables(state). (Flax: {fact}.)"
    ) from None
