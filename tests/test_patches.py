import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import patches
from fcn_jax import types
from fcn_jax import valid_region

KEY = jax.random.key(0)


def numbered_batch(num_images=2, height=13, width=17):
  """Every pixel and label has its own number."""
  count = num_images * height * width
  labels = np.arange(count, dtype=np.int32)
  labels = labels.reshape(num_images, height, width)
  images = np.stack([labels, -labels, labels + count], -1).astype(np.float32)
  return types.Batch(jnp.asarray(images), jnp.asarray(labels))


def padded_batch(sizes, height=13, width=17):
  """The numbered batch with void outside images of these sizes."""
  batch = numbered_batch(len(sizes), height, width)
  sizes = jnp.array(sizes, jnp.int32)
  is_inside = valid_region.inside(sizes, (height, width))
  labels = jnp.where(is_inside, batch.labels, types.IGNORE_LABEL)
  return types.Batch(batch.images, labels, sizes)


class ExtractTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_a_patch_is_a_slice_of_the_image(self):
    image = numbered_batch().images[0]
    extract = self.variant(
      functools.partial(patches.extract_patch, size=(4, 6))
    )
    for row, column in ((0, 0), (3, 5), (9, 11)):
      patch = extract(image, jnp.array([row, column]))
      expected = np.asarray(image)[row : row + 4, column : column + 6]
      np.testing.assert_array_equal(patch, expected)

  @chex.variants(with_jit=True, without_jit=True)
  def test_corners_outside_are_moved_inside(self):
    image = numbered_batch().labels[0]
    extract = self.variant(
      functools.partial(patches.extract_patch, size=(4, 6))
    )
    for corner, inside in (((-2, 30), (0, 11)), ((10, -1), (9, 0))):
      row, column = inside
      expected = np.asarray(image)[row : row + 4, column : column + 6]
      np.testing.assert_array_equal(extract(image, jnp.array(corner)), expected)

  @chex.variants(with_jit=True, without_jit=True)
  def test_each_image_has_its_own_patches(self):
    batch = numbered_batch()
    corners = np.array([[[0, 0], [9, 11], [4, 2]], [[1, 1], [2, 3], [5, 8]]])
    extract = self.variant(
      functools.partial(patches.extract_patches, size=(4, 6))
    )
    for array in batch[:2]:
      found = extract(array, jnp.asarray(corners, jnp.int32))
      for n, k in np.ndindex(2, 3):
        row, column = corners[n, k]
        expected = np.asarray(array)[n, row : row + 4, column : column + 6]
        np.testing.assert_array_equal(found[n, k], expected)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bfloat16])
def test_a_patch_has_the_type_of_its_image(dtype):
  image = jnp.zeros((5, 5, 3), dtype)
  patch = patches.extract_patch(image, jnp.array([1, 1]), (2, 3))
  assert (patch.shape, patch.dtype) == ((2, 3, 3), dtype)


@pytest.mark.parametrize(
  "image_size, size", [((12, 18), (4, 6)), ((13, 17), (4, 6)), ((5, 9), (5, 9))]
)
def test_grid_patches_put_back_together_are_the_image(image_size, size):
  batch = numbered_batch(2, *image_size)
  cut = patches.grid_patches(batch, size=size, stride=size)
  corners = np.asarray(patches.grid_corners(image_size, size, size))
  assert len(cut.labels) == len(cut.images) == 2 * len(corners)
  assert cut.valid_sizes is None
  for array, pieces in zip(batch[:2], cut[:2], strict=True):
    whole = np.full(array.shape, np.nan)
    pieces = np.asarray(pieces).reshape(2, len(corners), *pieces.shape[1:])
    for k, (row, column) in enumerate(corners):
      rows, columns = slice(row, row + size[0]), slice(column, column + size[1])
      whole[:, rows, columns] = pieces[:, k]
    np.testing.assert_array_equal(whole, array)


def test_overlapping_patches_of_a_third_cover_every_pixel():
  image_size, size, stride = (50, 41), (12, 15), (4, 5)
  corners = np.asarray(patches.grid_corners(image_size, size, stride))
  covered = np.zeros(image_size, int)
  for row, column in corners:
    assert row + size[0] <= image_size[0]
    assert column + size[1] <= image_size[1]
    covered[row : row + size[0], column : column + size[1]] += 1
  assert covered.min() >= 1
  assert covered[20:30, 20:26].min() >= 9
  assert len({tuple(corner) for corner in corners}) == len(corners)


