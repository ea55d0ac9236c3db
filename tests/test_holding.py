"""Tests of folders that one program holds."""

import os
import signal
import threading

import pytest

from fcn_jax import holding
from fcn_jax import writing
from tests.helpers import programs

HOLD = """
  import pathlib, sys
  from fcn_jax import holding
  with holding.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
  """Another program that holds the folder `run`, until its input ends."""
  with programs.start(HOLD, tmp_path / "run") as other:
    other.stdout.readline()
    yield other
    other.kill()


def test_a_folder_is_held_by_one_program(tmp_path, holder):
  with (
    pytest.raises(ValueError, match="Another program is writing to .*run"),
    holding.held(tmp_path / "run"),
  ):
    pass
  holder.communicate()
  with holding.held(tmp_path / "run"):
    pass


def test_a_program_that_is_killed_holds_nothing(tmp_path, holder):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / "run" / ".lock").exists()
  with holding.held(tmp_path / "run"):
    pass
  assert os.listdir(tmp_path / "run") == []


def test_who_waits_goes_on_afterwards(tmp_path, holder):
  said = []
  timer = threading.Timer(0.3, holder.stdin.close)

  def waiting():
    said.append("waiting")
    timer.start()

  with holding.held(tmp_path / "run", waiting=waiting):
    assert (tmp_path / "run" / ".lock").exists()
  assert said == ["waiting"]


def test_a_folder_is_held_once_in_a_program(tmp_path):
  with holding.held(tmp_path):
    with (
      pytest.raises(ValueError, match="Another program is writing"),
      holding.held(tmp_path),
    ):
      pass
    assert (tmp_path / ".lock").exists()
  with holding.held(tmp_path):
    pass


def test_threads_wait_for_each_other(tmp_path):
  order = []

  def hold(name):
    with holding.held(tmp_path / "a" / "b", waiting=lambda: None):
      order.append(name)
      order.append(name)

  threads = [threading.Thread(target=hold, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert order[::2] == order[1::2]
  assert sorted(order[::2]) == [*range(8)]
  assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_folders_that_it_made_go_if_they_are_empty(tmp_path):
  (tmp_path / "mine").mkdir()
  with holding.held(tmp_path / "mine" / "a" / "b"):
    pass
  assert os.listdir(tmp_path / "mine") == []
  with holding.held(tmp_path / "mine" / "a" / "b"):
    (tmp_path / "mine" / "a" / "result").touch()
  assert os.listdir(tmp_path / "mine" / "a") == ["result"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_lock_that_is_a_link_leaves_its_target(tmp_path, is_there):
  target = tmp_path / "thesis.tex"
  if is_there:
    target.write_text("mine")
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / ".lock").symlink_to(target)
  for context in (
    holding.held(tmp_path / "run"),
    holding.held_file(tmp_path / "run" / ".lock"),
  ):
    with pytest.raises(writing.WriteError, match="symbolic link"), context:
      pass
  assert target.exists() == is_there
  assert not is_there or target.read_text() == "mine"


def test_two_programs_at_one_moment_never_both_hold(tmp_path):
  """Each makes the folder, holds it, looks whether it is alone, and leaves."""
  code = """
    import os, pathlib, sys
    from fcn_jax import holding
    folder = pathlib.Path(sys.argv[1])
    num_held = 0
    for _ in range(300):
      try:
        with holding.held(folder / "a"):
          os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
          os.unlink(folder / "alone")
          num_held += 1
      except ValueError:
        pass
    print(num_held)
  """
  started = [programs.start(code, tmp_path) for _ in range(3)]
  held = [int(one.communicate()[0]) for one in started]
  assert [one.returncode for one in started] == [0, 0, 0]
  assert min(held) > 0
  assert list(tmp_path.rglob("*")) in ([], [tmp_path / "a"])
