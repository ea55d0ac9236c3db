import io

import numpy as np
import pytest
from PIL import Image
from PIL import ImageFilter

from fcn_jax.data.datasets import class_inference
from fcn_jax.data.datasets import mask_counts

VOID = 255


def _disc(shift=0, height=48, width=64, radius=12):
  """[H, W] bool."""
  rows, columns = np.mgrid[:height, :width]
  centre = height // 2, width // 3 + shift
  return np.hypot(rows - centre[0], columns - centre[1]) < radius


def _binary(count=12, **size):
  return [_disc(shift, **size).astype(np.uint8) * 255 for shift in range(count)]


def _three(low, middle, high, count=6):
  """Masks with two discs beside each other on a ground."""
  masks = []
  for shift in range(count):
    mask = np.full((48, 64), low, np.uint8)
    mask[_disc(shift)] = middle
    mask[_disc(shift + 28)] = high
    masks.append(mask)
  return masks


def _infer(folder, masks):
  """The table and the remarks; masks are arrays or pictures."""
  paths = []
  for number, mask in enumerate(masks):
    path = folder / f"{number:02d}.png"
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(path)
    paths.append(path)
  return class_inference.infer(mask_counts.count(paths))


def _labels(table, mask):
  buffer = io.BytesIO()
  image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
  image.save(buffer, format="PNG")
  return table.decode(buffer.getvalue())


def _is_binary(table):
  return table.values == {0: 0, 255: 1} and table.names == (
    "background",
    "foreground",
  )


@pytest.mark.parametrize(
  ("masks", "names", "values"),
  [
    (_binary(3), ("background", "foreground"), {0: 0, 255: 1}),
    (
      _three(0, 1, 2),
      ("class 0", "class 1", "class 2"),
      {0: 0, 1: 1, 2: 2, 255: 255},
    ),
    (
      _three(0, 50, 150),
      ("value 0", "value 50", "value 150"),
      {0: 0, 50: 1, 150: 2, 255: 255},
    ),
    (
      [np.where(_disc(), np.uint16(2000), np.uint16(1000))],
      ("value 1000", "value 2000"),
      {1000: 0, 2000: 1, 255: 255},
    ),
  ],
  ids=["binary", "ids", "spread", "16 bits"],
)
def test_values_become_classes_in_their_order(tmp_path, masks, names, values):
  table, notes = _infer(tmp_path, masks)
  assert table.names == names
  assert table.values == values
  assert len(table.palette) == len(set(table.palette)) == len(names)
  assert not notes


# Soft edges: how masks come to them, and what the values in between are.


def _resized(mask, method, size=(83, 62)):
  return np.array(Image.fromarray(mask).resize(size, method))


def _as_jpeg(mask, quality):
  buffer = io.BytesIO()
  Image.fromarray(mask).save(buffer, format="JPEG", quality=quality)
  return np.array(Image.open(buffer))


_LARGE = {"height": 144, "width": 192, "radius": 36}
_SOFT = {
  "bilinear": lambda m: _resized(m, Image.Resampling.BILINEAR),
  "bicubic, enlarged": lambda m: _resized(
    m, Image.Resampling.BICUBIC, (400, 300)
  ),
  "1 level": lambda m: _levels(_resized(m, Image.Resampling.BOX), 2),
  "2 levels": lambda m: _levels(_resized(m, Image.Resampling.BOX), 3),
  "3 levels": lambda m: _levels(_resized(m, Image.Resampling.BOX), 4),
  "blurred": lambda m: np.array(
    Image.fromarray(m).filter(ImageFilter.GaussianBlur(2))
  ),
  "JPEG 95": lambda m: _as_jpeg(m, 95),
  "JPEG 75": lambda m: _as_jpeg(m, 75),
  "JPEG 30": lambda m: _as_jpeg(m, 30),
}


def _levels(mask, number):
  """Rounds to 0, 255 and number - 1 levels in between."""
  return np.round(np.round(mask / 255 * number) * 255 / number).astype(np.uint8)


@pytest.mark.parametrize("kind", _SOFT)
def test_soft_edges_are_no_classes_and_their_masks_are_faulty(tmp_path, kind):
  masks = [_SOFT[kind](mask) for mask in _binary(**_LARGE)]
  table, notes = _infer(tmp_path, masks)
  assert _is_binary(table)
  assert any("12 masks hold" in note and "soft edges" in note for note in notes)
  with pytest.raises(ValueError, match="soft edges; threshold"):
    _labels(table, masks[0])


