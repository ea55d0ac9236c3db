"""Explicit patches, to compare loss sampling with.

A patch is a crop of an image together with the same crop of its labels.
`sample_patches`, `grid_patches`, `sample_grid_patches` and `balanced_patches`
turn a batch of images into a batch of patches, so patchwise training is the
ordinary train step on another batch.

If a batch has `valid_sizes`, each image has the corners that it would have by
itself, and no patch begins in padding. A patch that is larger than its image
begins at the image's corner and ends in padding, so the patches have
`valid_sizes` as well.
"""

import functools

import chex
import jax
import jax.numpy as jnp

from fcn_jax import types


def extract_patch(
  image: jax.Array, corner: jax.Array, size: tuple[int, int]
) -> jax.Array:
  """Crops one patch.

  Args:
    image: [H, W, C], or labels [H, W].
    corner: [2] int32, row and column of the top left pixel; clamped so that
      the patch lies inside.
    size: height and width in pixels, static.

  Returns:
    [height, width, C], or [height, width] for labels, dtype of `image`.

  Raises:
    ValueError: if the patch is larger than the image.
  """
  check_size(image.shape[:2], size)
  chex.assert_shape(corner, (2,))
  start = (*corner, *jnp.zeros_like(corner, shape=(image.ndim - 2,)))
  return jax.lax.dynamic_slice(
    image, start, (*size, *image.shape[2:]), allow_negative_indices=False
  )


def extract_patches(
  images: jax.Array, corners: jax.Array, size: tuple[int, int]
) -> jax.Array:
  """Crops [N, K, height, width, ...] at corners [N, K, 2]: `extract_patch`."""
  crop = functools.partial(extract_patch, size=size)
  return jax.vmap(jax.vmap(crop, in_axes=(None, 0)))(images, corners)


def random_corners(
  key: jax.Array,
  *,
  num_images: int,
  num_patches: int,
  image_size: tuple[int, int],
  size: tuple[int, int],
  valid_sizes: jax.Array | None = None,
) -> jax.Array:
  """Draws corners uniformly among those whose patch lies inside the image.

  Args:
    key: random key.
    num_images: N.
    num_patches: patches from each image, K.
    image_size: height and width of the arrays of the images.
    size: height and width of a patch.
    valid_sizes: [N, 2] int32, height and width of each image inside its array;
      None if the images fill their arrays. The corner is 0 along an axis
      where the image is smaller than the patch.

  Returns:
    [N, K, 2] int32.

  Raises:
    ValueError: if the patch is larger than the arrays of the images.
  """
  check_size(image_size, size)
  last = _last_corners(image_size, size, valid_sizes)
  shape = (num_images, num_patches, 2)
  return jax.random.randint(key, shape, 0, last[:, None] + 1)


def _last_corners(image_size, size, valid_sizes):
  """The largest row and column of corners, [N, 2] or [1, 2]."""
  if valid_sizes is None:
    last = [h - p for h, p in zip(image_size, size, strict=True)]
    return jnp.array([last])
  return jnp.maximum(valid_sizes - jnp.array([size], valid_sizes.dtype), 0)


def grid_corners(
  image_size: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]
) -> jax.Array:
  """Corners on a regular grid that covers the image.

  Neighbours overlap where the stride is less than the size (size / 3 is usual
  in patchwise training). The last row and column are moved inwards to end at
  the border, so that no pixel of the image is missed.

  Args:
    image_size: height and width of the images.
    size: height and width of a patch.
    stride: distance of neighbouring corners, at most the size.

  Returns:
    [K, 2] int32, row by row.

  Raises:
    ValueError: if the patch is larger than the image, or the stride leaves
      gaps or is not positive.
  """
  check_size(image_size, size)
  if not all(0 < d <= p for d, p in zip(stride, size, strict=True)):
    raise ValueError(
      f"a stride of {stride} with patches of {size} pixels: it must be at "
      "least 1 and at most the size, or pixels between patches are missed."
    )
  rows, columns = (
    jnp.append(jnp.arange(0, side - length, step), side - length)
    for side, length, step in zip(image_size, size, stride, strict=True)
  )
  corners = jnp.meshgrid(rows, columns, indexing="ij")
  return jnp.stack(corners, axis=-1).reshape(-1, 2).astype(jnp.int32)


