import functools
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.datasets import ade20k
from tests.helpers import data_sets

# Names with commas, and with spaces at their ends, as in the true table.
_NAMES = {1: "wall", 2: "building, edifice", 8: "bed ", 150: "flag"}


def table(numbers=range(1, 151)):
  """The text of objectInfo150.txt, with some of its names."""
  lines = ["Idx\tRatio\tTrain\tVal\tName"]
  for number in numbers:
    # Some numbers have a space behind them in the true table.
    index = f"{number} " if number == 22 else number
    name = _NAMES.get(number, f"thing {number}, object")
    lines.append(f"{index}\t0.0100\t{10 * number}\t{number}\t{name}")
  return "\n".join(lines) + "\n"


def make(folder):
  """An ADE20K folder; one picture is grey, one mask of three void."""
  top = folder / "ADEChallengeData2016"
  generator = np.random.default_rng(0)
  for split, short, count in (
    ("training", "train", 3),
    ("validation", "val", 2),
  ):
    for kind in ("images", "annotations"):
      (top / kind / split).mkdir(parents=True)
    for number in range(1, count + 1):
      stem = f"{split}/ADE_{short}_{number:08d}"
      shape = (10, 16) if number == 2 else (10, 16, 3)
      picture = generator.integers(256, size=shape, dtype=np.uint8)
      mask = generator.integers(151, size=(10, 16), dtype=np.uint8)
      mask.flat[:151] = range(151)
      if (split, number) == ("training", 3):
        mask[:] = 0
      Image.fromarray(picture).save(top / "images" / f"{stem}.jpg")
      Image.fromarray(mask).save(top / "annotations" / f"{stem}.png")
  (top / "objectInfo150.txt").write_text(table())
  (top / "sceneCategories.txt").write_text("ADE_train_00000001 bedroom\n")


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "files"
  make(root)
  return root


_load = functools.partial(data_sets.load, "ade20k")


@pytest.mark.parametrize("inner", [False, True], ids=["around", "itself"])
@pytest.mark.parametrize(
  ("split", "name", "short"),
  [("train", "training", "train"), ("validation", "validation", "val")],
)
def test_classes_count_from_0_and_other_objects_are_void(
  folder, tmp_path, split, name, short, inner
):
  top = folder / "ADEChallengeData2016"
  source = _load(top if inner else folder, tmp_path, split).source
  stems = [f"ADE_{short}_{number:08d}" for number in (1, 2)]
  assert [example.name for example in source] == stems
  for example in source:
    stem = f"{name}/{example.name}"
    picture = Image.open(top / "images" / f"{stem}.jpg").convert("RGB")
    mask = np.array(Image.open(top / "annotations" / f"{stem}.png"))
    np.testing.assert_array_equal(example.image, np.array(picture))
    np.testing.assert_array_equal(
      example.label,
      np.where(mask == 0, types.IGNORE_LABEL, mask.astype(int) - 1),
    )
    assert set(range(150)) < set(example.label.ravel().tolist())


def test_masks_that_are_void_everywhere_are_left_out_without_a_fault(
  folder, tmp_path
):
  survey = data.files.checking.survey(data.datasets.ade20k.find(folder))
  assert len(survey.listing.pairs) == 5
  assert len(survey.checked) == 4
  assert not survey.faults
  assert len(_load(folder, tmp_path).source) == 2


def test_the_names_are_the_first_ones_of_the_table_in_the_archive(
  folder, tmp_path
):
  dataset = _load(folder, tmp_path)
  assert dataset.num_classes == 150
  names = dataset.class_names
  assert names[:3] == ("wall", "building", "thing 3")
  assert names[7] == "bed"
  assert names[-1] == "flag"
  assert len(np.unique(dataset.palette, axis=0)) == 150
  assert dataset.palette.any(axis=1).all()


def _top(folder):
  return folder / "ADEChallengeData2016"


def _value_151(folder):
  path = _top(folder) / "annotations/validation/ADE_val_00000001.png"
  Image.fromarray(np.full((10, 16), 151, np.uint8)).save(path)


def _no_mask(folder):
  (_top(folder) / "annotations/training/ADE_train_00000002.png").unlink()


def _no_table(folder):
  (_top(folder) / "objectInfo150.txt").unlink()


def _short_table(folder):
  (_top(folder) / "objectInfo150.txt").write_text(table(range(1, 150)))


def _other_table(folder):
  (_top(folder) / "objectInfo150.txt").write_text("wall\nbuilding\n")


def _table_outside(folder):
  outside = folder.with_name("table.txt")
  shutil.move(_top(folder) / "objectInfo150.txt", outside)
  (_top(folder) / "objectInfo150.txt").symlink_to(outside)


def _other_layout(folder):
  (_top(folder) / "annotations").rename(_top(folder) / "masks")


def _only_void(folder):
  for path in (_top(folder) / "annotations").rglob("*.png"):
    Image.fromarray(np.zeros((10, 16), np.uint8)).save(path)


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (
      _value_151,
      r"ADE_val_00000001\.png has the values \[151\], outside 0\.\.",
    ),
    (_no_mask, r"ADE_train_00000002\.jpg has no mask .*; add"),
    (_no_table, r"objectInfo150\.txt, .* names .* is not there.*2016\.zip"),
    (
      _short_table,
      r"objectInfo150\.txt is not a table of .* 1 to 150",
    ),
    (
      _other_table,
      r"objectInfo150\.txt is not a table of .* 1 to 150",
    ),
    (_table_outside, r"objectInfo150\.txt, .* symbolic link to .*table\.txt"),
    (_other_layout, r"no folder annotations/training.*found:.*masks"),
    (_only_void, r"holds no pictures"),
  ],
)
def test_a_bad_folder_is_refused_by_name_and_nothing_is_written(
  folder, tmp_path, damage, message
):
  damage(folder)
  data_sets.assert_refused("ade20k", folder, tmp_path, message)


@pytest.mark.skipif(
  "ADE20K_DIR" not in os.environ, reason="ADE20K_DIR is not set"
)
def test_the_real_data_set_has_the_published_numbers_of_pictures():
  found = data.datasets.ade20k.find(pathlib.Path(os.environ["ADE20K_DIR"]))
  splits = [pair.split for pair in found.pairs]
  assert splits.count("train") == 20210
  assert splits.count("validation") == 2000
  assert not found.faults
  assert found.class_names[12] == "person"
  assert len(set(found.class_names)) == ade20k.NUM_CLASSES
