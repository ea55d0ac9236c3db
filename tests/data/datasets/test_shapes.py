import numpy as np
import pytest

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.datasets import shapes


def _examples(count):
  return [shapes.example(split="train", index=index) for index in range(count)]


def test_the_same_arguments_give_the_same_example():
  image, label = shapes.example(split="train", index=3)
  again_image, again_label = shapes.example(split="train", index=3)
  np.testing.assert_array_equal(image, again_image)
  np.testing.assert_array_equal(label, again_label)


@pytest.mark.parametrize(
  "other",
  [
    {"split": "train", "index": 4},
    {"split": "validation", "index": 3},
    {"split": "train", "index": 3, "seed": 1},
  ],
)
def test_split_index_and_seed_each_change_the_example(other):
  image, _ = shapes.example(split="train", index=3)
  other_image, _ = shapes.example(**other)
  assert image.shape != other_image.shape or (image != other_image).any()


def test_an_unknown_split_is_an_error_that_lists_the_known_ones():
  with pytest.raises(ValueError, match=r"'test'.*train.*validation"):
    shapes.example(split="test", index=0)


def test_sizes_dtypes_and_ids_are_as_documented():
  sides = set()
  for image, label in _examples(50):
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (*label.shape, 3)
    sides.update(label.shape)
    ids = set(np.unique(label)) - {types.IGNORE_LABEL}
    assert ids <= set(range(len(shapes.CLASS_NAMES)))
  assert min(sides) >= 96 and max(sides) <= 160
  assert len(sides) > 30


def test_background_is_the_majority_and_stars_are_rare():
  labels = [label for _, label in _examples(150)]
  counts = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
  shares = counts / counts.sum()
  assert 0.6 < shares[0] < 0.85
  assert all(shares[1:5] > 0.02)
  assert 0.001 < shares[5] < 0.01
  star = shapes.CLASS_NAMES.index("star")
  assert 0.15 < np.mean([(label == star).any() for label in labels]) < 0.5


def test_different_classes_touch_nowhere_but_have_void_between_them():
  for _, label in _examples(20):
    for first, second in (
      (label[1:], label[:-1]),
      (label[:, 1:], label[:, :-1]),
    ):
      void = (first == types.IGNORE_LABEL) | (second == types.IGNORE_LABEL)
      np.testing.assert_array_equal(first[~void], second[~void])


def test_void_is_a_thin_line_on_both_sides_of_an_outline():
  for _, label in _examples(20):
    void = np.pad(label, 1, mode="edge") == types.IGNORE_LABEL
    inside = np.s_[1:-1, 1:-1]
    # A pixel at an outline has another one beside it, in the other object.
    beside = void[:-2, 1:-1] | void[2:, 1:-1] | void[1:-1, :-2] | void[1:-1, 2:]
    assert beside[void[inside]].all()
    # Only where many outlines meet is a square of 6x6 void.
    windows = np.lib.stride_tricks.sliding_window_view(void[inside], (6, 6))
    assert windows.all(axis=(2, 3)).mean() < 1e-3


def test_the_prepared_data_set_holds_what_the_function_draws(tmp_path):
  for split, count in (("train", 12), ("validation", 5)):
    dataset = data.load("shapes/tiny", split=split, prepared_dir=tmp_path)
    assert len(dataset.source) == count
    for index, example in enumerate(dataset.source):
      image, label = shapes.example(split=split, index=index)
      np.testing.assert_array_equal(example.image, image)
      np.testing.assert_array_equal(example.label, label)
      assert example.label.dtype == np.int32
      assert example.name == f"{split}_{index:04d}"


def test_class_names_and_palette_come_with_the_data_set(tmp_path):
  dataset = data.load("shapes/tiny", split="train", prepared_dir=tmp_path)
  assert dataset.class_names == shapes.CLASS_NAMES
  assert dataset.num_classes == len(dataset.palette) == 6
  assert dataset.palette.dtype == np.uint8
  assert len(np.unique(dataset.palette, axis=0)) == 6


def test_a_prepared_data_set_is_read_and_not_made_again(tmp_path, monkeypatch):
  data.load("shapes/tiny", split="train", prepared_dir=tmp_path)

  def refuse(**_):
    raise AssertionError("made again")

  monkeypatch.setattr(shapes, "example", refuse)
  assert len(
    data.load("shapes/tiny", split="train", prepared_dir=tmp_path).source
  )


def test_preparing_prints_nothing_to_the_standard_output(tmp_path, capsys):
  data.load("shapes/tiny", split="train", prepared_dir=tmp_path)
  assert capsys.readouterr().out == ""


def test_an_example_beyond_the_end_is_an_index_error(tmp_path):
  source = data.load("shapes/tiny", split="train", prepared_dir=tmp_path).source
  for index in (-1, 12):
    with pytest.raises(IndexError, match=str(index)):
      source[index]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"name": "shape", "split": "train"}, "'shape'.*'shapes'.*'camvid'"),
    ({"name": "shapes/tiny", "split": "val"}, "'val'.*'validation'"),
    (
      {"name": "shapes/tiny", "split": "train", "data_dir": "pictures"},
      "pictures",
    ),
  ],
)
def test_a_wrong_name_split_or_source_is_refused_and_writes_nothing(
  tmp_path, options, message
):
  name = options.pop("name")
  with pytest.raises(ValueError, match=message):
    data.load(name, prepared_dir=tmp_path, **options)
  assert not list(tmp_path.iterdir())
