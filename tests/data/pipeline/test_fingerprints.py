import dataclasses
import inspect
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fcn_jax import data
from tests.helpers import batch_hashes
from tests.helpers import batches

_PROGRAM = pathlib.Path(batch_hashes.__file__)
# The package that is tested here, also where another one is installed.
_ROOT = _PROGRAM.parents[2]


def _lines(path):
  """The whole lines of a file that a killed process may have written."""
  if not path.exists():
    return []
  return [
    json.loads(line)
    for line in path.read_text().splitlines(keepends=True)
    if line.endswith("\n")
  ]


def _run_and_kill(folder, *, num_batches, process_count, **options):
  """Kills a run after some batches; returns the hashes of its examples."""
  paths = [folder / f"{index}.jsonl" for index in range(process_count)]
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        _PROGRAM,
        path,
        json.dumps(
          {"process_index": index, "process_count": process_count, **options}
        ),
      ],
      env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )
    for index, path in enumerate(paths)
  ]
  # Long enough for a busy machine; only a run that hangs comes to it.
  deadline = time.monotonic() + 300
  try:
    while min(len(_lines(path)) for path in paths) < num_batches:
      assert all(process.poll() is None for process in processes)
      assert time.monotonic() < deadline
      time.sleep(0.01)
  finally:
    for process in processes:
      process.send_signal(signal.SIGKILL)
      process.wait()
  parts = [_lines(path) for path in paths]
  # One host may have been a batch ahead; a checkpoint is of all of them.
  return [
    [one for hashes in step for one in hashes]
    for step in zip(*parts, strict=False)
  ]


@pytest.mark.long
def test_runs_killed_at_random_and_resumed_otherwise_have_the_same_batches(
  tmp_path,
):
  seed = np.random.SeedSequence().entropy % 2**32
  generator = np.random.default_rng(seed)
  found = []
  for number, options in enumerate(
    (
      {"num_threads": 1, "num_workers": 0, "process_count": 1},
      {"num_threads": 3, "num_workers": 0, "process_count": 2},
      {"num_threads": 1, "num_workers": 2, "process_count": 1},
    )
  ):
    folder = tmp_path / str(number)
    folder.mkdir()
    found += _run_and_kill(
      folder,
      num_batches=int(generator.integers(1, 9)),
      first_batch=len(found),
      **options,
    )
  expected = batch_hashes.hashes(num_threads=2)
  assert found == list(itertools.islice(expected, len(found))), seed


@pytest.mark.slow
def test_workers_end_when_their_process_is_killed(tmp_path):
  _run_and_kill(tmp_path, num_batches=1, process_count=1, num_workers=2)
  deadline = time.monotonic() + 20
  pids = json.loads((tmp_path / "0.pids").read_text())
  assert len(pids) == 2
  while any(_is_alive(pid) for pid in pids):
    assert time.monotonic() < deadline
    time.sleep(0.1)


def _is_alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  # Ended, but nobody has asked for its exit status.
  status = pathlib.Path(f"/proc/{pid}/stat")
  return not (status.exists() and status.read_text().split()[2] == "Z")


def _source(count=30):
  generator = np.random.default_rng(0)
  return [
    data.Example(
      generator.integers(256, size=(4, 5, 3), dtype=np.uint8),
      generator.integers(5, size=(4, 5), dtype=np.int32),
      f"example_{index}",
    )
    for index in range(count)
  ]


def _fingerprint(source=None, **options):
  options = batches.options_of_train(**options)
  return data.fingerprint(source or _source(), **options)


@pytest.mark.parametrize(
  "same",
  [
    {"num_threads": 5, "num_workers": 1, "prefetch_buffer_size": 9},
    {"first_batch": 3, "process_index": 1, "process_count": 2},
    {"image_sizes": np.array([[4, 5]] * 30)},
    {"holds_class": np.ones((30, 5), bool)},
    {"flip": True, "hue": 0.0},
    {"seed": np.int64(0), "crop_size": [8, 8]},
  ],
)
def test_a_fingerprint_stays_where_the_sequence_stays(same):
  assert _fingerprint(**same) == _fingerprint()


def test_runs_from_before_an_option_was_added_can_resume():
  # Of commit 3cfc6a4, which had no foreground_share, nor what came after.
  expected = "be9b3ffde2c56c10bf3a7dd165a16a1ccdcf3dae091ac099ecd1f3957daa68a8"
  assert _fingerprint() == expected


_OTHERS = {
  "seed": 1,
  "batch_size": 5,
  "num_classes": {"first": 5, "second": 4},
  "resize_factor": 0.5,
  "num_epochs": 2,
  "crop_size": (8, 9),
  "scale_range": (0.5, 1.0),
  "min_labelled": 0.5,
  "foreground_share": 0.5,
  "foreground_classes": (1, 2),
  "aspect_range": (0.9, 1.1),
  "rotation": 10.0,
  "quarter_turns": True,
  "elastic_amplitude": 2.0,
  "elastic_spacing": 32.0,
  "copy_paste": 0.5,
  "copy_paste_classes": (1, 2),
  "cutout_count": 1,
  "cutout_size": 8,
  "gamma_range": (0.7, 1.5),
  "noise": 5.0,
  "flip": False,
  "brightness": 0.1,
  "contrast": 0.1,
  "saturation": 0.1,
  "hue": 0.1,
  "blur_probability": 0.5,
  "blur_sigma": (0.1, 1.0),
  "num_sizes": 3,
}


@pytest.mark.parametrize("name", _OTHERS)
def test_another_option_is_another_fingerprint(name):
  assert _fingerprint(**{name: _OTHERS[name]}) != _fingerprint()


def test_the_order_of_heads_enters_the_fingerprint():
  first, second = (
    _fingerprint(num_classes=heads)
    for heads in ({"a": 5, "b": 4}, {"b": 4, "a": 5})
  )
  assert first != second


def test_every_option_is_thought_about_here():
  names = set(inspect.signature(data.train_batches).parameters)
  fields = {field.name for field in dataclasses.fields(data.Augmentation)}
  same = {"source", "image_sizes", "holds_class", "first_batch", "loading"}
  assert names - same - {"augmentation"} | fields == _OTHERS.keys()


@pytest.mark.parametrize(
  "change",
  [
    lambda source: source.reverse(),
    lambda source: source.__setitem__(0, source[0]._replace(name="other")),
    lambda source: source[0].image.__setitem__((0, 0, 0), 7),
    lambda source: source[-1].label.__setitem__((0, 0), 255),
  ],
)
def test_other_data_are_another_fingerprint(change):
  source = _source()
  expected = _fingerprint(source)
  change(source)
  assert _fingerprint(source) != expected


def test_more_of_the_same_is_another_fingerprint():
  assert _fingerprint(_source(1) * 30) != _fingerprint(_source(1) * 31)


def test_unknown_and_missing_arguments_are_refused():
  options = batches.options_of_train()
  with pytest.raises(TypeError, match="colour"):
    data.fingerprint(_source(), **options, colour=1)
  del options["seed"]
  with pytest.raises(TypeError, match="seed"):
    data.fingerprint(_source(), **options)
