"""Downloaded data sets, as archives or unpacked."""

import contextlib
import hashlib
import pathlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import tqdm.auto

from fcn_jax import writing
from fcn_jax.data.files import listing

# Hash functions, by the number of hexadecimal digits.
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}
_BLOCK = 1 << 20


class Archive(NamedTuple):
  """A file to download.

  Attributes:
    holds: a path in it; if that exists, the archive has been unpacked.
    source: where people get it, to be read after "from".
    checksum: MD5, SHA-1 or SHA-256 of the file, hexadecimal; None if the
      publisher's is not known.
    instead: further paths, any of which can replace `holds`.
  """

  holds: str
  source: str
  checksum: str | None = None
  instead: tuple[str, ...] = ()


@contextlib.contextmanager
def unpacked(
  name: str,
  folder: pathlib.Path,
  known: Mapping[str, Archive],
  *,
  layout: str,
  scratch: pathlib.Path,
) -> Iterator[pathlib.Path]:
  """Yields the folder with the files of a data set.

  Archives are unpacked to a temporary folder, and removed from it afterwards.

  Args:
    name: of the data set, for messages.
    folder: the folder that the user gave, with the archives or unpacked.
    known: the archives by their file names. An archive is not needed if what it
      holds is in the folder.
    layout: what the folder must hold, unpacked, for messages.
    scratch: a folder on a disk with room for all of it; it need not exist.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: the folder is a file or lacks something, or an archive is
      damaged, is another one than expected, or tries to write outside its
      folder. In these cases nothing stays on the disk.
  """
  give = f"give the one with {expected(known, layout)}"
  if not folder.exists():
    raise FileNotFoundError(f"{name}: there is no folder {folder}; {give}")
  if not folder.is_dir():
    raise ValueError(f"{name}: {folder} is a file, not a folder; {give}")
  packed = _packed(name, folder, known)
  if not packed:
    yield folder
    return
  for path, archive in packed.items():
    _check_sum(name, path, archive)
  while not scratch.exists():
    scratch = scratch.parent
  writing.remove_left_overs(scratch)
  with writing.scratch(scratch, name) as temporary:
    with writing.explained(scratch):
      for path in packed:
        _unpack(name, path, temporary)
      for path in _in_place(folder, known).values():
        _copy(name, path, folder, temporary)
    yield temporary


def expected(known: Mapping[str, Archive], layout: str) -> str:
  """Says what a folder must hold; arguments as for `unpacked`."""
  return f"{' and '.join(known)} or, unpacked, {layout}" if known else layout


def fingerprint(
  folder: pathlib.Path, known: Mapping[str, Archive]
) -> str | None:
  """Hashes the archives in a folder; None if they are unpacked or missing."""
  in_place = _in_place(folder, known)
  paths = [in_place.get(name, folder / name) for name in known]
  if not paths or not all(path.is_file() for path in paths):
    return None
  digest = hashlib.sha256()
  for path in paths:
    digest.update(f"{path.name} {_hash(path, 'sha256')}\n".encode())
  return digest.hexdigest()


def _packed(
  name: str, folder: pathlib.Path, known: Mapping[str, Archive]
) -> dict[pathlib.Path, Archive]:
  """The archives to unpack: none if their contents are there."""
  in_place = _in_place(folder, known)
  packed = {
    file: archive for file, archive in known.items() if file not in in_place
  }
  missing = {
    file: archive
    for file, archive in packed.items()
    if not (folder / file).is_file()
  }
  if missing:
    raise ValueError(
      f"{name}: {folder} lacks {_wanted(missing)}; found:"
      f" {listing.contents(folder)}"
    )
  # A file, such as a list, can be put beside what is unpacked.
  if packed and not all(path.is_file() for path in in_place.values()):
    raise ValueError(
      f"{name}: some archives in {folder} are unpacked, but not"
      f" {', '.join(packed)}; unpack that as well"
    )
  return {folder / file: archive for file, archive in packed.items()}


