"""Folders as strangers have them: names of files and folders, and formats."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.datasets import folder
from fcn_jax.data.files import checking
from fcn_jax.data.files import listing
from tests.helpers import planted
from tests.helpers import raw_pictures


@pytest.fixture
def cells(tmp_path):
  return planted.make_folder(tmp_path / "cells", count=6)


def _rename(root, kind, form):
  for path in sorted((root / kind).iterdir()):
    name = form.format(stem=path.stem, number=int(path.stem[-2:]))
    path.rename(path.with_name(name))


def _notes(root):
  return "\n".join(folder.find(root).notes)


def _names(pairs):
  return [(pair.picture.name, pair.mask.name) for pair in pairs]


@pytest.mark.parametrize(
  "form",
  ["{stem}_mask.png", "mask-{stem}.png", "{stem}.jpg.png", "{stem}-v2.png"],
)
def test_masks_of_almost_equal_names_are_paired_and_the_report_says_so(
  cells, form
):
  expected = {pair.name: pair.split for pair in folder.find(cells).pairs}
  _rename(cells, "masks", form)
  found = folder.find(cells)
  assert {pair.name: pair.split for pair in found.pairs} == expected
  assert not found.faults
  for pair in found.pairs:
    assert pair.mask.name == form.format(stem=pair.picture.stem)
  assert "6 pairs whose names differ in " in _notes(cells)


def test_each_kind_of_almost_equal_names_is_paired_by_itself(cells):
  accent = {
    form: unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")
  }
  (cells / "images" / "cell_00.png").rename(cells / "images" / accent["NFC"])
  (cells / "masks" / "cell_00.png").rename(cells / "masks" / accent["NFD"])
  for name, other in (
    ("cell_01.png", "cell_01.png.png"),
    ("cell_02.png", "Cell_02.png"),
  ):
    (cells / "masks" / name).rename(cells / "masks" / other)
  (cells / "images" / "cell_03.png").rename(cells / "images" / "cell_03.HEIC")
  found = folder.find(cells)
  assert len(found.pairs) == 5
  assert all(word in _notes(cells) for word in ("Unicode", "second", "case"))
  (fault,) = found.faults
  assert "cell_03.HEIC is there, but is a HEIC picture" in fault.reason


def test_a_mask_that_two_pictures_could_have_is_a_fault(cells):
  (cells / "masks" / "cell_00.png").rename(cells / "masks" / "cell_00_gt.png")
  (cells / "images" / "cell_00.png").rename(cells / "images" / "CELL_00.png")
  planted.save(cells / "images" / "Cell_00.png", np.zeros((48, 48), np.uint8))
  found = folder.find(cells)
  assert len(found.pairs) == 5 and len(found.faults) == 3
  assert any("nearest name" in reason for _, reason in found.faults)


def test_files_of_operating_systems_are_left_out(cells):
  for name in ("._cell_00.png", "Thumbs.db", "desktop.ini", ".DS_Store"):
    (cells / "masks" / name).write_bytes(b"x")
  found = folder.find(cells)
  assert len(found.pairs) == 6 and not found.faults
  assert "Thumbs" not in _notes(cells) and "desktop" not in _notes(cells)


@pytest.mark.parametrize(
  "name", ["labels", "annotations", "gt", "Masks", "GroundTruth"]
)
def test_other_names_of_the_folder_of_masks_are_known_and_reported(cells, name):
  (cells / "masks").rename(cells / name)
  assert len(folder.find(cells).pairs) == 6
  assert f"pictures in images, masks in {name}" in _notes(cells)


@pytest.mark.parametrize("name", ["Val", "VAL", "valid", "dev"])
@pytest.mark.parametrize("nested", ["{split}/{kind}", "{kind}/{split}"])
def test_other_names_of_splits_are_known(cells, nested, name):
  for kind in ("images", "masks"):
    files = sorted((cells / kind).iterdir())
    for split, part in (("train", files[:4]), (name, files[4:])):
      target = cells / nested.format(split=split, kind=kind)
      target.mkdir(parents=True)
      for path in part:
        path.rename(target / path.name)
  counts = [pair.split for pair in folder.find(cells).pairs]
  assert counts == ["train"] * 4 + ["validation"] * 2


def test_folders_of_pictures_that_are_not_used_are_named(cells):
  planted.make_folder(cells / "more", count=1)
  assert "not used: more, which holds pictures such as cell_00" in _notes(cells)


def test_a_table_of_classes_in_a_folder_below_is_refused(cells):
  path = cells / "images" / folder.CLASSES_FILE
  path.write_text(json.dumps({"classes": ["glass", "cell"]}))
  with pytest.raises(ValueError, match=r"images/classes\.json .* move it to"):
    folder.find(cells)


def test_colour_pictures_of_16_bits_keep_their_range(cells):
  for number, path in enumerate(sorted((cells / "images").iterdir())):
    deep = np.random.default_rng(number).integers(0, 4096, (48, 48, 3))
    path.write_bytes(raw_pictures.png(deep, bits=16, color_type=2))
  found = folder.find(cells)
  picture = found.decode_picture(found.pairs[0].picture.read_bytes())
  assert len(np.unique(picture)) == 256 and 120 < picture.mean() < 135
  assert "more than 8 bits a channel: 4095 is white" in _notes(cells)


def test_ids_of_pgm_masks_are_those_in_the_file(cells):
  ids = {}
  for number, path in enumerate(sorted((cells / "masks").iterdir())):
    ids[path.stem] = np.random.default_rng(number).integers(0, 4, (48, 48))
    content = raw_pictures.netpbm(ids[path.stem], magic="P5", maximum=3)
    path.with_suffix(".pgm").write_bytes(content)
    path.unlink()
  found = folder.find(cells)
  assert len(found.class_names) == 4
  for pair in found.pairs:
    label = found.decode_mask(pair.mask.read_bytes())
    np.testing.assert_array_equal(label, ids[pair.name])


def test_alpha_that_is_left_out_of_pictures_is_reported(cells):
  path = cells / "images" / "cell_01.png"
  grey = np.array(Image.open(path))
  planted.save(path, np.dstack([grey, grey]))
  opaque = np.dstack([grey] * 3 + [np.full_like(grey, 255)])
  planted.save(cells / "images" / "cell_02.png", opaque)
  assert "alpha left out of 1 pictures, such as cell_01.png" in _notes(cells)


def _turn(path, orientation, shape=(48, 48)):
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.new("L", shape[::-1]).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_a_turned_picture_whose_mask_fits_both_ways_is_a_fault(
  cells, orientation
):
  _turn(cells / "images" / "cell_01.png", orientation)
  found = folder.find(cells)
  (fault,) = found.faults
  assert f"(orientation {orientation}) and keeps its size" in fault.reason
  assert len(found.pairs) == 5


def test_one_mask_that_fits_only_the_turned_picture_decides_for_all(cells):
  _turn(cells / "images" / "cell_01.png", 3)
  _turn(cells / "images" / "cell_02.png", 6, (40, 48))
  planted.save(cells / "masks" / "cell_02.png", np.zeros((48, 40), np.uint8))
  assert not checking.survey(folder.find(cells)).faults


def test_a_mask_that_is_turned_as_its_picture_is_no_fault(cells):
  for kind in ("images", "masks"):
    _turn(cells / kind / "cell_01.png", 3)
  assert not checking.survey(folder.find(cells)).faults


def test_names_with_newlines_are_read_and_shown_on_one_line(cells):
  for kind in ("images", "masks"):
    (cells / kind / "cell_00.png").rename(cells / kind / "cell\n00.png")
  found = folder.find(cells)
  assert "cell\n00" in {pair.name for pair in found.pairs}
  (cells / "masks" / "cell\n00.png").write_bytes(b"")
  faults = checking.survey(found).faults
  message = listing.describe("folder", faults)
  assert message.count("\n") == 1 and r"cell\n00.png is empty" in message


def test_names_that_are_not_utf8_are_faults(cells):
  old = os.fsencode(cells / "images" / "cell_00.png")
  os.rename(old, old.replace(b"cell_00", b"cell_\xff"))
  found = folder.find(cells)
  reasons = "\n".join(reason for _, reason in found.faults)
  assert "name that is not UTF-8" in reasons
  assert r"\udcff" in listing.describe("folder", found.faults)
