"""Windows that are turned and deformed, interpolated once."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from scipy import ndimage

from fcn_jax import types
from fcn_jax.data.pipeline import transforms
from fcn_jax.data.pipeline import warping

VOID = types.IGNORE_LABEL
SIDES = strategies.integers(1, 40)


def smooth(height, width, channels=3, seed=0):
  """A picture without sharp edges, over the whole range, and labels of it."""
  generator = np.random.default_rng(seed)
  noise = generator.standard_normal((height, width, channels))
  image = ndimage.gaussian_filter(noise, (3, 3, 0))
  image = (image - image.min()) / np.ptp(image) * 255
  image = image.astype(np.uint8)
  return image, (image[..., 0] // 30).astype(np.int32)


def blocks(height, width, side, seed=0):
  """Squares of a class, with the class painted into the picture."""
  generator = np.random.default_rng(seed)
  classes = generator.integers(5, size=(height // side, width // side))
  label = np.kron(classes, np.ones((side, side))).astype(np.int32)
  image = np.repeat(label[..., None] * 50, 3, axis=2).astype(np.uint8)
  return image, label


def by_scipy(array, *, size, factors, angle, order):
  """The same by one affine map of SciPy's, about the centres."""
  turn = np.deg2rad(angle)
  # Rows go down: the picture turns counter-clockwise.
  forward = np.array(
    [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
  ) @ np.diag(factors)
  inverse = np.linalg.inv(forward)
  centre = (np.array(array.shape) - 1) / 2
  offset = centre - inverse @ ((np.array(size) - 1) / 2)
  return ndimage.affine_transform(
    array.astype(float),
    inverse,
    offset,
    output_shape=size,
    order=order,
    mode="constant",
    cval=-1,
  )


@pytest.mark.parametrize("angle", [-150.0, -20.0, 0.0, 33.0, 85.0])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.5, 1.25), (1.0, 2.0)])
def test_a_turn_with_two_scales_is_one_affine_map(angle, factors):
  image, label = smooth(40, 64)
  size = 50, 30
  warped, warped_label = transforms.warp_whole(
    image, label, size=size, factor=factors, warp=warping.Warp(angle)
  )
  assert warped.dtype == np.uint8 and warped_label.dtype == np.int32
  options = {"size": size, "factors": factors, "angle": angle}
  expected = by_scipy(image[..., 1], order=1, **options)
  inside = expected >= 0
  assert inside.mean() > 0.5
  np.testing.assert_allclose(warped[..., 1][inside], expected[inside], atol=0.6)
  expected = by_scipy(label, order=0, **options)
  # A few places lie on the border of two pixels.
  assert np.mean(warped_label[inside] != expected[inside]) < 0.01


@pytest.mark.parametrize("turns", [-1, 1, 2])
def test_a_turn_of_a_square_by_a_right_angle_is_that_of_numpy(turns):
  image, label = smooth(21, 21)
  warped, warped_label = transforms.warp_whole(
    image, label, size=(21, 21), factor=1.0, warp=warping.Warp(90.0 * turns)
  )
  np.testing.assert_array_equal(warped, np.rot90(image, turns))
  np.testing.assert_array_equal(warped_label, np.rot90(label, turns))


def test_a_small_turn_is_that_of_scipy():
  image, label = smooth(60, 80)
  warped, _ = transforms.warp_whole(
    image, label, size=(60, 80), factor=1.0, warp=warping.Warp(12.0)
  )
  expected = ndimage.rotate(
    image[..., 2].astype(float), 12.0, reshape=False, order=1, cval=-1000
  )
  inside = expected >= 0
  np.testing.assert_allclose(warped[..., 2][inside], expected[inside], atol=0.6)