def test_images_and_labels_are_cut_alike():
  batch = numbered_batch()
  cut = patches.sample_patches(KEY, batch, num_patches=5, size=(4, 6))
  chex.assert_shape(cut.images, (10, 4, 6, 3))
  np.testing.assert_array_equal(cut.images[..., 0], cut.labels)
  # Those of one image together.
  per_image = batch.labels[0].size
  of_image = np.asarray(cut.labels).reshape(2, -1) // per_image
  np.testing.assert_array_equal(of_image, np.tile([[0], [1]], 5 * 4 * 6))


def test_an_image_and_labels_of_different_size_are_refused():
  batch = numbered_batch()
  batch = batch._replace(labels=batch.labels[:, 1:])
  with pytest.raises(AssertionError):
    patches.sample_patches(KEY, batch, num_patches=1, size=(4, 6))


def test_random_corners_lie_inside_and_reach_both_ends():
  corners = patches.random_corners(
    KEY, num_images=20, num_patches=40, image_size=(9, 12), size=(4, 6)
  )
  chex.assert_shape(corners, (20, 40, 2))
  assert corners.dtype == jnp.int32
  rows, columns = np.asarray(corners).reshape(-1, 2).T
  assert set(rows) == set(range(6))
  assert set(columns) == set(range(7))
  # Images do not share their corners.
  assert np.any(corners[0] != corners[1])


def test_a_patch_as_large_as_the_image_has_one_corner():
  corners = patches.random_corners(
    KEY, num_images=1, num_patches=3, image_size=(4, 6), size=(4, 6)
  )
  np.testing.assert_array_equal(corners, np.zeros((1, 3, 2)))


@pytest.mark.parametrize("size", [(14, 6), (4, 18), (0, 6)])
def test_a_patch_that_does_not_fit_is_an_error(size):
  batch = numbered_batch()
  match = f"patch of {size[0]}x{size[1]} pixels does not fit .* 13x17"
  with pytest.raises(ValueError, match=match):
    patches.sample_patches(KEY, batch, num_patches=1, size=size)
  with pytest.raises(ValueError, match=match):
    patches.grid_patches(batch, size=size, stride=(1, 1))
  with pytest.raises(ValueError, match=match):
    patches.extract_patch(batch.labels[0], jnp.array([0, 0]), size)


@pytest.mark.parametrize("stride", [(5, 6), (4, 7), (0, 6), (4, -1)])
def test_a_stride_that_leaves_gaps_is_an_error(stride):
  with pytest.raises(ValueError, match="stride"):
    patches.grid_corners((13, 17), (4, 6), stride)


