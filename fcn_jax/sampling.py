"""Which pixels enter the loss, and with what weight.

"Patchwise training is loss sampling" (section 3.4 of both papers): to train
on a random subset of the patches of an image is to drop a random subset of
the terms of its loss. A sampler here is a pure function

    sampler(key, labels, ...) -> weights

from a random key and labels [N, H, W] (int32, `IGNORE_LABEL` = void) to
weights [N, H, W] float32. A weight of zero leaves the pixel out; void pixels
always have weight zero. Bind the options with `functools.partial` to hand a
sampler to `train.make_train_step`.
"""

import chex
import jax
import jax.numpy as jnp

from fcn_jax import types


def valid_pixels(labels: jax.Array) -> jax.Array:
  """Marks pixels with a truth.

  Args:
    labels: [N, H, W] int32.

  Returns:
    [N, H, W] float32, 0 where void, else 1.
  """
  return (labels != types.IGNORE_LABEL).astype(jnp.float32)


def whole_image(key: jax.Array | None, labels: jax.Array) -> jax.Array:
  """Keeps every pixel that is not void: whole-image training.

  Args:
    key: unused; here because all samplers have it.
    labels: [N, H, W] int32.

  Returns:
    [N, H, W] float32 weights, 0 where void, else 1.
  """
  del key
  return valid_pixels(labels)


def bernoulli(
  key: jax.Array, labels: jax.Array, *, rate: float, cell: int = 1
) -> jax.Array:
  """Keeps each cell of `cell` x `cell` pixels with probability `rate`.

  This is the sampling of the papers' experiment (Figure 5), which draws once
  for each cell of the final layer: `cell` is then the stride of the network.
  With `cell=1` every pixel is drawn by itself. Each pixel has expected weight
  `rate` (0 where void), so the expected sum of the sampled loss is `rate`
  times the whole one.

  Args:
    key: random key.
    labels: [N, H, W] int32.
    rate: probability in (0, 1] of keeping a cell.
    cell: side of a cell in pixels; cells are aligned to the top left of the
      image, and those at the bottom and right may be cut off.

  Returns:
    [N, H, W] float32 weights, 0 where void or dropped, else 1.

  Raises:
    ValueError: if `rate` is not in (0, 1] or `cell` is not positive.
  """
  check_rate(rate)
  if cell < 1:
    raise ValueError(f"cell is {cell}; a cell has at least 1 pixel a side.")
  chex.assert_rank(labels, 3)
  batch, height, width = labels.shape
  cells = (batch, -(-height // cell), -(-width // cell))
  kept = jax.random.bernoulli(key, rate, cells)
  if cell > 1:
    kept = jnp.repeat(jnp.repeat(kept, cell, axis=1), cell, axis=2)
    kept = kept[:, :height, :width]
  return jnp.where(kept, valid_pixels(labels), 0.0)


def check_rate(rate: float) -> None:
  """Raises a `ValueError` unless `rate` is in (0, 1]."""
  if not 0.0 < rate <= 1.0:
    raise ValueError(
      f"the sampling rate is {rate}; it is the share of pixels kept, above 0 "
      "and at most 1."
    )