def balanced_corners(
  key: jax.Array,
  labels: jax.Array,
  *,
  num_patches: int,
  size: tuple[int, int],
  num_classes: int,
  valid_sizes: jax.Array | None = None,
) -> jax.Array:
  """Draws corners of patches around pixels of all classes equally.

  For each patch, a class is drawn uniformly among those in the image, then a
  pixel uniformly among those of the class; the patch lies around it, or is
  moved inwards where it would leave the image. Void is never drawn; an image
  of void alone has uniformly random corners.

  Args:
    key: random key.
    labels: [N, H, W] int32 or uint8, classes 0..C-1 or `IGNORE_LABEL`.
    num_patches: see `random_corners`.
    size: height and width of a patch; its centre is pixel `size // 2`.
    num_classes: C.
    valid_sizes: see `random_corners`; labels outside are void.

  Returns:
    [N, K, 2] int32.

  Raises:
    ValueError: if the patch is larger than the arrays of the images.
  """
  num_images, height, width = labels.shape
  check_size((height, width), size)
  class_key, pixel_key, corner_key = jax.random.split(key, 3)
  # Sort the pixels by class.
  flat = labels.reshape(num_images, -1).astype(jnp.int32)
  # Void comes after all classes.
  flat = jnp.where(flat == types.IGNORE_LABEL, num_classes, flat)
  order = jnp.argsort(flat, axis=1)
  bounds = jax.vmap(jnp.searchsorted, in_axes=(0, None))(
    jnp.take_along_axis(flat, order, axis=1), jnp.arange(num_classes + 1)
  )
  counts = jnp.diff(bounds, axis=1)

  shape = (num_images, num_patches)
  present = jnp.where(counts > 0, 0.0, -jnp.inf)
  classes = jax.random.categorical(class_key, present[:, None], shape=shape)
  count = jnp.take_along_axis(counts, classes, axis=1)
  drawn = jax.random.randint(pixel_key, shape, 0, jnp.maximum(count, 1))
  drawn += jnp.take_along_axis(bounds, classes, axis=1)
  rows, columns = jnp.divmod(jnp.take_along_axis(order, drawn, axis=1), width)
  last = _last_corners((height, width), size, valid_sizes)
  corners = jnp.stack(
    [
      jnp.clip(rows - size[0] // 2, 0, last[:, :1]),
      jnp.clip(columns - size[1] // 2, 0, last[:, 1:]),
    ],
    axis=-1,
  )
  anywhere = random_corners(
    corner_key,
    num_images=num_images,
    num_patches=num_patches,
    image_size=(height, width),
    size=size,
    valid_sizes=valid_sizes,
  )
  is_void = jnp.sum(counts, axis=1) == 0
  return jnp.where(is_void[:, None, None], anywhere, corners.astype(jnp.int32))


def sample_patches(
  key: jax.Array,
  batch: types.Batch,
  *,
  num_patches: int,
  size: tuple[int, int],
) -> types.Batch:
  """Turns a batch of images into a batch of random patches.

  Args:
    key: random key.
    batch: images [N, H, W, 3] and labels [N, H, W].
    num_patches: patches from each image, K.
    size: height and width of a patch.

  Returns:
    A batch of N * K patches, those of one image together.

  Raises:
    ValueError: if the patch is larger than the images.
  """
  corners = random_corners(
    key,
    num_images=batch.labels.shape[0],
    num_patches=num_patches,
    image_size=batch.labels.shape[1:],
    size=size,
    valid_sizes=batch.valid_sizes,
  )
  return cut(batch, corners, size)


def grid_patches(
  batch: types.Batch, *, size: tuple[int, int], stride: tuple[int, int]
) -> types.Batch:
  """Turns a batch of images into the batch of all patches on a grid.

  With `valid_sizes`, each image has its own grid, but all have as many patches
  as the largest image could have. The surplus patches of an image are copies of
  others with void labels.

  Args:
    batch: images [N, H, W, 3] and labels [N, H, W].
    size: height and width of a patch.
    stride: distance of neighbouring corners, at most the size.

  Returns:
    A batch of N * K patches, those of one image together, row by row.

  Raises:
    ValueError: as `grid_corners`.
  """
  corners, is_copy = _grids(batch, size, stride)
  return _cut_grids(batch, corners, is_copy, size)


def sample_grid_patches(
  key: jax.Array,
  batch: types.Batch,
  *,
  num_patches: int,
  size: tuple[int, int],
  stride: tuple[int, int],
) -> types.Batch:
  """Turns a batch of images into a batch of patches drawn from their grids.

  Draws uniformly, each patch of an image at most once. An image whose own grid
  has fewer than `num_patches` gives all of them, and copies with void labels,
  see `grid_patches`.

  Args:
    key: random key.
    batch: images [N, H, W, 3] and labels [N, H, W].
    num_patches: patches from each image, K.
    size: height and width of a patch.
    stride: distance of neighbouring corners, at most the size.

  Returns:
    A batch of N * K patches, those of one image together.

  Raises:
    ValueError: as `grid_corners`, or if the grid has fewer than K patches.
  """
  corners, is_copy = _grids(batch, size, stride)
  num_images, count, _ = corners.shape
  if num_patches > count:
    raise ValueError(
      f"{num_patches} patches of each image, but the grid has {count} of "
      f"{size[0]}x{size[1]} pixels in an image of {batch.labels.shape[1]}x"
      f"{batch.labels.shape[2]}: choose fewer, or a smaller stride."
    )

  def choose(key, is_copy):
    order = jax.random.permutation(key, count)
    # Those of the image first, in this order.
    order = order[jnp.argsort(is_copy[order])]
    return order[:num_patches]

  keys = jax.random.split(key, num_images)
  chosen = jax.vmap(choose)(keys, is_copy)
  corners = jnp.take_along_axis(corners, chosen[..., None], axis=1)
  is_copy = jnp.take_along_axis(is_copy, chosen, axis=1)
  return _cut_grids(batch, corners, is_copy, size)


def _grids(batch, size, stride):
  """Corners of each image's grid [N, K, 2], and which are copies [N, K]."""
  image_size = batch.labels.shape[1:]
  corners = grid_corners(image_size, size, stride)
  shape = (len(batch.labels), len(corners))
  if batch.valid_sizes is None:
    return jnp.broadcast_to(corners, (*shape, 2)), jnp.zeros(shape, bool)
  last = _last_corners(image_size, size, batch.valid_sizes)[:, None]
  # An image's grid ends with the first corner that is not before its last one.
  step = jnp.array([stride], corners.dtype)
  before = (-(-corners // step) - 1) * step
  is_copy = jnp.any(before[None] >= last, axis=-1)
  return jnp.minimum(corners[None], last), is_copy


def _cut_grids(batch, corners, is_copy, size):
  """Cuts patches, and makes the labels of copies void."""
  patches = cut(batch, corners, size)
  labels = jnp.where(
    is_copy.reshape(-1, 1, 1), types.IGNORE_LABEL, patches.labels
  )
  return patches._replace(labels=labels)


def balanced_patches(
  key: jax.Array,
  batch: types.Batch,
  *,
  num_patches: int,
  size: tuple[int, int],
  num_classes: int,
) -> types.Batch:
  """As `sample_patches`, with the corners of `balanced_corners`."""
  corners = balanced_corners(
    key,
    batch.labels,
    num_patches=num_patches,
    size=size,
    num_classes=num_classes,
    valid_sizes=batch.valid_sizes,
  )
  return cut(batch, corners, size)


def cut(
  batch: types.Batch, corners: jax.Array, size: tuple[int, int]
) -> types.Batch:
  """Cuts images and labels alike.

  Args:
    batch: images [N, H, W, 3] and labels [N, H, W].
    corners: [N, K, 2] int32.
    size: height and width of a patch.

  Returns:
    A batch of N * K patches, those of one image together; with `valid_sizes` if
    the batch has them; these are 0 for a patch outside its image.
  """
  chex.assert_equal_shape_prefix((batch.images, batch.labels), 3)

  def patches_of(array):
    patches = extract_patches(array, corners, size)
    return patches.reshape(-1, *patches.shape[2:])

  valid_sizes = None
  if batch.valid_sizes is not None:
    # As `extract_patch` clamps them.
    image_size = batch.labels.shape[1:]
    last = _last_corners(image_size, size, None)[None]
    rest = batch.valid_sizes[:, None] - jnp.clip(corners, 0, last)
    valid_sizes = jnp.clip(rest, 0, jnp.array([[size]], rest.dtype)).reshape(
      -1, 2
    )
  return types.Batch(
    patches_of(batch.images), patches_of(batch.labels), valid_sizes
  )


def check_size(image_size: tuple[int, int], size: tuple[int, int]) -> None:
  """Raises a `ValueError` unless a patch of `size` fits into the image."""
  if not all(0 < p <= side for p, side in zip(size, image_size, strict=True)):
    raise ValueError(
      f"a patch of {size[0]}x{size[1]} pixels does not fit into an image of "
      f"{image_size[0]}x{image_size[1]}: choose a smaller patch."
    )
