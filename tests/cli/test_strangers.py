"""Runs the scripts of cases that strangers reported, where they lie here.

Each stands for a kind of fault, which other tests cover with inputs of their
own.
"""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_CASES = os.environ.get("STRANGERS_CASES")

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(_CASES is None, reason="STRANGERS_CASES is not set"),
]


@pytest.fixture
def clone(tmp_path):
  """A folder with what the scripts expect of a clone."""
  (tmp_path / ".venv").symlink_to(sys.prefix)
  (tmp_path / "experiments").symlink_to(_ROOT / "experiments")
  return tmp_path


@pytest.mark.long
@pytest.mark.parametrize(
  ("script", "said"),
  [
    (
      "01_soft_binary.sh",
      ["0 background, 255 foreground", "12 masks hold values", "rc 1"],
    ),
    (
      "02_stray_254.sh",
      ["0 background, 255 foreground", "13 good examples, 7 bad", "rc 1"],
    ),
    (
      "03_one_bit_mixed.sh",
      ["0 background, 255 foreground", "12 good examples, 0 bad", "rc 0"],
    ),
    ("04_palettes_differ.sh", ["color #008000", "color #800000", "rc 0"]),
    ("06_rgb16.sh", ["4095 is white", "127.0, 128.0, 127.4", "rc 0"]),
    (
      "07_pgm_maxval.sh",
      ["0 class 0, 1 class 1, 2 class 2, 3 class 3", "| 2.344% |", "rc 0"],
    ),
    ("08_all_masks_bad.sh", ["is a mask in the lossy format JPEG", "rc 1"]),
    ("09_colours_one_empty.sh", ["[128, 0, 0] 13.0%", "classes.json", "rc 1"]),
    ("11_augmented_copies.sh", ["10 groups of more than one picture stay"]),
    (
      "12_names_almost_equal.sh",
      [
        "the Unicode form of their letters",
        "a second suffix, as in car.jpg.png",
        "picture car and mask car_mask",
        "IMG.HEIC is a HEIC picture",
        "3 good examples, 1 bad files",
      ],
    ),
    (
      "13_ignored_split_and_classes.sh",
      ["train/classes.json is not read there; move it", "rc 1"],
    ),
    ("14_alpha_only.sh", ["in the alpha channel", "rc 1"]),
    pytest.param(
      "16_new_site_without_a_class.sh",
      ["| 84.3 | 50.0 |"],
      marks=pytest.mark.long,
    ),
    ("17_few_pictures.sh", ["--batch-size 4"]),
  ],
)
def test_a_reported_case_comes_out_as_its_owner_expected(clone, script, said):
  result = subprocess.run(
    ["bash", pathlib.Path(_CASES) / script, clone],
    # As on a machine of one device.
    env=os.environ | {"PYTHONPATH": str(_ROOT), "XLA_FLAGS": ""},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=600,
    check=False,
  )
  for text in said:
    assert text in result.stdout, result.stdout
  if script.startswith("16"):
    assert result.stdout.count(said[0]) == 3  # Scored three times.
