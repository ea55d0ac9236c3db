"""Samplers of the pixels where the network hesitates between two classes.

PointRend (Kirillov et al., CVPR 2020, section 3.1) and Mask2Former train on
such points. The uncertainty is that of the scores, so these samplers need the
score map; they interpolate it at candidates only.
"""

import math

import chex
import jax
import jax.numpy as jnp

from fcn_jax import blocks as blocks_lib
from fcn_jax import interpolation
from fcn_jax import platforms
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.sampling import capacity
from fcn_jax.sampling import compaction
from fcn_jax.sampling import sampler as sampler_lib
from fcn_jax.sampling import uniform
from fcn_jax.sampling import units

# Bytes of the scores that are gathered at once.
_CPU_BYTES = 2**21
_ACCELERATOR_BYTES = 2**27


@reprs.described
def uncertain(
  *,
  count: int,
  oversample: float = 3.0,
  importance: float = 0.75,
  unit: units.Unit = "pixel",
) -> sampler_lib.Sampler:
  """Keeps the most uncertain of some random pixels, and others at random.

  Of `oversample * count` candidates, drawn without replacement, those are kept
  whose two best classes have the most similar scores: `importance * count`. The
  rest of the count is drawn from all other pixels. What this keeps does not
  estimate the whole loss; `uncertain_weighted` does. Of equal differences, the
  first from the top left count. This is for classes that exclude each other.

  Args:
    count: pixels to keep of each image; all, if it has fewer valid ones.
    oversample: candidates for each kept pixel, 1 or more.
    importance: share of the count that is kept for its uncertainty, in 0..1.
    unit: "pixel", or "block": as many blocks as have `count` pixels, each with
      the uncertainty of its centre. No score is gathered for them. Void pixels
      of a kept block do not count.

  Returns:
    A sampler with weights 0 and 1, which needs the score map.

  Raises:
    ValueError: if an argument is out of its range.
  """
  _check(count, oversample, importance)
  units.check(unit)
  chosen = (count, oversample, importance)
  return _of_blocks(*chosen) if unit == "block" else _of_pixels(*chosen)


@reprs.described
def uncertain_weighted(
  *, count: int, oversample: float = 3.0, importance: float = 0.75
) -> sampler_lib.Sampler:
  """Keeps uncertain pixels more often, and corrects for that by weights.

  A pixel is uncertain if the scores of its two best classes are more similar
  than those of most cells of its score map; the share of uncertain cells is
  `importance / oversample`. Pixels are kept independently, with a probability q
  that is `oversample / (1 - importance) + 1` times as large for uncertain ones,
  and weight 1 / q: the expected weight of each valid pixel is 1, and the
  expected sum of the sampled loss the whole sum.

  Args:
    count: pixels to keep of each image, about.
    oversample: see `uncertain`.
    importance: share of the count that is kept for its uncertainty, in 0..1,
      below 1.

  Returns:
    A sampler with weights 0 and 1 / q, which needs the score map.

  Raises:
    ValueError: if an argument is out of its range.
  """
  _check(count, oversample, importance)
  if importance == 1:
    raise ValueError(
      "importance is 1; it must be below 1, as no weight makes up for pixels "
      "that are never kept."
    )

  def draw(key, labels, *, score_map):
    score_map = jax.lax.stop_gradient(score_map)
    num_images = len(labels)
    is_valid = (labels != types.IGNORE_LABEL).reshape(num_images, -1)
    num_valid = jnp.sum(is_valid, axis=1, keepdims=True, dtype=jnp.int32)
    rate = count / jnp.maximum(num_valid, 1).astype(jnp.float32)
    # Rounded up to the steps of random numbers, see `importance`.
    of_all = _in_steps(rate * (1 - importance))
    of_uncertain = _in_steps(rate * (1 - importance + oversample))
    number = jax.random.uniform(key, is_valid.shape, jnp.float32)
    is_candidate = is_valid & (number < of_uncertain)
    candidates = compaction.compact(
      is_candidate.astype(jnp.float32).reshape(labels.shape),
      capacity=max_count(labels.shape),
    )
    threshold = jnp.quantile(
      margins(score_map.scores).reshape(num_images, -1),
      importance / oversample,
      axis=1,
      keepdims=True,
    )
    is_uncertain = _margins_at(score_map, candidates.indices) <= threshold
    is_uncertain = is_uncertain & (candidates.weights > 0)
    marked = _mark(is_valid, candidates.indices, is_uncertain)
    weights = jnp.where(number < of_all, 1 / of_all, 0)
    weights = jnp.where(marked, 1 / of_uncertain, weights)
    return jnp.where(is_valid, weights, 0).reshape(labels.shape)

  def max_count(shape):
    num_pixels = shape[1] * shape[2]
    # That of the candidates; images with few valid pixels have fewer.
    return capacity.tail_bound(
      min(num_pixels, count * (1 - importance + oversample)),
      num_draws=num_pixels,
      num_images=shape[0],
    )

  return sampler_lib.Sampler(
    draw, max_count, uniform.num_valid_as_float, needs=("score_map",)
  )


def margins(scores: jax.Array) -> jax.Array:
  """How much the best class is ahead of the second.

  Args:
    scores: [..., C].

  Returns:
    [...], 0 where two classes share the best score.

  Raises:
    ValueError: if there is one class only.
  """
  if scores.shape[-1] < 2:
    raise ValueError(
      "uncertain pixels are those with similar scores of two classes, but the "
      "network has one class: use another sampler, or two classes."
    )
  best = jnp.max(scores, axis=-1)
  is_best = scores == best[..., None]
  others = jnp.max(jnp.where(is_best, -jnp.inf, scores), axis=-1)
  num_best = jnp.sum(is_best, axis=-1, dtype=jnp.int32)
  return jnp.where(num_best > 1, 0, best - others)


