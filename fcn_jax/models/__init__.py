"""The networks. The only folder that knows Flax."""

from fcn_jax.models import convolution
from fcn_jax.models import fcn
from fcn_jax.models import vgg
from fcn_jax.models.fcn import FCN

__all__ = ["FCN", "convolution", "fcn", "vgg"]
