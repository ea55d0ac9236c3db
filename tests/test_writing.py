"""Tests of files that are written whole or not at all."""

import os
import pathlib
import signal

import pytest

from fcn_jax import writing
from tests.helpers import programs


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


def killed_while_writing(folder, code):
  """Lets a program write to a folder, and kills it."""
  program = f"""
import os, pathlib, signal
from fcn_jax import writing
folder = pathlib.Path({str(folder)!r})
{code}
  os.kill(os.getpid(), signal.SIGKILL)
"""
  killed = programs.start(program)
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL


def test_a_file_is_published_with_the_usual_permissions(tmp_path):
  (tmp_path / "usual").touch()
  with writing.whole(tmp_path / "table.md") as partial:
    assert partial.suffix == ".md"
    partial.write_text("a")
    assert not (tmp_path / "table.md").exists()
  assert names_in(tmp_path) == ["table.md", "usual"]
  assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
  assert (tmp_path / "table.md").stat().st_nlink == 1


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_left(tmp_path, monkeypatch, links):
  if not links:

    def link(*_):
      raise PermissionError

    monkeypatch.setattr(os, "link", link)
  path = tmp_path / "net.zip"
  with (
    pytest.raises(FileExistsError, match=r"net\.zip exists already"),
    writing.whole(path) as partial,
  ):
    partial.write_text("ours")
    path.write_text("theirs")
  assert path.read_text() == "theirs"
  path.unlink()
  with writing.whole(path) as partial:
    partial.write_text("ours")
  assert path.read_text() == "ours"
  assert names_in(tmp_path) == ["net.zip"]


def test_an_error_leaves_what_was_there(tmp_path):
  path = tmp_path / "config.json"
  path.write_text("old")
  with (
    pytest.raises(ZeroDivisionError),
    writing.whole(path, replace=True) as partial,
  ):
    partial.write_text("new")
    raise ZeroDivisionError
  assert path.read_text() == "old"
  assert names_in(tmp_path) == ["config.json"]


def test_a_link_is_replaced_and_its_target_is_not(tmp_path):
  target = tmp_path / "thesis.tex"
  target.write_text("mine")
  (tmp_path / "config.json").symlink_to(target)
  (tmp_path / "config.json.partial").symlink_to(target)
  writing.write_text(tmp_path / "config.json", "{}")
  assert target.read_text() == "mine"
  assert (tmp_path / "config.json").read_text() == "{}"


@pytest.mark.parametrize("is_there", [True, False])
def test_nothing_is_added_to_the_target_of_a_link(tmp_path, is_there):
  target = tmp_path / "thesis.tex"
  if is_there:
    target.write_text("mine")
  (tmp_path / "metrics.jsonl").symlink_to(target)
  with (
    pytest.raises(writing.WriteError, match=r"jsonl cannot .* symbolic link"),
    writing.appending(tmp_path / "metrics.jsonl"),
  ):
    pass
  assert target.exists() == is_there
  assert not is_there or target.read_text() == "mine"


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "metrics.jsonl")
  with (
    pytest.raises(writing.WriteError, match="a device or pipe"),
    writing.appending(tmp_path / "metrics.jsonl"),
  ):
    pass


def test_a_new_file_replaces_nothing(tmp_path):
  writing.create(tmp_path / "classes", size=3 << 20)
  assert (tmp_path / "classes").read_bytes() == bytes(3 << 20)
  with pytest.raises(FileExistsError):
    writing.create(tmp_path / "classes")
  (tmp_path / "link").symlink_to(tmp_path / "nothing")
  with pytest.raises(FileExistsError):
    writing.create(tmp_path / "link")
  assert not (tmp_path / "nothing").exists()


def test_no_room_is_one_sentence(small_disk):
  with (
    pytest.raises(
      writing.WriteError,
      match=r"a\.bin cannot be written \(No space left on device\): make room",
    ) as caught,
    writing.whole(small_disk / "a.bin") as partial,
  ):
    partial.write_bytes(bytes(4 << 20))
  assert caught.value.errno in writing.NO_ROOM
  # As a memory map it would end the program.
  with pytest.raises(writing.WriteError, match="No space left on device"):
    writing.create(small_disk / "classes", size=4 << 20)
  (small_disk / "classes").unlink()
  assert names_in(small_disk) == []


def test_a_folder_that_is_missing_is_one_sentence(tmp_path):
  path = tmp_path / "none" / "a.txt"
  with pytest.raises(writing.WriteError, match=r"a\.txt cannot be written"):
    writing.write_text(path, "a")


def test_long_names_have_temporary_files(tmp_path):
  path = tmp_path / ("ä" * 120 + ".json")
  writing.write_text(path, "{}")
  assert names_in(tmp_path) == [path.name]


# What killed programs leave.


@pytest.mark.parametrize(
  "code",
  [
    "with writing.whole(folder / 'config.json') as partial:\n"
    "  partial.write_text('{')",
    "with writing.scratch(folder, 'camvid') as partial:\n"
    "  (partial / 'a').mkdir()",
  ],
)
def test_what_a_killed_program_leaves_is_removed_later(tmp_path, code):
  killed_while_writing(tmp_path, code)
  assert names_in(tmp_path)
  assert all(map(writing.is_temporary, names_in(tmp_path)))
  writing.remove_left_overs(tmp_path)
  assert names_in(tmp_path) == []