@hypothesis.given(SIDES, SIDES, SIDES, SIDES, strategies.floats(0.3, 3.0))
@hypothesis.settings(deadline=None, max_examples=50)
def test_without_a_turn_labels_are_those_of_a_plain_crop(
  height, width, crop_height, crop_width, factor
):
  image, label = smooth(height, width)
  plain, warped = (
    transforms.random_crop(
      np.random.default_rng(0),
      image,
      label,
      size=(crop_height, crop_width),
      factor=factor,
      warp=warp,
    )
    for warp in (None, warping.Warp())
  )
  np.testing.assert_array_equal(warped[1], plain[1])
  assert warped[0].shape == plain[0].shape
  if factor >= 1:
    difference = plain[0].astype(int) - warped[0]
    # Pillow rounds twice.
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("factor", [0.8, 0.5, 0.23])
def test_a_picture_that_shrinks_is_as_smooth_as_by_pillow(factor):
  generator = np.random.default_rng(0)
  noise = generator.integers(256, size=(200, 200, 3), dtype=np.uint8)
  label = np.zeros((200, 200), np.int32)
  resized, _ = transforms.rescale(noise, label, factor=factor)
  for angle in (0.0, 10.0, 40.0):
    warped, _ = transforms.warp_whole(
      noise,
      label,
      size=(30, 30),
      factor=factor,
      warp=warping.Warp(angle),
    )
    # Bilinear without smoothing: 48, 50 and 50.
    assert 0.8 < warped.std() / resized.std() < 1.2
    assert warped.mean() == pytest.approx(noise.mean(), abs=2)


def test_only_the_axis_that_shrinks_is_smoothed():
  lines = np.zeros((64, 64, 3), np.uint8)
  lines[::2] = 200
  label = np.zeros((64, 64), np.int32)
  warped = [
    transforms.warp_whole(
      lines, label, size=(16, 16), factor=factor, warp=warping.Warp()
    )[0]
    for factor in ((0.25, 1.0), (1.0, 0.25))
  ]
  assert np.ptp(warped[0]) < 50 and abs(warped[0].mean() - 100) < 3
  np.testing.assert_array_equal(warped[1], lines[24:40, 24:40])


def test_image_and_labels_move_together():
  image, label = blocks(80, 100, 20)
  generator = np.random.default_rng(0)
  seen = 0
  for _ in range(20):
    warp = warping.draw(
      generator,
      (60, 70),
      rotation=180.0,
      elastic_amplitude=1.5,
      elastic_spacing=30.0,
    )
    crop, crop_label = transforms.random_crop(
      generator,
      image,
      label,
      size=(60, 70),
      factor=(1.1, 0.9),
      warp=warp,
    )
    # Away from edges, where colours are mixed.
    highest, lowest = (
      extreme(crop_label, 7, mode="constant", cval=VOID)
      for extreme in (ndimage.maximum_filter, ndimage.minimum_filter)
    )
    flat = (highest == lowest) & (crop_label != VOID)
    seen += flat.sum()
    np.testing.assert_array_equal(crop[flat][:, 0], crop_label[flat] * 50)
  assert seen > 20 * 500


def test_outside_of_the_picture_are_the_colour_of_padding_and_void():
  image, label = smooth(20, 40)
  image[...], label[...] = 200, 1
  warped, warped_label = transforms.warp_whole(
    image, label, size=(20, 40), factor=1.0, warp=warping.Warp(90.0)
  )
  expected = np.full((20, 40), VOID)
  expected[:, 10:30] = 1
  np.testing.assert_array_equal(warped_label, expected)
  assert (warped[expected == 1] == 200).all()
  assert (warped[expected == VOID] == transforms.FILL).all()


def test_other_channels_and_kinds_of_labels_go_the_same_way():
  image, label = smooth(30, 36, channels=4)
  options = {"size": (30, 36), "factor": 0.9, "warp": warping.Warp(25.0)}
  labels = np.stack([label, label + 50], axis=-1)
  four, two_kinds = transforms.warp_whole(
    image.astype(np.float32), labels, **options
  )
  assert four.dtype == np.float32 and two_kinds.shape == (30, 36, 2)
  three, one_kind = transforms.warp_whole(image[..., 1:], label, **options)
  inside = one_kind != VOID
  np.testing.assert_array_equal(two_kinds[..., 0], one_kind)
  np.testing.assert_array_equal(two_kinds[inside][:, 1], one_kind[inside] + 50)
  assert (two_kinds[~inside] == VOID).all()
  np.testing.assert_allclose(four[..., 1:][inside], three[inside], atol=0.501)


