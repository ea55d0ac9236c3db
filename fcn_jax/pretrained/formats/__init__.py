"""Reads files of weights as arrays by name, and writes state dicts."""

from fcn_jax.pretrained.formats.caffemodel import is_caffe
from fcn_jax.pretrained.formats.state_dicts import read as read_state_dict
from fcn_jax.pretrained.formats.state_dicts import write as write_state_dict

__all__ = ["is_caffe", "read_state_dict", "write_state_dict"]
