"""Parameters from elsewhere: files of other libraries, and other networks."""

from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained.caffe_names import read as read_caffemodel
from fcn_jax.pretrained.formats import is_caffe
from fcn_jax.pretrained.formats import read_state_dict
from fcn_jax.pretrained.formats import write_state_dict
from fcn_jax.pretrained.loading import compare
from fcn_jax.pretrained.loading import load
from fcn_jax.pretrained.transplanting import Report
from fcn_jax.pretrained.transplanting import take_head
from fcn_jax.pretrained.transplanting import transplant

__all__ = [
  "Report",
  "compare",
  "is_caffe",
  "load",
  "read_caffemodel",
  "read_state_dict",
  "take_head",
  "torchvision_names",
  "transplant",
  "write_state_dict",
]
