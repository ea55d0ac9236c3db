import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from fcn_jax import data
from fcn_jax import types

RNG = np.random.default_rng(0)
SIZES = [(8, 12), (10, 6), (7, 7)]
IMAGES = [RNG.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
LABELS = [RNG.integers(0, 4, size).astype(np.uint8) for size in SIZES]


def assert_same(dataset, images=IMAGES, labels=LABELS):
  for example, image, label in zip(dataset.source, images, labels, strict=True):
    np.testing.assert_array_equal(example.image, image)
    np.testing.assert_array_equal(example.label, label)
    assert (example.image.dtype, example.label.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize(
  "images",
  [
    IMAGES,
    tuple(image.astype(np.float32) for image in IMAGES),
    [image + 0.4 for image in IMAGES],
    [PIL.Image.fromarray(image) for image in IMAGES],
    [PIL.Image.fromarray(image).convert("RGBA") for image in IMAGES],
    (image for image in IMAGES),
  ],
  ids=["arrays", "floats", "fractions", "PIL", "RGBA", "a generator"],
)
@pytest.mark.parametrize(
  "labels",
  [
    LABELS,
    [label.astype(np.int64) for label in LABELS],
    [PIL.Image.fromarray(label) for label in LABELS],
  ],
  ids=["bytes", "int64", "PIL"],
)
def test_pictures_and_labels_are_those_that_were_given(images, labels):
  if not isinstance(images, (list, tuple)):
    images = list(IMAGES)
  assert_same(data.from_arrays(images, labels))


def test_arrays_of_one_size_need_no_list():
  images, labels = np.stack([IMAGES[0]] * 3), np.stack([LABELS[0]] * 3)
  dataset = data.from_arrays(images, labels)
  assert_same(dataset, images, labels)
  # Bytes are not copied.
  assert np.shares_memory(dataset.source[1].image, images)


@pytest.mark.parametrize("kind", ["[H, W]", "[H, W, 1]", "PIL", "1 bit"])
def test_grey_pictures_become_colour(kind):
  grey = [image[..., 0] for image in IMAGES]
  given = {
    "[H, W]": grey,
    "[H, W, 1]": [image[..., None] for image in grey],
    "PIL": [PIL.Image.fromarray(image) for image in grey],
    "1 bit": [PIL.Image.fromarray(image).convert("1") for image in grey],
  }[kind]
  if kind == "1 bit":
    grey = [np.asarray(image, np.uint8) * 255 for image in given]
  colour = [np.stack([image] * 3, axis=-1) for image in grey]
  assert_same(data.from_arrays(given, LABELS), colour)


def test_indices_of_a_palette_are_labels():
  masks = [PIL.Image.fromarray(label) for label in LABELS]
  for mask in masks:
    mask.putpalette([9, 9, 9, 0, 0, 255, 80, 80, 80, 1, 2, 3])
  assert masks[0].mode == "P"
  assert_same(data.from_arrays(IMAGES, masks))


def test_masks_of_a_lossy_file_are_refused():
  buffer = io.BytesIO()
  PIL.Image.fromarray(LABELS[1]).save(buffer, format="JPEG")
  masks = [LABELS[0], PIL.Image.open(buffer), LABELS[2]]
  with pytest.raises(ValueError, match=r"labels\[1\] is a mask in the lossy"):
    data.from_arrays(IMAGES, masks)


def test_pil_images_are_turned_upright():
  picture = PIL.Image.fromarray(IMAGES[0])
  picture.getexif()[0x0112] = 6
  upright = np.asarray(PIL.ImageOps.exif_transpose(picture))
  assert upright.shape != IMAGES[0].shape
  label = np.zeros(upright.shape[:2], np.uint8)
  dataset = data.from_arrays([picture], [label], num_classes=2)
  np.testing.assert_array_equal(dataset.source[0].image, upright)


def test_classes_follow_from_the_labels_or_are_given():
  void = [np.where(label == 1, types.IGNORE_LABEL, label) for label in LABELS]
  dataset = data.from_arrays(IMAGES, void)
  assert dataset.class_names == ("class 0", "class 1", "class 2", "class 3")
  assert dataset.palette.shape == (4, 3)
  assert len(np.unique(dataset.palette, axis=0)) == 4
  assert data.from_arrays(IMAGES, LABELS, num_classes=7).num_classes == 7
  palette = [[1, 2, 3]] * 4
  dataset = data.from_arrays(
    IMAGES, LABELS, class_names="abcd", palette=palette
  )
  assert dataset.class_names == ("a", "b", "c", "d")
  assert dataset.palette.tolist() == palette
  with pytest.raises(ValueError, match="num_classes is 5, but there are 4"):
    data.from_arrays(IMAGES, LABELS, class_names="abcd", num_classes=5)
  with pytest.raises(ValueError, match=r"palette has shape \(2, 3\)"):
    data.from_arrays(IMAGES, LABELS, palette=palette[:2])


def test_the_fingerprint_is_that_of_the_contents():
  same = data.from_arrays(IMAGES, LABELS).fingerprint
  assert same == data.from_arrays(list(IMAGES), tuple(LABELS)).fingerprint
  changed = [LABELS[0], LABELS[1], LABELS[2].copy()]
  changed[2][0, 0] ^= 1
  assert same != data.from_arrays(IMAGES, changed).fingerprint


@pytest.mark.parametrize("number", range(3))
def test_the_message_names_the_first_that_is_wrong(number):
  wrong = [
    image / 255.0 - 2 if index >= number else image
    for index, image in enumerate(IMAGES)
  ]
  with pytest.raises(ValueError, match=rf"^images\[{number}\] has values"):
    data.from_arrays(wrong, LABELS)
  wrong = [
    label.astype(int) + (300 if index >= number else 0)
    for index, label in enumerate(LABELS)
  ]
  with pytest.raises(
    ValueError, match=rf"^labels\[{number}\] has the label 30"
  ):
    data.from_arrays(IMAGES, wrong, num_classes=4)


def test_a_dark_picture_among_others_is_no_mistake():
  images = [IMAGES[0] * 0.0, IMAGES[1] / 255, IMAGES[2] / 1.0]
  dataset = data.from_arrays(images, LABELS)
  assert dataset.source[1].image.max() == 1
  with pytest.raises(ValueError, match="multiply by 255"):
    data.from_arrays(images[:2], LABELS[:2])


def test_batches_hold_what_was_given():
  dataset = data.from_arrays(IMAGES, LABELS)
  (batch,) = data.eval_batches(
    dataset.source, batch_size=3, num_classes=dataset.num_classes, size=12
  )
  assert batch.images.shape == (3, 12, 12, 3)
  np.testing.assert_array_equal(batch.images[1, :10, :6], IMAGES[1])
  np.testing.assert_array_equal(batch.labels[2, :7, :7], LABELS[2])
  assert (batch.labels[2, 7:] == types.IGNORE_LABEL).all()
  shares = data.class_frequencies(dataset).shares
  counts = np.bincount(np.concatenate([one.ravel() for one in LABELS]))
  np.testing.assert_allclose(shares, counts / counts.sum())
