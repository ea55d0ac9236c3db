"""Parameters from elsewhere: from other networks of this package."""

from fcn_jax.weights import surgery

__all__ = ["surgery"]
