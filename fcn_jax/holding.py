"""Folders that one program holds, from its first check to its end.

Two programs could otherwise both find a folder free, and write to it. The lock
is on the file `.lock` in the folder, and ends with the program, in whatever way
that ends.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

from fcn_jax import writing

# Of file systems without locks, where it is up to the user.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
# Others may remove a folder while it is made.
_NUM_TRIES = 100
# Between two looks at what another program holds.
_SECONDS = 0.1

# Devices and inodes of the lock files that this process has locked: its own
# locks do not keep it out, and closing such a file once unlocks it.
_held: set[tuple[int, int]] = set()
_mutex = threading.Lock()


@contextlib.contextmanager
def held(
  folder: pathlib.Path,
  *,
  waiting: Callable[[], None] | None = None,
) -> Iterator[None]:
  """Makes a folder if need be, and keeps other programs from holding it.

  Afterwards the folders that this has made are removed if they are empty.

  Args:
    folder: to hold.
    waiting: is called before this waits for another program; None refuses to
      wait.

  Raises:
    ValueError: another program, or this one, holds it.
    WriteError: it cannot be made, or nothing can be written there.
  """
  made = [
    path for path in (folder, *folder.parents) if not os.path.lexists(path)
  ]
  lock = folder / writing.LOCK
  with writing.explained(folder):
    descriptor = _locked_in(folder, waiting)
  try:
    yield
  finally:
    if writing.is_there(descriptor, lock):
      lock.unlink()
    _unlocked(descriptor)
    for path in made:
      with contextlib.suppress(OSError):
        path.rmdir()


@contextlib.contextmanager
def held_file(path: pathlib.Path) -> Iterator[None]:
  """Keeps other programs from holding a lock file, which stays; see `held`."""
  with writing.explained(path):
    descriptor = _locked(path, None)
  try:
    yield
  finally:
    _unlocked(descriptor)


def _locked_in(folder: pathlib.Path, waiting: Callable[[], None] | None) -> int:
  for _ in range(_NUM_TRIES):
    # Who held it before may just have removed it.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
      folder.mkdir(parents=True, exist_ok=True)
      return _locked(folder / writing.LOCK, waiting)
  folder.mkdir(parents=True, exist_ok=True)
  return _locked(folder / writing.LOCK, waiting)


def _locked(path: pathlib.Path, waiting: Callable[[], None] | None) -> int:
  """The descriptor of a lock file that is locked."""
  has_said = False
  while True:
    with _mutex:
      descriptor = _locked_now(path)
    if descriptor is not None:
      return descriptor
    if waiting is None:
      raise ValueError(
        f"Another program is writing to {path.parent}: wait for it, or choose "
        "another folder."
      )
    if not has_said:
      waiting()
      has_said = True
    time.sleep(_SECONDS)


def _locked_now(path: pathlib.Path) -> int | None:
  """As `_locked`, or None if it is locked already."""
  while True:
    if path.exists() and writing.identity(path.lstat()) in _held:
      return None
    descriptor = writing.open_own(path)
    try:
      # Not flock, which a killed run's worker processes would go on holding.
      fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EACCES, errno.EAGAIN):
        os.close(descriptor)
        return None
      if error.errno not in _NO_LOCKS:
        os.close(descriptor)
        raise
    # Who held it before may have removed it.
    if writing.is_there(descriptor, path):
      _held.add(writing.identity(os.fstat(descriptor)))
      return descriptor
    os.close(descriptor)


def _unlocked(descriptor: int) -> None:
  with _mutex:
    _held.discard(writing.identity(os.fstat(descriptor)))
    os.close(descriptor)


def is_ours(name: str) -> bool:
  """Whether a file of this name is a lock, or a temporary one."""
  return name == writing.LOCK or writing.is_temporary(name)
