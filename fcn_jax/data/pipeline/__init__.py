"""From examples to batches on the device.

A source is anything with a length that can be indexed to get examples: objects
with the attributes `image` ([H, W, 3] uint8), `label` ([H, W] integers) and
`name`. `data.load(...).source` is one, and so is a list. Images may have other
channels or be float32, and labels may be of several kinds, [H, W, L]: see
`combining`.

- `train_batches`: shuffled, augmented batches (`Augmentation`, `Loading`);
- `eval_batches`: each example once, whole and in order;
- `fingerprint`: a hash of the training batches, to resume safely;
- `indices_of_batch`: which examples a training batch has;
- `shares_of`: which examples of each batch a process loads;
- `to_device`: copies batches to the device ahead of the step;
- `combining`: depth, HHA and further labels of a data set;
- `padding`: the sizes to which pictures are padded;
- `photometric`, `transforms`, `warping`: change one picture and its labels.
"""

from fcn_jax.data.pipeline import combining
from fcn_jax.data.pipeline import padding
from fcn_jax.data.pipeline import photometric
from fcn_jax.data.pipeline import transforms
from fcn_jax.data.pipeline import warping
from fcn_jax.data.pipeline.augmentation import Augmentation
from fcn_jax.data.pipeline.device import to_device
from fcn_jax.data.pipeline.evaluation_batches import eval_batches
from fcn_jax.data.pipeline.fingerprints import fingerprint
from fcn_jax.data.pipeline.loading import Loading
from fcn_jax.data.pipeline.loading import shares_of
from fcn_jax.data.pipeline.training_batches import indices_of_batch
from fcn_jax.data.pipeline.training_batches import train_batches

__all__ = [
  "Augmentation",
  "Loading",
  "combining",
  "eval_batches",
  "fingerprint",
  "indices_of_batch",
  "padding",
  "photometric",
  "shares_of",
  "to_device",
  "train_batches",
  "transforms",
  "warping",
]