def test_what_is_being_written_is_no_left_over(tmp_path):
  with (
    writing.whole(tmp_path / "a.txt") as partial,
    writing.scratch(tmp_path, "b") as folder,
  ):
    # As libraries do, which must not unlock it.
    partial.write_text("a")
    other = (
      "import pathlib; from fcn_jax import writing;"
      f"writing.remove_left_overs(pathlib.Path({str(tmp_path)!r}))"
    )
    done = programs.start(other)
    done.communicate()
    assert done.returncode == 0
    writing.remove_left_overs(tmp_path)
    assert folder.is_dir()
  assert (tmp_path / "a.txt").read_text() == "a"


@pytest.mark.parametrize(
  "name",
  ["OUT.partial", ".partial-00000003", ".partial-0123456789abcdeX-a", ".lock"],
)
def test_files_of_others_are_no_left_overs(tmp_path, name):
  (tmp_path / name).write_text("mine")
  writing.remove_left_overs(tmp_path)
  assert names_in(tmp_path) == [name]


def test_links_and_folders_are_no_left_overs(tmp_path):
  (tmp_path / "mine").touch()
  (tmp_path / f".partial-{'0' * 16}-a").symlink_to(tmp_path / "mine")
  (tmp_path / f".partial-{'1' * 16}-a").mkdir()
  writing.remove_left_overs(tmp_path)
  assert len(names_in(tmp_path)) == 3


def test_removing_a_link_leaves_its_target(tmp_path):
  target = tmp_path / "mine"
  target.mkdir()
  (target / "a").touch()
  for name in ("link", "nothing"):
    (tmp_path / "link").unlink(missing_ok=True)
    (tmp_path / "link").symlink_to(target)
    writing.remove(tmp_path / name)
  assert (target / "a").exists()
  writing.remove(target)
  assert not target.exists()


def test_every_writer_of_the_package_is_this_one():
  """Other ways to write are named here, with their reasons."""
  allowed = {
    # Into a hidden folder, which a rename publishes.
    "runs/step_folders.py": 2,
    # Into the temporary file of `writing.whole`.
    "cli/check_data_report.py": 1,
    "cli/evaluate_report.py": 1,
    "cli/report.py": 1,
    # A program of its own, which also runs where there is no `fcntl`.
    "inference/exported_command.py": 1,
    # Into the temporary file of `writing.whole`.
    "inference/onnx_files.py": 1,
    # The name that an earlier version left.
    "runs/folder.py": 1,
  }
  package = pathlib.Path(writing.__file__).parent
  found = {
    str(path.relative_to(package)): count
    for path in package.rglob("*.py")
    if path.name != "writing.py"
    and (
      count := sum(
        path.read_text(encoding="utf-8").count(word)
        for word in (
          ".write_text(",
          ".write_bytes(",
          "os.replace(",
          "mkstemp(",
          "TemporaryDirectory(",
          '.partial"',
          'open("w"',
          'open("a',
        )
      )
      - path.read_text(encoding="utf-8").count("writing.write_text(")
    )
  }
  assert found == allowed


NAMES = ("summary", "table", "figure")


def write_together(folder, names, content):
  with writing.together(folder, NAMES) as new:
    for name in names:
      writing.write_text(new / name, content)


def test_files_are_published_together(tmp_path):
  (tmp_path / "of the user").write_text("kept")
  write_together(tmp_path, NAMES, "old")
  write_together(tmp_path, ("summary", "table"), "new")
  contents = {path.name: path.read_text() for path in tmp_path.iterdir()}
  assert contents == {
    "of the user": "kept",
    "summary": "new",
    "table": "new",
  }


def test_files_stay_as_they_were_if_one_cannot_be_written(small_disk):
  write_together(small_disk, NAMES, "old")
  with pytest.raises(writing.WriteError, match=f"{small_disk}/table cannot"):
    write_together(small_disk, ("summary", "table"), 2_000_000 * "x")
  contents = {path.name: path.read_text() for path in small_disk.iterdir()}
  assert contents == dict.fromkeys(NAMES, "old")
  (small_disk / writing.LOCK).touch()
  assert not writing.is_unfinished(small_disk, NAMES)


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_who_is_killed_while_publishing_leaves_no_first_file(tmp_path, number):
  write_together(tmp_path, NAMES, "old")
  code = f"""
publish, published = writing.publish, []

def kill(file, path, *, replace):
  if path.parent == folder:
    if len(published) == {number}:
      os.kill(os.getpid(), signal.SIGKILL)
    published.append(path)
  publish(file, path, replace=replace)

writing.publish = kill
with writing.together(folder, {NAMES}) as new:
  for name in {NAMES}:
    writing.write_text(new / name, "new")
if True:
"""
  killed_while_writing(tmp_path, code)
  writing.remove_left_overs(tmp_path)
  assert names_in(tmp_path) == sorted(NAMES[::-1][:number])
  # Who is killed leaves its lock.
  assert not writing.is_unfinished(tmp_path, NAMES)
  (tmp_path / writing.LOCK).touch()
  assert writing.is_unfinished(tmp_path, NAMES)


def test_folders_are_published_together_with_files(tmp_path):
  for content in ("old", "new"):
    with writing.together(tmp_path, ("config", "steps")) as new:
      (new / "steps").mkdir()
      for path in (new / "steps" / content, new / "config"):
        writing.write_text(path, content)
    assert (tmp_path / "config").read_text() == content
    assert names_in(tmp_path / "steps") == [content]
