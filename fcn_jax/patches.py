"""Explicit patches: what loss sampling replaces, to compare it with.

A patch is a crop of an image together with the same crop of its labels. As
`sample_patches`, `grid_patches` and `balanced_patches` turn a batch of images
into a batch of patches, patchwise training is the ordinary train step on
another batch.
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
  """Crops the same number of patches from each image: `extract_patch`, vmapped.

  Args:
    images: [N, H, W, C], or labels [N, H, W].
    corners: [N, K, 2] int32.
    size: height and width in pixels, static.

  Returns:
    [N, K, height, width, C], without C for labels, dtype of `images`.

  Raises:
    ValueError: if the patch is larger than the images.
  """
  crop = functools.partial(extract_patch, size=size)
  return jax.vmap(jax.vmap(crop, in_axes=(None, 0)))(images, corners)


def random_corners(
  key: jax.Array,
  *,
  num_images: int,
  num_patches: int,
  image_size: tuple[int, int],
  size: tuple[int, int],
) -> jax.Array:
  """Draws corners uniformly among those whose patch lies inside the image.

  Returns:
    [num_images, num_patches, 2] int32.

  Raises:
    ValueError: if the patch is larger than the images.
  """
  check_size(image_size, size)
  room = jnp.array([h - p + 1 for h, p in zip(image_size, size, strict=True)])
  shape = (num_images, num_patches, 2)
  return jax.random.randint(key, shape, 0, room[None, None])


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
) -> jax.Array:
  """Draws corners of patches around pixels of all classes alike.

  For each patch, a class is drawn uniformly among those in the image, then a
  pixel uniformly among those of the class; the patch lies around it, or is
  moved inwards where it would leave the image. Void is never chosen, but an
  image of void only has uniformly random corners.

  Args:
    key: random key.
    labels: [N, H, W] int32, classes 0..C-1 or `IGNORE_LABEL`.
    num_patches: patches from each image, K.
    size: height and width of a patch; its centre is pixel `size // 2`.
    num_classes: C.

  Returns:
    [N, K, 2] int32.

  Raises:
    ValueError: if the patch is larger than the images.
  """
  num_images, height, width = labels.shape
  check_size((height, width), size)
  class_key, pixel_key, corner_key = jax.random.split(key, 3)
  # Sorted by class, the pixels of one class stand together.
  flat = labels.reshape(num_images, -1)
  # Behind all classes, however many there are.
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
  place = jax.random.randint(pixel_key, shape, 0, jnp.maximum(count, 1))
  place += jnp.take_along_axis(bounds, classes, axis=1)
  rows, columns = jnp.divmod(jnp.take_along_axis(order, place, axis=1), width)
  corners = jnp.stack(
    [
      jnp.clip(rows - size[0] // 2, 0, height - size[0]),
      jnp.clip(columns - size[1] // 2, 0, width - size[1]),
    ],
    axis=-1,
  )
  anywhere = random_corners(
    corner_key,
    num_images=num_images,
    num_patches=num_patches,
    image_size=(height, width),
    size=size,
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
  )
  return cut(batch, corners, size)


def grid_patches(
  batch: types.Batch, *, size: tuple[int, int], stride: tuple[int, int]
) -> types.Batch:
  """Turns a batch of images into the batch of all patches on a grid.

  Args:
    batch: images [N, H, W, 3] and labels [N, H, W].
    size: height and width of a patch.
    stride: distance of neighbouring corners, at most the size.

  Returns:
    A batch of N * K patches, those of one image together, row by row.

  Raises:
    ValueError: as `grid_corners`.
  """
  corners = grid_corners(batch.labels.shape[1:], size, stride)
  corners = jnp.broadcast_to(corners, (len(batch.labels), *corners.shape))
  return cut(batch, corners, size)


def balanced_patches(
  key: jax.Array,
  batch: types.Batch,
  *,
  num_patches: int,
  size: tuple[int, int],
  num_classes: int,
) -> types.Batch:
  """Turns a batch of images into a batch of class-balanced patches.

  Args:
    key: random key.
    batch: images [N, H, W, 3] and labels [N, H, W].
    num_patches: patches from each image, K.
    size: height and width of a patch.
    num_classes: C.

  Returns:
    A batch of N * K patches, those of one image together; see
    `balanced_corners`.

  Raises:
    ValueError: if the patch is larger than the images.
  """
  corners = balanced_corners(
    key,
    batch.labels,
    num_patches=num_patches,
    size=size,
    num_classes=num_classes,
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
    A batch of N * K patches, those of one image together.
  """
  chex.assert_equal_shape_prefix(batch, 3)

  def patches_of(array):
    patches = extract_patches(array, corners, size)
    return patches.reshape(-1, *patches.shape[2:])

  return jax.tree.map(patches_of, batch)


def check_size(image_size: tuple[int, int], size: tuple[int, int]) -> None:
  """Raises a `ValueError` unless a patch of `size` fits into the image."""
  if not all(0 < p <= side for p, side in zip(size, image_size, strict=True)):
    raise ValueError(
      f"a patch of {size[0]}x{size[1]} pixels does not fit into an image of "
      f"{image_size[0]}x{image_size[1]}: choose a smaller patch."
    )
