"""Losses of the sampled pixels, in forms that give the same numbers.

- `make` returns the loss that a train step takes; `Loss`, `LossTerms` and
  `LossForm` are its types. A `Schedule` has other losses at other steps.
- `masked_cross_entropy` defines the loss, from the logits of all pixels.
  `pixel_cross_entropy` is the loss of each pixel, `weighted_losses` multiplies
  it by a sampler's weights, and `loss_map` computes it from a score map.
- `smoothed_cross_entropy`, `focal`, `symmetric_cross_entropy` and
  `generalized_cross_entropy` make other pixel losses; `class_weighted` weights
  the classes of any. `sigmoid_cross_entropy` is for pixels with several
  classes, whose labels are `bit_masks`, or a network of one logit;
  `unpack_bit_masks` takes such labels apart.
- `dice`, `jaccard` and `tversky` make losses of regions (`RegionLoss`), and
  `lovasz_softmax` one of sorted pixels; `weighted_sum` adds losses.
- `normalizer`, `num_kept` and `divide` say what the sum of the
  pixel losses is divided by (`Normalization`).
- `strips`, `places`, `listed_blocks` and `listed_pixels` compute sums over
  pixels without the logits of all pixels.
"""

from fcn_jax.label_bits import bit_masks
from fcn_jax.label_bits import unpack_bit_masks
from fcn_jax.losses.choice import LossForm
from fcn_jax.losses.forms import loss_map
from fcn_jax.losses.lovasz import lovasz_softmax
from fcn_jax.losses.normalization import Normalization
from fcn_jax.losses.normalization import divide
from fcn_jax.losses.normalization import normalizer
from fcn_jax.losses.normalization import num_kept
from fcn_jax.losses.pixel_losses import PixelLoss
from fcn_jax.losses.pixel_losses import cross_entropy
from fcn_jax.losses.pixel_losses import masked_cross_entropy
from fcn_jax.losses.pixel_losses import pixel_cross_entropy
from fcn_jax.losses.pixel_losses import weighted_losses
from fcn_jax.losses.region_losses import RegionLoss
from fcn_jax.losses.region_losses import dice
from fcn_jax.losses.region_losses import jaccard
from fcn_jax.losses.region_losses import tversky
from fcn_jax.losses.sampled_loss import Loss
from fcn_jax.losses.sampled_loss import LossTerms
from fcn_jax.losses.sampled_loss import Schedule
from fcn_jax.losses.sampled_loss import make
from fcn_jax.losses.sampled_loss import weighted_sum
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
  "RegionLoss",
  "Schedule",
  "bit_masks",
  "class_weighted",
  "cross_entropy",
  "dice",
  "divide",
  "focal",
  "generalized_cross_entropy",
  "jaccard",
  "loss_map",
  "lovasz_softmax",
  "make",
  "masked_cross_entropy",
  "normalizer",
  "num_kept",
  "pixel_cross_entropy",
  "sigmoid_cross_entropy",
  "smoothed_cross_entropy",
  "symmetric_cross_entropy",
  "tversky",
  "unpack_bit_masks",
  "weighted_losses",
  "weighted_sum",
]
