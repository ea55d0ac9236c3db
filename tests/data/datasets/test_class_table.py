import io
import json

import numpy as np
import pytest
from PIL import Image

from fcn_jax import types
from fcn_jax.data.datasets import class_table


def _png(array):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format="PNG")
  return buffer.getvalue()


def _masks(*values):
  return [class_table.MaskValues(frozenset(v), {}, False) for v in values]


@pytest.mark.parametrize(
  ("masks", "names", "values"),
  [
    ([{0, 255}] * 3, ("background", "foreground"), {0: 0, 255: 1}),
    (
      [{0, 1}, {0, 2, 255}],
      ("class 0", "class 1", "class 2"),
      {0: 0, 1: 1, 2: 2, 255: 255},
    ),
    (
      [{0, 50}, {150, 255}],
      ("value 0", "value 50", "value 150"),
      {0: 0, 50: 1, 150: 2, 255: 255},
    ),
    (
      [{1000, 2000}],
      ("value 1000", "value 2000"),
      {1000: 0, 2000: 1, 255: 255},
    ),
  ],
  ids=["binary", "ids", "spread", "16 bits"],
)
def test_values_become_classes_in_their_order(masks, names, values):
  table = class_table.infer(_masks(*masks))
  assert table.names == names
  assert table.values == values
  assert len(table.palette) == len(set(table.palette)) == len(names)


@pytest.mark.parametrize("num_binary", [3, 19])
def test_an_odd_mask_among_binary_ones_has_no_class_of_its_own(num_binary):
  masks = _masks(*[{0, 255}] * num_binary, {0, 7, 255})
  assert class_table.infer(masks).values == {0: 0, 255: 1}


def test_masks_of_ids_of_which_a_third_has_no_object_are_no_binary_ones():
  masks = _masks(*[{0, 255}] * 4, *[{0, 1, 255}] * 8)
  assert class_table.infer(masks).values == {0: 0, 1: 1, 255: 255}


def test_among_few_masks_an_odd_one_is_believed():
  masks = _masks({0, 255}, {0, 7, 255})
  assert class_table.infer(masks).values == {0: 0, 7: 1, 255: 255}


def test_a_single_value_far_above_the_others_is_no_class_and_a_near_one_is():
  masks = _masks(*[{0, 1, 2}] * 12, {0, 3}, {0, 200})
  assert set(class_table.infer(masks).values) == {0, 1, 2, 3, 255}


@pytest.mark.parametrize(
  ("masks", "message"),
  [
    ([{0}], "1 different values"),
    ([set(range(256)) | {300}], "256 different values"),
  ],
)
def test_values_that_cannot_be_classes_are_refused(masks, message):
  with pytest.raises(ValueError, match=message):
    class_table.infer(_masks(*masks))


def test_a_palette_gives_the_colours_that_most_masks_have():
  red, blue = (255, 0, 0), (0, 0, 255)
  masks = [
    class_table.MaskValues(frozenset({0, 1}), {0: (0, 0, 0), 1: color}, False)
    for color in (red, red, blue)
  ]
  assert class_table.infer(masks).palette == ((0, 0, 0), red)


def test_a_grey_mask_saved_as_rgb_is_read_by_its_values():
  table = class_table.infer(_masks({0, 255}))
  mask = np.array([[0, 255], [255, 0]], np.uint8)
  label = table.decode(_png(np.dstack([mask] * 3)))
  np.testing.assert_array_equal(label, mask // 255)


def test_a_mask_of_16_bits_is_looked_up():
  table = class_table.infer(_masks({1000, 2000, 255}))
  mask = np.array([[1000, 255], [2000, 1000]], np.uint16)
  np.testing.assert_array_equal(table.decode(_png(mask)), [[0, 255], [1, 0]])


def test_values_out_of_the_table_are_named():
  table = class_table.infer(_masks({0, 255}))
  with pytest.raises(ValueError, match=r"values 7, 9, .*known are 0, 255"):
    table.decode(_png(np.array([[0, 7], [9, 255]], np.uint8)))


def _read(tmp_path, content):
  path = tmp_path / "classes.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return class_table.read(path)


def test_names_only_are_classes_0_1_2_and_255_is_void(tmp_path):
  table = _read(tmp_path, {"classes": ["sky", "tree"]})
  assert table.names == ("sky", "tree")
  assert table.values == {0: 0, 1: 1, 255: types.IGNORE_LABEL}


def test_255_can_be_a_class(tmp_path):
  table = _read(
    tmp_path, {"classes": ["no", {"name": "yes", "value": 255}], "ignore": [9]}
  )
  assert table.values == {0: 0, 255: 1, 9: types.IGNORE_LABEL}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "JSON"),
    ("[" * 100_000, "JSON"),
    ([], '"classes"'),
    ({"classes": []}, "0 classes"),
    ({"classes": ["x"] * 300}, "300 classes"),
    ({"classes": ["a", "a"]}, "not all different"),
    ({"classes": [{"value": 1}]}, '"name"'),
    ({"classes": [{"name": "a", "colour": [0, 0, 0]}]}, "colour"),
    ({"classes": ["a"], "ignored": []}, "ignored"),
    ({"classes": [{"name": "a", "value": -1}]}, "-1"),
    ({"classes": [{"name": "a", "value": True}]}, "True"),
    ({"classes": [{"name": "a", "value": 1}, "b"]}, "1 is given twice"),
    ({"classes": ["a"], "ignore": [0]}, "0 is given twice"),
    ({"classes": ["a"], "ignore": 3}, "must be a list"),
    ({"classes": [{"name": "a", "color": [0, 0, 256]}]}, "256"),
    ({"classes": [{"name": "a", "color": "red"}]}, "red"),
  ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, content, message):
  with pytest.raises(ValueError, match=message) as error:
    _read(tmp_path, content)
  assert "classes.json" in str(error.value)
