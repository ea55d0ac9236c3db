import collections
import itertools

import numpy as np
import pytest

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data import pipeline


def _source(count, height=12, width=16, num_classes=5):
  """Examples whose pixels in the blue channel hold their number."""
  generator = np.random.default_rng(0)
  examples = []
  for index in range(count):
    size = (height + index % 3, width - index % 4)
    image = generator.integers(256, size=(*size, 3), dtype=np.uint8)
    image[..., 2] = index
    label = generator.integers(num_classes, size=size, dtype=np.int32)
    examples.append(data.Example(image, label, f"example_{index}"))
  return examples


def _train(source, **options):
  defaults = {
    "batch_size": 4,
    "crop_size": (8, 8),
    "seed": 0,
    "num_classes": 5,
  }
  return pipeline.train_batches(source, **(defaults | options))


def _eval(source, **options):
  return pipeline.eval_batches(source, **({"num_classes": 5} | options))


def _take(batches, count):
  taken = list(itertools.islice(batches, count))
  return (
    np.stack([batch.images for batch in taken]),
    np.stack([batch.labels for batch in taken]),
  )


_AUGMENTATION = {"scale_range": (0.7, 1.5), "flip": True}


def test_train_batches_have_the_shapes_and_dtypes_of_a_batch():
  batch = next(_train(_source(10), crop_size=(20, 9), **_AUGMENTATION))
  assert isinstance(batch, types.Batch)
  assert batch.images.shape == (4, 20, 9, 3) and batch.images.dtype == np.uint8
  assert batch.labels.shape == (4, 20, 9) and batch.labels.dtype == np.int32


def test_batches_follow_from_the_seed_whatever_the_number_of_threads():
  source = _source(10)
  first = _take(_train(source, num_threads=1, **_AUGMENTATION), 8)
  second = _take(
    _train(source, num_threads=3, prefetch_buffer_size=7, **_AUGMENTATION), 8
  )
  np.testing.assert_array_equal(first[0], second[0])
  np.testing.assert_array_equal(first[1], second[1])


def test_another_seed_gives_other_batches():
  source = _source(10)
  images, _ = _take(_train(source, seed=1), 3)
  others, _ = _take(_train(source, seed=2), 3)
  assert (images != others).any()


def test_an_epoch_has_each_example_once_in_an_order_of_its_own():
  source = _source(12)
  images, _ = _take(_train(source, flip=False, num_epochs=3), 9)
  numbers = images[..., 0, 0, 2].reshape(3, 12)
  for epoch in numbers:
    assert sorted(epoch) == list(range(12))
  assert (numbers[0] != numbers[1]).any() and (numbers[1] != numbers[2]).any()


def test_each_epoch_augments_an_example_anew():
  source = _source(1, height=30, width=30)
  images, _ = _take(_train(source, batch_size=1, **_AUGMENTATION), 6)
  assert len(np.unique(images.reshape(6, -1), axis=0)) == 6


def test_whole_batches_only_come_at_the_end():
  assert len(list(_train(_source(10), num_epochs=1))) == 2
  assert len(list(_train(_source(10), num_epochs=2))) == 5


def test_image_and_label_of_an_example_stay_together():
  source = [
    data.Example(np.repeat(label[..., None], 3, axis=2), label, "")
    for label in np.random.default_rng(0).integers(
      200, size=(6, 20, 20), dtype=np.uint8
    )
  ]
  images, labels = _take(_train(source, crop_size=(24, 24), num_classes=200), 4)
  inside = labels != types.IGNORE_LABEL
  assert inside.any() and not inside.all()
  np.testing.assert_array_equal(images[..., 0][inside], labels[inside])


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_out_the_batches_of_one(process_count):
  source = _source(10)
  options = {"num_epochs": 3, **_AUGMENTATION}
  whole = list(_train(source, **options))
  parts = [
    list(
      _train(
        source,
        process_index=index,
        process_count=process_count,
        **options,
      )
    )
    for index in range(process_count)
  ]
  for step, batch in enumerate(whole):
    for index in range(process_count):
      expected = batch.images[index::process_count]
      np.testing.assert_array_equal(parts[index][step].images, expected)
  assert {len(part) for part in parts} == {len(whole)}


def test_an_iterator_resumes_at_its_state():
  source = _source(10)
  batches = _train(source, **_AUGMENTATION)
  _take(batches, 3)
  state = batches.get_state()
  expected = _take(batches, 3)
  resumed = _train(source, **_AUGMENTATION)
  resumed.set_state(state)
  np.testing.assert_array_equal(_take(resumed, 3)[0], expected[0])


