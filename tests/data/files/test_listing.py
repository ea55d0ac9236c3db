import collections
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fcn_jax import data
from fcn_jax.data.datasets import folder
from fcn_jax.data.datasets import palettes
from fcn_jax.data.files import checking
from fcn_jax.data.files import listing
from fcn_jax.data.files import threads
from tests.helpers import planted


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
  root = planted.make_folder(tmp_path_factory.mktemp("faulty") / "cells")
  return root, planted.plant(root, planted.bomb())


def test_every_fault_is_found_with_its_reason_and_the_good_are_counted(faulty):
  root, expected = faulty
  survey = checking.survey(folder.find(root))
  found = collections.defaultdict(list)
  for path, reason in survey.faults:
    found[path.relative_to(root).as_posix()].append(reason)
  assert found.keys() == expected.keys()
  for name, pattern in expected.items():
    (reason,) = found[name]
    assert re.search(pattern, reason), (name, reason)
  assert len(survey.checked) == 30


@pytest.mark.slow
@pytest.mark.skipif(
  not pathlib.Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)
def test_a_survey_of_bombs_stays_far_below_2_gb(faulty):
  root, _ = faulty
  # The peak of this program alone; getrusage would count that of its parent.
  script = (
    "import pathlib, sys; from fcn_jax import data;"
    "found = data.datasets.folder.find(pathlib.Path(sys.argv[1]));"
    "data.files.checking.survey(found);"
    "print(pathlib.Path('/proc/self/status').read_text())"
  )
  result = subprocess.run(
    [sys.executable, "-c", script, str(root)],
    capture_output=True,
    text=True,
    check=True,
  )
  peak = re.search(r"VmHWM:\s*(\d+) kB", result.stdout)
  assert int(peak[1]) * 1024 < 1e9


def test_sizes_classes_and_pixels_are_counted(tmp_path):
  root = planted.make_folder(tmp_path / "cells", count=3)
  survey = checking.survey(folder.find(root), num_threads=2)
  for split in ("train", "validation"):
    pairs = [one.pair for one in survey.checked if one.pair.split == split]
    pictures = np.stack([Image.open(pair.picture) for pair in pairs])
    masks = np.stack([Image.open(pair.mask) for pair in pairs]) // 255
    found = survey.totals[split]
    assert found.examples == len(pairs) > 0
    assert found.sizes == {pictures.shape[1:]: len(pairs)}
    expected = np.bincount(masks.ravel(), minlength=256)
    np.testing.assert_array_equal(found.class_pixels, expected)
    histogram = np.bincount(pictures.ravel(), minlength=256)
    np.testing.assert_array_equal(found.histogram, [histogram] * 3)
    examples = [np.unique(mask) for mask in masks]
    assert found.class_examples[0] == sum(0 in labels for labels in examples)
    assert found.labelled_where_present[1] == masks.size


def test_the_fingerprint_is_that_of_the_survey_and_of_a_copy(tmp_path):
  root = planted.make_folder(tmp_path / "a", count=4)
  copy = planted.make_folder(tmp_path / "b", count=4)
  fingerprint = checking.fingerprint(folder.find(root))
  assert fingerprint == checking.survey(folder.find(root)).fingerprint
  assert fingerprint == checking.fingerprint(folder.find(copy))


def test_the_fingerprint_changes_with_a_file_a_name_and_the_classes(tmp_path):
  root = planted.make_folder(tmp_path / "cells", count=4)
  seen = {checking.fingerprint(folder.find(root))}
  path = root / "images" / "cell_01.png"
  planted.save(path, 255 - np.array(Image.open(path)))
  seen.add(checking.fingerprint(folder.find(root)))
  for kind in ("images", "masks"):
    (root / kind / "cell_01.png").rename(root / kind / "cell_31.png")
  seen.add(checking.fingerprint(folder.find(root)))
  (root / "classes.json").write_text(
    '{"classes": [{"name": "no", "value": 0}, {"name": "yes", "value": 255}]}'
  )
  seen.add(checking.fingerprint(folder.find(root)))
  assert len(seen) == 4


def test_all_void_is_a_fault(tmp_path):
  root = planted.make_folder(tmp_path / "cells", count=4)
  (root / "classes.json").write_text(
    '{"classes": [{"name": "no", "value": 0}, {"name": "yes", "value": 255}],'
    ' "ignore": [9]}'
  )
  planted.save(root / "masks" / "cell_02.png", np.full((48, 48), 9, np.uint8))
  (fault,) = checking.survey(folder.find(root)).faults
  assert fault.path.name == "cell_02.png" and "void everywhere" in fault.reason


def test_a_check_passes_without_faults_only_or_with_good_ones_left(faulty):
  root, faults = faulty
  survey = checking.survey(folder.find(root))
  with pytest.raises(ValueError, match=f"{len(faults)} faults"):
    survey.check()
  survey.check(skip_bad=True)


def test_a_message_has_forty_faults_at_most():
  faults = [
    listing.Fault(pathlib.Path(f"{number}.png"), "is empty")
    for number in range(100)
  ]
  message = listing.describe("sample", faults)
  assert "100 faults" in message and "and 60 more" in message
  assert message.count("is empty") == 40


def test_a_data_set_with_bad_files_only_cannot_be_skipped_through(tmp_path):
  root = planted.make_folder(tmp_path / "cells", count=2)
  (root / "classes.json").write_text('{"classes": ["a", "b"]}')
  for path in (root / "images").iterdir():
    path.write_bytes(b"")
  survey = checking.survey(folder.find(root))
  with pytest.raises(ValueError, match="(?s)cell_00.*cell_01"):
    survey.check(skip_bad=True)


def test_the_palette_of_voc_is_the_published_one():
  # Everingham et al., development kit: aeroplane, bicycle, ..., tv monitor.
  colors = palettes.voc_palette(num_classes=256)
  assert colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
  assert colors[15] == (192, 128, 128) and colors[20] == (0, 64, 128)
  assert colors[255] == (224, 224, 192)
  assert len(set(colors)) == 256


def test_results_of_threads_come_in_order():
  results = threads.in_parallel(
    lambda i: i * i, range(100), num_threads=3, title="squares"
  )
  assert list(results) == [i * i for i in range(100)]


def test_opened_refuses_a_data_set_that_has_no_files(tmp_path):
  with (
    pytest.raises(ValueError, match="shapes is not made of files"),
    data.opened("shapes", tmp_path),
  ):
    pass
