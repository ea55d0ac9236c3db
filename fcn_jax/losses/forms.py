"""The forms in which the loss of a score map can be computed.

Each is a function of a `Problem`, the `Device` that the program is for, a score
map, labels [N, H, W] and a random key, and returns `Sums` and the gradient of
`Sums.loss_sum` with respect to the scores.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fcn_jax import blocks as blocks_lib
from fcn_jax import label_bytes
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import gradients
from fcn_jax.losses import listed_blocks
from fcn_jax.losses import listed_pixels
from fcn_jax.losses import normalization
from fcn_jax.losses import pixel_losses
from fcn_jax.losses import places as places_lib
from fcn_jax.losses import region_losses
from fcn_jax.losses import rows as rows_lib
from fcn_jax.losses import strips as strips_lib


class Problem(NamedTuple):
  """What is to be computed.

  Attributes:
    loss: the loss of a pixel, or that of regions.
    sampler: which pixels count.
    capacity: the length of lists of pixels; None asks the sampler.
    row_shards: how many devices share the rows of an image.
  """

  loss: pixel_losses.PixelLoss | region_losses.RegionLoss
  sampler: sampling.Sampler
  capacity: int | None
  row_shards: int = 1


class Device(NamedTuple):
  """How the forms are computed on a kind of device.

  Attributes:
    strip_bytes: bytes of the logits of a strip.
    band_bytes: the same for places.
    block_bytes: the same for a chunk of blocks.
    pixel_bytes: bytes of the scores gathered for a chunk of pixels.
    blocks_by_product: whether blocks are interpolated by a matrix product.
    gathers: whether it is fast at indexing.
  """

  strip_bytes: int
  band_bytes: int
  block_bytes: int
  pixel_bytes: int
  blocks_by_product: bool
  gathers: bool


class Sums(NamedTuple):
  """Sums over the pixels of a batch, see `LossTerms`."""

  loss_sum: jax.Array
  num_kept: jax.Array
  num_dropped: jax.Array


class _Counts(NamedTuple):
  """See `Sums`."""

  num_kept: jax.Array
  num_dropped: jax.Array


def sums_of_logits(problem, score_map, labels, key) -> Sums:
  """The definition, from the logits of all pixels."""
  weights = _draw(problem, score_map, labels, key)
  logits = jnp.swapaxes(upsampling.to_pixels(score_map), 2, 3)
  counts = _counts(labels, weights)

  def sums_of(values):
    weighted = pixel_losses.weighted_values(values, logits, labels, weights)
    return jax.tree.map(gradients.sum_over_pixels, weighted)

  if isinstance(problem.loss, region_losses.RegionLoss):
    loss = problem.loss.of_sums(sums_of(problem.loss.values))
    return Sums(loss * counts.num_kept.astype(loss.dtype), *counts)
  sums = sums_of(pixel_losses.with_axis(problem.loss))
  return Sums(jnp.sum(sums), *counts)


def logits(problem, device, score_map, labels, key):
  """As `sums_of_logits`."""
  del device

  def sum_of(score_map):
    sums = sums_of_logits(problem, score_map, labels, key)
    return sums.loss_sum, sums

  gradient, sums = jax.grad(sum_of, has_aux=True)(score_map)
  return sums, gradient


def strips(problem, device, score_map, labels, key):
  """All pixels, in strips."""
  weights = None
  labels = _in_bytes(score_map, labels)
  if problem.sampler.blocks is not None:
    # Their weights are 0 and 1: labels can tell.
    kept = blocks_lib.spread(
      score_map.grid, _draw_blocks(problem, score_map, key), labels.shape[1:]
    )
    labels = jnp.where(kept, labels, types.IGNORE_LABEL)
  elif not _is_whole_image(problem):
    weights = _draw(problem, score_map, labels, key)

  number = problem.row_shards
  parts, from_parts = jax.vjp(
    lambda score_map: rows_lib.split_map(score_map, number), score_map
  )
  arrays = [
    None if array is None else rows_lib.split(array, number)
    for array in (labels, weights)
  ]

  def sweep(function):
    sums, gradient = strips_lib.value_and_gradient(
      function, parts, *arrays, strip_bytes=device.strip_bytes // number
    )
    (gradient,) = from_parts(gradient)
    sums = jax.tree.map(lambda s: rows_lib.sum_of_parts(s, number), sums)
    return sums, gradient

  return _solve(problem, sweep, _counts(labels, weights))


def blocks(problem, device, score_map, labels, key):
  """The blocks that hold a kept pixel, or all of them."""
  list_them = _all_blocks if _is_whole_image(problem) else _kept_blocks
  listed = list_them(problem, score_map, labels, key)

  def sweep(function):
    return listed_blocks.value_and_gradient(
      function,
      score_map,
      listed.indices,
      listed.num_used,
      listed.arrays,
      chunk_bytes=device.block_bytes,
      by_product=device.blocks_by_product,
    )

  return _solve(problem, sweep, listed.counts)


def places(problem, device, score_map, labels, key):
  """The same places in all blocks."""
  chosen = problem.sampler.places(key, len(labels), score_map.stride)
  chosen = jnp.broadcast_to(chosen, (len(labels), chosen.shape[1]))
  listed = places_lib.take(
    score_map,
    _in_bytes(score_map, labels),
    chosen,
    fill=types.IGNORE_LABEL,
    by_product=not device.gathers,
  )

  def sweep(function):
    return places_lib.value_and_gradient(
      function,
      score_map,
      chosen,
      listed,
      band_bytes=device.band_bytes,
      by_product=device.blocks_by_product,
    )

  return _solve(problem, sweep, _counts(listed))


def pixels(problem, device, score_map, labels, key):
  """A list of the kept pixels."""
  sample, listed = listed_sample(problem, score_map, labels, key)

  def sweep(function):
    return listed_pixels.value_and_gradient(
      function,
      score_map,
      sample.indices,
      jnp.max(sample.num_used),
      (listed, sample.weights),
      chunk_bytes=device.pixel_bytes,
    )

  counts = _counts(listed, sample.weights)
  return _solve(problem, sweep, counts._replace(num_dropped=sample.num_dropped))


def listed_sample(
  problem: Problem, score_map: types.ScoreMap, labels: jax.Array, key: jax.Array
) -> tuple[sampling.PixelSample, jax.Array]:
  """The list of the kept pixels, and their labels [N, K]."""
  weights = _draw(problem, score_map, labels, key)
  capacity = num_pixels(problem, score_map) or weights[0].size
  sample = sampling.compact(weights, capacity=capacity)
  flat = labels.reshape(len(labels), -1)
  return sample, jnp.take_along_axis(flat, sample.indices, axis=1)


def _solve(problem, sweep, counts):
  """The sums of a loss and their gradient, from one sweep or from two.

  A loss of regions is a function of sums. Its gradient is that of the sum of
  the same values, each times the derivative of the loss by its sum.

  Args:
    problem: what to compute.
    sweep: from a function of logits, labels and perhaps weights to its sums
      over the sampled pixels, and the gradient of the sum of all.
    counts: of the sampled pixels.
  """

  def weighted(values):
    return functools.partial(pixel_losses.weighted_values, values)

  loss = problem.loss
  if not isinstance(loss, region_losses.RegionLoss):
    sums, gradient = sweep(weighted(pixel_losses.with_axis(loss)))
    return Sums(jnp.sum(sums), *counts), gradient
  # Nothing needs this gradient, so it is not computed.
  sums, _ = sweep(weighted(loss.values))

  def sum_of(sums):
    value = loss.of_sums(sums)
    return value * counts.num_kept.astype(value.dtype)

  loss_sum, slopes = jax.value_and_grad(sum_of)(sums)
  slopes = jax.tree.map(
    lambda s: rows_lib.of_parts(s, problem.row_shards), slopes
  )
  _, gradient = sweep(weighted(region_losses.linear(loss.values, slopes)))
  return Sums(loss_sum, *counts), gradient


class _Blocks(NamedTuple):
  """Blocks as `listed_blocks` takes them, and counts of their pixels."""

  indices: jax.Array
  num_used: jax.Array
  arrays: tuple[jax.Array, ...]
  counts: _Counts


def _all_blocks(problem, score_map, labels, key) -> _Blocks:
  del problem, key
  rows, columns = blocks_lib.shape(score_map.grid, score_map.image_size)
  indices = jnp.arange(rows * columns, dtype=jnp.int32)
  return _Blocks(
    indices=jnp.broadcast_to(indices, (len(labels), rows * columns)),
    num_used=jnp.full(len(labels), rows * columns, jnp.int32),
    arrays=(_labels_in_blocks(score_map, labels),),
    counts=_counts(labels),
  )


def _kept_blocks(problem, score_map, labels, key) -> _Blocks:
  arrays = (_labels_in_blocks(score_map, labels),)
  counts_as = arrays[0] != types.IGNORE_LABEL
  if problem.sampler.blocks is not None:
    is_listed = _draw_blocks(problem, score_map, key)
  else:
    shape = blocks_lib.shape(score_map.grid, score_map.image_size)
    weights = _draw(problem, score_map, labels, key)
    arrays += (blocks_lib.split(score_map.grid, weights, fill=0),)
    counts_as = counts_as & (arrays[1] != 0)
    is_listed = jnp.any(counts_as, axis=2).reshape(-1, *shape)
  listed = sampling.compact(
    is_listed.astype(jnp.float32), capacity=num_blocks(problem, score_map)
  )
  counts = jnp.sum(counts_as, axis=2, dtype=jnp.int32)
  sampled = jnp.where(is_listed.reshape(counts.shape), counts, 0)
  in_list = jnp.take_along_axis(counts, listed.indices, axis=1)
  in_list = jnp.where(listed.weights > 0, in_list, 0)
  num_kept = jnp.sum(in_list, dtype=jnp.int32)
  return _Blocks(
    indices=listed.indices,
    num_used=listed.num_used,
    arrays=arrays,
    counts=_Counts(
      num_kept=num_kept,
      num_dropped=jnp.sum(sampled, dtype=jnp.int32) - num_kept,
    ),
  )


def _draw_blocks(problem, score_map, key):
  """Which blocks are kept, [N, rows, columns] bool."""
  shape = blocks_lib.shape(score_map.grid, score_map.image_size)
  return problem.sampler.blocks(
    key, (len(score_map.scores), *shape), **_scores(problem.sampler, score_map)
  )


def _labels_in_blocks(score_map, labels):
  labels = _in_bytes(score_map, labels)
  return blocks_lib.split(score_map.grid, labels, fill=types.IGNORE_LABEL)


def known(sampler: sampling.Sampler, score_map: types.ScoreMap):
  """What all functions of a sampler take by keyword."""
  return {"grid": score_map.grid} if "grid" in sampler.needs else {}


def _scores(sampler, score_map):
  is_needed = "score_map" in sampler.needs
  return {"score_map": score_map} if is_needed else {}


def num_pixels(problem: Problem, score_map: types.ScoreMap) -> int | None:
  """Length of the list of pixels of an image; None if not known."""
  if problem.capacity is not None:
    return problem.capacity
  shape = len(score_map.scores), *score_map.image_size
  return sampling.capacity.of_sampler(
    problem.sampler, shape, **known(problem.sampler, score_map)
  )


def num_blocks(problem: Problem, score_map: types.ScoreMap) -> int:
  """Length of the list of blocks of an image."""
  sampler = problem.sampler
  shape = len(score_map.scores), *score_map.image_size
  rows, columns = blocks_lib.shape(score_map.grid, score_map.image_size)
  if sampler.max_count is None:
    return rows * columns
  most = sampler.max_count(shape, **known(sampler, score_map))
  if sampler.blocks is not None:
    most = -(-most // score_map.stride**2)
  return max(1, min(rows * columns, most))


def loss_map(
  score_map: types.ScoreMap,
  labels: jax.Array,
  pixel_loss: pixel_losses.PixelLoss = pixel_losses.cross_entropy,
) -> jax.Array:
  """The loss of every pixel, without gradient, for sampling hard examples.

  Args:
    score_map: scores [N, h, w, C].
    labels: [N, H, W] int32.
    pixel_loss: the loss of a pixel.

  Returns:
    [N, H, W] losses, 0 where void.
  """
  return strips_lib.map_strips(
    functools.partial(pixel_losses.weighted_losses, pixel_loss),
    jax.lax.stop_gradient(score_map),
    (labels,),
  )


def _is_whole_image(problem):
  return problem.sampler is sampling.whole_image()


def _draw(problem, score_map, labels, key):
  """Weights [N, H, W]; the losses are computed only if the sampler asks."""
  sampler = problem.sampler
  options = known(sampler, score_map) | _scores(sampler, score_map)
  if "pixel_losses" in sampler.needs:
    options["pixel_losses"] = loss_map(score_map, labels, problem.loss)
  weights = sampler.draw(key, labels, **options)
  chex.assert_equal_shape((labels, weights))
  return weights


def _in_bytes(score_map, labels):
  return label_bytes.in_bytes(labels, num_classes=score_map.scores.shape[-1])


def _counts(labels, weights=None):
  if weights is None:
    num_kept = sampling.num_valid(labels)
  else:
    num_kept = normalization.num_kept(labels, weights)
  return _Counts(num_kept, jnp.zeros((), jnp.int32))
