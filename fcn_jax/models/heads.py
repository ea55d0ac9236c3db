"""Picks score maps from the output of a network with several heads.

A network with one head returns a `ScoreMap`, one with several a dict of them.
The main head is the first one.
"""

from collections.abc import Mapping
from typing import Any

import jax

from fcn_jax import types
from fcn_jax.models import checks


def main_head(model: Any) -> str:
  """Name of the first head of a network; empty if it is the only one."""
  return next(iter(model.heads))


def num_classes(model: Any, head: str | None = None) -> int:
  """Classes of a head of a network, by default the main one.

  Raises:
    ValueError: if the network has no such head.
  """
  heads = model.heads
  if head is None:
    head = main_head(model)
  if head not in heads:
    names = ", ".join(name or "only an unnamed one" for name in heads)
    raise ValueError(f"the network has no head {head!r}; it has {names}.")
  return heads[head]


def by_name(
  score_maps: types.ScoreMap | Mapping[str, types.ScoreMap],
) -> Mapping[str, types.ScoreMap]:
  """A network's output as a dict; a single head has an empty name."""
  if isinstance(score_maps, types.ScoreMap):
    return {"": score_maps}
  return score_maps


def predicted_scores(
  model: Any,
  variables: types.Variables,
  images: jax.Array,
  valid_sizes: jax.Array | None = None,
  *,
  head: str | None = None,
) -> types.ScoreMap:
  """The score map of one head in evaluation mode, by default the main one.

  Args:
    model: one of `models.Network`.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    images: [N, H, W, C] uint8 or float, in 0..255.
    valid_sizes: see the networks.
    head: name of the head.

  Raises:
    ValueError: if the network has no such head, or the variables are those of
      another network.
  """
  num_classes(model, head)
  with checks.fitting_variables():
    score_maps = model.apply(
      variables, images, train=False, valid_sizes=valid_sizes
    )
  return by_name(score_maps)[main_head(model) if head is None else head]
