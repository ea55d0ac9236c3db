"""The networks that FCNs are made of, without their classifiers.

Each module has `ARCHITECTURES`, `PADDINGS`, a function `layer_list`, of which
both `geometry` and the module are made, and a module `Backbone` that returns
its features by the name of their layer.
"""

from fcn_jax.models.backbones import alexnet
from fcn_jax.models.backbones import googlenet
from fcn_jax.models.backbones import resnet
from fcn_jax.models.backbones import vgg

__all__ = ["alexnet", "googlenet", "resnet", "vgg"]
