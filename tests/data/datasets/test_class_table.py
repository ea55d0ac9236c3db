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


def _table(values):
  palette = ((0, 0, 0), (1, 1, 1))
  return class_table.ClassTable(("a", "b"), palette, values, {}, "made up")


def test_a_grey_mask_saved_as_rgb_is_read_by_its_values():
  table = _table({0: 0, 255: 1})
  mask = np.array([[0, 255], [255, 0]], np.uint8)
  label = table.decode(_png(np.dstack([mask] * 3)))
  np.testing.assert_array_equal(label, mask // 255)


def test_a_mask_of_16_bits_is_looked_up():
  table = _table({1000: 0, 2000: 1, 255: types.IGNORE_LABEL})
  mask = np.array([[1000, 255], [2000, 1000]], np.uint16)
  np.testing.assert_array_equal(table.decode(_png(mask)), [[0, 255], [1, 0]])


def test_values_out_of_the_table_are_named():
  table = _table({0: 0, 255: 1})
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


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("a\nb", r"class 1, a\\nb, has control characters"),
    ("\x1b[31mred", r"class 1, \\x1b\[31mred, has control"),
    ("\ud800", r"class 1, \\ud800, has control characters or half"),
    ("a\u2028b", r"class 1, a\\u2028b, has control"),
    (
      "x" * 100_000,
      r"class 1, x{50}\.\.\.x{50}, has 100000 characters; it may",
    ),
  ],
)
@pytest.mark.parametrize("in_mapping", [False, True])
def test_a_name_that_cannot_be_shown_is_refused(
  tmp_path, name, message, in_mapping
):
  path = tmp_path / "classes.json"
  entry = {"name": name} if in_mapping else name
  path.write_text(json.dumps({"classes": ["sky", entry]}))
  with pytest.raises(ValueError, match=rf"classes.json: the name of {message}"):
    class_table.read(path)


def test_names_of_all_scripts_and_of_other_languages_are_taken(tmp_path):
  names = ["$x$", "<b>Straße</b>", "空", "a|b", "🚗", "a\u00a0b", "x" * 200]
  path = tmp_path / "classes.json"
  path.write_text(json.dumps({"classes": names}))
  assert class_table.read(path).names == tuple(names)


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


@pytest.mark.parametrize(
  "entry",
  [
    {"name": ["a"] * 9999},
    {"name": "a", "value": "b" * 9999},
    {"name": "a", "color": [0] * 9999},
    {"name": "a", "b" * 9999: 1},
    ["a"] * 9999,
  ],
)
def test_a_message_shows_a_part_of_what_is_long(tmp_path, entry):
  path = tmp_path / "classes.json"
  path.write_text(json.dumps({"classes": [entry]}))
  with pytest.raises(ValueError, match=r"classes\.json: .*\.\.\.") as raised:
    class_table.read(path)
  assert len(str(raised.value)) < 400
