import fractions

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from fcn_jax import types
from fcn_jax.data.pipeline import transforms


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


def _crop(seed, image, label, **options):
  return transforms.random_crop(_generator(seed), image, label, **options)


@hypothesis.given(
  _SIDES,
  _SIDES,
  _SIDES,
  _SIDES,
  strategies.floats(0.2, 4.0),
  strategies.integers(0, 99),
)
@hypothesis.settings(deadline=None, max_examples=200)
def test_a_crop_is_a_window_of_the_whole_picture_resized(
  height, width, crop_height, crop_width, factor, seed
):
  image, label = _pair(height, width)
  size = crop_height, crop_width
  crop, crop_label = _crop(seed, image, label, size=size, factor=factor)
  whole, whole_label = transforms.rescale(image, label, factor=factor)
  assert crop_label.shape == tuple(np.minimum(whole_label.shape, size))
  assert crop.shape == (*crop_label.shape, 3) and crop.dtype == np.uint8
  assert crop_label.dtype == label.dtype
  window_shape = crop_label.shape
  windows = np.lib.stride_tricks.sliding_window_view(whole_label, window_shape)
  images = np.lib.stride_tricks.sliding_window_view(
    whole, window_shape, axis=(0, 1)
  )
  same = (windows == crop_label).all(axis=(2, 3))
  # Pillow rounds after each of two passes, so that a last bit can make two.
  differences = [
    np.abs(images[top, left].transpose(1, 2, 0).astype(int) - crop)
    for top, left in zip(*same.nonzero(), strict=True)
  ]
  best = min(differences, key=lambda difference: difference.max())
  assert best.max() <= 2
  # One value of a crop of a few pixels is more than a hundredth.
  assert (best > 1).sum() <= max(1, 0.01 * best.size)


def test_a_crop_is_at_the_place_drawn_and_off_by_a_grey_level_at_most():
  image, label = _pair(90, 120)
  for seed in range(20):
    factor = _generator(seed).uniform(0.5, 2.0)
    size = 64, 64
    crop, crop_label = _crop(seed, image, label, size=size, factor=factor)
    whole, whole_label = transforms.rescale(image, label, factor=factor)
    generator = _generator(seed)
    height, width = crop_label.shape
    top = generator.integers(whole_label.shape[0] - height + 1)
    left = generator.integers(whole_label.shape[1] - width + 1)
    window = np.s_[top : top + height, left : left + width]
    np.testing.assert_array_equal(crop_label, whole_label[window])
    difference = np.abs(whole[window].astype(int) - crop)
    # Ties are frequent at simple factors, and may be rounded either way.
    assert difference.mean() < 0.1
    # About one pixel in a million is off by two.
    assert (difference > 1).sum() <= 3 and difference.max() <= 2


def test_without_a_factor_a_crop_has_the_pixels_of_the_picture():
  image, label = _pair(20, 30)
  crop, crop_label = _crop(3, image, label, size=(8, 40))
  assert crop_label.shape == (8, 30)
  np.testing.assert_array_equal(crop[..., 0], crop_label)


def _label_with_a_labelled_corner():
  label = np.full((40, 40), types.IGNORE_LABEL, np.int32)
  label[:20, :20] = 1
  return np.zeros((40, 40, 3), np.uint8), label


def test_crops_with_enough_labels_are_preferred():
  image, label = _label_with_a_labelled_corner()

  def shares(**options):
    crops = [
      _crop(seed, image, label, size=(10, 10), **options)[1]
      for seed in range(200)
    ]
    return np.mean(np.array(crops) != types.IGNORE_LABEL, axis=(1, 2))

  # A quarter of the windows lies within the corner about; ten fail seldom.
  assert np.mean(shares() >= 0.5) < 0.35
  assert np.mean(shares(min_labelled=0.5) >= 0.5) > 0.9


def test_of_ten_crops_with_too_few_labels_the_best_is_taken():
  image, label = _label_with_a_labelled_corner()
  for seed in range(20):
    generator = _generator(seed)
    counts = []
    for _ in range(10):
      top, left = generator.integers(11), generator.integers(11)
      window = label[top : top + 30, left : left + 30]
      counts.append(np.sum(window != types.IGNORE_LABEL))
    _, crop = _crop(seed, image, label, size=(30, 30), min_labelled=1.0)
    assert np.sum(crop != types.IGNORE_LABEL) == max(counts)


def test_labels_are_counted_in_shares_of_the_whole_crop():
  # All of the picture is labelled, but it can fill half of the crop only.
  image, label = _pair(40, 10)

  def after(min_labelled):
    generator = _generator()
    transforms.random_crop(
      generator, image, label, size=(20, 20), min_labelled=min_labelled
    )
    return generator.uniform()

  # A window that has enough is the last that is drawn.
  assert after(0.5) == after(0.0)
  assert after(0.51) != after(0.0)


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