def _in_place(
  folder: pathlib.Path, known: Mapping[str, Archive]
) -> dict[str, pathlib.Path]:
  """The path that replaces an archive, by the archive's file name."""
  found = {}
  for file, archive in known.items():
    for path in (archive.holds, *archive.instead):
      if (folder / path).exists():
        found[file] = folder / path
        break
  return found


def _copy(
  name: str, path: pathlib.Path, folder: pathlib.Path, target: pathlib.Path
) -> None:
  """Copies a file of the user's folder to the same place in another one."""
  reason = listing.why_not_readable(path, folder)
  if reason:
    raise ValueError(f"{name}: {path} {reason}")
  copy = target / path.relative_to(folder)
  copy.parent.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(path, copy)


def _wanted(known: Mapping[str, Archive]) -> str:
  return "; ".join(
    f"{file} or, unpacked,"
    f" {' or '.join((archive.holds, *archive.instead))} (download it from"
    f" {archive.source} and put it there)"
    for file, archive in known.items()
  )


def _check_sum(name: str, path: pathlib.Path, archive: Archive) -> None:
  if archive.checksum is None:
    return
  algorithm = _ALGORITHMS[len(archive.checksum)]
  found = _hash(path, algorithm)
  if found != archive.checksum:
    raise ValueError(
      f"{name}: {path} has the {algorithm} checksum {found}, but"
      f" {archive.checksum} is expected: it is damaged or another file."
      f" Download it again from {archive.source}; or, if you trust it, unpack"
      " it there yourself, and its files will be used"
    )


def _hash(path: pathlib.Path, algorithm: str) -> str:
  digest = hashlib.new(algorithm)
  with (
    path.open("rb") as file,
    tqdm.auto.tqdm(
      total=path.stat().st_size,
      desc=f"reading {path.name}",
      unit="B",
      unit_scale=True,
      disable=None,
      delay=0.5,
    ) as progress,
  ):
    while block := file.read(_BLOCK):
      digest.update(block)
      progress.update(len(block))
  return digest.hexdigest()


def _unpack(name: str, path: pathlib.Path, target: pathlib.Path) -> None:
  unpack = _unpack_zip if path.suffix == ".zip" else _unpack_tar
  try:
    with tqdm.auto.tqdm(
      desc=f"unpacking {path.name}", unit="file", disable=None, delay=0.5
    ) as progress:
      unpack(path, target, progress)
  except Exception as error:
    # Of the disk, which is not at fault of the archive; damaged gzip files have
    # errors of that kind, without a number.
    if isinstance(error, OSError) and error.errno is not None:
      raise
    # Damaged archives make Python raise errors of its formats and of their
    # compressions, RuntimeError for those with a password, NotImplementedError,
    # OverflowError, ValueError and others. It adds a line for each kind of
    # compression that it tried.
    reason = " ".join(str(error).partition(":\n")[0].split())
    raise ValueError(
      f"{name}: {path} cannot be unpacked ({reason}); download it again"
    ) from error


def _unpack_zip(
  path: pathlib.Path, target: pathlib.Path, progress: tqdm.auto.tqdm
) -> None:
  with zipfile.ZipFile(path) as file:
    progress.total = len(file.infolist())
    for member in file.infolist():
      # Python takes "..", drives and roots out of the names.
      file.extract(member, target)
      progress.update()


def _unpack_tar(
  path: pathlib.Path, target: pathlib.Path, progress: tqdm.auto.tqdm
) -> None:
  with tarfile.open(path) as file:
    for member in file:
      file.extract(member, target, filter=_without_time)
      progress.update()
    # Read to the end, where gzip has its checksum.
    while file.fileobj.read(_BLOCK):
      pass


def _without_time(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
  """What Python allows in data, and no time, which may be any number."""
  allowed = tarfile.data_filter(member, path)
  return allowed and allowed.replace(mtime=None, deep=False)
