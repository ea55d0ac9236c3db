"""Sums of functions of the logits over the same places in all blocks.

The logits of a place in all blocks are the sum of four shifted and scaled score
maps: no score is listed, gathered or scattered.
"""

import jax
import jax.numpy as jnp

from fcn_jax import blocks
from fcn_jax import interpolation
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import gradients


def value_and_gradient(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  places: jax.Array,
  labels: jax.Array,
  *,
  band_bytes: int,
  by_product: bool,
) -> tuple[types.Tree, types.ScoreMap]:
  """Sums a function of the logits over places.

  Args:
    function: from logits [N, m, C, blocks] and labels [N, m, blocks] to K
      values for each pixel, a tree of arrays [N, m, K, blocks].
    score_map: scores [N, h, w, C].
    places: [N, m] int32, as row * stride + column in a block.
    labels: [N, m, rows, columns] of the blocks, from `take`.
    band_bytes: bytes of the logits of a band, which has rows of blocks.
    by_product: whether logits are a matrix product, or a sum of four terms.

  Returns:
    The sums of the images, each [N, K], and the gradient of the sum of all.
  """
  cells, from_cells = jax.vjp(
    lambda scores: _classes_first(gradients.with_scores(score_map, scores)),
    score_map.scores,
  )
  shares = _shares(score_map, places)
  num_images, number, num_rows, num_columns = labels.shape
  num_classes = cells.shape[1]
  row_bytes = labels[:, :, 0].size * num_classes * cells.dtype.itemsize
  rows = max(1, min(num_rows, band_bytes // row_bytes))
  missing = -num_rows % rows
  padded = jnp.pad(cells, [(0, 0), (0, 0), (0, missing), (0, 0)])
  labels = jnp.pad(
    labels,
    [(0, 0), (0, 0), (0, missing), (0, 0)],
    constant_values=types.IGNORE_LABEL,
  )
  labels = labels.reshape(num_images, number, -1)
  size = rows * num_columns

  def add(band, gradient):
    start = band * rows
    part = jax.lax.dynamic_slice_in_dim(labels, band * size, size, axis=2)

    def values(cells):
      return function(_mix(_corners(cells), shares, by_product), part)

    here = jax.lax.dynamic_slice_in_dim(padded, start, rows + 1, axis=2)
    sums, new = gradients.of_piece(values, here)
    new += jax.lax.dynamic_slice_in_dim(gradient, start, rows + 1, axis=2)
    gradient = jax.lax.dynamic_update_slice_in_dim(gradient, new, start, 2)
    return sums, gradient

  sums, gradient = gradients.over_pieces(
    add, (num_rows + missing) // rows, jnp.zeros_like(padded)
  )
  (gradient,) = from_cells(gradient[:, :, : num_rows + 1])
  return sums, gradients.with_scores(score_map, gradient)


def take(
  score_map: types.ScoreMap,
  values: jax.Array,
  places: jax.Array,
  *,
  fill: int,
  by_product: bool,
) -> jax.Array:
  """Values of pixels at some places of all blocks.

  Args:
    score_map: tells where the cells lie.
    values: [N, H, W] integers of at most 24 significant bits.
    places: [N, m] int32.
    fill: the value of the pixels of blocks that are outside the image.
    by_product: whether to choose columns by a matrix product, for TPUs, which
      are slow at indexing.

  Returns:
    [N, m, rows, columns].
  """
  if by_product:
    return _take_by_product(score_map, values, places, fill)
  tiles = blocks.tile(score_map.grid, values, fill=fill)
  index = jax.lax.dynamic_index_in_dim
  stride = score_map.stride

  def at(tiles, place):
    rows = index(tiles, place // stride, axis=1, keepdims=False)
    return index(rows, place % stride, axis=2, keepdims=False)

  return jax.vmap(jax.vmap(at, in_axes=(None, 0)))(tiles, places)


def _take_by_product(score_map, values, places, fill):
  """See `take`: sums over rows and columns, of which one is not 0."""
  stride, (height, width) = score_map.stride, score_map.image_size
  num_rows, num_columns = blocks.shape(score_map.grid, score_map.image_size)
  before = blocks.num_outside(score_map.grid)

  def in_image(within, number):
    starts = stride * jnp.arange(number, dtype=jnp.int32) - before
    return starts[None, None] + within[..., None]

  rows = in_image(places // stride, num_rows)
  columns = in_image(places % stride, num_columns)
  # Bytes are exact in bfloat16.
  is_bytes = values.dtype == jnp.uint8
  dtype = jnp.bfloat16 if is_bytes else jnp.float32
  after = num_rows * stride - before - height
  found = jnp.einsum(
    "nyx,nmcx->nmyc",
    jnp.pad(values, [(0, 0), (before, after), (0, 0)]).astype(dtype),
    jax.nn.one_hot(columns, width, dtype=dtype),
    precision=None if is_bytes else jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  found = found.reshape(*places.shape, num_rows, stride, num_columns)
  is_row = jax.nn.one_hot(places // stride, stride, dtype=found.dtype)
  found = jnp.sum(found * is_row[:, :, None, :, None], axis=3)
  found = found.astype(values.dtype)
  is_inside = ((rows >= 0) & (rows < height))[..., None]
  is_inside &= ((columns >= 0) & (columns < width))[:, :, None]
  return jnp.where(is_inside, found, jnp.asarray(fill, found.dtype))


def _classes_first(score_map: types.ScoreMap) -> jax.Array:
  """The cells that the image needs, [N, C, rows, columns]."""
  return jnp.moveaxis(upsampling.covering_map(score_map), 3, 1)


def _corners(cells: jax.Array) -> jax.Array:
  """The four cells around each block, [N, 4, C, blocks]."""
  corners = jnp.stack(
    [
      cells[:, :, :-1, :-1],
      cells[:, :, :-1, 1:],
      cells[:, :, 1:, :-1],
      cells[:, :, 1:, 1:],
    ],
    axis=1,
  )
  return corners.reshape(*corners.shape[:3], -1)


def _shares(score_map: types.ScoreMap, places: jax.Array) -> jax.Array:
  """Share of each of the four cells at each place, [N, 4, m]."""
  upper = interpolation.fractions_between(
    *score_map.grid, score_map.scores.dtype
  )
  shares = jnp.stack([1 - upper, upper])
  down = shares[:, places // score_map.stride]
  right = shares[:, places % score_map.stride]
  shares = down[:, None] * right[None]
  return jnp.moveaxis(shares.reshape(4, *places.shape), 0, 1)


def _mix(corners: jax.Array, shares: jax.Array, by_product: bool) -> jax.Array:
  """Scores [N, 4, C, blocks] times shares [N, 4, m]: [N, m, C, blocks]."""
  if by_product:
    return jnp.einsum(
      "nqcb,nqm->nmcb", corners, shares, precision=jax.lax.Precision.HIGHEST
    )
  terms = [
    corners[:, corner, None] * shares[:, corner, :, None, None]
    for corner in range(4)
  ]
  return sum(terms[1:], start=terms[0])
