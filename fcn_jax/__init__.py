"""Fully convolutional networks for segmentation, trained by loss sampling.

    image --FCN--> coarse scores --upsampling--> logits --mask--> loss

See the README for an example, and ARCHITECTURE.md for how data flows.
"""

from fcn_jax import blocks
from fcn_jax import data
from fcn_jax import geometry
from fcn_jax import inference
from fcn_jax import interpolation
from fcn_jax import label_boundaries
from fcn_jax import losses
from fcn_jax import metrics
from fcn_jax import models
from fcn_jax import optimizers
from fcn_jax import patches
from fcn_jax import pretrained
from fcn_jax import runs
from fcn_jax import sampling
from fcn_jax import sharding
from fcn_jax import train
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax import valid_region
from fcn_jax import visualize
from fcn_jax.models import summary

__version__ = "0.2.0"

__all__ = [
  "blocks",
  "interpolation",
  "label_boundaries",
  "data",
  "geometry",
  "inference",
  "losses",
  "metrics",
  "models",
  "optimizers",
  "patches",
  "pretrained",
  "runs",
  "sampling",
  "sharding",
  "summary",
  "train",
  "types",
  "upsampling",
  "valid_region",
  "visualize",
]
