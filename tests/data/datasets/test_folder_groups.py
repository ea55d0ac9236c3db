"""Which pictures of a folder are for validation, and which stay together."""

import pathlib
import shutil

import numpy as np
import pytest

from fcn_jax.data.datasets import folder
from fcn_jax.data.datasets import folder_groups
from fcn_jax.data.files import checking
from fcn_jax.data.files import listing
from tests.helpers import planted


@pytest.fixture
def cells(tmp_path):
  return planted.make_folder(tmp_path / "cells", count=10)


def _pairs(names):
  path = pathlib.Path("x")
  return [listing.Pair("train", name, path / name, path) for name in names]


def _drawn(names, pattern=None, contents=None):
  pairs = _pairs(names)
  contents = contents or {name: name for name in names}
  pairs, _ = folder_groups.draw_validation(
    pairs,
    folder_groups.of_names(pairs, pattern),
    {pair.picture: contents[pair.name] for pair in pairs},
  )
  return {pair.name for pair in pairs if pair.split == "validation"}


@pytest.mark.parametrize("count", [2, 3, 5, 7, 8, 30, 1001])
def test_a_fifth_is_a_fifth_of_any_number(count):
  for word in "abcdef":
    drawn = _drawn([f"{word}{number}" for number in range(count)])
    assert len(drawn) == max(1, round(count / 5))


def test_a_new_picture_moves_at_most_one_other():
  names = [f"picture {number}" for number in range(60)]
  before = _drawn(names[:10])
  for count in range(11, 61):
    after = _drawn(names[:count])
    assert len((before ^ after) - {names[count - 1]}) <= 1
    before = after


def test_groups_and_equal_pictures_stay_together_and_the_share_is_kept():
  generator = np.random.default_rng(0)
  names = [
    f"patient{patient}_{scan}"
    for patient in range(40)
    for scan in range(generator.integers(1, 9))
  ]
  # The first scans of neighbouring patients are equal.
  contents = {name: name for name in names}
  for patient in range(0, 10, 2):
    contents[f"patient{patient}_0"] = contents[f"patient{patient + 1}_0"]
  drawn = _drawn(names, "^(patient[0-9]+)_", contents)
  of_patient = {
    patient: {name in drawn for name in names if name.startswith(patient)}
    for patient in (f"patient{number}_" for number in range(40))
  }
  assert all(len(sides) == 1 for sides in of_patient.values())
  for patient in range(0, 10, 2):
    assert (
      of_patient[f"patient{patient}_"] == of_patient[f"patient{patient + 1}_"]
    )
  assert abs(len(drawn) - len(names) / 5) <= 2


def test_a_group_of_half_the_pictures_is_for_training():
  names = [f"a{i}" for i in range(10)] + [f"{i}b" for i in range(10)]
  drawn = _drawn(names, "^(a|[0-9])")
  assert len(drawn) == 4 and not any(name.startswith("a") for name in drawn)


def test_copies_of_a_picture_are_in_its_split(cells):
  for kind in ("images", "masks"):
    for path in sorted((cells / kind).iterdir()):
      shutil.copy(path, path.with_stem(f"{path.stem}_copy"))
  found = folder.find(cells)
  split_of = {pair.name: pair.split for pair in found.pairs}
  for number in range(10):
    stem = f"cell_{number:02d}"
    assert split_of[stem] == split_of[f"{stem}_copy"]
  assert list(split_of.values()).count("validation") == 4
  assert "10 groups of more than one picture stay together" in found.notes[0]


def test_if_all_pictures_are_equal_none_is_for_validation(cells):
  for path in (cells / "images").iterdir():
    if path.stem != "cell_00":
      shutil.copy(cells / "images" / "cell_00.png", path)
  found = folder.find(cells)
  assert {pair.split for pair in found.pairs} == {"train"}
  assert "all 10 belong together" in found.notes[0]


@pytest.mark.parametrize(
  ("pattern", "message"),
  [
    ("(", "is no regular expression"),
    ("cell", "has no parentheses"),
    ("^(cell_0[0-8])", "no group in 1 of 10 names, such as cell_09; extend"),
  ],
)
def test_a_pattern_that_does_not_fit_is_refused(cells, pattern, message):
  with pytest.raises(ValueError, match=message):
    folder.find(cells, group_by=pattern)


def _split_by_hand(root):
  """Two of ten pictures in folders for validation, one of them copied."""
  for kind in ("images", "masks"):
    files = sorted((root / kind).iterdir())
    for split, part in (("train", files[:8]), ("val", files[8:])):
      (root / split / kind).mkdir(parents=True)
      for path in part:
        path.rename(root / split / kind / path.name)
    (root / kind).rmdir()
  for kind in ("images", "masks"):
    shutil.copy(
      root / "train" / kind / "cell_03.png", root / "val" / kind / "cell_99.png"
    )


def test_equal_pictures_and_groups_in_several_splits_are_named(cells):
  _split_by_hand(cells)
  planted.save(
    cells / "val" / "masks" / "cell_99.png",
    np.eye(planted.SIDE, dtype=np.uint8) * 255,
  )
  found = folder.find(cells, group_by="cell_(.)")
  assert "1 groups are in several splits, such as 0" in found.notes[-1]
  torn, unlike = checking.describe_equal(checking.survey(found))
  assert "1 pictures are in several splits" in torn
  assert "cell_03.png (train)" in torn and "cell_99.png (validation)" in torn
  assert "1 pictures occur with different masks" in unlike