def _of_pixels(count, oversample, importance):
  def draw(key, labels, *, score_map):
    chex.assert_rank(labels, 3)
    is_valid = (labels != types.IGNORE_LABEL).reshape(len(labels), -1)
    num_pixels = is_valid.shape[1]
    candidate_key, rest_key = jax.random.split(key)
    num_candidates = min(round(oversample * count), num_pixels)
    is_candidate = _draw(candidate_key, is_valid, num_candidates)
    candidates = compaction.compact(
      is_candidate.astype(jnp.float32).reshape(labels.shape),
      capacity=num_candidates,
    )
    score_map = jax.lax.stop_gradient(score_map)
    margin = _margins_at(score_map, candidates.indices)
    chosen = _least(
      margin, candidates.weights > 0, count=int(importance * count)
    )
    chosen = _mark(is_valid, candidates.indices, chosen)
    num_chosen = jnp.sum(chosen, axis=1, keepdims=True, dtype=jnp.int32)
    rest = _draw(rest_key, is_valid & ~chosen, count - num_chosen)
    return (chosen | rest).astype(jnp.float32).reshape(labels.shape)

  return sampler_lib.Sampler(draw, lambda shape: count, needs=("score_map",))


def _of_blocks(count, oversample, importance):
  def num_blocks(stride):
    return max(1, round(count / stride**2))

  def blocks(key, shape, *, score_map):
    number = num_blocks(score_map.stride)
    candidate_key, rest_key = jax.random.split(key)
    every = jnp.ones((shape[0], shape[1] * shape[2]), bool)
    num_candidates = min(round(oversample * number), every.shape[1])
    is_candidate = _draw(candidate_key, every, num_candidates)
    cells = upsampling.covering_map(jax.lax.stop_gradient(score_map))
    # The mean of the pixels of a block.
    grid = score_map.grid
    share = jnp.mean(interpolation.fractions_between(*grid, cells.dtype))
    rows = (1 - share) * cells[:, :-1] + share * cells[:, 1:]
    centres = (1 - share) * rows[:, :, :-1] + share * rows[:, :, 1:]
    margin = margins(centres).reshape(every.shape)
    chosen = _least(margin, is_candidate, count=math.ceil(importance * number))
    num_chosen = jnp.sum(chosen, axis=1, keepdims=True, dtype=jnp.int32)
    rest = _draw(rest_key, ~chosen, number - num_chosen)
    return (chosen | rest).reshape(shape)

  def draw(key, labels, *, score_map, grid=None):
    del grid  # The score map has it.
    shape = blocks_lib.shape(score_map.grid, labels.shape[1:])
    kept = blocks(key, (len(labels), *shape), score_map=score_map)
    return units.weights_of_blocks(kept, labels, score_map.grid)

  def max_count(shape, *, grid):
    del shape
    return num_blocks(grid.stride) * grid.stride**2

  return sampler_lib.Sampler(
    draw, max_count, needs=("grid", "score_map"), blocks=blocks
  )


def _draw(key, is_valid, count):
  """Marks `count` of the valid entries of each row, at random."""
  values = jnp.maximum(jax.random.bits(key, is_valid.shape, jnp.uint32), 1)
  return uniform.largest(jnp.where(is_valid, values, 0), count=count)


def _least(margin, is_candidate, *, count):
  """Marks the candidates with the least margins; NaN counts as the least."""
  margin = jnp.where(jnp.isnan(margin), -jnp.inf, margin)
  values = uniform.ordered_bits(-margin.astype(jnp.float32))
  return uniform.largest(jnp.where(is_candidate, values, 0), count=count)


def _mark(array, indices, is_marked):
  """Rows of an array's shape, true at the marked of the [N, K] indices."""
  length = array.shape[1]
  indices = jnp.where(is_marked, indices, length)
  mark = jax.vmap(
    lambda where: jnp.zeros(length, bool).at[where].set(True, mode="drop")
  )
  return mark(indices)


def _margins_at(score_map, indices):
  """Margins at pixels, [N, K], chunk by chunk."""
  number = indices.shape[1]
  scores = score_map.scores
  pixel_bytes = 4 * len(scores) * scores.shape[-1] * scores.dtype.itemsize

  def compute(num_bytes, score_map, indices):
    size = max(1, min(number, num_bytes // pixel_bytes))
    chunks = jnp.pad(indices, [(0, 0), (0, -number % size)])
    chunks = chunks.reshape(len(indices), -1, size).swapaxes(0, 1)
    of_chunks = jax.lax.map(
      lambda chunk: margins(upsampling.at_pixels(score_map, chunk)), chunks
    )
    return of_chunks.swapaxes(0, 1).reshape(len(indices), -1)[:, :number]

  return platforms.dependent(
    score_map,
    indices,
    cpu=lambda *arrays: compute(_CPU_BYTES, *arrays),
    default=lambda *arrays: compute(_ACCELERATOR_BYTES, *arrays),
  )


def _in_steps(probability):
  return jnp.ceil(jnp.minimum(probability, 1.0) * 2**23) / 2**23


def _check(count, oversample, importance):
  uniform.check_integer("count", count)
  if not oversample >= 1:
    raise ValueError(f"oversample is {oversample}; it must be 1 or more.")
  if not 0 <= importance <= 1:
    raise ValueError(f"importance is {importance}; it must be in 0..1.")
