import functools
import json
import re
import shutil

import cloudpickle
import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from fcn_jax import types
from fcn_jax.data import examples
from fcn_jax.data.datasets import folder
from tests.helpers import data_sets
from tests.helpers import planted
from tests.helpers import programs


@pytest.fixture
def cells(tmp_path):
  return planted.make_folder(tmp_path / "cells", count=12)


_load = functools.partial(data_sets.load, "folder")


def _pair(root, picture, mask, stem="a", suffix="png"):
  """Writes one pair of picture and mask."""
  for name in ("images", "masks"):
    (root / name).mkdir(parents=True, exist_ok=True)
  picture.save(root / "images" / f"{stem}.{suffix}")
  mask.save(root / "masks" / f"{stem}.png")


def _example(root, tmp_path, stem="a"):
  for split in ("train", "validation"):
    for example in _load(root, tmp_path, split).source:
      if example.name == stem:
        return example
  raise AssertionError(stem)


def test_grey_pictures_with_0_and_255_are_background_and_foreground(
  cells, tmp_path
):
  dataset = _load(cells, tmp_path)
  assert dataset.class_names == ("background", "foreground")
  for example in dataset.source:
    picture = np.array(Image.open(cells / "images" / f"{example.name}.png"))
    mask = np.array(Image.open(cells / "masks" / f"{example.name}.png"))
    np.testing.assert_array_equal(example.image, np.dstack([picture] * 3))
    np.testing.assert_array_equal(example.label, mask // 255)


def test_without_folders_each_picture_is_in_one_of_two_splits(cells, tmp_path):
  names = {
    split: {e.name for e in _load(cells, tmp_path, split).source}
    for split in ("train", "validation")
  }
  assert names["train"] and names["validation"]
  assert not names["train"] & names["validation"]
  assert len(names["train"] | names["validation"]) == 12


@pytest.mark.parametrize("nested", ["{split}/{kind}", "{kind}/{split}"])
def test_folders_for_splits_are_used(cells, tmp_path, nested):
  root = tmp_path / "nested"
  numbers = {"train": range(0, 6), "val": range(6, 9), "test": range(9, 12)}
  for split, members in numbers.items():
    for kind in ("images", "masks"):
      target = root / nested.format(split=split, kind=kind)
      target.mkdir(parents=True)
      for number in members:
        shutil.copy(cells / kind / f"cell_{number:02d}.png", target)
  lengths = {
    split: [e.name for e in _load(root, tmp_path, split).source]
    for split in ("train", "validation", "test")
  }
  assert [len(names) for names in lengths.values()] == [6, 3, 3]
  assert lengths["test"][0] == "test/cell_09"


def test_pictures_in_subfolders_are_found(cells, tmp_path):
  for kind in ("images", "masks"):
    (cells / kind / "patient 1").mkdir()
    (cells / kind / "cell_03.png").rename(
      cells / kind / "patient 1" / "cell_03.png"
    )
  assert "patient 1/cell_03" in {p.name for p in folder.find(cells).pairs}


def _photo():
  gradient = np.linspace(0, 255, 24 * 16 * 3).reshape(24, 16, 3)
  return Image.fromarray(gradient.astype(np.uint8))


def _rotated(picture, path):
  exif = Image.Exif()
  exif[0x0112] = 6  # Shown turned by 90 degrees.
  picture.save(path, exif=exif, quality=95)


@pytest.mark.parametrize(
  ("mode", "suffix"),
  [
    ("L", "png"),
    ("RGBA", "png"),
    ("LA", "png"),
    ("P", "png"),
    ("P", "gif"),
    ("1", "tif"),
    ("RGB", "bmp"),
    ("RGB", "webp"),
    ("RGB", "ppm"),
    ("CMYK", "jpg"),
    ("CMYK", "tif"),
    ("L", "jpg"),
    ("YCbCr", "jpg"),
    ("RGB", "tga"),
  ],
)
def test_pictures_of_any_kind_come_as_rgb(tmp_path, mode, suffix):
  root = tmp_path / "kinds"
  mask = Image.fromarray(np.arange(24 * 16).reshape(24, 16).astype("u1") % 2)
  _pair(root, _photo(), mask, stem="b")
  _pair(root, _photo().convert(mode), mask, suffix=suffix)
  with Image.open(root / "images" / f"a.{suffix}") as picture:
    assert picture.mode == mode or suffix in ("webp", "jpg")
    expected = np.array(picture.convert("RGBA").convert("RGB"))
  image = _example(root, tmp_path).image
  assert image.shape == (24, 16, 3) and image.dtype == np.uint8
  np.testing.assert_array_equal(image, expected)


def test_pictures_are_turned_as_their_exif_data_say(tmp_path):
  root = tmp_path / "turned"
  mask = Image.fromarray(np.arange(16 * 24).reshape(16, 24).astype("u1") % 2)
  turned = Image.fromarray(np.array(mask))
  _pair(root, _photo().transpose(Image.Transpose.ROTATE_90), turned, stem="b")
  (root / "masks" / "a.png").write_bytes(
    (root / "masks" / "b.png").read_bytes()
  )
  _rotated(_photo(), root / "images" / "a.jpg")
  with Image.open(root / "images" / "a.jpg") as picture:
    assert picture.size == (16, 24)
    expected = np.array(ImageOps.exif_transpose(picture))
  image = _example(root, tmp_path).image
  assert image.shape == (16, 24, 3)
  np.testing.assert_array_equal(image, expected)


def test_a_mask_of_the_picture_as_it_was_before_it_was_turned_is_a_fault(
  tmp_path,
):
  root = tmp_path / "turned"
  mask = Image.fromarray(np.arange(24 * 16).reshape(24, 16).astype("u1") % 2)
  _pair(root, _photo(), mask, stem="b")
  _pair(root, _photo(), mask)
  (root / "images" / "a.png").unlink()
  _rotated(_photo(), root / "images" / "a.jpg")
  with pytest.raises(ValueError, match=r"masks/a\.png has 16x24.*EXIF"):
    _load(root, tmp_path)


@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (16, 65535)])
def test_16_bits_are_spread_over_as_many_bits_as_the_pictures_use(
  tmp_path, bits, white
):
  root = tmp_path / "deep"
  mask = Image.fromarray(np.arange(24 * 16).reshape(24, 16).astype("u1") % 2)
  values = np.linspace(0, 2**bits - 50, 24 * 16).reshape(24, 16)
  deep = values.astype(np.uint16)
  _pair(root, Image.fromarray(deep), mask)
  _pair(root, Image.fromarray(deep // 3), mask, stem="b", suffix="tif")
  image = _example(root, tmp_path).image
  expected = np.round(deep * (255 / white))
  np.testing.assert_array_equal(image[..., 1], expected)
  darker = _example(root, tmp_path, "b").image
  np.testing.assert_array_equal(
    darker[..., 0], np.round((deep // 3) * (255 / white))
  )


def test_classes_come_from_the_file_by_value_color_or_place(cells, tmp_path):
  (cells / folder.CLASSES_FILE).write_text(
    json.dumps(
      {
        "classes": [
          {"name": "cell", "value": 255, "color": [0, 200, 0]},
          {"name": "glass", "value": 0},
        ]
      }
    )
  )
  dataset = _load(cells, tmp_path)
  assert dataset.class_names == ("cell", "glass")
  assert tuple(dataset.palette[0]) == (0, 200, 0)
  example = dataset.source[0]
  mask = np.array(Image.open(cells / "masks" / f"{example.name}.png"))
  np.testing.assert_array_equal(example.label, np.where(mask == 255, 0, 1))


def test_ignored_values_and_colors_are_void_and_colours_are_classes(tmp_path):
  root = tmp_path / "colours"
  colors = np.array([[0, 0, 0], [255, 0, 0], [1, 2, 3]], np.uint8)
  ids = np.random.default_rng(0).integers(3, size=(24, 16))
  for stem, image in (
    ("a", Image.fromarray(colors[ids])),
    ("b", Image.fromarray(colors[ids]).convert("RGBA")),
    # The same colours, but as indices that a program chose.
    ("c", Image.fromarray(colors[ids]).quantize(3)),
  ):
    _pair(root, _photo(), image, stem=stem)
  (root / folder.CLASSES_FILE).write_text(
    json.dumps(
      {
        "classes": [
          {"name": "ground", "color": [0, 0, 0]},
          {"name": "house", "color": [255, 0, 0]},
        ],
        "ignore": [[1, 2, 3]],
      }
    )
  )
  expected = np.where(ids == 2, types.IGNORE_LABEL, ids)
  for stem in "abc":
    label = _example(root, tmp_path, stem).label
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("given", ["color", "color and value"])
def test_palettes_that_contradict_the_colours_of_the_table_are_faults(
  tmp_path, given
):
  root = tmp_path / "palettes"
  ids = np.arange(24 * 16).reshape(24, 16).astype("u1") % 2
  for stem, color in (("a", [128, 0, 0]), ("b", [0, 128, 0])):
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0, *color])
    _pair(root, _photo(), mask, stem=stem)
  classes = [
    {"name": "no", "color": [0, 0, 0]},
    {"name": "yes", "color": [128, 0, 0]},
  ]
  if given != "color":
    classes = [one | {"value": value} for value, one in enumerate(classes)]
  (root / folder.CLASSES_FILE).write_text(json.dumps({"classes": classes}))
  if given == "color":
    with pytest.raises(ValueError, match=r"b\.png has the values \[0, 128, 0"):
      _load(root, tmp_path)
  else:  # The numbers count.
    np.testing.assert_array_equal(_example(root, tmp_path, "b").label, ids)


def _classes_of(dataset):
  return examples.Classes(
    dataset.class_names, dataset.palette.tolist(), dataset.masks
  )


def test_a_folder_that_lacks_a_class_and_training_is_read_as_another(
  cells, tmp_path
):
  for number in range(12):
    path = cells / "masks" / f"cell_{number:02d}.png"
    mask = np.array(Image.open(path)) // 255
    mask[:9, :9] = 2
    planted.save(path, mask)
  trained = _load(cells, tmp_path)
  site = tmp_path / "site"
  mask[mask == 2] = 0
  _pair(site / "test", Image.fromarray(mask), Image.fromarray(mask))
  classes = _classes_of(trained)
  tested = _load(site, tmp_path, "test", classes=classes)
  assert tested.class_names == trained.class_names
  np.testing.assert_array_equal(tested.source[0].label, mask)
  with pytest.raises(ValueError, match="no split 'validation'.*has 'test'"):
    _load(site, tmp_path, "validation", classes=classes)
  # Masks that mean something else there, in another order.
  planted.save(site / "test" / "masks" / "a.png", mask * 70)
  table = {"classes": [{"name": "class 1", "value": 70}]}
  table["classes"].append({"name": "class 0", "value": 0})
  (site / folder.CLASSES_FILE).write_text(json.dumps(table))
  tested = _load(site, tmp_path, "test", classes=classes)
  assert tested.class_names == trained.class_names
  np.testing.assert_array_equal(tested.source[0].label, mask)
  table["classes"][0]["name"] = "cat"
  (site / folder.CLASSES_FILE).write_text(json.dumps(table))
  with pytest.raises(ValueError, match="classes cat, which the network does"):
    _load(site, tmp_path, "test", classes=classes)


def test_the_same_folder_read_for_a_network_is_not_prepared_again(
  cells, tmp_path
):
  trained = _load(cells, tmp_path)
  again = _load(cells, tmp_path, classes=_classes_of(trained))
  assert again.fingerprint == trained.fingerprint
  assert len(list((tmp_path / "data" / "folder").glob("cells-*"))) == 1


def test_masks_that_mean_something_else_are_prepared_anew(cells, tmp_path):
  before = _load(cells, tmp_path)
  masks = before.masks | {"values": [[0, 1], [255, 0]]}
  other = examples.Classes(before.class_names, before.palette.tolist(), masks)
  after = _load(cells, tmp_path, classes=other)
  assert after.fingerprint != before.fingerprint
  np.testing.assert_array_equal(
    after.source[0].label, 1 - before.source[0].label
  )


def test_what_255_means_is_kept_with_the_prepared_data(cells, tmp_path):
  for _ in range(2):
    remarks = " ".join(_load(cells, tmp_path).remarks)
    assert "255 in masks is the class foreground, 8." in remarks
    assert "void is 0.0% of the pixels" in remarks


def test_coloured_masks_without_a_table_ask_for_one(tmp_path):
  root = tmp_path / "colours"
  mask = np.zeros((24, 16, 3), np.uint8)
  mask[3:] = [255, 128, 0]
  _pair(root, _photo(), Image.fromarray(mask))
  with pytest.raises(ValueError, match=r"2 colours.*\[255, 128, 0\].*classes"):
    folder.find(root)


def test_skip_bad_trains_on_the_good_ones_and_its_absence_refuses(
  cells, tmp_path
):
  faults = planted.plant(cells, planted.bomb())
  with pytest.raises(ValueError, match="skip_bad") as error:
    _load(cells, tmp_path)
  assert all(name in str(error.value) for name in faults)
  assert not (tmp_path / "data").exists()
  kept = sum(
    len(_load(cells, tmp_path, split, skip_bad=True).source)
    for split in ("train", "validation")
  )
  assert kept == 12 and len(faults) >= 20
  # What was prepared without them is no way around the refusal.
  with pytest.raises(ValueError, match="skip_bad") as again:
    _load(cells, tmp_path)
  assert str(again.value) == str(error.value)


def test_a_changed_folder_is_prepared_anew_and_the_old_data_stay(
  cells, tmp_path
):
  before = _load(cells, tmp_path)
  path = cells / "masks" / f"{before.source[0].name}.png"
  mask = np.array(Image.open(path))
  planted.save(path, 255 - mask)
  after = _load(cells, tmp_path)
  assert before.fingerprint != after.fingerprint
  np.testing.assert_array_equal(
    after.source[0].label, 1 - before.source[0].label
  )
  assert len(list((tmp_path / "data" / "folder").glob("cells-*"))) == 2


def test_an_unchanged_folder_is_not_prepared_again(cells, tmp_path):
  _load(cells, tmp_path)
  (record,) = (tmp_path / "data").rglob("*train.array_record*")
  before = record.stat().st_mtime_ns
  _load(cells, tmp_path, "validation")
  assert record.stat().st_mtime_ns == before


def test_a_source_can_be_sent_to_another_process(cells, tmp_path):
  source = _load(cells, tmp_path).source
  code = """
    import cloudpickle
    source = cloudpickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(source[1].label.tobytes())
  """
  # Another process does not have the classes of this one.
  with programs.start(code) as process:
    label, _ = process.communicate(cloudpickle.dumps(source))
  assert label == source[1].label.tobytes()


def test_loading_says_nothing(cells, tmp_path, capfd):
  _load(cells, tmp_path)
  assert capfd.readouterr() == ("", "")


def _no_masks(root):
  shutil.rmtree(root / "masks")


def _two_for_validation(root):
  for name in ("val", "valid", "train"):
    for kind in ("images", "masks"):
      shutil.copytree(root / kind, root / name / kind)


def _nothing_to_train_on(root):
  for kind in ("images", "masks"):
    (root / "val").mkdir(exist_ok=True)
    (root / kind).rename(root / "val" / kind)


def _loose_pictures(root):
  for kind in ("images", "masks"):
    (root / kind / "train").mkdir()
    (root / kind / "cell_00.png").rename(root / kind / "train" / "a.png")


def _other_names(root):
  for number, path in enumerate((root / "masks").iterdir()):
    path.rename(path.with_name(f"m{number}.png"))


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (shutil.rmtree, "does not exist; give the folder"),
    (_no_masks, "no folder masks; expected .* found: images"),
    (_two_for_validation, "both for validation"),
    (_nothing_to_train_on, "nothing to train on"),
    (_loose_pictures, "in no split"),
    (_other_names, r"(?s)24 faults.*has no mask"),
  ],
  ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_layout_is_refused_and_nothing_is_written(
  cells, tmp_path, damage, message
):
  damage(cells)
  data_sets.assert_refused("folder", cells, tmp_path, message)


def test_without_a_folder_the_message_says_what_to_give(tmp_path):
  with pytest.raises(ValueError, match="give the folder with your pictures"):
    _load(None, tmp_path)


def test_links_to_folders_outside_are_faults_and_not_followed_silently(
  cells, tmp_path
):
  outside = planted.make_folder(tmp_path / "outside", count=2)
  for kind in ("images", "masks"):
    (cells / kind / "more").symlink_to(outside / kind)
  listing = folder.find(cells)
  assert len(listing.pairs) == 12
  assert len(listing.faults) == 4
  assert all("outside of" in reason for _, reason in listing.faults)


def test_a_link_to_the_folder_above_does_not_hang(cells):
  (cells / "images" / "loop").symlink_to(cells / "images")
  found = folder.find(cells)
  assert len(found.pairs) == 12 and not found.faults


def test_files_that_are_no_pictures_are_noted(cells):
  (cells / "images" / "notes.txt").write_text("by hand")
  (cells / "images" / ".DS_Store").write_text("x")
  (note,) = [n for n in folder.find(cells).notes if "notes.txt" in n]
  assert re.search("1 files do not have the suffix of a picture", note)
