import fractions

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from fcn_jax import types
from fcn_jax.data import transforms


def _pair(height, width, seed=0):
  """A picture whose red channel is its label, so that both can be compared."""
  generator = np.random.default_rng(seed)
  label = generator.integers(200, size=(height, width), dtype=np.int32)
  image = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
  image[..., 0] = label
  return image, label


def _generator(seed=0):
  return np.random.default_rng(seed)


def _whole_parts(old, new):
  half = fractions.Fraction(1, 2)
  return [int((index + half) * old / new) for index in range(new)]


_SIDES = strategies.integers(1, 40)


@hypothesis.given(_SIDES, _SIDES, _SIDES, _SIDES)
@hypothesis.settings(deadline=None, max_examples=50)
def test_resized_labels_are_those_of_the_nearest_pixel_centre(
  height, width, new_height, new_width
):
  image, label = _pair(height, width)
  resized_image, resized = transforms.resize(
    image, label, size=(new_height, new_width)
  )
  # The centre of new pixel i lies at (i + 0.5) * old / new in the old picture,
  # in the pixel of which that is the whole part. Fractions: no rounding.
  rows = _whole_parts(height, new_height)
  columns = _whole_parts(width, new_width)
  np.testing.assert_array_equal(resized, label[rows][:, columns])
  assert resized.dtype == label.dtype
  assert resized_image.shape == (new_height, new_width, 3)
  assert resized_image.dtype == np.uint8


def test_enlarging_is_bilinear_between_pixel_centres():
  row = np.array([0, 80, 160, 40], np.uint8)
  image = np.broadcast_to(row[None, :, None], (2, 4, 3)).copy()
  enlarged, _ = transforms.resize(
    image, np.zeros((2, 4), np.int32), size=(2, 12)
  )
  positions = (np.arange(12) + 0.5) * 4 / 12 - 0.5
  expected = np.interp(positions, np.arange(4), row)
  np.testing.assert_allclose(enlarged[0, :, 0], expected, atol=0.51)


@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0, 3.0])
def test_an_edge_stays_at_the_same_place_in_image_and_label(factor):
  label = np.zeros((24, 24), np.int32)
  label[:, 12:] = 1
  image = np.repeat(label[..., None] * 200, 3, axis=2).astype(np.uint8)
  image, label = transforms.rescale(image, label, factor=factor)
  np.testing.assert_array_equal(image[..., 0] > 100, label == 1)


def test_void_stays_void_when_resized():
  image, label = _pair(8, 8)
  label[:, 4:] = types.IGNORE_LABEL
  _, resized = transforms.resize(image, label, size=(16, 16))
  assert (resized[:, 8:] == types.IGNORE_LABEL).all()
  assert (resized[:, :8] != types.IGNORE_LABEL).all()


def test_the_factor_of_a_random_scale_covers_its_range_evenly():
  image, label = _pair(100, 200)
  generator = _generator()
  heights = []
  for _ in range(300):
    _, scaled = transforms.random_scale(
      generator, image, label, scale_range=(0.5, 2.0)
    )
    assert scaled.shape[1] == pytest.approx(2 * scaled.shape[0], abs=2)
    heights.append(scaled.shape[0])
  assert min(heights) >= 50 and max(heights) <= 200
  assert np.mean(heights) == pytest.approx(125, abs=8)
  assert min(heights) < 60 and max(heights) > 190


@hypothesis.given(_SIDES, _SIDES, _SIDES, _SIDES, strategies.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=50)
def test_a_crop_is_a_window_of_the_padded_picture(
  height, width, crop_height, crop_width, seed
):
  image, label = _pair(height, width)
  size = (crop_height, crop_width)
  crop, crop_label = transforms.random_crop(
    _generator(seed), image, label, size=size, fill=(1, 2, 3)
  )
  assert crop.shape == (*size, 3) and crop_label.shape == size
  void = crop_label == types.IGNORE_LABEL
  np.testing.assert_array_equal(crop[..., 0][~void], crop_label[~void])
  assert (crop[void] == (1, 2, 3)).all()
  inside = min(height, crop_height), min(width, crop_width)
  expected = np.ones(size, bool)
  expected[: inside[0], : inside[1]] = False
  np.testing.assert_array_equal(void, expected)
  windows = np.lib.stride_tricks.sliding_window_view(label, inside)
  part = crop_label[: inside[0], : inside[1]]
  assert (windows == part).all(axis=(2, 3)).any()


