"""The same places in every block: pixels spread over the image."""

import functools
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import blocks
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.sampling import sampler as sampler_lib
from fcn_jax.sampling import uniform

Arrangement = Literal["even", "random"]


@reprs.described
def places(
  *, rate: float, arrangement: Arrangement = "even"
) -> sampler_lib.Sampler:
  """Keeps the pixels at the same places in all blocks of an image.

  This is systematic sampling (Cochran, Sampling Techniques, chapter 8): the
  kept pixels are spread over the image, so that few of them have neighbours
  like themselves. A block of stride x stride pixels has m = rate * stride^2
  places, rounded, so each valid pixel has expected weight m / stride^2. If
  rate * stride^2 is less than 1, the pattern repeats after the fewest blocks
  that have room for a place. At small strides the share of the pixels can
  differ much from the rate.

  Each image has places of its own. No list of pixels is needed: `losses.make`
  computes the logits of a place in all blocks from shifted score maps.

  Args:
    rate: share in (0, 1] of the pixels to keep.
    arrangement: "even": places far from one another, moved by a random number
      of pixels. "random": m different places at random.

  Returns:
    A sampler with weights 0 and 1. Its `draw` needs a grid.

  Raises:
    ValueError: if `rate` is not in (0, 1] or `arrangement` is unknown.
  """
  uniform.check_rate(rate)
  if arrangement not in get_args(Arrangement):
    raise ValueError(
      f"arrangement is {arrangement!r}; choose one of "
      f"{', '.join(get_args(Arrangement))}."
    )

  def of_side(key, num_images, side):
    """Places [N, m] in squares of `side` x `side` pixels."""
    number = _number(rate, side)
    choose = _move if arrangement == "even" else _shuffle
    keys = jax.random.split(key, num_images)
    return jax.vmap(lambda key: choose(key, number, side))(keys)

  def draw(key, labels, *, grid=None):
    chex.assert_rank(labels, 3)
    grid = sampler_lib.check_grid(grid)
    num_images, *image_size = labels.shape
    side = _period(rate, grid.stride)
    chosen = of_side(key, num_images, side)
    every = jnp.arange(side**2, dtype=jnp.int32).reshape(1, -1, 1)
    kept = jnp.any(every == chosen[:, None], axis=-1)
    squares = types.Grid(side, grid.offset)
    rows, columns = blocks.shape(squares, image_size)
    kept = jnp.broadcast_to(
      kept.reshape(num_images, 1, side, 1, side),
      (num_images, rows, side, columns, side),
    )
    kept = blocks.merge(squares, kept, image_size)
    return jnp.where(kept, uniform.valid_pixels(labels), 0.0)

  def max_count(shape, *, grid=None):
    side = _period(rate, sampler_lib.check_grid(grid).stride)
    rows, columns = blocks.shape(types.Grid(side, grid.offset), shape[1:])
    return rows * columns * _number(rate, side)

  def expected_sum(labels, *, grid=None):
    side = _period(rate, sampler_lib.check_grid(grid).stride)
    share = _number(rate, side) / side**2
    return share * uniform.num_valid_as_float(labels)

  def in_blocks(key, num_images, stride):
    if _period(rate, stride) > stride:
      return None
    return of_side(key, num_images, stride)

  return sampler_lib.Sampler(
    draw, max_count, expected_sum, needs=("grid",), places=in_blocks
  )


def _period(rate: float, stride: int) -> int:
  """Side of the square that repeats: the least with room for one place."""
  side = stride
  while rate * side**2 < 1 - 1e-9:
    side += stride
  return side


def _number(rate: float, side: int) -> int:
  """Number of places in a square."""
  return round(rate * side**2)


def _shuffle(key: jax.Array, number: int, side: int) -> jax.Array:
  """Different places at random, [number] int32."""
  every = jnp.arange(side**2, dtype=jnp.int32)
  return jax.random.permutation(key, every)[:number]


def _move(key: jax.Array, number: int, side: int) -> jax.Array:
  """Even places, moved at random in a square that repeats, [number] int32."""
  rows, columns = np.divmod(_even(number, side), side)
  down, right = jax.random.randint(key, (2,), 0, side, jnp.int32)
  rows = (jnp.asarray(rows, jnp.int32) + down) % side
  columns = (jnp.asarray(columns, jnp.int32) + right) % side
  return rows * side + columns


@functools.cache
def _even(number: int, side: int) -> np.ndarray:
  """Places far from one another in a square that repeats, [number].

  Each next place is where the sum of 1 / distance^2 to those before is least;
  for 4 of 8 x 8 places that makes a lattice of 4 x 4 pixels.
  """
  row, column = np.divmod(np.arange(side**2), side)
  row, column = np.minimum(row, side - row), np.minimum(column, side - column)
  distance = (row**2 + column**2).reshape(side, side)
  energy = np.zeros((side, side))
  chosen = []
  for _ in range(number):
    place = int(np.argmin(energy))
    chosen.append(place)
    with np.errstate(divide="ignore"):
      further = 1 / np.roll(distance, np.divmod(place, side), (0, 1))
    energy += further
  return np.array(chosen)
