"""Which pixels enter the loss, and with what weight.

"Patchwise training is loss sampling" (section 3.4 of both papers): to train
on a random subset of the patches of an image is to drop a random subset of
the terms of its loss. The functions here make samplers, which are small tuples
of pure functions and facts (`Sampler`):

    sampler = sampling.fixed_count(count=500)
    weights = sampler.draw(key, labels)

From a random key and labels [N, H, W] (int32, `IGNORE_LABEL` = void) a sampler
draws weights [N, H, W] float32. A weight of zero leaves the pixel out; void
pixels always have weight zero. `losses.make` takes a sampler. Some samplers
keep pixels by their place between the cells of a score map; their `draw` needs
to know where these lie:

    sampler = sampling.places(rate=0.25)
    weights = sampler.draw(key, labels, grid=score_map.grid)

If weights are not just 0 and 1, do not divide the loss by the number of kept
pixels (`losses.normalizer`): use "expected".

- All valid pixels alike: `whole_image`, `places` (spread over the image, with
  an `Arrangement`), `bernoulli` (of a `Unit`: block or pixel), `fixed_count`,
  `fixed_count_in_batch`, `one_per_square`. For patches: `center_pixel`.
- By class: `class_balanced`, `class_weighted`, with `inverse_frequency_weights`
  and `median_frequency_weights`.
- By place: `near_boundary`. By loss: `hardest`, `harder_than`. By score:
  `uncertain`, and `uncertain_weighted`, which keeps the expectation.
- With given probabilities, corrected by weights: `importance`, of
  `class_probabilities` or `boundary_probabilities`.
- `valid_pixels` and `num_valid` tell what is not void.
- `capacity` says how many pixels a sampler keeps at most; `compact` lists the
  kept pixels (`PixelSample`). `Sampler` and `Probabilities` are the types.
"""

from fcn_jax.sampling import capacity
from fcn_jax.sampling.bernoulli import bernoulli
from fcn_jax.sampling.boundaries import boundary_probabilities
from fcn_jax.sampling.boundaries import importance
from fcn_jax.sampling.boundaries import near_boundary
from fcn_jax.sampling.classes import class_balanced
from fcn_jax.sampling.classes import class_counts
from fcn_jax.sampling.classes import class_probabilities
from fcn_jax.sampling.classes import class_weighted
from fcn_jax.sampling.classes import inverse_frequency_weights
from fcn_jax.sampling.classes import median_frequency_weights
from fcn_jax.sampling.compaction import PixelSample
from fcn_jax.sampling.compaction import compact
from fcn_jax.sampling.hard import harder_than
from fcn_jax.sampling.hard import hardest
from fcn_jax.sampling.places import Arrangement
from fcn_jax.sampling.places import places
from fcn_jax.sampling.sampler import Probabilities
from fcn_jax.sampling.sampler import Sampler
from fcn_jax.sampling.uncertainty import uncertain
from fcn_jax.sampling.uncertainty import uncertain_weighted
from fcn_jax.sampling.uniform import center_pixel
from fcn_jax.sampling.uniform import check_rate
from fcn_jax.sampling.uniform import fixed_count
from fcn_jax.sampling.uniform import fixed_count_in_batch
from fcn_jax.sampling.uniform import num_valid
from fcn_jax.sampling.uniform import one_per_square
from fcn_jax.sampling.uniform import valid_pixels
from fcn_jax.sampling.uniform import whole_image
from fcn_jax.sampling.units import Unit

__all__ = [
  "Arrangement",
  "PixelSample",
  "Probabilities",
  "Sampler",
  "Unit",
  "bernoulli",
  "boundary_probabilities",
  "capacity",
  "center_pixel",
  "check_rate",
  "class_balanced",
  "class_counts",
  "class_probabilities",
  "class_weighted",
  "compact",
  "fixed_count",
  "fixed_count_in_batch",
  "harder_than",
  "hardest",
  "importance",
  "inverse_frequency_weights",
  "median_frequency_weights",
  "near_boundary",
  "num_valid",
  "one_per_square",
  "places",
  "uncertain",
  "uncertain_weighted",
  "valid_pixels",
  "whole_image",
]
