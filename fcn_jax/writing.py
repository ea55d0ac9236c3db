"""Files that are written whole or not at all.

All that the package writes goes through here. A file is written under a
temporary name of its own, synchronised with the disk, and published by a link
or a rename. Nothing follows symbolic links, and nothing is overwritten unless
the caller says so.

What a killed program leaves has names that nobody else uses,
`.partial-0123456789abcdef-NAME`. A program locks its temporary files, so those
that are not locked are left-overs, and `remove_left_overs` removes them.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.partial-[0-9a-f]{16}-.*", re.DOTALL)
# Of a folder beside the temporary file that is locked for it.
_FOLDER = ".d"
# Files have names of at most 255 bytes.
_MAX_NAME = 40
_BLOCK = 1 << 20
# The file of a folder by which a program holds it, see the module `holding`.
LOCK = ".lock"

# No space left on the device, quota exceeded, file too large.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class WriteError(OSError):
  """A file or folder cannot be written; the message is for users."""


@contextlib.contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
  """Says in a sentence why a file or folder cannot be written.

  Raises:
    WriteError: in place of another `OSError`, with its `errno`.
    FileExistsError: as it is.
  """
  try:
    yield
  except (FileExistsError, WriteError):
    raise
  except OSError as error:
    remedy = "repair that, or choose another place"
    if error.errno in NO_ROOM:
      remedy = "make room, or choose a place on another disk"
    elif error.errno in _NOT_ALLOWED:
      remedy = "choose a place where you may write"
    reason = os.strerror(error.errno) if error.errno else str(error)
    explanation = WriteError(
      f"{os.fspath(path)} cannot be written ({reason.rstrip('.')}): {remedy}."
    )
    explanation.errno = error.errno
    raise explanation from error


@contextlib.contextmanager
def whole(
  path: str | os.PathLike[str], *, replace: bool = False
) -> Iterator[pathlib.Path]:
  """Yields where to write a file, and publishes it afterwards.

  Args:
    path: of the file. Its folder exists.
    replace: whether to replace a file of that name.

  Yields:
    An empty file in the same folder; its name ends as that of `path`. If the
    block raises something, it is removed, and `path` is as before.

  Raises:
    FileExistsError: there is a file of that name, and it is not to be replaced.
    WriteError: it cannot be written.
  """
  path = pathlib.Path(path)
  with explained(path), _temporary(path.parent, path.name) as partial:
    yield partial
    publish(partial, path, replace=replace)


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text as UTF-8, whole or not at all; replaces a file."""
  with whole(path, replace=True) as partial:
    partial.write_text(text, encoding="utf-8")


def publish(
  file: pathlib.Path, path: pathlib.Path, *, replace: bool = False
) -> None:
  """Gives a finished file its name; it is on the disk when this returns.

  Args:
    file: on the same file system, and nobody else's.
    path: its new name.
    replace: whether to replace a file of that name; of a symbolic link, the
      link is replaced.

  Raises:
    FileExistsError: there is a file of that name, and it is not to be replaced.
  """
  sync(file)
  if replace:
    os.replace(file, path)
  else:
    _link(file, path)
  sync(path.parent)


def _link(file: pathlib.Path, path: pathlib.Path) -> None:
  try:
    try:
      os.link(file, path)
    except FileExistsError:
      raise
    except OSError:  # A file system without links.
      os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
      os.replace(file, path)
  except FileExistsError as error:
    raise FileExistsError(
      f"{path} exists already, perhaps because another program wrote it in the "
      "meantime: it is left as it is. Give another name, or move it away."
    ) from error


