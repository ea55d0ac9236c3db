"""The networks; only this package uses Flax.

- `FCN`, `FCNResNet` and `LateFusion` are the networks, and `Network` is their
  union type; `released` makes the networks that the authors of the FCN papers
  released.
- `backbones` has the networks that FCNs are built on, made from `layers`;
  `convolution` and `pooling` are fast on a CPU.
- `input_normalization` says how a network normalizes its images.
- `summary` makes a table of the layers of a network (`layer_table`).
- `freezing` says which layers are not trained.
- `heads` picks one score map of a network with several heads.
"""

from fcn_jax.models import backbones
from fcn_jax.models import convolution
from fcn_jax.models import fcn
from fcn_jax.models import fcn_resnet
from fcn_jax.models import freezing
from fcn_jax.models import heads
from fcn_jax.models import input_normalization
from fcn_jax.models import late_fusion
from fcn_jax.models import layer_table
from fcn_jax.models import layers
from fcn_jax.models import pooling
from fcn_jax.models import released
from fcn_jax.models.fcn import FCN
from fcn_jax.models.fcn_resnet import FCNResNet
from fcn_jax.models.late_fusion import LateFusion
from fcn_jax.models.layer_table import summary

# All have the same call signature, `heads`, `head_weights`, `freezing` and
# `chain`.
Network = FCN | FCNResNet | LateFusion

__all__ = [
  "FCN",
  "FCNResNet",
  "LateFusion",
  "Network",
  "backbones",
  "convolution",
  "fcn",
  "fcn_resnet",
  "freezing",
  "heads",
  "input_normalization",
  "late_fusion",
  "layer_table",
  "layers",
  "pooling",
  "released",
  "summary",
]
