"""Lists prepared data of folders, and removes those that are out of date.

    fcn-jax clean
    fcn-jax clean --yes

Training on a folder of your own prepares a copy of it, one for each state of
its files. A copy is out of date if the folder has changed or is gone, or if an
older version has made it. The command lists all copies and asks before it
removes those out of date. Your own files are never touched.
"""

import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

import tyro

from fcn_jax import reprs
from fcn_jax.cli import errors
from fcn_jax.data.datasets import folder
from fcn_jax.data.datasets import folder_states
from fcn_jax.data.datasets import prepared_folders


@dataclasses.dataclass(frozen=True)
class Options:
  """What to remove."""

  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept. Default: TFDS's own folder."""
  yes: bool = False
  """Remove without asking."""


class Prepared(NamedTuple):
  """Prepared data of a folder.

  Attributes:
    path: where they are.
    num_bytes: of all files.
    state: what became of the folder that they were made of.
    is_outdated: whether they will not be used again as things are.
  """

  path: pathlib.Path
  num_bytes: int
  state: str
  is_outdated: bool


def find(root: pathlib.Path) -> list[Prepared]:
  """Lists the prepared data of folders, in the order of their names."""
  states: dict[str, str] = {}
  found = []
  for path in sorted((root / folder.Folder.name).glob("*")):
    versions = [
      info.parent
      for info in path.glob("*/dataset_info.json")
      if prepared_folders.is_ours(info.parent)
    ]
    if path.is_symlink() or not versions:
      continue
    files = [file for file in path.rglob("*") if file.is_file()]
    num_bytes = sum(file.lstat().st_size for file in files)
    current = str(folder.Folder.VERSION)
    if current not in {version.name for version in versions}:
      state, outdated = "made by an older version", True
    else:
      state, outdated = _state(folder_states.sources(path), states)
    found.append(Prepared(path, num_bytes, state, outdated))
  return found


def _state(
  sources: Sequence[folder_states.Source], states: dict[str, str]
) -> tuple[str, bool]:
  """What became of the folders, and whether none is as it was."""
  if not sources:
    return "made of an unknown folder", False
  for source in sources:
    path = pathlib.Path(source.folder)
    if source.folder not in states:
      states[source.folder] = (
        folder_states.of(path, {}).files if path.is_dir() else ""
      )
    if states[source.folder] == source.files:
      return f"as {path} is now", False
  path = sources[-1].folder
  what = "which is not there" if not states[path] else "which has changed"
  return f"made of {path}, {what}", True


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, lists, asks and removes.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options, prog="fcn-jax clean", description=__doc__, args=arguments
  )
  root = prepared_folders.root_of(options.prepared_dir)
  with errors.explained():
    found = find(root)
  if not found:
    print(f"{reprs.path(root)} holds no prepared data of folders.")
    return
  for one in found:
    mark = "out of date" if one.is_outdated else "keep"
    print(
      f"{mark:12}{one.num_bytes / 1e6:10.1f} MB  {reprs.path(one.path)}"
      f"  {reprs.path(one.state)}"
    )
  outdated = [one for one in found if one.is_outdated]
  if not outdated:
    print("Nothing is out of date.")
    return
  size = sum(one.num_bytes for one in outdated) / 1e6
  if not options.yes and not _agrees(len(outdated), size):
    print("Nothing was removed.")
    return
  with errors.explained():
    for one in outdated:
      shutil.rmtree(one.path)
  print(f"Removed {len(outdated)}, {size:.1f} MB.")


def _agrees(count: int, size: float) -> bool:
  if not sys.stdin.isatty():
    print("To remove what is out of date, add --yes.")
    return False
  answer = input(f"Remove the {count} out of date, {size:.1f} MB? [y/N] ")
  return answer.strip().lower() in ("y", "yes")