@contextlib.contextmanager
def appending(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
  """Opens a file to read and to add to, and waits until it is on the disk.

  Raises:
    WriteError: it cannot be written, or is no file but a symbolic link, for
      example, which could lead to another's.
  """
  with explained(path):
    descriptor = open_own(path)
    with open(descriptor, "a+b") as file:
      yield file
      file.flush()
      os.fsync(descriptor)


def create(path: str | os.PathLike[str], *, size: int = 0) -> None:
  """Makes a new file, with room on the disk for all of it.

  A memory map of a file without room ends the program when the disk is full.

  Args:
    path: where nothing is yet.
    size: bytes, all 0.

  Raises:
    FileExistsError: something is there.
    WriteError: there is no room, or writing is not allowed.
  """
  with explained(path):
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    try:
      if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
      else:  # On macOS.
        for start in range(0, size, _BLOCK):
          os.write(descriptor, bytes(min(_BLOCK, size - start)))
    finally:
      os.close(descriptor)


@contextlib.contextmanager
def scratch(parent: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
  """Yields a new folder, and removes it afterwards with all that is in it.

  Args:
    parent: where to make it.
    name: a part of its name.

  Raises:
    WriteError: it cannot be made.
  """
  with contextlib.ExitStack() as resources:
    with explained(parent):
      file = resources.enter_context(_temporary(parent, name))
      folder = file.with_name(file.name + _FOLDER)
      folder.mkdir(mode=0o700)
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    yield folder


@contextlib.contextmanager
def together(
  folder: pathlib.Path, names: Sequence[str]
) -> Iterator[pathlib.Path]:
  """Yields where to write files of a folder, and publishes them afterwards.

  Args:
    folder: where to. It exists, and this program holds it, see `holding`.
    names: of all files, or folders, that there may be. Those of before are
      removed once the new ones are written, the first at first. The first is
      published last: a folder that has it has all.

  Yields:
    A new folder. If the block raises something, all is as before.

  Raises:
    WriteError: a file cannot be written.
  """
  with scratch(folder, "together") as new:
    try:
      yield new
    except WriteError as error:
      # People know the file by its name in the end.
      explanation = WriteError(str(error).replace(str(new), str(folder)))
      explanation.errno = error.errno
      raise explanation from error
    with explained(folder):
      for name in names:
        remove(folder / name)
      for name in reversed(names):
        if (new / name).exists():
          publish(new / name, folder / name, replace=True)


def is_unfinished(folder: pathlib.Path, names: Sequence[str]) -> bool:
  """Whether a program was killed while it published files by `together`.

  It leaves its lock, and not the first file.
  """
  return (folder / LOCK).exists() and not (folder / names[0]).exists()


def remove_left_overs(folder: pathlib.Path) -> None:
  """Removes what killed programs of this package have left in a folder.

  Files that a program is still writing are left as they are, and so are those
  of other users.
  """
  if not folder.is_dir():
    return
  for path in folder.iterdir():
    if _TEMPORARY.fullmatch(path.name):
      # Another program may remove it just now, or it is not ours to remove.
      with contextlib.suppress(OSError):
        _remove_left_over(path)


def _remove_left_over(path: pathlib.Path) -> None:
  facts = path.lstat()
  if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
    return
  descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if is_there(descriptor, path):
      remove(path.with_name(path.name + _FOLDER))
      path.unlink()
  finally:
    os.close(descriptor)


def is_temporary(name: str) -> bool:
  """Whether a file of this name is being written, or is a left-over."""
  return _TEMPORARY.fullmatch(name) is not None


def remove(path: pathlib.Path) -> None:
  """Removes a file, a link or a folder with all that is in it, if it exists."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def open_own(path: str | os.PathLike[str]) -> int:
  """Opens a file to append to, and makes it if it is not there.

  Raises:
    OSError: it is no file but a symbolic link, for example.
  """
  flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    descriptor = os.open(path, flags, 0o666)
  except OSError as error:
    if error.errno != errno.ELOOP:
      raise
    raise OSError("it is a symbolic link, which is not followed") from error
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise OSError("it is no file but a device or pipe")
  return descriptor


@contextlib.contextmanager
def _temporary(parent: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
  """A new file, locked, that is removed afterwards if it is still there."""
  descriptor = None
  while descriptor is None:
    random = secrets.token_hex(8)
    path = parent / f".partial-{random}-{name[-_MAX_NAME:]}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    with contextlib.suppress(OSError):  # A file system without locks.
      # Not lockf: libraries open and close the file, which would unlock it.
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    # Another program may have taken it for a left-over in between.
    if not is_there(descriptor, path):
      os.close(descriptor)
      descriptor = None
  try:
    yield path
  finally:
    path.unlink(missing_ok=True)
    os.close(descriptor)


def is_there(descriptor: int, path: pathlib.Path) -> bool:
  """Whether a path is still that of an open file."""
  try:
    return identity(path.lstat()) == identity(os.fstat(descriptor))
  except FileNotFoundError:
    return False


def identity(facts: os.stat_result) -> tuple[int, int]:
  """Device and inode."""
  return facts.st_dev, facts.st_ino


def sync(path: pathlib.Path) -> None:
  """Waits until a file, or the list of names in a folder, is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
