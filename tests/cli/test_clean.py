import numpy as np
import pytest

from fcn_jax.cli import clean
from tests.helpers import data_sets
from tests.helpers import planted


@pytest.fixture
def prepared(tmp_path):
  """Two states of one folder, of which one is out of date."""
  cells = planted.make_folder(tmp_path / "cells", count=3)
  data_sets.load("folder", cells, tmp_path)
  (old,) = (tmp_path / "data" / "folder").glob("cells-*")
  planted.save(cells / "images" / "cell_00.png", np.ones((48, 48), np.uint8))
  data_sets.load("folder", cells, tmp_path)
  return tmp_path / "data", old


def test_copies_of_changed_folders_are_listed_and_removed_if_agreed(
  prepared, tmp_path, capsys
):
  root, old = prepared
  foreign = root / "folder" / "mine"
  foreign.mkdir()
  (foreign / "notes.txt").write_text("keep")
  clean.main(["--prepared-dir", str(root)])
  text = capsys.readouterr().out
  assert text.count("MB  ") == 2 and "add --yes" in text
  assert "out of date " in text and "which has changed" in text
  assert old.exists()
  clean.main(["--prepared-dir", str(root), "--yes"])
  assert "Removed 1" in capsys.readouterr().out
  assert not old.exists() and (foreign / "notes.txt").exists()
  assert len(list((root / "folder").glob("cells-*"))) == 1
  clean.main(["--prepared-dir", str(root), "--yes"])
  assert "Nothing is out of date" in capsys.readouterr().out
  assert len(list((tmp_path / "cells" / "images").iterdir())) == 3


def test_an_empty_place_is_said_to_be_empty(tmp_path, capsys):
  clean.main(["--prepared-dir", str(tmp_path)])
  assert "holds no prepared data" in capsys.readouterr().out
