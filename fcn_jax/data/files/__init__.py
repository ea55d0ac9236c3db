"""Files of pictures and masks: bytes to arrays, archives, and their faults."""

from fcn_jax.data.files import archives
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing

__all__ = ["archives", "checking", "decoding", "listing"]
