"""The networks. The only folder that knows Flax."""

from fcn_jax.models import backbones
from fcn_jax.models import convolution
from fcn_jax.models import fcn
from fcn_jax.models import fcn_resnet
from fcn_jax.models import heads
from fcn_jax.models import input_normalization
from fcn_jax.models import late_fusion
from fcn_jax.models import layers
from fcn_jax.models import released
from fcn_jax.models.fcn import FCN
from fcn_jax.models.fcn_resnet import FCNResNet
from fcn_jax.models.late_fusion import LateFusion

# Any of the networks: they share their call, `heads` and `chain`.
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
  "heads",
  "input_normalization",
  "late_fusion",
  "layers",
  "released",
]