def test_displacements_are_normal_at_the_points_of_a_grid():
  # With an odd spacing the points are pixels.
  warp = warping.draw(
    np.random.default_rng(0),
    (450, 450),
    rotation=0.0,
    elastic_amplitude=5.0,
    elastic_spacing=9.0,
  )
  assert warp.angle == 0.0 and warp.displacement.shape == (2, 450, 450)
  points = warp.displacement[:, 4::9, 4::9]
  assert points.std() == pytest.approx(5.0, rel=0.05)
  assert abs(points.mean()) < 0.3
  neighbours = [
    np.corrcoef(points[:, :, 1:].ravel(), points[:, :, :-1].ravel()),
    np.corrcoef(points[0].ravel(), points[1].ravel()),
  ]
  assert max(abs(one[0, 1]) for one in neighbours) < 0.06
  # Between them the field is cubic, and so without jumps.
  assert np.abs(np.diff(warp.displacement, axis=2)).max() < 5.0
  # Keys' kernel, halfway between points along a row.
  kernel = np.array([-1, 9, 9, -1]) / 16
  between = warp.displacement[:, 4::9, :].reshape(2, 50, -1)
  halfway = (between[..., 8:-9:9] + between[..., 9:-8:9]) / 2
  expected = np.apply_along_axis(
    np.convolve, 2, points.astype(float), kernel, mode="valid"
  )
  np.testing.assert_allclose(halfway[..., 1:-1], expected, atol=0.35)


def test_nothing_is_drawn_where_nothing_is_to_change():
  generator = np.random.default_rng(0)
  options = {"rotation": 0.0, "elastic_amplitude": 0.0, "elastic_spacing": 9.0}
  assert warping.draw(generator, (9, 9), **options) is None
  assert generator.uniform() == np.random.default_rng(0).uniform()


@pytest.mark.parametrize("factor", [0.4, 1.0, (1.7, 0.8)])
def test_a_forced_crop_holds_its_class_however_it_is_warped(factor):
  label = np.zeros((60, 70), np.int32)
  # Corners, where a turn about the middle of the crop would lose them.
  for row, column in ((0, 0), (0, 67), (57, 2), (31, 40)):
    label[row : row + 3, column : column + 3] = 1
  generator = np.random.default_rng(0)
  image = np.zeros((60, 70, 3), np.uint8)
  for _ in range(100):
    warp = warping.draw(
      generator,
      (12, 16),
      rotation=180.0,
      elastic_amplitude=4.0,
      elastic_spacing=8.0,
    )
    _, crop = transforms.random_crop(
      generator,
      image,
      label,
      size=(12, 16),
      factor=factor,
      foreground=1,
      warp=warp,
    )
    assert (crop == 1).any()


def test_of_crops_that_are_turned_those_with_enough_labels_are_preferred():
  label = np.full((40, 40), VOID, np.int32)
  label[:20, :20] = 1
  image = np.zeros((40, 40, 3), np.uint8)

  def shares(**options):
    generator = np.random.default_rng(0)
    crops = []
    for _ in range(100):
      warp = warping.Warp(generator.uniform(-180, 180))
      _, crop = transforms.random_crop(
        generator, image, label, size=(10, 10), warp=warp, **options
      )
      crops.append(np.mean(crop == 1))
    return np.array(crops)

  assert np.mean(shares() >= 0.5) < 0.35
  assert np.mean(shares(min_labelled=0.5) >= 0.5) > 0.85


def test_a_window_that_leaves_the_picture_altogether_is_void():
  image, label = smooth(8, 8)
  displacement = np.full((2, 8, 8), 100.0)
  displacement[:, 3, 3] = 0.0
  _, warped = transforms.warp_whole(
    image,
    label,
    size=(8, 8),
    factor=1.0,
    warp=warping.Warp(0.0, displacement),
  )
  assert np.argwhere(warped != VOID).tolist() == [[3, 3]]


def test_angles_are_uniform_in_their_range():
  generator = np.random.default_rng(0)
  options = {"elastic_amplitude": 0.0, "elastic_spacing": 9.0}
  angles = [
    warping.draw(generator, (9, 9), rotation=30.0, **options).angle
    for _ in range(1000)
  ]
  assert -30 <= min(angles) < -29 and 29 < max(angles) <= 30
  assert np.std(angles) == pytest.approx(60 / math.sqrt(12), rel=0.05)
