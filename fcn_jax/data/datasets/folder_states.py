"""Recognises a user's folder by its names, sizes and times, without reading.

Beside the prepared data of a folder lie small files, `source-STATE.json`, one
for each state of files that they were made of. Hashing a large folder takes
minutes; looking up its state takes seconds.
"""

import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from fcn_jax import strict_json
from fcn_jax import writing

_PREFIX = "source-"


class Source(NamedTuple):
  """A folder, as prepared data are made of it.

  Attributes:
    folder: its path.
    files: hash of the names, sizes, times and inodes of all files in it.
    options: what else changes the prepared data, such as "group_by".
  """

  folder: str
  files: str
  options: dict[str, Any]

  def name(self) -> str:
    """The name of the file that records it."""
    key = json.dumps([self.files, self.options], sort_keys=True)
    return f"{_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def of(folder: pathlib.Path, options: dict[str, Any]) -> Source:
  """The present state of a folder.

  Contents can change without it only if somebody sets back the clock of the
  machine, or changes a file within the same tick of the clock.
  """
  digest = hashlib.sha256()
  for name, facts in _entries(folder.resolve()):
    digest.update(json.dumps([name, facts]).encode())
  return Source(str(folder.resolve()), digest.hexdigest(), options)


def _entries(folder: pathlib.Path) -> Iterator[tuple[str, list[int]]]:
  """Names and facts of files, in a fixed order; links are not followed."""
  for parent, folders, files in os.walk(folder):
    folders.sort()
    # Not its times, which change with files that are not read.
    yield os.path.relpath(parent, folder), [os.stat(parent).st_mode]
    for name in sorted([*files, *folders]):
      path = os.path.join(parent, name)
      try:
        facts = os.lstat(path)
        target = os.stat(path) if stat.S_ISLNK(facts.st_mode) else None
      except FileNotFoundError:
        yield name, []  # Just removed, or a link to nowhere.
        continue
      if not stat.S_ISDIR(facts.st_mode):
        yield name, _facts(facts)
      if target and not stat.S_ISDIR(target.st_mode):
        yield name, _facts(target)


def _facts(facts: os.stat_result) -> list[int]:
  # The time of the last change of the inode tells what `touch` would hide.
  return [
    facts.st_mode,
    facts.st_size,
    facts.st_mtime_ns,
    facts.st_ctime_ns,
    facts.st_ino,
  ]


def record(prepared: pathlib.Path, source: Source) -> None:
  """Records of which files a folder of prepared data was made.

  Does nothing where writing is not allowed, such as in data that are shared:
  then the files are hashed again at the next start.
  """
  path = prepared / source.name()
  if not path.exists() and os.access(prepared, os.W_OK):
    writing.write_text(path, json.dumps(source._asdict()))


def prepared_of(
  root: pathlib.Path, pattern: str, source: Source
) -> pathlib.Path | None:
  """The folder of prepared data that was made of a source, if there is one.

  Args:
    root: the folder of all prepared folders.
    pattern: for the name of the folder.
    source: what it is made of.
  """
  found = sorted(root.glob(f"{pattern}/{source.name()}"))
  return found[0].parent if found else None


def sources(prepared: pathlib.Path) -> list[Source]:
  """All sources that are recorded for a folder of prepared data."""
  found = []
  for path in sorted(prepared.glob(f"{_PREFIX}*.json")):
    try:
      found.append(Source(**strict_json.read(path)))
    except (OSError, ValueError, TypeError):
      continue  # Damaged, and as if it were not there.
  return found
