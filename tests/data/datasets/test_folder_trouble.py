"""Folders that change, disks that are full, files that may not be read."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest

from fcn_jax.data.datasets import folder
from fcn_jax.data.files import checking
from tests.helpers import data_sets
from tests.helpers import planted


@pytest.fixture
def cells(tmp_path):
  return planted.make_folder(tmp_path / "cells", count=4)


def _change(path):
  planted.save(path, np.zeros((48, 48), np.uint8))


@pytest.mark.parametrize("damage", [_change, os.remove])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_changes_after_the_check_stops_the_preparation(
  cells, tmp_path, monkeypatch, damage, kind
):
  survey = checking.survey

  def survey_and_damage(found):
    result = survey(found)
    damage(cells / kind / "cell_01.png")
    return result

  monkeypatch.setattr(checking, "survey", survey_and_damage)
  with pytest.raises(ValueError, match=r"cell_01\.png changed while .* again"):
    data_sets.load("folder", cells, tmp_path)
  assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_a_folder_that_changes_between_listing_and_check_is_not_prepared(
  cells, tmp_path, monkeypatch
):
  survey = checking.survey

  def damage_and_survey(found):
    _change(cells / "masks" / "cell_01.png")
    return survey(found)

  monkeypatch.setattr(checking, "survey", damage_and_survey)
  with pytest.raises(ValueError, match="changed while they were read"):
    data_sets.load("folder", cells, tmp_path)
  assert not (tmp_path / "data").exists()


def test_a_file_that_is_gone_when_it_is_checked_is_a_fault(cells):
  found = folder.find(cells)
  (cells / "masks" / "cell_01.png").unlink()
  (fault,) = checking.survey(found).faults
  assert fault.path.name == "cell_01.png"
  assert "No such file" in fault.reason


@pytest.mark.slow
def test_a_full_disk_is_named_and_leaves_nothing_half_made(tmp_path):
  root = planted.make_folder(tmp_path / "cells", count=40)
  script = (
    "import pathlib, resource, signal, sys; from fcn_jax import data;"
    # A limit on the size of files fails as a full disk does.
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
    "data.load('folder', split='train', data_dir=sys.argv[1],"
    " prepared_dir=sys.argv[2])"
  )
  result = subprocess.run(
    [sys.executable, "-c", script, str(root), str(tmp_path / "data")],
    capture_output=True,
    text=True,
    check=False,
  )
  last = result.stderr.strip().splitlines()[-1]
  assert "there is no room" in last and "--prepared-dir" in last, result.stderr
  assert not list((tmp_path / "data").rglob("dataset_info.json"))


@contextlib.contextmanager
def _as_somebody_else():
  """Without the rights of root, which reads everything."""
  user = os.geteuid()
  if user == 0:
    os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(user)


def test_files_and_folders_without_permission_are_faults(tmp_path):
  for path in (tmp_path, *tmp_path.parents[:3]):
    with contextlib.suppress(PermissionError):
      path.chmod(path.stat().st_mode | 0o055)
  root = planted.make_folder(tmp_path / "cells", count=4)
  (root / "images" / "inner").mkdir()
  (root / "images" / "cell_00.png").chmod(0)
  (root / "images" / "inner").chmod(0)
  with _as_somebody_else():
    survey = checking.survey(folder.find(root))
  (root / "images" / "inner").chmod(0o755)
  reasons = {fault.path.name: fault.reason for fault in survey.faults}
  assert "cannot be listed (Permission denied)" in reasons["inner"]
  assert "cannot be read (Permission denied)" in reasons["cell_00.png"]
  assert len(survey.checked) == 3
