"""From a coarse score map to class scores of pixels.

The papers upsample with transposed convolutions whose kernels are fixed to
bilinear interpolation (section 3.3). They have nothing to learn, so here they
are a pure function outside the network: the score at image coordinate x is the
sum over cells i of tent(x / stride - offset / stride - i) times the score of
cell i, where tent(u) = max(0, 1 - |u|).
"""

import dataclasses
import fractions
import math

import chex
import jax
import jax.numpy as jnp

from fcn_jax import interpolation
from fcn_jax import types
from fcn_jax import valid_region


def to_pixels(score_map: types.ScoreMap) -> jax.Array:
  """Interpolates a score map at every pixel of the image.

  Equal to the transposed convolution and crop of the papers (CVPR 2015,
  section 3.3) where `edge` is "zero".

  Args:
    score_map: scores [N, h, w, C].

  Returns:
    [N, H, W, C] logits, in the dtype of the scores.
  """
  logits = score_map.scores
  for axis, size in zip((1, 2), score_map.image_size, strict=True):
    logits = interpolation.interpolate_axis(
      logits,
      axis=axis,
      factor=score_map.stride,
      offset=score_map.offset,
      size=size,
      edge=score_map.edge,
    )
  return logits


def at_pixels(score_map: types.ScoreMap, indices: jax.Array) -> jax.Array:
  """Interpolates a score map at some pixels only.

  Args:
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, pixels as row * W + column, inside the image.

  Returns:
    [N, K, C] logits, those that `to_pixels` has at these pixels.
  """
  cells, fractions = neighbours(score_map, indices)
  covering = covering_map(score_map)
  flat = covering.reshape(len(covering), -1, covering.shape[-1])
  return mix_neighbours(take_neighbours(flat, cells), fractions)


def covering_map(score_map: types.ScoreMap) -> jax.Array:
  """The cells that the pixels of the image need, [N, h', w', C].

  Cells outside the map follow its edge rule; cells that no pixel needs are left
  out.
  """
  cells = score_map.scores
  for axis, size in zip((1, 2), score_map.image_size, strict=True):
    first, last = interpolation.covering_cells(
      score_map.stride, score_map.offset, size
    )
    cells = interpolation.take_cells(
      cells, axis=axis, start=first, stop=last + 1, edge=score_map.edge
    )
  return cells