def test_half_size_training_sees_halved_labels():
  label = np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2))).astype(np.int32)
  source = [data.Example(np.zeros((4, 6, 3), np.uint8), label, "")]
  options = {"batch_size": 1, "crop_size": (2, 3), "num_classes": 6}
  batch = next(_train(source, resize_factor=0.5, flip=False, **options))
  np.testing.assert_array_equal(batch.labels[0], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("count", [1, 4, 10])
def test_evaluation_has_each_example_once_and_in_order(count):
  source = _source(count)
  batches = list(_eval(source, batch_size=4))
  size = np.max([example.label.shape for example in source], axis=0)
  assert len(batches) == -(-count // 4)
  labels = np.concatenate([batch.labels for batch in batches])
  images = np.concatenate([batch.images for batch in batches])
  assert labels.shape == (len(batches) * 4, *size)
  assert labels.dtype == np.int32 and images.dtype == np.uint8
  for index, example in enumerate(source):
    height, width = example.label.shape
    window = np.s_[index, :height, :width]
    np.testing.assert_array_equal(labels[window], example.label)
    np.testing.assert_array_equal(images[window], example.image)
    labels[window] = types.IGNORE_LABEL
  assert (labels == types.IGNORE_LABEL).all()


def test_evaluation_counts_every_labelled_pixel_once():
  source = _source(11)
  expected = collections.Counter()
  for example in source:
    expected.update(example.label.ravel().tolist())
  counts = collections.Counter()
  for batch in _eval(source, batch_size=4, size=(20, 20)):
    assert batch.images.shape == (4, 20, 20, 3)
    counts.update(batch.labels.ravel().tolist())
  del counts[types.IGNORE_LABEL]
  assert counts == expected


def test_evaluation_can_be_run_again():
  batches = _eval(_source(6), batch_size=4)
  first = [batch.images for batch in batches]
  second = [batch.images for batch in batches]
  np.testing.assert_array_equal(first, second)


def test_half_size_evaluation_sees_halved_pictures():
  source = _source(2, height=12, width=16)[:1]
  (batch,) = _eval(source, batch_size=1, resize_factor=0.5)
  assert batch.labels.shape == (1, 6, 8)
  np.testing.assert_array_equal(batch.labels[0], source[0].label[1::2, 1::2])


def test_a_picture_larger_than_the_batch_is_an_error_that_names_it():
  batches = _eval(_source(3), batch_size=1, size=(13, 20))
  with pytest.raises(ValueError, match=r"example_2 has 14x14 .* 13x20"):
    list(batches)


@pytest.mark.parametrize("wrong", [-1, 5, 254, 256])
def test_a_label_outside_the_classes_is_an_error_that_names_it(wrong):
  source = _source(6)
  source[4].label[2, 3] = wrong
  message = rf"example_4 has the label {wrong}, .*0\.\.4"
  with pytest.raises(ValueError, match=message):
    list(_train(source, batch_size=1, num_epochs=1))
  with pytest.raises(ValueError, match=message):
    list(_eval(source, batch_size=1, size=(20, 20)))


def test_void_is_no_label_outside_the_classes():
  source = _source(4)
  source[0].label[2, 3] = types.IGNORE_LABEL
  assert len(list(_train(source, num_epochs=1))) == 1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 0}, "batch_size .* not 0"),
    ({"batch_size": 11}, "batch_size 11 .* 10 examples"),
    ({"crop_size": (0, 8)}, r"crop_size .*\(0, 8\)"),
    ({"scale_range": (0.0, 1.0)}, r"scale_range .*\(0\.0, 1\.0\)"),
    ({"scale_range": (2.0, 1.0)}, r"scale_range .*\(2\.0, 1\.0\)"),
    ({"resize_factor": 0.0}, r"resize_factor .*0\.0"),
    ({"num_epochs": 0}, "num_epochs .* not 0"),
    ({"num_threads": 0}, "num_threads .* not 0"),
    ({"prefetch_buffer_size": 0}, "prefetch_buffer_size .* not 0"),
    ({"process_count": 3}, "batch_size 4 .* processes, 3"),
    ({"process_index": 1}, r"process_index .*0\.\.0.* not 1"),
  ],
)
def test_train_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    _train(_source(10), **options)


@pytest.mark.parametrize(
  ("count", "options", "message"),
  [
    (3, {"batch_size": 0}, "batch_size .* not 0"),
    (3, {"size": (8, 0)}, r"size .*\(8, 0\)"),
    (3, {"resize_factor": -1.0}, r"resize_factor .*-1\.0"),
    (0, {}, "no examples"),
  ],
)
def test_evaluation_options_out_of_range_are_refused(count, options, message):
  with pytest.raises(ValueError, match=message):
    _eval(_source(count), **({"batch_size": 2} | options))


def test_shapes_go_through_the_whole_pipeline(tmp_path):
  dataset = data.load("shapes/tiny", split="train", prepared_dir=tmp_path)
  batch = next(
    _train(
      dataset.source,
      crop_size=(96, 96),
      num_classes=dataset.num_classes,
      **_AUGMENTATION,
    )
  )
  assert batch.images.shape == (4, 96, 96, 3)
  assert 0 in batch.labels
