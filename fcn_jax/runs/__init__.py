"""A run: its options, its folder, its loop, and the model that it trained."""

from fcn_jax.runs import checkpoints
from fcn_jax.runs import records

__all__ = ["checkpoints", "records"]
