"""Crops that are made to hold a class."""

import collections
import itertools

import numpy as np
import pytest

from fcn_jax import data
from fcn_jax.data.pipeline import foreground
from fcn_jax.data.pipeline import transforms
from tests.helpers import batches as made

SIZE = (20, 24)


class Example:
  """A picture of class 0, with a pixel of another class in its corner."""

  def __init__(self, number, of_class):
    self.name = f"example{number}"
    self.image = np.full((*SIZE, 3), number, np.uint8)
    self.label = np.zeros(SIZE, np.int32)
    if of_class:
      self.label[0, 0] = of_class


# Class 2 is in one example of ten, class 1 in three, class 3 in none.
SOURCE = [Example(i, {4: 2, 1: 1, 5: 1, 9: 1}.get(i, 0)) for i in range(10)]


def crops(number, **options):
  """The first batches of 8 crops of 6x6 pixels: numbers, labels."""
  batches = made.train(
    SOURCE, batch_size=8, num_classes=4, crop_size=(6, 6), **options
  )
  taken = list(itertools.islice(batches, number))
  batches.close()
  images = np.stack([batch.images[:, 0, 0, 0] for batch in taken])
  return images, np.stack([batch.labels for batch in taken])


@pytest.mark.slow
def test_a_share_of_each_batch_holds_a_class_drawn_among_those_there_are():
  images, labels = crops(150, foreground_share=0.33, flip=False)
  # 0.33 of 8 crops are the last three.
  held = [np.unique(crop) for crop in labels[:, 5:].reshape(-1, 36)]
  shares = [np.mean([c in classes for classes in held]) for c in range(4)]
  # Classes 0, 1 and 2 are drawn alike; class 0 is around the others as well.
  assert shares[0] == 1
  assert abs(shares[1] - 1 / 3) < 0.1 and abs(shares[2] - 1 / 3) < 0.1
  assert shares[3] == 0
  # The others are any crops: the corner is in one of 15 * 19.
  assert np.mean(labels[:, :5].reshape(-1, 36).max(axis=1) > 0) < 0.03
  # Every example of class 1 is drawn.
  of_one = (labels[:, 5:] == 1).any(axis=(2, 3))
  assert set(images[:, 5:][of_one]) == {1, 5, 9}


def test_only_chosen_classes_are_forced_and_at_least_one_crop_is():
  _, labels = crops(40, foreground_share=0.01, foreground_classes=(2, 3))
  assert (labels[:, 7] == 2).any(axis=(1, 2)).all()
  assert (labels[:, :7] == 2).any(axis=(2, 3)).mean() < 0.02


def test_batches_do_not_depend_on_the_labels_being_read_before():
  options = {"foreground_share": 0.5, "first_batch": 3}
  holds_class = foreground.holds_class(SOURCE, num_classes=4, num_threads=1)
  expected = np.zeros((10, 4), bool)
  expected[:, 0], expected[[1, 5, 9], 1], expected[4, 2] = True, True, True
  np.testing.assert_array_equal(holds_class, expected)
  first, second = (
    crops(4, **options),
    crops(4, holds_class=holds_class, **options),
  )
  np.testing.assert_array_equal(first[0], second[0])
  np.testing.assert_array_equal(first[1], second[1])


def test_the_examples_of_a_batch_are_known_without_reading_them():
  images, _ = crops(5, foreground_share=0.5)
  augmentation = data.Augmentation(crop_size=(6, 6), foreground_share=0.5)
  holds_class = foreground.holds_class(SOURCE, num_classes=4, num_threads=1)
  for number in range(5):
    indices = data.pipeline.indices_of_batch(
      10,
      batch_size=8,
      seed=0,
      number=number,
      augmentation=augmentation,
      holds_class=holds_class,
    )
    np.testing.assert_array_equal(indices, images[number])


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("pixel", [(0, 0), (0, 7), (5, 8), (9, 15)])
def test_a_crop_around_a_pixel_is_any_that_holds_it_near_borders_too(
  pixel, factor
):
  height, width, side = 10, 16, 4
  label = np.arange(height * width, dtype=np.int32).reshape(height, width)
  target = label[pixel]
  image = np.zeros((height, width, 3), np.uint8)
  generator = np.random.default_rng(0)
  whole = np.kron(label, np.ones((int(factor), int(factor)), np.int32))
  corners = []
  for _ in range(1000):
    _, crop = transforms.random_crop(
      generator,
      image,
      label,
      size=(side, side),
      factor=factor,
      foreground=int(target),
    )
    assert (crop == target).any()
    corners.append(crop.tobytes())
  # By brute force: first a pixel of the label, then a window that holds it.
  shares = collections.Counter()
  pixels = np.argwhere(whole == target)
  for row, column in pixels:
    windows = [
      np.ascontiguousarray(whole[i : i + side, j : j + side]).tobytes()
      for i in range(len(whole) - side + 1)
      for j in range(len(whole[0]) - side + 1)
      if 0 <= row - i < side and 0 <= column - j < side
    ]
    for window in windows:
      shares[window] += 1 / len(windows) / len(pixels)
  assert set(corners) <= shares.keys()
  for window, share in shares.items():
    error = np.sqrt(share * (1 - share) / 1000)
    assert abs(corners.count(window) / 1000 - share) < 4.5 * error + 1e-9


def test_all_pixels_of_a_class_are_held_alike():
  label = np.zeros((9, 30), np.int32)
  label[4, [0, 14, 29]] = 1
  image = np.zeros((9, 30, 3), np.uint8)
  image[...] = np.arange(30, dtype=np.uint8)[None, :, None]
  generator = np.random.default_rng(0)
  held = []
  for _ in range(900):
    picture, crop = transforms.random_crop(
      generator, image, label, size=(3, 3), foreground=1
    )
    held.append(picture[crop == 1][0, 0])
  columns, counts = np.unique(held, return_counts=True)
  assert columns.tolist() == [0, 14, 29]
  np.testing.assert_allclose(counts / 900, 1 / 3, atol=0.06)


def test_the_class_is_held_where_the_picture_shrinks():
  # Half of the rows and columns are left out: a line of one pixel partly is.
  label = np.zeros((40, 40), np.int32)
  label[np.arange(40), np.arange(40) // 2 + 7] = 1
  image = np.zeros((40, 40, 3), np.uint8)
  generator = np.random.default_rng(0)
  for _ in range(200):
    _, crop = transforms.random_crop(
      generator, image, label, size=(4, 4), factor=0.5, foreground=1
    )
    assert (crop == 1).any()


def test_a_picture_without_the_class_has_any_crop():
  _, crop = transforms.random_crop(
    np.random.default_rng(0),
    np.zeros((9, 30, 3), np.uint8),
    np.zeros((9, 30), np.int32),
    size=(3, 3),
    foreground=7,
  )
  assert crop.shape == (3, 3)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"foreground_share": 1.5}, "foreground_share must be in 0..1"),
    (
      {"foreground_share": 0.5, "crop_size": None},
      "foreground_share chooses crops",
    ),
    ({"foreground_classes": (1,)}, "without foreground_share"),
    (
      {"foreground_share": 0.5, "foreground_classes": (4,)},
      "has 4, but classes are 0 to 3",
    ),
    (
      {"foreground_share": 0.5, "foreground_classes": (3,)},
      "no example holds any of them",
    ),
  ],
)
def test_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    made.train(
      SOURCE,
      batch_size=8,
      num_classes=4,
      **({"crop_size": (6, 6)} | options),
    )
