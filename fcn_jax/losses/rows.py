"""Images as several images of fewer rows, for devices that share an image.

A loop over strips would slice rows that lie on other devices. Over the strips
of all parts at once, each device has its own rows, and the row or two of cells
that the next device has as well.
"""

import jax
import jax.numpy as jnp

from fcn_jax import interpolation
from fcn_jax import types
from fcn_jax import upsampling


def check(score_map: types.ScoreMap, number: int) -> None:
  """Raises a `ValueError` unless an image has so many equal parts."""
  check_height(score_map.image_size[0], number, score_map.stride)


def check_height(height: int, number: int, stride: int) -> None:
  """Raises a `ValueError` unless images of a height have such parts."""
  multiple = number * stride
  # A part shares up to two rows of cells with the next one.
  if number > 1 and (height % multiple or height < 2 * multiple):
    below = max(2, height // multiple) * multiple
    raise ValueError(
      f"images have {height} rows, which {number} devices cannot share at "
      f"stride {stride}: choose a multiple of {multiple}, such as {below} or "
      f"{below + multiple}."
    )


def split_map(score_map: types.ScoreMap, number: int) -> types.ScoreMap:
  """The score maps of the parts of each image.

  Args:
    score_map: scores [N, h, w, C].
    number: of parts, K.

  Returns:
    Scores [K N, h', w', C]: all cells that the H / K rows of each part need,
    and logits equal to those of the images. One part is the map itself.
  """
  if number == 1:
    return score_map
  (height, width), stride = score_map.image_size, score_map.stride
  cells = upsampling.covering_map(score_map)
  first, _ = interpolation.covering_cells(*score_map.grid, height)
  rows = height // number // stride
  # Rows of cells that a part shares with the next one.
  shared = cells.shape[1] - number * rows
  own = cells[:, : number * rows]
  own = own.reshape(len(cells), number, rows, *cells.shape[2:])
  last = cells[:, None, number * rows :]
  is_last = jnp.arange(number, dtype=jnp.int32) == number - 1
  # The compiler knows a rotation: each device sends to one other.
  after = jnp.where(
    is_last[None, :, None, None, None],
    last,
    jnp.roll(own[:, :, :shared], -1, axis=1),
  )
  scores = _parts_first(jnp.concatenate([own, after], axis=2))
  return types.ScoreMap(
    scores,
    stride,
    score_map.offset + first * stride,
    (height // number, width),
    score_map.edge,
  )


def split(values: jax.Array, number: int) -> jax.Array:
  """Values of pixels [N, H, W] of the parts of each image, [K N, H / K, W]."""
  shape = len(values), number, values.shape[1] // number, *values.shape[2:]
  return _parts_first(values.reshape(shape))


def merge(values: jax.Array, number: int) -> jax.Array:
  """The inverse of `split`."""
  values = values.reshape(number, -1, *values.shape[1:])
  values = jnp.swapaxes(values, 0, 1)
  return values.reshape(len(values), -1, *values.shape[3:])


def sum_of_parts(sums: jax.Array, number: int) -> jax.Array:
  """Sums of the parts [K N, ...] as those of the images, [N, ...]."""
  return jnp.sum(sums.reshape(number, -1, *sums.shape[1:]), axis=0)


def of_parts(values: jax.Array, number: int) -> jax.Array:
  """Values of the images [N, ...] for each of their parts, [K N, ...]."""
  return jnp.concatenate([values] * number)


def _parts_first(values):
  """[N, K, ...] as [K N, ...].

  In this order the parts of a device follow one another.
  """
  return jnp.swapaxes(values, 0, 1).reshape(-1, *values.shape[2:])
