import pytest

from fcn_jax.data.datasets import class_inference


def _masks(*values):
  return [
    class_inference.MaskValues(frozenset(v), {}, frozenset()) for v in values
  ]


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
  table = class_inference.infer(_masks(*masks))
  assert table.names == names
  assert table.values == values
  assert len(table.palette) == len(set(table.palette)) == len(names)


@pytest.mark.parametrize("num_binary", [3, 19])
def test_an_odd_mask_among_binary_ones_has_no_class_of_its_own(num_binary):
  masks = _masks(*[{0, 255}] * num_binary, {0, 7, 255})
  assert class_inference.infer(masks).values == {0: 0, 255: 1}


def test_masks_of_ids_of_which_a_third_has_no_object_are_no_binary_ones():
  masks = _masks(*[{0, 255}] * 4, *[{0, 1, 255}] * 8)
  assert class_inference.infer(masks).values == {0: 0, 1: 1, 255: 255}


def test_among_few_masks_an_odd_one_is_believed():
  masks = _masks({0, 255}, {0, 7, 255})
  assert class_inference.infer(masks).values == {0: 0, 7: 1, 255: 255}


def test_a_single_value_far_above_the_others_is_no_class_and_a_near_one_is():
  masks = _masks(*[{0, 1, 2}] * 12, {0, 3}, {0, 200})
  assert set(class_inference.infer(masks).values) == {0, 1, 2, 3, 255}


@pytest.mark.parametrize(
  ("masks", "message"),
  [
    ([{0}], "1 different values"),
    ([set(range(256)) | {300}], "256 different values"),
  ],
)
def test_values_that_cannot_be_classes_are_refused(masks, message):
  with pytest.raises(ValueError, match=message):
    class_inference.infer(_masks(*masks))


def test_a_palette_gives_the_colours_that_most_masks_have():
  red, blue = (255, 0, 0), (0, 0, 255)
  masks = [
    class_inference.MaskValues(
      frozenset({0, 1}), {0: (0, 0, 0), 1: color}, frozenset()
    )
    for color in (red, red, blue)
  ]
  assert class_inference.infer(masks).palette == ((0, 0, 0), red)
