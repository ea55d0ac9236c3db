"""Pixels of rare classes that are pasted into crops of other pictures."""

import itertools

import numpy as np

from fcn_jax import data
from fcn_jax import types
from tests.helpers import batches as made

SIZE = (20, 24)


def source():
  """Pictures of one grey, 10 times their number, and of class 0.

  Examples 2 and 5 have a square of class 1, example 7 one of class 2.
  """
  examples = []
  for number in range(10):
    label = np.zeros(SIZE, np.int32)
    if number in (2, 5, 7):
      label[4:8, 5:9] = 2 if number == 7 else 1
    image = np.full((*SIZE, 3), 10 * number, np.uint8)
    examples.append(data.Example(image, label, f"example{number}"))
  return examples


def crops(number, **options):
  defaults = {
    "batch_size": 5,
    "num_classes": 4,
    "crop_size": (8, 8),
    "copy_paste_classes": (1, 2, 3),
  }
  batches = made.train(source(), **(defaults | options))
  taken = list(itertools.islice(batches, number))
  batches.close()
  images = np.concatenate([batch.images[..., 0] for batch in taken])
  return images, np.concatenate([batch.labels for batch in taken])


def test_a_share_of_the_crops_holds_a_class_with_the_pixels_of_its_picture():
  images, labels = crops(60, copy_paste=0.4)
  pasted = 0
  for image, label in zip(images, labels, strict=True):
    if not label.any():
      assert len(np.unique(image)) == 1
      continue
    assert set(image[label == 1]) <= {20, 50}
    assert set(image[label == 2]) <= {70}
    pasted += len(np.unique(image)) > 1
  # Seven of ten pictures have nothing of their own.
  shares = [np.mean((labels == c).any(axis=(1, 2))) for c in (1, 2)]
  assert abs(pasted / 300 - 0.4) < 0.1
  # Both classes are drawn alike.
  assert all(0.15 < share < 0.35 for share in shares)


def test_each_crop_is_pasted_into_where_the_share_is_one():
  _, labels = crops(
    15,
    copy_paste=1.0,
    copy_paste_classes=(2,),
    scale_range=(0.6, 1.5),
    rotation=180.0,
    elastic_amplitude=1.0,
    elastic_spacing=8.0,
  )
  assert (labels == 2).any(axis=(1, 2)).all()


def test_crops_larger_than_the_picture_are_pasted_into_too():
  images, labels = crops(
    20, copy_paste=1.0, copy_paste_classes=(2,), crop_size=(32, 32)
  )
  assert (labels == 2).any(axis=(1, 2)).all()
  assert (images[labels == 2] == 70).all()


def test_what_is_pasted_has_a_scale_of_its_own():
  images, labels = crops(
    20,
    copy_paste=1.0,
    copy_paste_classes=(2,),
    crop_size=(40, 48),
    scale_range=(1.0, 2.0),
  )
  # Without those that have a square of their own.
  areas = [
    np.sum(label == 2)
    for image, label in zip(images, labels, strict=True)
    if not (image[label == 0] == 70).any()
  ]
  # A square of four pixels a side; the crop holds all of it.
  assert min(areas) < 25 and max(areas) > 49
  assert set(areas) <= {h * w for h in range(4, 9) for w in range(4, 9)}


def test_the_examples_of_a_batch_are_those_without_copy_paste():
  holds_class = data.pipeline.foreground.holds_class(
    source(), num_classes=4, num_threads=1
  )
  options = {"copy_paste": 0.5, "foreground_share": 0.4}
  images, labels = crops(6, **options)
  augmentation = data.Augmentation(
    crop_size=(8, 8), copy_paste_classes=(1, 2, 3), **options
  )
  for number in range(6):
    indices = data.pipeline.indices_of_batch(
      10,
      batch_size=5,
      seed=0,
      number=number,
      augmentation=augmentation,
      holds_class=holds_class,
    )
    batch = np.s_[5 * number : 5 * number + 5]
    for index, image, label in zip(
      indices, images[batch], labels[batch], strict=True
    ):
      assert (image[label == 0] == 10 * index).all()


def test_a_forced_class_is_neither_pasted_over_nor_cut_out():
  _, labels = crops(
    40,
    foreground_share=1.0,
    foreground_classes=(1,),
    copy_paste=1.0,
    copy_paste_classes=(2,),
    cutout_count=3,
    cutout_size=8,
  )
  assert (labels == 1).any(axis=(1, 2)).all()
  # Elsewhere both happen.
  assert (labels == 2).any() and (labels == types.IGNORE_LABEL).any()


def test_contrast_is_that_of_the_picture_and_not_of_its_padding():
  options = {"batch_size": 1, "crop_size": (32, 32), "contrast": 0.9}
  images, labels = crops(20, copy_paste=1.0, copy_paste_classes=(2,), **options)
  # A picture of one grey has no contrast to change.
  for image, label in zip(images, labels, strict=True):
    assert len(np.unique(image[label == 0])) == 1
    assert image[label == 0][0] % 10 == 0
