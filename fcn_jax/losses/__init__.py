"""Losses of the sampled pixels, in forms that give the same numbers.

- `make` returns the loss that a train step takes; `Loss`, `LossTerms` and
  `LossForm` are its types.
- `masked_cross_entropy` defines the loss, from the logits of all pixels.
  `pixel_cross_entropy` is the loss of each pixel, `weighted_losses` multiplies
  it by a sampler's weights, and `loss_map` computes it from a score map.
- `smoothed_cross_entropy`, `focal`, `symmetric_cross_entropy` and
  `generalized_cross_entropy` make other pixel losses; `class_weighted` weights
  the classes of any. `sigmoid_cross_entropy` is for pixels with several
  classes, whose labels are `bit_masks`.
- `normalizer`, `num_kept` and `divide` say what the sum of the
  pixel losses is divided by (`Normalization`).
- `strips`, `places`, `listed_blocks` and `listed_pixels` compute sums over
  pixels without the logits of all pixels.
"""

from fcn_jax.losses.choice import LossForm
from fcn_jax.losses.forms import loss_map
from fcn_jax.losses.normalization import Normalization
from fcn_jax.losses.normalization import divide
from fcn_jax.losses.normalization import normalizer
from fcn_jax.losses.normalization import num_kept
from fcn_jax.losses.pixel_losses import PixelLoss
from fcn_jax.losses.pixel_losses import cross_entropy
from fcn_jax.losses.pixel_losses import masked_cross_entropy
from fcn_jax.losses.pixel_losses import pixel_cross_entropy
from fcn_jax.losses.pixel_losses import weighted_losses
from fcn_jax.losses.sampled_loss import Loss
from fcn_jax.losses.sampled_loss import LossTerms
from fcn_jax.losses.sampled_loss import make
from fcn_jax.losses.sigmoid_losses import bit_masks
from fcn_jax.losses.sigmoid_losses import sigmoid_cross_entropy
from fcn_jax.losses.softmax_losses import class_weighted
from fcn_jax.losses.softmax_losses import focal
from fcn_jax.losses.softmax_losses import generalized_cross_entropy
from fcn_jax.losses.softmax_losses import smoothed_cross_entropy
from fcn_jax.losses.softmax_losses import symmetric_cross_entropy

__all__ = [
  "Loss",
  "LossForm",
  "LossTerms",
  "Normalization",
  "PixelLoss",
  "bit_masks",
  "class_weighted",
  "cross_entropy",
  "divide",
  "focal",
  "generalized_cross_entropy",
  "loss_map",
  "make",
  "masked_cross_entropy",
  "normalizer",
  "num_kept",
  "pixel_cross_entropy",
  "sigmoid_cross_entropy",
  "smoothed_cross_entropy",
  "symmetric_cross_entropy",
  "weighted_losses",
]
