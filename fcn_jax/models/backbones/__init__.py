"""The networks that FCNs are built on, without their classifiers.

Each file has `ARCHITECTURES`, `PADDINGS`, a function `layer_list`, from which
`geometry` and the network are both made, and a module `Backbone(architecture,
settings)`, where `settings` are the `layers.Settings` that do not depend on the
architecture. An architecture has defaults for the settings `inputs`,
`normalization` and `head_width`, and `skips`, the layers that the skips score,
coarse to fine.

A backbone is called with images [N, H, W, C], uint8 or float, in 0..255,
`train` (whether dropout and batch statistics are those of training) and
`valid_sizes` ([N, 2] int32, height and width of each image inside its array;
None if all are H and W). It returns features [N, h, w, channels] by the name of
their layer. With `valid_sizes`, the features of an image fill the first rows
and columns, as many as it would have by itself, and the rest is zero.
"""

from fcn_jax.models.backbones import alexnet
from fcn_jax.models.backbones import basic
from fcn_jax.models.backbones import googlenet
from fcn_jax.models.backbones import resnet
from fcn_jax.models.backbones import vgg

__all__ = ["alexnet", "basic", "googlenet", "resnet", "vgg"]
