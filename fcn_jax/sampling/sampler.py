"""The type of samplers, and what they ask for."""

import inspect
from collections.abc import Callable

import jax

# (key, labels [N, H, W]) -> weights [N, H, W]; options by keyword.
Sampler = Callable[..., jax.Array]


def asks_for_losses(sampler: Sampler) -> bool:
  """Whether a sampler has a parameter `pixel_losses`, as hard examples need."""
  return "pixel_losses" in inspect.signature(sampler).parameters
