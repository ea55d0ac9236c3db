"""Tiles that overlap by half, averaged with Gaussian weights.

The usual alternative to exact tiles, from nnU-Net (Isensee et al. 2021, Nature
Methods 18, "Inference"). The network sees nothing around a tile, so its
probabilities are worst at the borders of the tile. Hence tiles overlap by half,
and each pixel takes the mean of their probabilities, weighted by a Gaussian
about the centre of each tile, with an eighth of the tile as its standard
deviation.

The Gaussian is a product of one in rows and one in columns, and so are the
sums by which it is divided: all weights are arithmetic along one axis.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from fcn_jax import models
from fcn_jax.inference import replicas as replicas_lib
from fcn_jax.inference import tiling_plan

# Standard deviation of the Gaussian over the side of a tile.
SIGMA = 1 / 8


def shares(parts: Sequence[slice]) -> list[np.ndarray]:
  """The share of each tile in the mean at each of its pixels, along one axis.

  Args:
    parts: the pixels of each tile; all have the same number, T.

  Returns:
    For each tile [T] float64, above 0; at each pixel they sum to 1.
  """
  length = parts[0].stop - parts[0].start
  distances = np.arange(length) - (length - 1) / 2
  # At least exp(-8): no pixel is left without weight.
  gaussian = np.exp(-((distances / (SIGMA * length)) ** 2) / 2)
  total = np.zeros(parts[-1].stop)
  for part in parts:
    total[part] += gaussian
  return [gaussian / total[part] for part in parts]


def bands(
  plan: tiling_plan.Plan,
  replicas: Sequence[tiling_plan.Prepared],
  progress: Callable[
    [Sequence[tiling_plan.Window]], Iterable[tiling_plan.Window]
  ],
) -> Iterator[tuple[tiling_plan.Window, np.ndarray]]:
  """Predicts a picture in bands from the top to the bottom.

  Holds the probabilities of one row of tiles, [T, W, C] float32.

  Args:
    plan: for blending "gaussian".
    replicas: what `plan.prepared` gives, on each device.
    progress: wraps the list of tiles.

  Yields:
    The pixels of each band, and their probabilities [h, W, C] float32, which
    are overwritten afterwards.
  """
  height, width = plan.views[0].native_size
  rows, columns = plan.parts(plan.whole)
  row_shares, column_shares = shares(rows), shares(columns)
  # No later tile reaches the pixels above the next row of tiles.
  stops = [*(part.start for part in rows[1:]), height]
  num_classes = models.heads.num_classes(plan.model)
  band = np.zeros((plan.tile[0], width, num_classes), np.float32)
  predicted = replicas_lib.in_order(
    plan.probabilities, replicas, progress(plan.windows(plan.whole))
  )
  for number, (window, found) in enumerate(predicted):
    row, column = divmod(number, len(columns))
    weights = np.outer(row_shares[row], column_shares[column])
    band[:, window[1]] += weights[..., None].astype(np.float32) * found
    if column + 1 < len(columns):
      continue
    top, stop = rows[row].start, stops[row]
    done = stop - top
    yield (slice(top, stop), slice(0, width)), band[:done]
    band[:-done] = band[done:]
    band[-done:] = 0
