"""Parameters from elsewhere: files of other libraries, and other networks."""

from fcn_jax.weights import surgery
from fcn_jax.weights import torchvision
from fcn_jax.weights.caffe import read as read_caffemodel
from fcn_jax.weights.caffe_files import is_caffe
from fcn_jax.weights.loading import compare
from fcn_jax.weights.loading import load
from fcn_jax.weights.state_dicts import read as read_state_dict
from fcn_jax.weights.state_dicts import write as write_state_dict

__all__ = [
  "compare",
  "is_caffe",
  "load",
  "read_caffemodel",
  "read_state_dict",
  "surgery",
  "torchvision",
  "write_state_dict",
]
