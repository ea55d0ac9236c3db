import json
import os

import numpy as np
import pytest

from fcn_jax.data.datasets import folder
from fcn_jax.data.datasets import folder_states
from tests.helpers import data_sets
from tests.helpers import planted


@pytest.fixture
def cells(tmp_path):
  return planted.make_folder(tmp_path / "cells", count=4)


def _touch(root):
  os.utime(root / "masks" / "cell_01.png")


def _change_and_set_the_time_back(root):
  path = root / "masks" / "cell_01.png"
  before = path.stat()
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(bytes(content))
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat().st_size == before.st_size


def _rename(root):
  (root / "images" / "cell_01.png").rename(root / "images" / "cell_1.png")


def _table(root):
  (root / folder.CLASSES_FILE).write_text(json.dumps({"classes": ["a", "b"]}))


@pytest.mark.parametrize(
  "change", [_touch, _change_and_set_the_time_back, _rename, _table]
)
def test_any_change_is_another_state(cells, change):
  before = folder_states.of(cells, {})
  assert folder_states.of(cells, {}) == before
  change(cells)
  assert folder_states.of(cells, {}) != before


def test_links_to_nowhere_and_above_are_part_of_the_state(cells):
  (cells / "images" / "loop").symlink_to(cells)
  (cells / "images" / "a.png").symlink_to("nowhere")
  first = folder_states.of(cells, {})
  (cells / "images" / "a.png").unlink()
  assert folder_states.of(cells, {}) != first


def _read(*arguments, **options):
  raise AssertionError("a file was read")


def test_a_second_start_reads_no_file_unless_asked_to(
  cells, tmp_path, monkeypatch
):
  first = data_sets.load("folder", cells, tmp_path)
  monkeypatch.setattr(folder, "find", _read)
  again = data_sets.load("folder", cells, tmp_path)
  assert again.fingerprint == first.fingerprint
  np.testing.assert_array_equal(again.source[0].image, first.source[0].image)
  with pytest.raises(AssertionError, match="a file was read"):
    data_sets.load("folder", cells, tmp_path, verify=True)
  with pytest.raises(AssertionError, match="a file was read"):
    data_sets.load("folder", cells, tmp_path, group_by="(cell_.)")


def test_touched_files_are_read_once_more_and_not_prepared_again(
  cells, tmp_path, monkeypatch
):
  data_sets.load("folder", cells, tmp_path)
  _touch(cells)
  data_sets.load("folder", cells, tmp_path)
  (prepared,) = (tmp_path / "data" / "folder").glob("cells-*")
  assert len(folder_states.sources(prepared)) == 2
  monkeypatch.setattr(folder, "find", _read)
  data_sets.load("folder", cells, tmp_path)
