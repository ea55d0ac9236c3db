import functools
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from fcn_jax import data
from fcn_jax import types
from tests.helpers import data_sets

# The label id of each train id, as in the benchmark's own table.
_LABEL_IDS = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]


def make(folder):
  """A Cityscapes folder: two pictures of two cities for each split."""
  generator = np.random.default_rng(0)
  for split, cities in (
    ("train", ("aachen", "ulm")),
    ("val", ("lindau", "munster")),
    ("test", ("berlin", "bonn")),
  ):
    for city in cities:
      for kind in ("leftImg8bit", "gtFine"):
        (folder / kind / split / city).mkdir(parents=True)
      stem = f"{split}/{city}/{city}_000000_000019"
      picture = generator.integers(256, size=(8, 10, 3), dtype=np.uint8)
      mask = generator.integers(34, size=(8, 10), dtype=np.uint8)
      mask.flat[:34] = range(34)
      if split == "test":
        mask[:] = 0
      pictures, masks = folder / "leftImg8bit", folder / "gtFine"
      Image.fromarray(picture).save(f"{pictures / stem}_leftImg8bit.png")
      Image.fromarray(mask).save(f"{masks / stem}_gtFine_labelIds.png")
      # Beside the masks that count lie others, and the polygons.
      for other in ("color", "instanceIds"):
        Image.fromarray(picture).save(f"{masks / stem}_gtFine_{other}.png")
      masks.joinpath(f"{stem}_gtFine_polygons.json").write_text("{}")
  for name in ("README", "license.txt"):
    (folder / name).write_text("about")


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "files"
  make(root)
  return root


_load = functools.partial(data_sets.load, "cityscapes")


@pytest.mark.parametrize(
  ("split", "name", "cities"),
  [
    ("train", "train", ["aachen", "ulm"]),
    ("validation", "val", ["lindau", "munster"]),
  ],
)
def test_label_ids_become_the_19_train_ids_and_void(
  folder, tmp_path, split, name, cities
):
  source = _load(folder, tmp_path, split).source
  stems = [f"{city}/{city}_000000_000019" for city in cities]
  assert [example.name for example in source] == stems
  for example in source:
    stem = f"{name}/{example.name}"
    picture = np.array(
      Image.open(folder / "leftImg8bit" / f"{stem}_leftImg8bit.png")
    )
    ids = np.array(
      Image.open(folder / "gtFine" / f"{stem}_gtFine_labelIds.png")
    )
    np.testing.assert_array_equal(example.image, picture)
    for label_id in range(34):
      expected = (
        _LABEL_IDS.index(label_id)
        if label_id in _LABEL_IDS
        else types.IGNORE_LABEL
      )
      assert np.all(example.label[ids == label_id] == expected)


def test_names_and_colours_are_those_of_the_benchmark(folder, tmp_path):
  dataset = _load(folder, tmp_path)
  assert dataset.num_classes == 19
  by_name = dict(
    zip(dataset.class_names, dataset.palette.tolist(), strict=True)
  )
  assert dataset.class_names[0] == "road"
  assert dataset.class_names[18] == "bicycle"
  assert by_name["vegetation"] == [107, 142, 35]
  assert by_name["train"] == [0, 80, 100]


def test_there_is_no_test_split(folder, tmp_path):
  with pytest.raises(ValueError, match=r"no split 'test'.*'validation'"):
    _load(folder, tmp_path, "test")


def _no_mask(folder):
  path = "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
  (folder / path).unlink()


def _no_picture(folder):
  path = "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png"
  (folder / path).unlink()


def _license_plate(folder):
  path = folder / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
  mask = np.array(Image.open(path))
  mask[0, 0] = 255
  Image.fromarray(mask).save(path)


def _half_a_folder(folder):
  shutil.rmtree(folder / "gtFine" / "val")


def _link_outside(folder):
  outside = folder.with_name("outside")
  (folder / "leftImg8bit" / "train" / "ulm").rename(outside)
  (folder / "leftImg8bit" / "train" / "ulm").symlink_to(outside)


def _empty(folder):
  for split in ("train", "val"):
    for kind in ("leftImg8bit", "gtFine"):
      shutil.rmtree(folder / kind / split)
      (folder / kind / split).mkdir()


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_no_mask, r"ulm_000000_000019_leftImg8bit\.png has no mask .*labelIds"),
    (_no_picture, r"lindau.*labelIds\.png has no picture .*_leftImg8bit\.\*"),
    (_license_plate, r"labelIds\.png has the values \[255\], outside 0\.\."),
    (_half_a_folder, r"has no folder gtFine/val; expected"),
    (_link_outside, r"ulm_000000_000019_leftImg8bit\.png is, or lies behind"),
    (_empty, r"holds no pictures; expected leftImg8bit_trainvaltest\.zip"),
  ],
)
def test_a_bad_folder_is_refused_by_name_and_nothing_is_written(
  folder, tmp_path, damage, message
):
  damage(folder)
  data_sets.assert_refused("cityscapes", folder, tmp_path, message)


@pytest.mark.skipif(
  "CITYSCAPES_DIR" not in os.environ, reason="CITYSCAPES_DIR is not set"
)
def test_the_real_data_set_has_the_published_numbers_of_pictures():
  found = data.datasets.cityscapes.find(
    pathlib.Path(os.environ["CITYSCAPES_DIR"])
  )
  splits = [pair.split for pair in found.pairs]
  assert splits.count("train") == 2975
  assert splits.count("validation") == 500
  assert not found.faults
