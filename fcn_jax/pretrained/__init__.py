"""Parameters from files of other libraries, and from other networks.

- `fetch` downloads a file of `SOURCES` from its publisher, and checks it.
- `load` reads a file of weights for Caffe, PyTorch or Keras into a network;
  `compare` only reports what fits. `Report` says what became of each array.
- `transplant` starts a network with the parameters of another; `take_head`
  extracts one head of several.
- `read_caffemodel`, `read_state_dict`, `write_state_dict` and `is_caffe` work
  on files alone; `torchvision_names` translates to torchvision's names.
"""

from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained.caffe_names import read as read_caffemodel
from fcn_jax.pretrained.fetching import SOURCES
from fcn_jax.pretrained.fetching import fetch
from fcn_jax.pretrained.formats import is_caffe
from fcn_jax.pretrained.formats import read_state_dict
from fcn_jax.pretrained.formats import write_state_dict
from fcn_jax.pretrained.loading import compare
from fcn_jax.pretrained.loading import load
from fcn_jax.pretrained.transplanting import Report
from fcn_jax.pretrained.transplanting import take_head
from fcn_jax.pretrained.transplanting import transplant

__all__ = [
  "SOURCES",
  "Report",
  "compare",
  "fetch",
  "is_caffe",
  "load",
  "read_caffemodel",
  "read_state_dict",
  "take_head",
  "torchvision_names",
  "transplant",
  "write_state_dict",
]
