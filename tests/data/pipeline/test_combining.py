"""Other channels than colours, and labels of two kinds, on their way."""

import chex
import jax
import numpy as np
import pytest

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.pipeline import batching
from fcn_jax.data.pipeline import combining
from fcn_jax.data.pipeline import photometric
from fcn_jax.data.pipeline import transforms

HEADS = {"semantic": 5, "geometric": 3}
HEIGHT, WIDTH = 20, 30


def _example(number=0, height=HEIGHT, width=WIDTH):
  generator = np.random.default_rng(number)

  def draw(high, *channels, dtype=np.uint8):
    size = (height, width, *channels)
    return generator.integers(high, size=size).astype(dtype)

  label, geometric = draw(5, dtype=np.int32), draw(3)
  label[: height // 2] = types.IGNORE_LABEL
  geometric[:, :3] = types.IGNORE_LABEL
  extras = {
    "hha": draw(256, 3),
    "depth": draw(1 << 16, dtype=np.uint16),
    "geometric": geometric,
  }
  return data.Example(draw(256, 3), label, f"example_{number}", extras)


def _dataset(count=1, step=0):
  source = [
    _example(n, HEIGHT + step * n, WIDTH - step * n) for n in range(count)
  ]
  return data.Dataset(source, tuple("abcde"), np.zeros((5, 3), np.uint8), "f")


def test_images_have_the_channels_asked_for_side_by_side():
  dataset = _dataset()
  example = dataset.source[0]

  def image(modalities):
    return combining.with_channels(dataset, modalities).source[0].image

  hha = example.extras["hha"]
  np.testing.assert_array_equal(image("color"), example.image)
  np.testing.assert_array_equal(image("hha"), hha)
  both = image("color_hha")
  assert both.dtype == np.uint8
  np.testing.assert_array_equal(both[..., :3], example.image)
  np.testing.assert_array_equal(both[..., 3:], hha)
  early = image("color_depth")
  assert early.shape == (HEIGHT, WIDTH, 4)
  assert early.dtype == np.float32
  np.testing.assert_array_equal(early[..., :3], example.image)
  np.testing.assert_allclose(
    early[..., 3],
    np.log(np.maximum(example.extras["depth"], 1).astype(np.float64)),
    rtol=1e-6,
  )


def test_depths_become_natural_logarithms_and_none_is_the_nearest():
  depth = np.array([[0, 1, 2], [1000, 2551, 65535]], np.uint16)
  expected = [[0.0, 0.0, 0.693147], [6.907755, 7.844241, 11.090339]]
  found = combining.log_depth(depth)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_labels_of_two_kinds_keep_their_own_void():
  dataset = combining.with_labels(_dataset(), "geometric")
  example = _example()
  label = dataset.source[0].label
  assert label.dtype == np.int32
  np.testing.assert_array_equal(label[..., 0], example.label)
  np.testing.assert_array_equal(label[..., 1], example.extras["geometric"])
  assert dataset.num_classes == 5


def test_what_is_shown_are_the_first_three_channels():
  example = _example()
  image = combining.with_channels(_dataset(), "color_depth").source[0].image
  shown = combining.picture_of(image + np.float32(0.4))
  assert shown.dtype == np.uint8
  np.testing.assert_array_equal(shown[..., :2], example.image[..., :2])


_TRANSFORMS = {
  "enlarge": lambda _, *pair: transforms.resize(*pair, size=(33, 41)),
  "shrink": lambda _, *pair: transforms.rescale(*pair, factor=0.45),
  "crop": lambda generator, *pair: transforms.random_crop(
    generator, *pair, size=(14, 9), factor=1.3, min_labelled=0.95
  ),
  "crop only": lambda generator, *pair: transforms.random_crop(
    generator, *pair, size=(14, 9)
  ),
  "flip": transforms.random_flip,
  "pad": lambda _, *pair: transforms.pad_to(*pair, size=(25, 35)),
}


@pytest.mark.parametrize("name", _TRANSFORMS)
@pytest.mark.parametrize("seed", range(4))
def test_channels_and_labels_move_as_each_does_by_itself(name, seed):
  def transformed(image, label):
    return _TRANSFORMS[name](np.random.default_rng(seed), image, label)

  example = _example(seed)
  hha, geometric = example.extras["hha"], example.extras["geometric"]
  image, label = transformed(
    np.concatenate([example.image, hha], axis=-1),
    np.stack([example.label, geometric.astype(np.int32)], axis=-1),
  )
  color, main = transformed(example.image, example.label)
  alone_hha, _ = transformed(hha, example.label)
  np.testing.assert_array_equal(label[..., 0], main)
  # Which window is taken may depend on the main labels.
  if name != "crop":
    _, alone = transformed(example.image, geometric)
    np.testing.assert_array_equal(label[..., 1], alone)
  if name == "pad":
    # Other channels are padded by their means.
    image, color, alone_hha = (
      one[:HEIGHT, :WIDTH] for one in (image, color, alone_hha)
    )
  np.testing.assert_array_equal(image[..., :3], color)
  np.testing.assert_array_equal(image[..., 3:], alone_hha)


@pytest.mark.parametrize("name", _TRANSFORMS)
def test_fractions_move_as_bytes_do_and_are_not_rounded(name):
  example = _example()
  color, _ = _TRANSFORMS[name](
    np.random.default_rng(1), example.image, example.label
  )
  image = combining.with_channels(_dataset(), "color_depth").source[0].image
  found, _ = _TRANSFORMS[name](np.random.default_rng(1), image, example.label)
  assert found.dtype == np.float32
  if name == "pad":
    found, color = found[:HEIGHT, :WIDTH], color[:HEIGHT, :WIDTH]
  # Pillow rounds bytes after each of the two axes.
  np.testing.assert_allclose(found[..., :3], color, atol=1.01)
  is_resized = name in ("enlarge", "shrink", "crop")
  assert np.any(found[..., :3] % 1) == is_resized


def test_padding_of_other_channels_is_their_mean():
  example = _example()
  image = combining.with_channels(_dataset(), "color_depth").source[0].image
  padded, label = transforms.pad_to(image, example.label, size=(21, 31))
  np.testing.assert_allclose(padded[20, 30], image.mean((0, 1)), rtol=1e-6)
  assert (label[20] == types.IGNORE_LABEL).all()


@pytest.mark.parametrize("crop_size", [(8, 12), None])
def test_training_batches_have_the_labels_of_each_head(crop_size):
  dataset = combining.with_channels(_dataset(4, step=2), "color_depth")
  augmentation = data.Augmentation(crop_size=crop_size, scale_range=(0.7, 1.4))
  options = {"batch_size": 2, "augmentation": augmentation, "seed": 3}
  batch = next(
    data.train_batches(
      combining.with_labels(dataset, "geometric").source,
      num_classes=HEADS,
      **options,
    )
  )
  plain = next(data.train_batches(dataset.source, num_classes=5, **options))
  assert list(batch.labels) == list(HEADS)
  assert batch.images.dtype == np.float32
  assert batch.images.shape == (*plain.labels.shape, 4)
  np.testing.assert_array_equal(batch.images, plain.images)
  np.testing.assert_array_equal(batch.labels["semantic"], plain.labels)
  geometric = batch.labels["geometric"]
  assert geometric.shape == plain.labels.shape
  assert geometric.dtype == np.int32
  assert {*np.unique(geometric)} <= {0, 1, 2, types.IGNORE_LABEL}
  if crop_size is None:
    for label, (height, width) in zip(
      geometric, batch.valid_sizes, strict=True
    ):
      assert (label[height:] == types.IGNORE_LABEL).all()
      assert (label[:, width:] == types.IGNORE_LABEL).all()


@pytest.mark.parametrize("modalities", ["hha", "color_depth", "color_hha"])
def test_evaluation_fills_up_its_last_batch_in_all_channels(modalities):
  source = combining.with_channels(_dataset(3, step=2), modalities).source
  batches = list(data.eval_batches(source, batch_size=2, num_classes=5))
  images = [image for batch in batches for image in batch.images]
  sizes = [size for batch in batches for size in batch.valid_sizes]
  for example, image, (height, width) in zip(
    source, images[:3], sizes[:3], strict=True
  ):
    np.testing.assert_array_equal(image[:height, :width], example.image)
    assert image.dtype == example.image.dtype
  assert sizes[3].tolist() == [1, 1]
  assert (batches[1].labels[1] == types.IGNORE_LABEL).all()


@pytest.mark.parametrize("modalities", ["color", "color_depth"])
def test_a_process_without_examples_in_a_batch_fills_it_up(modalities):
  source = combining.with_channels(_dataset(3), modalities).source
  whole = list(data.eval_batches(source, batch_size=2, num_classes=5))
  second = data.eval_batches(
    source,
    batch_size=2,
    num_classes=5,
    loading=data.Loading(process_index=1, process_count=2),
  )
  for own, batch in zip(second, whole, strict=True):
    chex.assert_trees_all_equal(own, jax.tree.map(lambda x: x[1:], batch))


def test_labels_of_each_head_are_checked_against_its_classes():
  example = combining.with_labels(_dataset(), "geometric").source[0]
  batching.check_example(example, num_classes=HEADS)
  with pytest.raises(ValueError, match=r"\(geometric\) has the label 2"):
    batching.check_example(example, num_classes=HEADS | {"geometric": 2})
  with pytest.raises(ValueError, match=r"\(semantic\) has the label 4"):
    batching.check_example(example, num_classes=HEADS | {"semantic": 4})
  with pytest.raises(ValueError, match=r"\(20, 30, 2\).* a dict"):
    batching.check_example(example, num_classes=5)
  with pytest.raises(ValueError, match=r"semantic, geometric.*\[H, W, 2\]"):
    batching.check_example(_example(), num_classes=HEADS)


@pytest.mark.parametrize("modalities", ["color_depth", "color_hha"])
def test_colours_of_other_images_are_not_changed(modalities):
  image = combining.with_channels(_dataset(), modalities).source[0].image
  generator = np.random.default_rng(0)
  assert photometric.color_jitter(generator, image) is image
  assert photometric.random_blur(generator, image, probability=0) is image
  with pytest.raises(ValueError, match="leave these options out"):
    photometric.color_jitter(generator, image, brightness=0.1)
  with pytest.raises(ValueError, match="leave these options out"):
    photometric.random_blur(generator, image, probability=1e-9)
