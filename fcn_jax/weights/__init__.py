"""Parameters from elsewhere: files of other libraries, and other networks."""

from fcn_jax.weights import surgery
from fcn_jax.weights import torchvision
from fcn_jax.weights.loading import compare
from fcn_jax.weights.loading import load

__all__ = ["compare", "load", "surgery", "torchvision"]
