"""Bad luck in a minute; `python -m tests.bad_luck` has all of it."""

import shutil

import pytest

from tests.bad_luck import __main__ as bad_luck

pytestmark = [
  pytest.mark.long,
  pytest.mark.usefixtures("small_disk", "standard_promotion"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bad_luck") / "inputs"
  bad_luck.make_inputs(folder)
  return folder


@pytest.mark.parametrize(
  "name, luck, share",
  [
    ("train", "disk full", 0.5),
    ("train", "KILL", 0.5),
    ("predict", "KILL", 0.5),
    ("evaluate", "read-only", 0.0),
    ("convert import", "TERM", 0.0),
  ],
)
def test_the_same_command_completes(name, luck, share, inputs, tmp_path):
  place = tmp_path / "place"
  with bad_luck.Disk(place) as disk:
    known = bad_luck.Luck(name, inputs, disk).undisturbed()
  was_stopped, about = bad_luck.fault(name, luck, share, known, inputs, place)
  assert was_stopped and not about, about


def test_a_difference_is_a_fault(inputs, tmp_path):
  place = tmp_path / "place"
  with bad_luck.Disk(place) as disk:
    known = bad_luck.Luck("check-data", inputs, disk).undisturbed()
  other = tmp_path / "inputs"
  shutil.copytree(inputs, other)
  (other / "pictures" / "masks" / "cell_00.png").unlink()
  _, about = bad_luck.fault("check-data", "control", 0.0, known, other, place)
  assert about
