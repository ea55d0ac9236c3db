import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from fcn_jax import data
from fcn_jax.data.pipeline import padding

_SIZES = strategies.lists(
  strategies.tuples(strategies.integers(1, 300), strategies.integers(1, 300)),
  min_size=1,
  max_size=30,
)


def _padded_area(image_sizes, sizes):
  return sum(
    np.prod(padding.smallest_holding(sizes, [size])) for size in image_sizes
  )


@hypothesis.given(_SIZES, strategies.integers(1, 6), strategies.integers(1, 64))
@hypothesis.settings(deadline=None, max_examples=50)
def test_every_picture_and_every_batch_is_held_by_one_of_few_sizes(
  image_sizes, num_sizes, multiple
):
  sizes = padding.padded_sizes(
    image_sizes, num_sizes=num_sizes, multiple=multiple
  )
  assert len(sizes) == len(set(sizes)) <= num_sizes
  for pictures in [[size] for size in image_sizes] + [image_sizes]:
    height, width = padding.smallest_holding(sizes, pictures)
    assert height >= max(size[0] for size in pictures)
    assert width >= max(size[1] for size in pictures)
    held = [s for s in sizes if s[0] >= height and s[1] >= width]
    assert height * width <= min(s[0] * s[1] for s in held)
  largest = np.max(image_sizes, axis=0)
  for size in sizes:
    for side, limit in zip(size, largest, strict=True):
      assert side % multiple == 0 or side == limit


def test_one_size_is_that_of_the_largest_height_and_width():
  assert padding.padded_sizes([(20, 30), (25, 10)], num_sizes=1) == ((25, 30),)


# With three sizes, the best ones are not what is best one by one.
@pytest.mark.parametrize(
  ("num_sizes", "seed"), [(2, 0), (2, 1), (3, 3), (3, 23)]
)
def test_no_other_choice_of_sizes_wastes_less(num_sizes, seed):
  generator = np.random.default_rng(seed)
  image_sizes = generator.integers(1, 7, size=(12, 2)).tolist()
  chosen = padding.padded_sizes(image_sizes, num_sizes=num_sizes, multiple=1)
  largest = tuple(np.max(image_sizes, axis=0).tolist())
  candidates = itertools.product(*(range(1, side + 1) for side in largest))
  areas = [
    _padded_area(image_sizes, sorted({*others, largest}, key=np.prod))
    for others in itertools.combinations(candidates, num_sizes - 1)
  ]
  assert _padded_area(image_sizes, chosen) == min(areas)


def test_more_sizes_waste_less():
  generator = np.random.default_rng(0)
  image_sizes = generator.integers(100, 501, size=(200, 2))
  areas = [
    _padded_area(image_sizes, padding.padded_sizes(image_sizes, num_sizes=n))
    for n in (1, 2, 4, 8)
  ]
  assert areas == sorted(areas, reverse=True)
  assert areas[2] < 0.75 * areas[0]


def test_portraits_and_landscapes_get_a_size_each():
  image_sizes = [(375, 500)] * 50 + [(500, 375)] * 40 + [(500, 500)]
  sizes = padding.padded_sizes(image_sizes, num_sizes=3)
  assert set(sizes) == {(384, 500), (500, 384), (500, 500)}


def test_frequent_sizes_count_for_more():
  image_sizes = [(32, 32)] * 2 + [(64, 64)] * 90 + [(96, 96)]
  assert (64, 64) in padding.padded_sizes(image_sizes, num_sizes=2)


def test_no_size_holds_a_picture_that_is_larger_than_all():
  assert padding.smallest_holding(((4, 4), (8, 8)), [(9, 1)]) is None


@hypothesis.given(
  _SIZES,
  strategies.integers(1, 3),
  strategies.floats(0.3, 1.0),
  strategies.floats(1.0, 2.0),
)
@hypothesis.settings(deadline=None, max_examples=20)
def test_sizes_for_batches_hold_the_largest_pictures_at_the_largest_scale(
  image_sizes, batch_size, smallest, largest
):
  needed = padding.batch_sizes(
    np.array(image_sizes),
    batch_size=batch_size,
    scale_range=(smallest, largest),
  )
  limit = [max(1, round(side * largest)) for side in np.max(image_sizes, 0)]
  np.testing.assert_array_equal(needed.max(axis=0), limit)
  assert needed.min() >= 1


def test_without_chance_the_sizes_of_batches_are_those_of_the_pictures():
  image_sizes = np.array([(20, 30), (25, 10)])
  needed = padding.batch_sizes(
    image_sizes, batch_size=1, scale_range=(0.5, 0.5)
  )
  np.testing.assert_array_equal(needed, [(10, 15), (12, 5), (12, 15)])


def test_the_sizes_of_a_source_are_read_once_each_and_in_order():
  class Counted(list):
    reads = []

    def __getitem__(self, index):
      self.reads.append(index)
      return super().__getitem__(index)

  source = Counted(
    data.Example(np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.int32), "")
    for h, w in [(3, 4), (5, 6), (2, 9)]
  )
  sizes = padding.image_sizes(source, num_threads=3)
  np.testing.assert_array_equal(sizes, [(3, 4), (5, 6), (2, 9)])
  assert sizes.dtype == np.int32 and sorted(source.reads) == [0, 1, 2]


def test_options_out_of_range_are_refused():
  with pytest.raises(ValueError, match="not 0 and 32"):
    padding.padded_sizes([(3, 4)], num_sizes=0)
  with pytest.raises(ValueError, match="not 4 and 0"):
    padding.padded_sizes([(3, 4)], multiple=0)
  with pytest.raises(ValueError, match="no pictures"):
    padding.padded_sizes([])
