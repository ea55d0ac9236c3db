"""Fully convolutional networks for segmentation, trained by loss sampling.

    image --FCN--> coarse scores --upsampling--> logits --mask--> loss

See the README for an example, and ARCHITECTURE.md for the way of the data.
"""

from fcn_jax import checkpoints
from fcn_jax import data
from fcn_jax import extents
from fcn_jax import geometry
from fcn_jax import inference
from fcn_jax import losses
from fcn_jax import metrics
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import patches
from fcn_jax import sampling
from fcn_jax import sweeps
from fcn_jax import train
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax import visualize
from fcn_jax import weights
from fcn_jax import writers

__all__ = [
  "checkpoints",
  "data",
  "extents",
  "geometry",
  "inference",
  "losses",
  "metrics",
  "models",
  "optimizers",
  "patches",
  "sampling",
  "sweeps",
  "train",
  "types",
  "upsampling",
  "visualize",
  "weights",
  "writers",
]
