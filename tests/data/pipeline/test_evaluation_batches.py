import collections

import numpy as np
import pytest

from fcn_jax import types
from tests.helpers import batches as made


@pytest.mark.parametrize("count", [1, 4, 10])
def test_evaluation_has_each_example_once_and_in_order(count):
  source = made.source(count)
  batches = list(made.evaluate(source, batch_size=4))
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
  source = made.source(11)
  expected = collections.Counter()
  for example in source:
    expected.update(example.label.ravel().tolist())
  counts = collections.Counter()
  for batch in made.evaluate(source, batch_size=4, size=(20, 20)):
    assert batch.images.shape == (4, 20, 20, 3)
    counts.update(batch.labels.ravel().tolist())
  del counts[types.IGNORE_LABEL]
  assert counts == expected


@pytest.mark.parametrize("process_count", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 12, 13])
def test_evaluation_has_each_example_once_on_any_number_of_hosts(
  process_count, count
):
  examples = made.source(count, height=40, width=160, step=40)
  image_sizes = [example.label.shape for example in examples]
  sources = [made.Counted(examples) for _ in range(process_count)]
  hosts = [
    list(
      made.evaluate(
        source,
        batch_size=6,
        num_sizes=2,
        image_sizes=image_sizes,
        process_index=index,
        process_count=process_count,
      )
    )
    for index, source in enumerate(sources)
  ]
  # All take part in each step of all, and in the same program.
  shapes = [[batch.images.shape for batch in host] for host in hosts]
  assert all(own == shapes[0] for own in shapes)
  assert len(shapes[0]) == -(-count // 6)
  # No host has read what is another's, but to see the channels of a batch in
  # which it has no example.
  reads = [set(source.reads) - {count - count % 6} for source in sources]
  assert (
    sum(map(len, reads)) == len(set.union(*reads)) == count - (count % 6 > 0)
  )
  numbers = []
  for host in hosts:
    for batch in host:
      for image, label, (height, width) in zip(*batch, strict=True):
        inside = label[:height, :width].copy()
        label[:height, :width] = types.IGNORE_LABEL
        assert (label == types.IGNORE_LABEL).all()
        if (inside != types.IGNORE_LABEL).any():
          number = image[0, 0, 2]
          numbers.append(number)
          np.testing.assert_array_equal(inside, examples[number].label)
        else:
          assert (height, width) == (1, 1)
  assert sorted(numbers) == list(range(count))


def test_evaluation_at_several_sizes_pads_less_and_holds_the_same():
  generator = np.random.default_rng(0)
  source = made.blank_source(generator.integers(20, 300, size=(30, 2)))
  one, several = (
    list(made.evaluate(source, batch_size=1, num_sizes=num_sizes))
    for num_sizes in (1, 4)
  )
  assert len({batch.labels.shape for batch in one}) == 1
  assert 1 < len({batch.labels.shape for batch in several}) <= 4
  for first, second in zip(one, several, strict=True):
    np.testing.assert_array_equal(first.valid_sizes, second.valid_sizes)
    assert (first.labels == 0).sum() == (second.labels == 0).sum()
  assert sum(batch.labels.size for batch in several) < 0.8 * sum(
    batch.labels.size for batch in one
  )


def test_evaluation_can_be_run_again():
  batches = made.evaluate(made.source(6), batch_size=4)
  first = [batch.images for batch in batches]
  second = [batch.images for batch in batches]
  np.testing.assert_array_equal(first, second)


def test_half_size_evaluation_sees_halved_pictures():
  source = made.source(2, height=12, width=16)[:1]
  (batch,) = made.evaluate(source, batch_size=1, resize_factor=0.5)
  assert batch.labels.shape == (1, 6, 8)
  np.testing.assert_array_equal(batch.labels[0], source[0].label[1::2, 1::2])


def test_a_picture_larger_than_the_batch_is_an_error_that_names_it():
  batches = made.evaluate(made.source(3), batch_size=1, size=(13, 20))
  with pytest.raises(ValueError, match=r"example_2 has 14x14 .* 13x20"):
    list(batches)


@pytest.mark.parametrize(
  ("count", "options", "message"),
  [
    (3, {"batch_size": 0}, "batch_size .* not 0"),
    (3, {"size": (8, 0)}, r"size .*\(8, 0\)"),
    (3, {"resize_factor": -1.0}, r"resize_factor .*-1\.0"),
    (3, {"num_sizes": 0}, "num_sizes .* not 0"),
    (3, {"process_count": 3}, "batch_size 2 .* processes, 3"),
    (3, {"process_index": 1}, r"process_index .* not 1"),
    (0, {}, "no examples"),
  ],
)
def test_evaluation_options_out_of_range_are_refused(count, options, message):
  with pytest.raises(ValueError, match=message):
    made.evaluate(made.source(count), **({"batch_size": 2} | options))
