"""From examples to batches on the device."""

from fcn_jax.data.pipeline import combining
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import photometric
from fcn_jax.data.pipeline import transforms
from fcn_jax.data.pipeline.device import to_device
from fcn_jax.data.pipeline.fingerprints import fingerprint
from fcn_jax.data.pipeline.loader import eval_batches
from fcn_jax.data.pipeline.loader import indices_of_batch
from fcn_jax.data.pipeline.loader import train_batches

__all__ = [
  "combining",
  "eval_batches",
  "fingerprint",
  "indices_of_batch",
  "padding",
  "photometric",
  "to_device",
  "train_batches",
  "transforms",
]