def test_every_place_of_a_crop_is_about_equally_likely():
  label = np.arange(30, dtype=np.int32).reshape(5, 6)
  image = np.zeros((5, 6, 3), np.uint8)
  generator = _generator()
  corners = [
    transforms.random_crop(generator, image, label, size=(3, 4))[1][0, 0]
    for _ in range(1800)
  ]
  values, counts = np.unique(corners, return_counts=True)
  np.testing.assert_array_equal(values, label[:3, :3].ravel())
  assert counts.min() > 150 and counts.max() < 250


def test_a_flip_mirrors_image_and_label_half_of_the_time():
  image, label = _pair(4, 5)
  generator = _generator()
  flips = 0
  for _ in range(200):
    flipped, flipped_label = transforms.random_flip(generator, image, label)
    np.testing.assert_array_equal(flipped[..., 0], flipped_label)
    if (flipped_label == label).all():
      np.testing.assert_array_equal(flipped, image)
    else:
      np.testing.assert_array_equal(flipped, image[:, ::-1])
      flips += 1
  assert 70 < flips < 130


def test_padding_keeps_the_picture_at_the_top_left():
  image, label = _pair(4, 5)
  padded, padded_label = transforms.pad_to(
    image, label, size=(6, 9), fill=(7, 8, 9)
  )
  np.testing.assert_array_equal(padded[:4, :5], image)
  np.testing.assert_array_equal(padded_label[:4, :5], label)
  assert (padded[4:] == (7, 8, 9)).all() and (padded[:, 5:] == (7, 8, 9)).all()
  assert (padded_label[4:] == 255).all() and (padded_label[:, 5:] == 255).all()
  assert padded.dtype == np.uint8 and padded_label.dtype == label.dtype


def test_the_same_generator_state_gives_the_same_result():
  image, label = _pair(20, 30)

  def change(seed):
    generator = _generator(seed)
    pair = transforms.random_scale(
      generator, image, label, scale_range=(0.5, 2.0)
    )
    pair = transforms.random_crop(generator, *pair, size=(16, 16))
    return transforms.random_flip(generator, *pair)[0]

  np.testing.assert_array_equal(change(1), change(1))
  assert (change(1) != change(2)).any()


def test_transforms_leave_their_arguments_as_they_were():
  image, label = _pair(20, 30)
  before = image.copy(), label.copy()
  generator = _generator()
  pair = transforms.random_scale(
    generator, image, label, scale_range=(0.5, 2.0)
  )
  pair = transforms.random_crop(generator, *pair, size=(40, 40))
  transforms.random_flip(generator, image, label)
  np.testing.assert_array_equal(image, before[0])
  np.testing.assert_array_equal(label, before[1])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda i, x: transforms.resize(i, x, size=(0, 4)), r"\(0, 4\)"),
    (lambda i, x: transforms.rescale(i, x, factor=-0.5), r"-0\.5"),
    (lambda i, x: transforms.pad_to(i, x, size=(4, 4)), "4x5.*4x4"),
    (
      lambda i, x: transforms.random_crop(_generator(), i, x, size=(3, 0)),
      r"\(3, 0\)",
    ),
    (
      lambda i, x: transforms.random_scale(
        _generator(), i, x, scale_range=(2.0, 1.0)
      ),
      r"\(2\.0, 1\.0\)",
    ),
    (
      lambda i, x: transforms.random_flip(_generator(), i, x[1:]),
      r"\(4, 5, 3\).*\(3, 5\)",
    ),
  ],
)
def test_options_out_of_range_are_refused_with_their_value(change, message):
  image, label = _pair(4, 5)
  with pytest.raises(ValueError, match=message):
    change(image, label)