@pytest.mark.parametrize(
  ("size", "keep_size", "turns"),
  [
    ((4, 5), False, {0, 1, 2, 3}),
    ((4, 5), True, {0, 2}),
    ((4, 4), True, {0, 1, 2, 3}),
  ],
)
def test_quarter_turns_are_those_of_numpy_each_as_likely(
  size, keep_size, turns
):
  image, label = _pair(*size)
  label = np.stack([label, label + 1], axis=-1)
  generator = _generator()
  counts = dict.fromkeys(turns, 0)
  for _ in range(400):
    turned, turned_label = transforms.random_quarter_turn(
      generator, image, label, keep_size=keep_size
    )
    (turn,) = [
      k for k in range(4) if np.array_equal(turned, np.rot90(image, k))
    ]
    np.testing.assert_array_equal(turned_label, np.rot90(label, turn))
    counts[turn] += 1
  assert min(counts.values()) > 0.75 * 400 / len(turns)


def test_squares_are_cut_out_around_pixels_of_the_picture():
  image, label = _pair(20, 30)
  image += image == transforms.FILL[0]
  generator = _generator()
  hidden = np.zeros((20, 30))
  for _ in range(3000):
    cut, cut_label = transforms.cutout(generator, image, label, count=1, size=5)
    rows, columns = (cut_label == types.IGNORE_LABEL).nonzero()
    # One rectangle, smaller at the border only.
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height * width == len(rows)
    assert height == 5 or rows.min() == 0 or rows.max() == 19
    assert width == 5 or columns.min() == 0 or columns.max() == 29
    assert min(height, width) >= 3 and max(height, width) <= 5
    expected = image.copy()
    expected[rows, columns] = transforms.FILL
    np.testing.assert_array_equal(cut, expected)
    hidden += cut_label != label
  # All pixels but those at the border are hidden alike.
  shares = hidden[2:-2, 2:-2] / 3000
  assert shares.mean() == pytest.approx(25 / 600, rel=0.05)
  assert shares.min() > 0.5 * 25 / 600 and shares.max() < 1.6 * 25 / 600


def test_many_squares_may_overlap_and_other_channels_get_their_means():
  image = np.random.default_rng(0).normal(size=(20, 30, 4)).astype(np.float32)
  label = np.zeros((20, 30, 2), np.int32)
  cut, cut_label = transforms.cutout(
    _generator(), image, label, count=6, size=4
  )
  hidden = (cut_label == types.IGNORE_LABEL).all(axis=-1)
  assert 16 < hidden.sum() <= 6 * 16
  assert (cut_label[~hidden] == 0).all()
  np.testing.assert_allclose(
    cut[hidden],
    np.broadcast_to(image.mean(axis=(0, 1)), (hidden.sum(), 4)),
    rtol=1e-5,
  )
  np.testing.assert_array_equal(cut[~hidden], image[~hidden])


def test_pasted_pixels_bring_all_their_labels():
  below, above = _pair(6, 7), _pair(6, 7, seed=1)
  labels = [
    np.stack([label % 3, label], axis=-1) for _, label in (below, above)
  ]
  pairs = [(below[0], labels[0]), (above[0], labels[1])]
  image, label = transforms.paste(*pairs, of_class=2)
  for place in np.ndindex(6, 7):
    source = 1 if labels[1][place][0] == 2 else 0
    assert tuple(image[place]) == tuple(pairs[source][0][place])
    assert tuple(label[place]) == tuple(labels[source][place])


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
    pair = transforms.random_crop(
      generator, image, label, size=(16, 16), factor=1.3
    )
    return transforms.random_flip(generator, *pair)[0]

  np.testing.assert_array_equal(change(1), change(1))
  assert (change(1) != change(2)).any()


def test_transforms_leave_their_arguments_as_they_were():
  image, label = _pair(20, 30)
  before = image.copy(), label.copy()
  generator = _generator()
  transforms.random_crop(generator, image, label, size=(40, 40), factor=0.7)
  transforms.random_flip(generator, image, label)
  transforms.cutout(generator, image, label, count=3, size=5)
  transforms.paste((image, label), _pair(20, 30, 1), of_class=5)
  np.testing.assert_array_equal(image, before[0])
  np.testing.assert_array_equal(label, before[1])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda i, x: transforms.resize(i, x, size=(0, 4)), r"\(0, 4\)"),
    (lambda i, x: transforms.rescale(i, x, factor=-0.5), r"-0\.5"),
    (lambda i, x: transforms.rescale(i, x, factor=(1.0, 0.0)), r"1\.0, 0\.0"),
    (lambda i, x: transforms.pad_to(i, x, size=(4, 4)), "4x5.*4x4"),
    (
      lambda i, x: transforms.paste((i, x), _pair(5, 5), of_class=1),
      r"\(5, 5\) cannot be pasted .*\(4, 5\)",
    ),
    (
      lambda i, x: transforms.random_crop(_generator(), i, x, size=(3, 0)),
      r"\(3, 0\)",
    ),
    (
      lambda i, x: transforms.random_crop(
        _generator(), i, x, size=(3, 3), min_labelled=1.5
      ),
      r"min_labelled .* 1\.5",
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
