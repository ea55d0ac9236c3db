"""Samplers that treat all pixels with a label alike."""

import functools
import numbers

import chex
import jax
import jax.numpy as jnp

from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.sampling import sampler as sampler_lib


def valid_pixels(labels: jax.Array) -> jax.Array:
  """Marks pixels that are not void.

  Args:
    labels: [N, H, W] int32.

  Returns:
    [N, H, W] float32, 0 where void, else 1.
  """
  return (labels != types.IGNORE_LABEL).astype(jnp.float32)


def num_valid(labels: jax.Array) -> jax.Array:
  """Number of pixels that are not void, [] int32, of labels [...] int32."""
  return jnp.sum(labels != types.IGNORE_LABEL, dtype=jnp.int32)


def num_valid_as_float(labels: jax.Array) -> jax.Array:
  """`num_valid` as float32, to be multiplied by an expected weight."""
  return num_valid(labels).astype(jnp.float32)


def whole_image() -> sampler_lib.Sampler:
  """Keeps every pixel that is not void: whole-image training."""
  return _WHOLE_IMAGE


_WHOLE_IMAGE = sampler_lib.Sampler(
  draw=lambda key, labels: valid_pixels(labels),
  expected_sum=num_valid_as_float,
  description="sampling.whole_image()",
)


@reprs.described
def center_pixel() -> sampler_lib.Sampler:
  """Keeps the pixel at the centre of each image: patchwise training.

  For patches, each of which then stands for one pixel, as in Ciresan et al.
  (NIPS 2012, section 2): the network classifies the centre by what surrounds
  it. That is pixel (H // 2, W // 2), around which `patches.balanced_patches`
  cuts. If it is void, the patch does not count.

  Returns:
    A sampler with weights 0 and 1.
  """
  return _CENTER_PIXEL


