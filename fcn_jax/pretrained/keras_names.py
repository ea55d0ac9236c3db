"""Names of the VGGs of Keras Applications, as the papers' names.

Their weights are those published for Caffe, for BGR in 0..255.
"""

import re
from collections.abc import Mapping

import numpy as np

from fcn_jax.models.backbones import vgg

_CONVOLUTION = re.compile(r"block(\d)_conv(\d)\.(weight|bias)")
_DENSE = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}


def to_papers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Renames the arrays, with fc6 as a convolution.

  Args:
    arrays: of `keras.read`, by names such as "block1_conv1.weight".

  Returns:
    Arrays by names such as "conv1_1.weight"; others keep their names.
  """
  result = {}
  for name, array in arrays.items():
    layer, kind = name.rsplit(".", 1)
    if found := _CONVOLUTION.fullmatch(name):
      name = f"conv{found[1]}_{found[2]}.{kind}"
    elif layer in _DENSE:
      name = f"{_DENSE[layer]}.{kind}"
    if name == "fc6.weight" and array.ndim == 2:
      side = vgg.ARCHITECTURES["vgg16"].fc6_kernel
      if not array.shape[1] % side**2:
        # Keras flattens maps pixel by pixel.
        array = array.reshape(len(array), side, side, -1)
        array = array.transpose(0, 3, 1, 2)
    result[name] = array
  return result