def neighbours(
  score_map: types.ScoreMap, indices: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The four cells around each of some pixels.

  Args:
    score_map: scores [N, h, w, C].
    indices: [N, K] int32, pixels as row * W + column.

  Returns:
    [N, K, 4] int32 cells of `covering_map`, counted row by row, and their
    shares in the pixel, [N, K, 4], in the dtype of the scores.
  """
  stride, offset = score_map.stride, score_map.offset
  # Offsets are multiples of one half, so twice of everything is an integer.
  chex.assert_equal(2 * offset, round(2 * offset))
  width = score_map.image_size[1]
  cells, fractions = [], []
  for coordinate, size in zip(
    (indices // width, indices % width), score_map.image_size, strict=True
  ):
    first, last = interpolation.covering_cells(stride, offset, size)
    twice = 2 * coordinate - round(2 * offset) - 2 * stride * first
    cells.append(twice // (2 * stride))
    fraction = (twice % (2 * stride)).astype(score_map.scores.dtype)
    fractions.append(fraction / (2 * stride))
  (row, column), (down, right) = cells, fractions
  num_columns = last - first + 1
  top_left = row * num_columns + column
  corners = (0, 1, num_columns, num_columns + 1)
  shares = (
    (1 - down) * (1 - right),
    (1 - down) * right,
    down * (1 - right),
    down * right,
  )
  return (
    jnp.stack([top_left + corner for corner in corners], axis=-1),
    jnp.stack(shares, axis=-1),
  )


def take_neighbours(cells: jax.Array, indices: jax.Array) -> jax.Array:
  """Scores [N, K, 4, C] at `indices` [N, K, 4] of `cells` [N, h' w', C]."""
  take = jax.vmap(lambda rows, i: rows.at[i].get(mode="promise_in_bounds"))
  return take(cells, indices)


def mix_neighbours(scores: jax.Array, fractions: jax.Array) -> jax.Array:
  """Sums [N, K, 4, C] scores times [N, K, 4] fractions to [N, K, C] logits."""
  return jnp.sum(scores * fractions[..., None], axis=2)


def add_skip(coarse: types.ScoreMap, skip: types.ScoreMap) -> types.ScoreMap:
  """Adds finer scores to coarser ones that are interpolated on the finer grid.

  Equal to the crop and sum of the released nets: the result has those cells of
  the skip that the upsampled coarse cells reach.

  Args:
    coarse: scores [N, h, w, C].
    skip: scores [N, h', w', C] of a stride that divides the coarse one.

  Returns:
    Score map on the grid of `skip`, perhaps without some of its outer cells.
  """
  chex.assert_equal(coarse.image_size, skip.image_size)
  chex.assert_is_divisible(coarse.stride, skip.stride)
  factor, offset, start = skip_grid(coarse, skip)
  upsampled, cropped = coarse.scores, skip.scores
  for axis in (1, 2):
    reach = math.ceil(offset) + coarse.scores.shape[axis] * factor
    stop = min(skip.scores.shape[axis], reach)
    upsampled = interpolation.interpolate_axis(
      upsampled,
      axis=axis,
      factor=factor,
      offset=offset - start,
      size=stop - start,
      edge=coarse.edge,
    )
    cropped = jax.lax.slice_in_dim(cropped, start, stop, axis=axis)
  return dataclasses.replace(
    skip,
    scores=upsampled + cropped,
    offset=skip.offset + start * skip.stride,
  )


def num_fused_cells(
  coarse: types.ScoreMap,
  skip: types.ScoreMap,
  num_coarse: jax.Array,
  num_skip: jax.Array,
) -> jax.Array:
  """Number of cells of `add_skip` if images fill only a part of both maps.

  Args:
    coarse: scores [N, h, w, C].
    skip: scores [N, h', w', C].
    num_coarse: [N, 2] int32, rows and columns of `coarse` that each image
      fills.
    num_skip: [N, 2] int32, the same of `skip`.

  Returns:
    [N, 2] int32: rows and columns that the sum would have for each image by
    itself; they are the first ones of the sum.
  """
  factor, offset, start = skip_grid(coarse, skip)
  reach = math.ceil(offset) + num_coarse * factor
  return jnp.minimum(num_skip, reach) - start


def skip_grid(
  coarse: types.Grid | types.ScoreMap, skip: types.Grid | types.ScoreMap
) -> tuple[int, float | fractions.Fraction, int]:
  """Position of coarse cells on a skip's grid: factor, offset, first cell."""
  factor = coarse.stride // skip.stride
  offset = (coarse.offset - skip.offset) / skip.stride
  # Each coarse cell has a tent of half-width `factor`, and its centre is at
  # offset + index * factor. So n cells reach to the centre of cell n.
  return factor, offset, max(0, math.floor(offset - factor) + 1)


def fill_outside(
  score_map: types.ScoreMap, num_cells: jax.Array
) -> types.ScoreMap:
  """Extends the images in a map by its edge rule, up to the ends of the map.

  An image that fills a part of its map is then interpolated like one that fills
  all of it.

  Args:
    score_map: scores [N, h, w, C].
    num_cells: [N, 2] int32, rows and columns that each image fills.

  Returns:
    The score map with other scores beyond these cells.
  """
  scores = valid_region.fill_outside(
    score_map.scores, num_cells, edge=score_map.edge
  )
  return dataclasses.replace(score_map, scores=scores)


def resize(
  scores: jax.Array,
  image_size: tuple[int, int],
  *,
  stride: int,
  valid_sizes: jax.Array | None = None,
) -> jax.Array:
  """Resizes score maps to their images, bilinearly, as PyTorch does.

  The map of an image of H rows has ceil(H / stride) rows, spread evenly over
  the image (`align_corners=False`): less than `stride` pixels apart unless H is
  a multiple of it.

  Args:
    scores: [N, h, w, C].
    image_size: height and width of the images, H and W.
    stride: pixels between cells, rounded up.
    valid_sizes: [N, 2] int32, height and width of each image inside its array;
      None if they are H and W.

  Returns:
    [N, H, W, C].
  """
  if valid_sizes is None:
    valid_sizes = jnp.array([image_size], jnp.int32)
  rows, columns = (
    _resizing_matrix(cells, pixels, valid_sizes[:, axis], stride)
    for axis, (cells, pixels) in enumerate(
      zip(scores.shape[1:3], image_size, strict=True)
    )
  )
  # One matrix for all images, or one for each.
  rows, columns = (
    jnp.broadcast_to(matrix, (scores.shape[0], *matrix.shape[1:]))
    for matrix in (rows, columns)
  )
  # By default GPUs and TPUs would round the scores to fewer digits.
  return jnp.einsum(
    "nHh,nhwc,nWw->nHWc",
    rows,
    scores,
    columns,
    precision=jax.lax.Precision.HIGHEST,
  )


def _resizing_matrix(num_cells, num_pixels, valid_sizes, stride):
  """Share of each cell in each pixel: [N, pixels, cells]."""
  valid_sizes = valid_sizes.astype(jnp.float32)[:, None]
  used = jnp.ceil(valid_sizes / stride)
  pixels = jnp.arange(num_pixels, dtype=jnp.float32)[None]
  position = (pixels + 0.5) * used / valid_sizes - 0.5
  position = jnp.clip(position, 0, used - 1)[..., None]
  cells = jnp.arange(num_cells, dtype=jnp.float32).reshape(1, 1, -1)
  return jnp.maximum(0, 1 - jnp.abs(position - cells))
