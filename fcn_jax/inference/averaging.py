"""Probabilities of the classes, averaged over views of a picture.

A view is the picture rescaled, mirrored, or both. The probabilities of each are
brought back to the picture's own size, and their mean is taken. A network that
was trained on pictures of half their size is used at their own size with
`scales=(0.5,)`.
"""

from collections.abc import Sequence

import chex
import numpy as np

from fcn_jax import models
from fcn_jax.inference import tiling


def probabilities(
  model: models.Network,
  variables: chex.ArrayTree,
  image: np.ndarray,
  *,
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  tile_size: int = tiling.TILE_SIZE,
) -> np.ndarray:
  """Probabilities of the classes at every pixel of a picture.

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    image: [H, W, 3] uint8, RGB.
    scales: see `predict_tiled`.
    flip: see `predict_tiled`.
    tile_size: see `predict_tiled`.

  Returns:
    [H, W, C] float32.

  Raises:
    ValueError: see `predict_tiled`.
  """
  found = np.empty(
    (*image.shape[:2], models.heads.num_classes(model)), np.float32
  )
  tiling.predict_tiled(
    model,
    variables,
    image,
    tile_size=tile_size,
    scales=scales,
    flip=flip,
    probabilities_out=found,
  )
  return found
