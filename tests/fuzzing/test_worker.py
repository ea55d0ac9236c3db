"""The fuzzers see what they are to find."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.fuzzing import kinds
from tests.fuzzing import mutations
from tests.fuzzing import worker

pytestmark = pytest.mark.skipif(
  not sys.platform.startswith("linux"), reason="needs /proc"
)


def raising(error):
  def read(path):
    raise error

  return read


def greedy(path):
  return np.ones(worker.MOST_BYTES + (1 << 26), np.uint8)[:1]


@pytest.mark.parametrize(
  "read, truth, expected",
  [
    (lambda path: path.read_bytes(), None, "read"),
    (lambda path: [1, {"a": np.ones(2)}], "same", "equal"),
    (lambda path: [1, {"a": np.zeros(2)}], "same", "silent"),
    (raising(ValueError("is damaged; copy it again")), "same", "refused"),
    (raising(ValueError("")), None, "no paragraph"),
    (raising(ValueError("a\nb")), None, "no paragraph"),
    (raising(ValueError("a" * 5000)), None, "no paragraph"),
    (raising(TypeError("a")), None, "TypeError"),
    (raising(SystemExit(1)), None, "SystemExit"),
    (greedy, None, "memory"),
  ],
)
def test_an_outcome_has_its_name(tmp_path, read, truth, expected):
  path = tmp_path / "file"
  path.write_bytes(b"content")
  if truth is not None:
    truth = kinds.digest([1, {"a": np.ones(2)}])
  kind = kinds.Kind(lambda root: [], read)
  name, about = worker.outcome(kind, path, truth)
  assert name == expected
  assert ("Traceback" in about) == (name in ("TypeError", "SystemExit"))


def test_cases_are_made_again_by_their_numbers(tmp_path):
  kind = kinds.KINDS["mat"]
  seeds = kind.seeds(tmp_path)
  cases = [worker.case(kind, seeds, number, 3) for number in range(50)]
  assert cases == [worker.case(kind, seeds, n, 3) for n in range(50)]
  changed = [content for seed, content, _ in cases if content != seed.content]
  assert len({*changed}) > 40


def test_values_of_json_are_changed_and_stay_json():
  rng = np.random.default_rng(0)
  content = b'{"a": [1, {"b": null}]}\n'
  made = {mutations.with_other_value(content, rng) for _ in range(50)}
  assert len(made) > 20


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mat", "caffemodel", "pth", "safetensors"])
def test_a_few_cases_have_no_finds(kind):
  """Thousands are for the command."""
  kinds_of = set()
  code = f"from tests.fuzzing import worker; worker.main({kind!r}, 9, 0, 60)"
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  for line in result.stdout.splitlines():
    if line.startswith("["):
      kinds_of.add(json.loads(line)[2])
  assert kinds_of <= {"read", "equal", "refused"} and "refused" in kinds_of