def test_soft_edges_in_a_few_masks_leave_the_others_good(tmp_path):
  masks = _binary(**_LARGE)
  masks[3] = _SOFT["bilinear"](masks[3])
  table, notes = _infer(tmp_path, masks)
  assert _is_binary(table) and "1 masks hold" in notes[0]
  np.testing.assert_array_equal(_labels(table, masks[0]), masks[0] // 255)


def test_soft_edges_between_three_levels_leave_three_classes(tmp_path):
  masks = [
    np.array(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(1)))
    for mask in _three(0, 100, 200)
  ]
  table, notes = _infer(tmp_path, masks)
  assert table.names == ("value 0", "value 100", "value 200")
  assert "soft edges" in notes[0]


def test_thin_classes_between_near_ids_are_classes(tmp_path):
  masks = _three(0, 2, 2)
  for mask in masks:
    mask[:, 1::2][_disc()[:, 1::2]] = 1
  table, notes = _infer(tmp_path, masks)
  assert table.names == ("class 0", "class 1", "class 2") and not notes


# Slips: a pixel or two of another value.


@pytest.mark.parametrize("value", [1, 7, 128, 254])
@pytest.mark.parametrize("each", [1, 3], ids=["in all", "in a third"])
def test_single_pixels_are_no_class_and_do_not_make_the_foreground_void(
  tmp_path, value, each
):
  masks = _binary(20)
  for mask in masks[::each]:
    mask[0, 0] = value
  table, notes = _infer(tmp_path, masks)
  assert _is_binary(table)
  assert f"{len(masks[::each])} masks hold single pixels" in notes[0]
  with pytest.raises(ValueError, match=f"values {value}, which are neither"):
    _labels(table, masks[0])


def test_single_pixels_far_above_ids_are_no_class(tmp_path):
  masks = _three(0, 1, 2, count=9)
  for mask in masks[::3]:
    mask[0, 0] = 77
  table, notes = _infer(tmp_path, masks)
  assert table.names == ("class 0", "class 1", "class 2")
  assert "3 masks hold single pixels" in notes[0]


def test_a_single_value_far_above_the_others_is_no_class_and_a_near_one_is(
  tmp_path,
):
  masks = _three(0, 1, 2, count=12)
  masks[0][:9, :9] = 3
  masks[1][:9, :9] = 200
  table, _ = _infer(tmp_path, masks)
  assert set(table.values) == {0, 1, 2, 3, VOID}


@pytest.mark.parametrize("num_binary", [3, 19])
def test_an_odd_mask_among_binary_ones_has_no_class_of_its_own(
  tmp_path, num_binary
):
  table, _ = _infer(tmp_path, _binary(num_binary) + _three(0, 7, 255, count=1))
  assert _is_binary(table)


# What 255 means.


def test_masks_of_ids_of_which_a_third_has_no_object_are_no_binary_ones(
  tmp_path,
):
  table, _ = _infer(tmp_path, _binary(4) + _three(0, 1, 255, count=8))
  assert table.values == {0: 0, 1: 1, 255: VOID}


def test_void_outlines_as_in_voc_are_void(tmp_path):
  masks = []
  for shift in range(8):
    mask = np.where(_disc(shift, radius=14), 255, 0).astype(np.uint8)
    mask[_disc(shift)] = 1 + shift % 2 * 14
    masks.append(mask)
  table, notes = _infer(tmp_path, masks)
  assert table.values == {0: 0, 1: 1, 15: 2, 255: VOID} and not notes


def test_void_in_most_of_the_pixels_is_void(tmp_path):
  masks = _three(255, 0, 1)
  table, _ = _infer(tmp_path, masks)
  assert table.values == {0: 0, 1: 1, 255: VOID}


def test_empty_masks_do_not_count_as_binary_ones(tmp_path):
  empty = [np.zeros((48, 64), np.uint8)] * 20
  table, _ = _infer(tmp_path, empty + _three(0, 1, 255, count=3))
  assert table.values == {0: 0, 1: 1, 255: VOID}


@pytest.mark.parametrize(
  "levels", [(0, 128, 255), (0, 127, 255), (255, 0, 128)], ids=str
)
def test_255_is_a_class_among_evenly_spaced_levels(tmp_path, levels):
  masks = _three(*levels)
  table, notes = _infer(tmp_path, masks)
  middle = sorted(levels)[1]
  assert table.values == {0: 0, middle: 1, 255: 2}
  assert "255 is a class" in notes[0]
  np.testing.assert_array_equal(
    _labels(table, masks[0]), np.searchsorted([0, middle, 255], masks[0])
  )


