"""Independent draws of blocks or pixels, at one rate."""

import chex
import jax
import jax.numpy as jnp

from fcn_jax import blocks as blocks_lib
from fcn_jax import platforms
from fcn_jax import reprs
from fcn_jax.sampling import capacity
from fcn_jax.sampling import sampler as sampler_lib
from fcn_jax.sampling import uniform
from fcn_jax.sampling import units


@reprs.described
def bernoulli(
  *,
  rate: float | jax.Array,
  unit: units.Unit = "block",
  max_rate: float | None = None,
) -> sampler_lib.Sampler:
  """Keeps each block, or each pixel, with a probability.

  Dropping blocks, the pixels between four cells of the score map, is the
  sampling of the papers' experiment (Figure 5), which draws once for each cell
  of the final layer. Each pixel has expected weight `rate` (0 where void), so
  the expected sum of the sampled loss is `rate` times the whole one.

  Args:
    rate: probability in (0, 1] of keeping a block or pixel. With `max_rate` it
      may be a traced scalar, such as that of a schedule: another rate is then
      no new program.
    unit: "block": the pixels of a block are kept or dropped together; blocks at
      the borders are cut off. Its `draw` needs a grid. "pixel": all pixels are
      drawn independently.
    max_rate: the highest rate, from which arrays get their sizes; higher ones
      are lowered to it if they are traced. None for `rate`.

  Returns:
    A sampler with weights 0 and 1.

  Raises:
    ValueError: if a rate is not in (0, 1], or `unit` is unknown.
  """
  units.check(unit)
  if max_rate is None:
    uniform.check_rate(rate)
    rate = max_rate = float(rate)
  uniform.check_rate(max_rate)
  rate = uniform.at_most(max_rate, "rate", rate)
  make = _of_blocks if unit == "block" else _of_pixels
  return make(rate, max_rate)


def _of_blocks(rate, max_rate) -> sampler_lib.Sampler:
  def blocks(key, shape):
    return jax.random.bernoulli(key, rate, shape)

  def draw(key, labels, *, grid=None):
    chex.assert_rank(labels, 3)
    grid = sampler_lib.check_grid(grid)
    shape = len(labels), *blocks_lib.shape(grid, labels.shape[1:])
    return units.weights_of_blocks(blocks(key, shape), labels, grid)

  def max_count(shape, *, grid=None):
    grid = sampler_lib.check_grid(grid)
    rows, columns = blocks_lib.shape(grid, shape[1:])
    most = capacity.tail_bound(
      max_rate * rows * columns, num_draws=rows * columns, num_images=shape[0]
    )
    return most * grid.stride**2

  def expected_sum(labels, *, grid=None):
    del grid  # It does not matter which pixels share a block.
    return rate * uniform.num_valid_as_float(labels)

  return sampler_lib.Sampler(
    draw, max_count, expected_sum, needs=("grid",), blocks=blocks
  )


# Up to this rate it is faster on a CPU to draw the gaps between the kept
# pixels: 2 ms instead of 12 at a rate of 0.05 and 4 x 512 x 512 pixels.
_GAPS_RATE = 0.25


def _of_pixels(rate, max_rate) -> sampler_lib.Sampler:
  def draw(key, labels):
    chex.assert_rank(labels, 3)
    rows = len(labels), labels[0].size

    def each(key):
      return jax.random.bernoulli(key, rate, rows)

    if isinstance(rate, float) and rate <= _GAPS_RATE:
      # On accelerators the gaps would need a slow sort and scatter. The mask of
      # a key is then another one than on a CPU.
      kept = platforms.dependent(
        key, cpu=lambda key: _kept_after_gaps(key, rate, *rows), default=each
      )
    else:
      kept = each(key)
    return jnp.where(
      kept.reshape(labels.shape), uniform.valid_pixels(labels), 0
    )

  def max_count(shape):
    num_pixels = shape[1] * shape[2]
    return capacity.tail_bound(
      max_rate * num_pixels, num_draws=num_pixels, num_images=shape[0]
    )

  return sampler_lib.Sampler(
    draw,
    max_count,
    expected_sum=lambda labels: rate * uniform.num_valid_as_float(labels),
  )


def _kept_after_gaps(
  key: jax.Array, rate: float, num_rows: int, length: int
) -> jax.Array:
  """Independent draws at a low rate, [num_rows, length] bool.

  The gaps between successes of independent trials are geometric, so only
  successes need random numbers, not all trials. Less than once in 1e9 calls the
  gaps end before a row does.
  """
  count = capacity.tail_bound(
    rate * length, num_draws=length, num_images=num_rows
  )
  gaps = jax.random.geometric(key, rate, (num_rows, count + 1), jnp.int32)
  # A gap beyond the row ends it; clipped, sums of gaps do not overflow.
  positions = jnp.cumsum(jnp.minimum(gaps, length + 1), axis=1) - 1
  mark = jax.vmap(
    lambda kept: jnp.zeros(length, bool).at[kept].set(True, mode="drop")
  )
  return mark(positions)
