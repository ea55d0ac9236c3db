"""The endurance test sees what it is to find."""

import signal
import sys
import textwrap

import pytest

from tests.endurance import __main__ as endurance
from tests.endurance import watching

pytestmark = pytest.mark.skipif(
  not sys.platform.startswith("linux"), reason="needs /proc"
)

MB = 1_000_000


def samples(**changes):
  """Of a program that is warm after a sixth, with what is added to it."""
  steady = {"processes": 3, "memory": 500 * MB, "descriptors": 40, "threads": 9}
  rows = []
  for number in range(240):
    values = dict(steady)
    if number < 40:
      values["memory"] = 10 * MB * number
    for name, of_number in changes.items():
      values[name] += of_number(number)
    rows.append(watching.Sample(**values))
  return rows


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({}, []),
    # Warming up, and what is held for a moment.
    ({"threads": lambda number: 5 * (number > 20)}, []),
    ({"descriptors": lambda number: 7 * (number % 9 == 0)}, []),
    ({"memory": lambda number: MB // 20 * number}, []),
    ({"memory": lambda number: MB * number}, ["the memory grew by 80 MB"]),
    (
      {"descriptors": lambda number: number // 60},
      ["there were 42 descriptors, then 43"],
    ),
    (
      {"threads": lambda number: number > 150},
      ["there were 9 threads, then 10"],
    ),
  ],
)
def test_what_grows_after_warming_up_is_found(changes, words):
  steady = watching.steady(samples(**changes))
  assert watching.grown(steady, most_bytes=30 * MB) == words


def run(code, tmp_path, **options):
  command = [sys.executable, "-c", textwrap.dedent(code)]
  return watching.run(command, tmp_path / "log", every=0.05, **options)


@pytest.mark.slow
def test_processes_of_a_session_are_counted_and_seen_when_they_stay(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(watching, "_GRACE", 0.3)
  code = """
    import subprocess, sys, threading, time
    files = [open("/dev/null") for _ in range(20)]
    threading.Thread(target=time.sleep, args=(1.5,)).start()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    sys.stderr.write("said")
  """
  found = run(code, tmp_path)
  most = [max(column) for column in zip(*found.samples, strict=True)]
  processes, memory, descriptors, threads = most
  assert (found.status, processes, threads) == (0, 2, 3)
  assert descriptors >= 26 and 5 * MB < memory < 200 * MB
  (left,) = (one for one in found.left if "sleep(99)" in one)
  assert left.startswith("the process ") and found.errors == "said"


@pytest.mark.slow
def test_shared_memory_that_stays_is_seen(tmp_path, monkeypatch):
  monkeypatch.setattr(watching, "_GRACE", 0.3)
  code = """
    import os
    open(f"/dev/shm/fcn_jax_test_{os.getpid()}", "w").write("left")
  """
  found = run(code, tmp_path)
  # Tests beside this one may leave some, too.
  (left,) = (one for one in found.left if "fcn_jax_test_" in one)
  name = left.removeprefix("the shared memory ")
  (watching._SHARED / name).unlink()


@pytest.mark.slow
def test_a_program_is_interrupted_with_all_of_its_processes(tmp_path):
  code = """
    import signal, subprocess, sys, time
    sleep = [sys.executable, "-c", "import time; time.sleep(9)"]
    child = subprocess.Popen(sleep)
    signal.signal(signal.SIGINT, lambda *_: sys.exit(child.wait()))
    time.sleep(9)
  """
  found = run(code, tmp_path, interrupt_when=lambda seconds, now: seconds > 1)
  assert found.seconds < 8 and not found.left
  # Python's status for an exit with -2.
  assert found.status == -signal.SIGINT % 256
  assert endurance._WARNINGS.search(found.errors)[0] == "Traceback"


@pytest.mark.long
def test_short_programs_end_well_when_interrupted():
  """Hours are for the command. What they hold is not steady yet."""
  arguments = ["--steps=80", "--pictures=80", "--images=12"]
  with pytest.raises(SystemExit) as ended:
    endurance.main([*arguments, "--warming-up"])
  assert ended.value.code == 0