@pytest.mark.parametrize(
  ("masks", "message"),
  [
    (
      _three(0, 100, 255),
      "255 has .* of the pixels: it may be a class or void",
    ),
    (_three(0, 254, 255), "254 as well as 255"),
    (_binary(6) + [mask // 255 for mask in _binary(6)], "none has both"),
  ],
  ids=["uneven", "nearly equal", "two encodings"],
)
def test_what_is_not_clear_is_refused_with_a_table_to_complete(
  tmp_path, masks, message
):
  with pytest.raises(
    class_inference.UnknownClassesError, match=message
  ) as error:
    _infer(tmp_path, masks)
  values = [entry["value"] for entry in error.value.table["classes"]]
  assert values == sorted({*np.unique(masks).tolist()})
  shares = [entry["share"] for entry in error.value.table["classes"]]
  assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_a_little_void_among_uneven_levels_is_void(tmp_path):
  masks = _three(0, 50, 150)
  masks[0][:3, :3] = 255
  table, _ = _infer(tmp_path, masks)
  assert table.values == {0: 0, 50: 1, 150: 2, 255: VOID}


@pytest.mark.parametrize(
  ("masks", "message"),
  [
    ([np.zeros((9, 9), np.uint8)] * 3, "3 masks have 1 different value"),
    ([np.full((9, 9), 255, np.uint8)], "void .255. everywhere"),
    (
      [np.kron(np.arange(289).reshape(17, 17), np.ones((4, 4))).astype("u2")],
      "288 different values.*numbers of objects",
    ),
  ],
)
def test_values_that_cannot_be_classes_are_refused(tmp_path, masks, message):
  with pytest.raises(ValueError, match=message):
    _infer(tmp_path, masks)


def test_numbers_of_objects_are_remarked_on(tmp_path):
  masks = []
  for number in range(1, 10):
    mask = np.zeros((48, 64), np.uint8)
    for place in range(number):
      mask[9 : 9 + 5, 7 * place : 7 * place + 5] = place + 1
    masks.append(mask)
  _, notes = _infer(tmp_path, masks)
  assert "numbered objects" in notes[0]


# Masks of other depths.


def _one_bit(mask):
  return Image.fromarray(mask).convert("1")


@pytest.mark.parametrize("depth", ["1 bit", "16 bits"])
def test_white_is_one_class_whatever_the_number_of_bits(tmp_path, depth):
  masks = _binary()
  convert = _one_bit if depth == "1 bit" else _deep
  mixed = [convert(m) if n % 2 else m for n, m in enumerate(masks)]
  table, _ = _infer(tmp_path, mixed)
  assert _is_binary(table)
  for mask, saved in zip(masks, mixed, strict=True):
    np.testing.assert_array_equal(_labels(table, saved), mask // 255)


def _deep(mask):
  return mask.astype(np.uint16) * 257


def test_masks_of_1_bit_alone_or_with_ids_have_0_and_1(tmp_path):
  ids = [mask // 255 for mask in _binary()]
  mixed = [_one_bit(m * 255) if n % 2 else m for n, m in enumerate(ids)]
  table, _ = _infer(tmp_path, mixed)
  assert table.values == {0: 0, 1: 1, 255: VOID}
  np.testing.assert_array_equal(_labels(table, mixed[1]), ids[1])


def test_1_bit_beside_both_1_and_255_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"01\.png has fewer.*may be white"):
    masks = _three(0, 1, 255)
    masks[1] = _one_bit(_binary(1)[0])
    _infer(tmp_path, masks)


# Colours.

BLACK, RED, GREEN = (0, 0, 0), (128, 0, 0), (0, 128, 0)
WHITE = (255, 255, 255)


def _palette(ids, *colors):
  image = Image.fromarray(np.asarray(ids, np.uint8))
  image.putpalette([part for color in colors for part in color])
  return image


def _ids(shift=0):
  return _three(0, 1, 2)[shift % 6]


def test_palettes_in_another_order_in_each_file_go_by_colour(tmp_path):
  masks = [
    _palette(_ids(0), BLACK, RED, GREEN),
    _palette(np.array([2, 0, 1])[_ids(1)], RED, GREEN, BLACK),
    _palette(np.minimum(_ids(2), 1), BLACK, GREEN),
    np.zeros((48, 64), np.uint8),  # Without objects, and without a palette.
    np.array(BLACK + RED, np.uint8).reshape(2, 3)[np.minimum(_ids(4), 1)],
  ]
  table, notes = _infer(tmp_path, masks)
  assert table.palette == (BLACK, GREEN, RED)
  assert "00.png" in notes[0] and "01.png" in notes[0]
  swap = np.array([0, 2, 1])
  np.testing.assert_array_equal(_labels(table, masks[0]), swap[_ids(0)])
  np.testing.assert_array_equal(_labels(table, masks[1]), swap[_ids(1)])
  np.testing.assert_array_equal(_labels(table, masks[2]), _ids(2) > 0)
  np.testing.assert_array_equal(_labels(table, masks[3]), 0 * _ids(3))
  np.testing.assert_array_equal(_labels(table, masks[4]), 2 * (_ids(4) > 0))


def test_one_palette_goes_by_number_whatever_its_unused_entries(tmp_path):
  # 1 and 2 have the same colour in both files: no conflict.
  masks = [
    _palette(_ids(), BLACK, RED, GREEN, BLACK),
    _palette(_ids(1), BLACK, RED, GREEN, WHITE),
  ]
  table, notes = _infer(tmp_path, masks)
  assert table.values == {0: 0, 1: 1, 2: 2, 255: VOID} and not notes
  assert table.palette == (BLACK, RED, GREEN)


def test_equal_palettes_with_two_numbers_of_a_colour_go_by_number(tmp_path):
  masks = [_palette(_ids(shift), BLACK, RED, RED) for shift in range(3)]
  table, _ = _infer(tmp_path, masks)
  assert table.values == {0: 0, 1: 1, 2: 2, 255: VOID}


def test_a_coloured_file_among_palettes_has_their_classes(tmp_path):
  colors = np.array([BLACK, RED, GREEN], np.uint8)
  masks = [_palette(_ids(n), *colors.tolist()) for n in range(4)]
  masks.append(colors[_ids(4)])
  table, _ = _infer(tmp_path, masks)
  np.testing.assert_array_equal(_labels(table, masks[4]), _ids(4))
  np.testing.assert_array_equal(_labels(table, masks[0]), _ids(0))


@pytest.mark.parametrize(
  ("masks", "message"),
  [
    (
      [
        _palette(_ids(), BLACK, RED, RED),
        _palette(_ids(1), BLACK, GREEN, RED),
      ],
      "two numbers of one colour",
    ),
    (
      [_palette(_ids() > 0, BLACK, (n, 1, 0)) for n in range(128, 132)],
      "nearly equal",
    ),
    (
      [_palette(_ids() > 0, BLACK, (30 * n, 99, 0)) for n in range(8)],
      "marked objects",
    ),
  ],
  ids=["two numbers", "near", "objects"],
)
def test_palettes_that_contradict_each_other_are_refused_with_two_files(
  tmp_path, masks, message
):
  with pytest.raises(
    class_inference.UnknownClassesError, match=message
  ) as error:
    _infer(tmp_path, masks)
  assert "00.png" in str(error.value) and "01.png" in str(error.value)


def test_palettes_of_greys_mean_the_greys_of_the_other_masks(tmp_path):
  masks = [
    _palette(m // 255, BLACK, WHITE) if n % 2 else m
    for n, m in enumerate(_binary())
  ]
  table, _ = _infer(tmp_path, masks)
  assert _is_binary(table)
  np.testing.assert_array_equal(_labels(table, masks[1]), _disc(1))
  np.testing.assert_array_equal(_labels(table, masks[0]), _disc(0))


def _coloured(ids):
  return np.array([BLACK, RED, GREEN], np.uint8)[ids]


def test_coloured_masks_get_a_table_of_their_colours_and_shares(tmp_path):
  masks = [_coloured(_ids(n) * (n != 3)) for n in range(6)]
  with pytest.raises(
    class_inference.UnknownClassesError,
    match=r"5 of 6 masks are coloured, with 3 colours \(\[0, 0, 0\] ",
  ) as error:
    _infer(tmp_path, masks)
  entries = error.value.table["classes"]
  share = np.mean([np.all(mask == BLACK, axis=-1) for mask in masks])
  assert entries[0]["color"] == list(BLACK)
  assert entries[0]["share"] == pytest.approx(share, abs=1e-6)
  assert {tuple(entry["color"]) for entry in entries} == {BLACK, RED, GREEN}


def test_colours_of_soft_edges_are_not_in_the_table(tmp_path):
  masks = [
    np.array(Image.fromarray(_coloured(_ids(n))).resize((96, 72)))
    for n in range(4)
  ]
  with pytest.raises(
    class_inference.UnknownClassesError, match="3 colours .*along edges"
  ) as error:
    _infer(tmp_path, masks)
  assert len(error.value.table["classes"]) == 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_masks_of_nothing_but_alpha_say_so(tmp_path, mode):
  masks = []
  for mask in _binary(6):
    channels = [np.full_like(mask, 255)] * (len(mode) - 1)
    masks.append(Image.fromarray(np.dstack([*channels, mask]), mode))
  with pytest.raises(ValueError, match="6 of 6 masks.*in the alpha channel"):
    _infer(tmp_path, masks)
  table, _ = _infer(tmp_path, _binary(6))
  with pytest.raises(ValueError, match="in the alpha channel"):
    _labels(table, masks[0])


def test_alpha_beside_grey_values_is_left_out(tmp_path):
  opaque = [
    Image.fromarray(np.dstack([mask, np.full_like(mask, 255)]), "LA")
    for mask in _binary()
  ]
  table, _ = _infer(tmp_path, opaque)
  assert _is_binary(table)
  np.testing.assert_array_equal(_labels(table, opaque[0]), _disc(0))