def test_balanced_patches_lie_around_pixels_of_all_classes_alike():
  labels = np.zeros((2, 20, 30), np.int32)
  labels[0, :4, :5] = 2
  labels[0, 17, 28] = 4
  labels[0, 10:, :9] = types.IGNORE_LABEL
  labels[1, :, :15] = 1
  num_patches = 6000
  # A patch of one pixel is the pixel that was drawn.
  corners = jax.jit(
    functools.partial(
      patches.balanced_corners,
      num_patches=num_patches,
      size=(1, 1),
      num_classes=6,
    )
  )(KEY, jnp.asarray(labels))
  chex.assert_shape(corners, (2, num_patches, 2))
  assert corners.dtype == jnp.int32
  for image, classes in enumerate(((0, 2, 4), (0, 1))):
    rows, columns = np.asarray(corners[image]).T
    drawn = np.bincount(labels[image, rows, columns], minlength=256)
    share = 1 / len(classes)
    tolerance = 5 * np.sqrt(num_patches * share * (1 - share))
    assert set(np.flatnonzero(drawn)) == set(classes)
    np.testing.assert_allclose(
      drawn[list(classes)], num_patches * share, atol=tolerance
    )


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (9, 12)])
def test_balanced_corners_are_distributed_as_an_oracle_says(size):
  labels = np.full((9, 12), types.IGNORE_LABEL)
  labels[:5, 2:] = 3
  labels[7, 10:] = 0
  expected = np.zeros(labels.shape)
  for number in (0, 3):
    pixels = np.argwhere(labels == number)
    for row, column in pixels:
      top = min(max(row - size[0] // 2, 0), labels.shape[0] - size[0])
      left = min(max(column - size[1] // 2, 0), labels.shape[1] - size[1])
      expected[top, left] += 1 / 2 / len(pixels)
  num_patches = 20_000
  corners = patches.balanced_corners(
    KEY,
    jnp.asarray(labels[None], jnp.int32),
    num_patches=num_patches,
    size=size,
    num_classes=4,
  )
  found = np.zeros(labels.shape)
  np.add.at(found, tuple(np.asarray(corners[0]).T), 1 / num_patches)
  variance = np.maximum(expected * (1 - expected), 0) / num_patches
  assert np.all(np.abs(found - expected) <= 5 * np.sqrt(variance) + 1e-9)


def test_patches_of_an_image_of_void_lie_anywhere():
  labels = jnp.full((1, 9, 12), types.IGNORE_LABEL)
  corners = patches.balanced_corners(
    KEY, labels, num_patches=900, size=(4, 6), num_classes=3
  )
  rows, columns = np.asarray(corners[0]).T
  assert set(rows) == set(range(6))
  assert set(columns) == set(range(7))


@pytest.mark.slow
def test_balanced_patches_show_the_class_in_their_centre():
  batch = numbered_batch(3, 30, 40)
  labels = np.zeros((3, 30, 40), np.int32)
  labels[:, 12:14, 20:22] = 1
  batch = batch._replace(labels=jnp.asarray(labels))
  cut = patches.balanced_patches(
    KEY, batch, num_patches=20, size=(8, 10), num_classes=2
  )
  chex.assert_shape(cut.images, (60, 8, 10, 3))
  chex.assert_shape(cut.labels, (60, 8, 10))
  assert 15 <= np.sum(np.asarray(cut.labels)[:, 4, 5] == 1) <= 45
  # Images and labels are cut alike: pixels are numbered in the images.
  truth = labels.ravel()[np.asarray(cut.images[..., 0], int)]
  np.testing.assert_array_equal(cut.labels, truth)


def test_a_balanced_patch_that_does_not_fit_is_an_error():
  batch = numbered_batch()
  with pytest.raises(ValueError, match="does not fit"):
    patches.balanced_patches(
      KEY, batch, num_patches=1, size=(14, 6), num_classes=2
    )


@pytest.mark.slow
def test_balanced_corners_are_the_same_for_labels_that_are_bytes():
  labels = jax.random.randint(KEY, (2, 13, 17), 0, 5)
  labels = labels.at[0, :6].set(types.IGNORE_LABEL)
  options = {"num_patches": 9, "size": (4, 6), "num_classes": 5}
  np.testing.assert_array_equal(
    patches.balanced_corners(KEY, labels.astype(jnp.uint8), **options),
    patches.balanced_corners(KEY, labels, **options),
  )


@pytest.mark.slow
def test_patches_drawn_from_a_grid_are_all_different_and_equally_likely():
  batch = numbered_batch(2, 20, 26)
  stride, size = (2, 3), (6, 9)

  @jax.jit
  def draw(key):
    return patches.sample_grid_patches(
      key, batch, num_patches=40, size=size, stride=stride
    ).labels

  expected = patches.grid_patches(batch, size=size, stride=stride).labels
  counts = dict.fromkeys(np.asarray(expected)[:, 0, 0].tolist(), 0)
  assert len(counts) == 2 * 8 * 7
  for number in range(50):
    labels = np.asarray(draw(jax.random.key(number)))
    assert labels.shape == (80, *size)
    first = labels[:, 0, 0]
    assert len({*first.tolist()}) == 80
    # Those of one image together.
    assert list(first // (20 * 26)) == [0] * 40 + [1] * 40
    for one in first.tolist():
      counts[one] += 1
  # Each with probability 40 / 56, five standard deviations of 0.064.
  assert 0.39 < min(counts.values()) / 50 <= max(counts.values()) / 50 <= 1


@pytest.mark.long
def test_a_padded_image_gives_patches_of_its_own_grid_before_copies():
  batch = padded_batch(((5, 17), (13, 9), (13, 17)))
  options = {"size": (4, 6), "stride": (3, 4)}
  grid = np.asarray(patches.grid_patches(batch, **options).labels)
  drawn = patches.sample_grid_patches(KEY, batch, num_patches=7, **options)
  drawn = np.asarray(drawn.labels).reshape(3, 7, 4, 6)
  # 2 rows of 4, 4 rows of 2, and 4 of 4.
  for labels, own, count in zip(
    drawn, grid.reshape(3, -1, 4, 6), (8, 8, 16), strict=True
  ):
    valid = {a.tobytes() for a in own if np.any(a != types.IGNORE_LABEL)}
    assert len(valid) == count
    found = {a.tobytes() for a in labels}
    assert len(found) == 7 and found <= valid
  every = patches.sample_grid_patches(KEY, batch, num_patches=12, **options)
  every = np.asarray(every.labels).reshape(3, 12, -1)
  void = np.all(every == types.IGNORE_LABEL, axis=-1).sum(axis=1)
  np.testing.assert_array_equal(void, [4, 4, 0])


def test_more_patches_than_a_grid_has_are_refused():
  with pytest.raises(ValueError, match="17 patches of each .* the grid has 16"):
    patches.sample_grid_patches(
      KEY, numbered_batch(), num_patches=17, size=(4, 6), stride=(3, 4)
    )


# The first image is smaller than a patch of 4x6 along both axes.
SMALL_SIZES = ((3, 5), (9, 17), (13, 6))


def cuts(batch):
  """The batch cut in all ways, by name."""
  random = {"num_patches": 40, "size": (4, 6)}
  return {
    "random": patches.sample_patches(KEY, batch, **random),
    "grid": patches.grid_patches(batch, size=(4, 6), stride=(3, 4)),
    "balanced": patches.balanced_patches(KEY, batch, num_classes=9, **random),
  }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "grid", "balanced"])
def test_patches_of_padded_images_say_what_they_fill(name):
  batch = padded_batch(SMALL_SIZES)
  if name == "balanced":
    classes = jnp.where(
      batch.labels == types.IGNORE_LABEL, types.IGNORE_LABEL, batch.labels % 9
    )
    batch = batch._replace(labels=classes)
  cut = cuts(batch)[name]
  count = len(cut.labels) // len(SMALL_SIZES)
  assert (cut.valid_sizes.shape, cut.valid_sizes.dtype) == (
    (3 * count, 2),
    jnp.int32,
  )
  for n, (height, width) in enumerate(SMALL_SIZES):
    part = slice(n * count, (n + 1) * count)
    # All of it where the image is large enough: none begins in padding.
    filled = [min(height, 4), min(width, 6)]
    np.testing.assert_array_equal(cut.valid_sizes[part], [filled] * count)
    numbers = np.asarray(cut.images[part, ..., 0], int)
    image, rows, columns = np.unravel_index(numbers, batch.labels.shape)
    assert np.all(image == n)
    inside = (rows < height) & (columns < width)
    np.testing.assert_array_equal(
      inside, valid_region.inside(cut.valid_sizes[part], (4, 6))
    )
    labels = np.asarray(cut.labels[part])
    assert np.all(labels[~inside] == types.IGNORE_LABEL)
    if name != "grid":
      truth = np.asarray(batch.labels)[image, rows, columns]
      np.testing.assert_array_equal(labels, truth)
      # Both ends are reached.
      assert rows.min() == columns.min() == 0
      if height >= 4 and width >= 6:
        assert (rows.max(), columns.max()) == (height - 1, width - 1)


@pytest.mark.long
@pytest.mark.parametrize("stride", [(4, 6), (3, 4), (1, 5)])
def test_the_grid_of_a_padded_image_is_its_own(stride):
  sizes = ((4, 6), (9, 17), (13, 6), (8, 12))
  batch = padded_batch(sizes)
  cut = patches.grid_patches(batch, size=(4, 6), stride=stride)
  labels = np.asarray(cut.labels).reshape(len(sizes), -1, 4, 6)
  for n, (height, width) in enumerate(sizes):
    alone = types.Batch(
      batch.images[n : n + 1, :height, :width],
      batch.labels[n : n + 1, :height, :width],
    )
    expected = patches.grid_patches(alone, size=(4, 6), stride=stride).labels
    is_void = np.all(labels[n] == types.IGNORE_LABEL, axis=(1, 2))
    np.testing.assert_array_equal(labels[n][~is_void], expected)


@pytest.mark.slow
def test_images_that_fill_their_arrays_are_cut_as_those_without_sizes():
  batch = numbered_batch()
  full = batch._replace(valid_sizes=jnp.array([[13, 17]] * 2, jnp.int32))
  for without, with_valid_sizes in zip(
    cuts(batch).values(), cuts(full).values(), strict=True
  ):
    chex.assert_trees_all_equal(without[:2], with_valid_sizes[:2])
    assert without.valid_sizes is None
    assert np.all(with_valid_sizes.valid_sizes == jnp.array([[4, 6]]))


def test_a_patch_that_is_moved_inside_says_what_it_fills_there():
  batch = padded_batch(((5, 17), (13, 9)))
  corners = jnp.array([[[-3, 2], [4, 0]], [[12, 30], [2, 10]]])
  cut = patches.cut(batch, corners, (4, 6))
  expected = [[4, 6], [1, 6], [4, 0], [4, 0]]
  np.testing.assert_array_equal(cut.valid_sizes, expected)


def test_patches_of_a_padded_image_of_void_lie_inside_it():
  labels = jnp.full((1, 9, 12), types.IGNORE_LABEL)
  corners = patches.balanced_corners(
    KEY,
    labels,
    num_patches=400,
    size=(4, 6),
    num_classes=3,
    valid_sizes=jnp.array([[6, 7]], jnp.int32),
  )
  rows, columns = np.asarray(corners[0]).T
  assert set(rows) == set(range(3))
  assert set(columns) == set(range(2))
