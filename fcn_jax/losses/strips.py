"""Functions of the logits of all pixels, computed strip by strip.

A strip is some rows of pixels, which depend on the rows of cells around them
alone. Classes come before columns, so that a sum over classes is one over whole
rows of numbers. Sums interpolate columns by products, so a score that is not
finite reaches all columns of its rows.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from fcn_jax import interpolation
from fcn_jax import platforms
from fcn_jax import types
from fcn_jax.losses import gradients
from fcn_jax.losses import rows

# Each row of cells in a strip is a term of all its pixels.
_MOST_CELLS = 8


def map_strips(
  function: Callable[..., jax.Array],
  score_map: types.ScoreMap,
  arrays: tuple[jax.Array, ...] = (),
  *,
  row_shards: int = 1,
) -> jax.Array:
  """Applies a function of the logits to all pixels.

  Strips lie between two rows of cells. With three, as strips that begin with
  the image need, predictions on a CPU would take up to twice as long.

  Args:
    function: from logits [N, stride, C, W] and the part [N, stride, W] of each
      of `arrays` to one value for each pixel, [N, stride, W].
    score_map: scores [N, h, w, C].
    arrays: each [N, H, W].
    row_shards: how many devices share the rows of an image, see `rows`.

  Returns:
    [N, H, W].

  Raises:
    ValueError: if they cannot share these rows.
  """
  if row_shards > 1:
    rows.check(score_map, row_shards)
    parts = rows.split_map(score_map, row_shards)
    arrays = tuple(rows.split(array, row_shards) for array in arrays)
    return rows.merge(map_strips(function, parts, arrays), row_shards)
  cells = _rows_of_cells(score_map)

  def apply(_, strip):
    number, *parts = strip
    above, below = jax.lax.dynamic_slice_in_dim(cells, number, 2)
    logits = _columns(score_map, _between(score_map, above, below))
    return None, function(jnp.moveaxis(logits, 0, 2), *parts)

  # Not `len`, as an exported program does not know its size yet.
  numbers = jnp.arange(cells.shape[0] - 1, dtype=jnp.int32)
  parts = (_split(score_map, array) for array in arrays)
  _, values = jax.lax.scan(apply, None, (numbers, *parts))
  values = jnp.moveaxis(values, 0, 1)
  values = values.reshape(values.shape[0], -1, values.shape[-1])
  before, _ = _rows_outside(score_map)
  height = score_map.image_size[0]
  return jax.lax.slice_in_dim(values, before, before + height, axis=1)


def value_and_gradient(
  function: gradients.PixelFunction,
  score_map: types.ScoreMap,
  labels: jax.Array,
  weights: jax.Array | None,
  *,
  strip_bytes: int,
) -> tuple[types.Tree, types.ScoreMap]:
  """Sums a function of the logits over all pixels.

  Strips begin with the image and have as many rows of pixels as some rows of
  cells, so that labels are cut where they lie.

  Args:
    function: from logits [N, rows, C, W], labels and perhaps weights [N, rows,
      W] to K values for each pixel, a tree of arrays [N, rows, K, W]; 0 where
      void.
    score_map: scores [N, h, w, C].
    labels: [N, H, W].
    weights: [N, H, W] or None.
    strip_bytes: bytes of the logits of a strip; it has `stride` rows at least.

  Returns:
    The sums of the images, each [N, K], and the gradient of the sum of all.
  """
  stride, offset = score_map.grid
  height, width = score_map.image_size
  num_images, _, _, num_classes = score_map.scores.shape
  row_bytes = num_images * num_classes * width * score_map.scores.dtype.itemsize
  # Rows of cells and of pixels that a strip moves on by.
  num_cells = _equal_parts(
    -(-height // stride),
    most=min(_MOST_CELLS, strip_bytes // (row_bytes * stride)),
  )
  num_rows = num_cells * stride
  num_strips = -(-height // num_rows)
  first, last = interpolation.covering_cells(stride, offset, num_rows)
  cells, from_cells = jax.vjp(
    lambda scores: jnp.transpose(
      interpolation.take_cells(
        scores,
        axis=1,
        start=first,
        stop=last + 1 + (num_strips - 1) * num_cells,
        edge=score_map.edge,
      ),
      (1, 3, 0, 2),
    ),
    score_map.scores,
  )
  padding = [(0, 0), (0, num_strips * num_rows - height), (0, 0)]
  arrays = [jnp.pad(labels, padding, constant_values=types.IGNORE_LABEL)]
  if weights is not None:
    arrays.append(jnp.pad(weights, padding))
  shares_of_rows = interpolation.shares_of_cells(
    last + 1 - first,
    factor=stride,
    offset=offset + first * stride,
    size=num_rows,
    edge="zero",
    dtype=cells.dtype,
  )[:, None, None, :, None]
  shares_of_columns = interpolation.shares_of_cells(
    cells.shape[3],
    factor=stride,
    offset=offset,
    size=width,
    edge=score_map.edge,
    dtype=cells.dtype,
  )

  def add(number, gradient):
    parts = (
      jax.lax.dynamic_slice_in_dim(array, number * num_rows, num_rows, axis=1)
      for array in arrays
    )

    def values(rows):
      # Not 0 times a score, which may not be finite.
      terms = [
        jnp.where(shares > 0, row[:, :, None] * shares, 0)
        for row, shares in zip(rows, shares_of_rows, strict=True)
      ]
      # XLA would compute shifted sums again for each use of the logits, and a
      # loss with its gradient has many.
      logits = interpolation.multiply_axis(
        sum(terms[1:], start=terms[0]), shares_of_columns, axis=3, factor=stride
      )
      return function(jnp.transpose(logits, (1, 2, 0, 3)), *parts)

    start, length = number * num_cells, len(shares_of_rows)
    rows = jax.lax.dynamic_slice_in_dim(cells, start, length)
    sums, new = gradients.of_piece(values, rows)
    new += jax.lax.dynamic_slice_in_dim(gradient, start, length)
    gradient = jax.lax.dynamic_update_slice_in_dim(gradient, new, start, 0)
    return sums, gradient

  sums, gradient = gradients.over_pieces(add, num_strips, jnp.zeros_like(cells))
  (gradient,) = from_cells(gradient)
  return sums, gradients.with_scores(score_map, gradient)


def _equal_parts(number: int, *, most: int) -> int:
  """The size of parts of at most so many that together are hardly more."""
  most = max(1, min(number, most))
  sizes = range(most // 2 + 1, most + 1)
  return min(sizes, key=lambda size: (-(-number // size) * size, -size))


def _split(score_map: types.ScoreMap, values: jax.Array) -> jax.Array:
  """Values of pixels [N, H, W], in the pieces between two rows of cells.

  Returns:
    [pieces, N, stride, W], 0 outside the image.
  """
  chex.assert_shape(values, (None, *score_map.image_size))
  values = jnp.pad(values, [(0, 0), _rows_outside(score_map), (0, 0)])
  values = values.reshape(len(values), -1, score_map.stride, values.shape[-1])
  return jnp.moveaxis(values, 1, 0)


def _rows_of_cells(score_map: types.ScoreMap) -> jax.Array:
  """The rows of cells between which the image's rows lie, [h', C, N, w]."""
  first, last = interpolation.covering_cells(
    *score_map.grid, score_map.image_size[0]
  )
  cells = interpolation.take_cells(
    score_map.scores,
    axis=1,
    start=first,
    stop=last + 1,
    edge=score_map.edge,
  )
  return jnp.transpose(cells, (1, 3, 0, 2))


def _between(
  score_map: types.ScoreMap, above: jax.Array, below: jax.Array
) -> jax.Array:
  """Rows of pixels [C, N, stride, w] between two rows of cells [C, N, w]."""
  fraction = interpolation.fractions_between(*score_map.grid, above.dtype)
  fraction = fraction.reshape(1, 1, -1, 1)
  return above[:, :, None] * (1 - fraction) + below[:, :, None] * fraction


def _columns(score_map: types.ScoreMap, rows: jax.Array) -> jax.Array:
  """Logits [C, N, stride, W] of rows of pixels [C, N, stride, w]."""
  options = {
    "factor": score_map.stride,
    "offset": score_map.offset,
    "size": score_map.image_size[1],
    "edge": score_map.edge,
  }

  def by_sums(rows):
    return interpolation.interpolate_axis(rows, axis=3, **options)

  def by_product(rows):
    # TPUs would put classes, which are few, into their lanes.
    shares = interpolation.shares_of_cells(
      rows.shape[3], dtype=rows.dtype, **options
    )
    return interpolation.multiply_axis(
      rows, shares, axis=3, factor=score_map.stride
    )

  if any(map(jax.export.is_symbolic_dim, (rows.shape[3], options["size"]))):
    return by_sums(rows)
  return platforms.dependent(rows, tpu=by_product, default=by_sums)


def _rows_outside(score_map: types.ScoreMap) -> tuple[int, int]:
  """Rows of the first and of the last piece that are not in the image."""
  stride, height = score_map.stride, score_map.image_size[0]
  first, last = interpolation.covering_cells(stride, score_map.offset, height)
  before = -interpolation.first_output(stride, score_map.offset, first)
  return before, (last - first) * stride - before - height