def _draw_center(key, labels):
  del key
  _, height, width = labels.shape
  rows, columns = jnp.arange(height), jnp.arange(width)
  is_center = (rows == height // 2)[:, None] & (columns == width // 2)[None]
  return valid_pixels(labels) * is_center[None].astype(jnp.float32)


_CENTER_PIXEL = sampler_lib.Sampler(
  draw=_draw_center,
  max_count=lambda shape: 1,
  expected_sum=lambda labels: jnp.sum(_draw_center(None, labels)),
  description="sampling.center_pixel()",
)


@reprs.described
def fixed_count(
  *, count: int | jax.Array, max_count: int | None = None
) -> sampler_lib.Sampler:
  """Keeps `count` pixels of each image, drawn without replacement.

  The number of terms is the same at each step; with `bernoulli` it varies. In
  an image of n valid pixels each of them has expected weight min(count / n, 1):
  images with much void weigh as much as others.

  Args:
    count: pixels to keep of each image; all, if it has fewer valid ones. With
      `max_count` it may be a traced int32, such as that of a schedule.
    max_count: the largest count; larger ones are lowered to it if they are
      traced. None for `count`.

  Returns:
    A sampler with weights 0 and 1.

  Raises:
    ValueError: if a count is not positive.
  """
  if max_count is None:
    check_integer("count", count)
    max_count = count
  check_integer("max_count", max_count)
  count = at_most(max_count, "count", count)
  return _of_count(count, max_count, in_batch=False)


@reprs.described
def fixed_count_in_batch(*, count: int) -> sampler_lib.Sampler:
  """Keeps `count` pixels of the batch, drawn without replacement.

  Like `fixed_count`, but for the whole batch: each of its n valid pixels has
  expected weight min(count / n, 1), so the expected sum of the sampled loss is
  that factor times the whole one. To find the pixels, several devices exchange
  counts, 33 times one after the other, which `fixed_count` avoids.
  """
  check_integer("count", count)
  return _of_count(count, count, in_batch=True)


def _of_count(count, most, *, in_batch):
  """Keeps `count` pixels of each image, or of the batch."""

  def draw(key, labels):
    chex.assert_rank(labels, 3)
    # The pixels with the largest random numbers are a draw without replacement;
    # 0 is reserved for void pixels.
    values = jnp.maximum(jax.random.bits(key, labels.shape, jnp.uint32), 1)
    values = jnp.where(labels != types.IGNORE_LABEL, values, 0)
    values = values.reshape(len(labels), -1)
    kept = largest(values, count=count, in_all_rows=in_batch)
    return kept.astype(jnp.float32).reshape(labels.shape)

  def expected_sum(labels):
    is_valid = labels != types.IGNORE_LABEL
    axes = (0, 1, 2) if in_batch else (1, 2)
    available = jnp.sum(is_valid, axis=axes, dtype=jnp.int32)
    return jnp.sum(jnp.minimum(available, count)).astype(jnp.float32)

  return sampler_lib.Sampler(draw, lambda shape: most, expected_sum)


@reprs.described
def one_per_square(*, side: int) -> sampler_lib.Sampler:
  """Keeps one random valid pixel of each square of `side` x `side` pixels.

  The kept pixel has the weight (valid pixels of its square) / side^2 and
  stands for these. Each valid pixel has expected weight 1 / side^2, as with
  `bernoulli` at that rate, but the pixels are spread evenly: neighbours, whose
  losses are similar, are seldom kept together. (Section 3.4 of the papers:
  spatial correlation in a batch.)

  Args:
    side: in pixels; squares are aligned to the top left of the image, and those
      at the bottom and right may be cut off.

  Returns:
    A sampler with weights in 0..1.

  Raises:
    ValueError: if `side` is not positive.
  """
  check_integer("side", side)

  def max_count(shape):
    return _num_squares(shape[1], side) * _num_squares(shape[2], side)

  return sampler_lib.Sampler(
    functools.partial(_draw_one_per_square, side=side),
    max_count,
    expected_sum=lambda labels: num_valid_as_float(labels) / side**2,
  )


def _draw_one_per_square(key, labels, *, side):
  chex.assert_rank(labels, 3)
  batch, height, width = labels.shape
  rows, columns = _num_squares(height, side), _num_squares(width, side)
  # Squares are void beyond the image.
  labels = jnp.pad(
    labels,
    ((0, 0), (0, rows * side - height), (0, columns * side - width)),
    constant_values=types.IGNORE_LABEL,
  )
  labels = labels.reshape(batch, rows, side, columns, side)
  labels = labels.transpose(0, 1, 3, 2, 4).reshape(batch, rows, columns, -1)
  valid = labels != types.IGNORE_LABEL
  # Numbered 1, 2, ... in each square, the valid pixels are drawn by number.
  number = jnp.cumsum(valid, axis=-1, dtype=jnp.int32)
  num_in_square = number[..., -1:]
  drawn = 1 + jax.random.randint(
    key, num_in_square.shape, 0, num_in_square, jnp.int32
  )
  share = num_in_square.astype(jnp.float32) / side**2
  weights = jnp.where(valid & (number == drawn), share, 0.0)
  weights = weights.reshape(batch, rows, columns, side, side)
  weights = weights.transpose(0, 1, 3, 2, 4)
  weights = weights.reshape(batch, rows * side, columns * side)
  return weights[:, :height, :width]


def independently(
  probabilities: sampler_lib.Probabilities,
) -> sampler_lib.Sampler:
  """A sampler that draws each pixel with its own probability."""
  return sampler_lib.Sampler(
    draw=lambda key, labels: independent(key, probabilities.of(labels)),
    max_count=probabilities.max_count,
    expected_sum=lambda labels: jnp.sum(probabilities.of(labels)),
  )


def independent(key: jax.Array, probabilities: jax.Array) -> jax.Array:
  """Draws each pixel independently, with its own probability.

  Args:
    key: random key.
    probabilities: [N, H, W] float32 in 0..1.

  Returns:
    [N, H, W] float32: 1 with that probability, else 0; NaN where it is NaN, so
    that a wrong label shows in the loss.
  """
  kept = jax.random.bernoulli(key, probabilities).astype(jnp.float32)
  return jnp.where(jnp.isnan(probabilities), probabilities, kept)


def ordered_bits(values: jax.Array) -> jax.Array:
  """Numbers for `largest`, in the order of float32 values that are not NaN.

  The sign bit of positive values is set, and all bits of negative ones are
  inverted. Only NaN can become 0.
  """
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  sign = jnp.uint32(1 << 31)
  return jnp.where(bits < sign, bits | sign, ~bits)


# Compiled: outside `jax.jit`, a loop is compiled anew at each call.
@functools.partial(jax.jit, static_argnames="in_all_rows")
def largest(
  values: jax.Array, *, count: int | jax.Array, in_all_rows: bool = False
) -> jax.Array:
  """Marks the largest values of each row, or of all rows together.

  Finds the smallest kept value bit by bit, by counting the values that are not
  below it: 32 passes, whatever `count` is. For images of 512 x 512 on a CPU
  this is as fast as `jax.lax.top_k` of 4,000 values and three times as fast as
  that of 30,000; sorting is slower than both.

  Args:
    values: [R, M] uint32; 0 is never marked.
    count: how many to mark; or [R, 1] int32, how many of each row.
    in_all_rows: whether to mark so many of all rows, not of each.

  Returns:
    [R, M] bool with min(count, values other than 0) marks in each row, or in
    all; of equal values the first ones.
  """

  def num_of(is_counted):
    axes = (0, 1) if in_all_rows else 1
    return jnp.sum(is_counted, axis=axes, keepdims=True, dtype=jnp.int32)

  one = jnp.ones((), jnp.uint32)

  def set_bit(bit: jax.Array, threshold: jax.Array) -> jax.Array:
    raised = threshold | (one << (31 - bit).astype(jnp.uint32))
    return jnp.where(num_of(values >= raised) >= count, raised, threshold)

  num_thresholds = 1 if in_all_rows else len(values)
  start = jnp.zeros_like(values, shape=(num_thresholds, 1))
  threshold = jax.lax.fori_loop(0, 32, set_bit, start)
  above = values > threshold
  num_missing = count - num_of(above)
  equal = (values == threshold) & (values > 0)
  number = jnp.cumsum(equal, axis=1, dtype=jnp.int32)
  if in_all_rows:
    # Those of the rows before come first.
    num_in_row = number[:, -1:]
    number += jnp.cumsum(num_in_row, axis=0) - num_in_row
  return above | (equal & (number <= num_missing))


def check_rate(rate: float) -> None:
  """Raises a `ValueError` unless `rate` is in (0, 1]."""
  if not 0.0 < rate <= 1.0:
    raise ValueError(
      f"the sampling rate is {rate}; it is the share of pixels kept, above 0 "
      "and at most 1."
    )


def at_most(
  most: float, name: str, number: float | jax.Array
) -> float | jax.Array:
  """The number; a traced one that is larger than `most` is lowered to it.

  Raises:
    ValueError: if a number that is not traced is larger.
  """
  if isinstance(number, jax.Array):
    return jnp.minimum(number, most)
  if number > most:
    raise ValueError(f"{name} is {number}, above max_{name}, {most}.")
  return number


def check_integer(name: str, number: int, *, least: int = 1) -> None:
  """Raises a `ValueError` unless `number` is an integer of at least `least`."""
  if not isinstance(number, numbers.Integral) or number < least:
    raise ValueError(f"{name} is {number}; give an integer, {least} or more.")


def _num_squares(length: int, side: int) -> int:
  """How many squares of a side cover a length; the last may be cut off."""
  return -(-length // side)
