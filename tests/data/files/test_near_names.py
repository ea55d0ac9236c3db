import unicodedata

import pytest

from fcn_jax.data.files import decoding
from fcn_jax.data.files import near_names

_COMPOSED = unicodedata.normalize("NFC", "é")
_DECOMPOSED = unicodedata.normalize("NFD", "é")


def _pair(pictures, masks):
  return near_names.pair(pictures, masks, decoding.SUFFIXES)


@pytest.mark.parametrize(
  ("picture", "mask", "note"),
  [
    ("car", "car_mask", "words such as mask"),
    ("car", "car-mask", "words such as mask"),
    ("car", "mask_car", "words such as mask"),
    ("car", "car_label", "words such as mask"),
    ("car", "car_seg", "words such as mask"),
    ("car", "car_gt", "words such as mask"),
    ("car_sat", "car_mask", "words such as mask"),
    ("img_001", "mask_001", "words such as mask"),
    ("day/car", "day/car_mask", "words such as mask"),
    ("car", "car.jpg", "a second suffix"),
    ("car", "car_mask.jpg", "words such as mask"),
    ("Car", "car", "upper and lower case"),
    (_COMPOSED, _DECOMPOSED, "the Unicode form"),
  ],
)
def test_one_name_that_is_almost_equal_is_paired_and_reported(
  picture, mask, note
):
  found = _pair([picture, "bus", "tram"], [mask, "train"])
  assert found.masks == {picture: mask}
  (text,) = found.notes
  assert note in text and text.startswith("1 pair ")


@pytest.mark.parametrize(
  ("picture", "mask"), [("{}", "{}_x1"), ("{}", "out-{}"), ("{}", "{} (1)")]
)
def test_what_all_masks_have_in_front_or_behind_is_left_out(picture, mask):
  names = ["a", "b", "c7"]
  expected = {picture.format(name): mask.format(name) for name in names}
  found = _pair(expected.keys(), expected.values())
  assert found.masks == expected
  assert len(found.notes) == 1


def test_zeros_before_numbers_are_left_out_if_all_names_pair():
  assert _pair(["001", "002"], ["1", "2"]).masks == {"001": "1", "002": "2"}
  # One side counts from 0, the other from 1.
  assert not _pair(["000", "001"], ["1", "2"]).masks


@pytest.mark.parametrize(
  ("pictures", "masks"),
  [
    (["car"], ["car_mask", "car_label"]),
    (["car", "Car"], ["CAR"]),
    (["a"], ["a_1"]),
    (["a", "b"], ["a_1", "b_2"]),
    (["a/car"], ["b/car_mask"]),
    (["image"], ["mask"]),
    (["no_mask"], ["no_picture"]),
    (["a"], ["b"]),
    ([], ["a"]),
  ],
)
def test_names_with_several_possibilities_or_none_are_left_alone(
  pictures, masks
):
  assert _pair(pictures, masks) == ({}, [])
