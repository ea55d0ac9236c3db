"""Cross-entropy of the sampled pixels, in forms that are equal and not as fast.

See `cross_entropy` for the definition and `sweeps` for how sums over pixels
are made without the logits of all pixels.
"""

from fcn_jax.losses import sweeps
from fcn_jax.losses.cross_entropy import Normalization
from fcn_jax.losses.cross_entropy import dense_cross_entropy
from fcn_jax.losses.cross_entropy import dense_sum
from fcn_jax.losses.cross_entropy import divide
from fcn_jax.losses.cross_entropy import labels_of
from fcn_jax.losses.cross_entropy import masked_cross_entropy
from fcn_jax.losses.cross_entropy import normalizer
from fcn_jax.losses.cross_entropy import num_kept
from fcn_jax.losses.cross_entropy import num_valid
from fcn_jax.losses.cross_entropy import pixel_cross_entropy
from fcn_jax.losses.cross_entropy import pixel_losses
from fcn_jax.losses.cross_entropy import sampled_cross_entropy
from fcn_jax.losses.cross_entropy import sampled_sum
from fcn_jax.losses.cross_entropy import weighted_losses

__all__ = [
  "Normalization",
  "dense_cross_entropy",
  "dense_sum",
  "divide",
  "labels_of",
  "masked_cross_entropy",
  "normalizer",
  "num_kept",
  "num_valid",
  "pixel_cross_entropy",
  "pixel_losses",
  "sampled_cross_entropy",
  "sampled_sum",
  "sweeps",
  "weighted_losses",
]
