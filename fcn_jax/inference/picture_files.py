"""The pictures that somebody asks a network about: finds and reads them.

Exported networks contain this module, too, so that they find and read the same
pictures as `fcn-jax predict`.
"""

import collections
import glob
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fcn_jax import reprs
from fcn_jax.data.files import decoding
from fcn_jax.data.files import other_kinds
from fcn_jax.data.files import rasters

# A message names at most this many faults.
_MAX_FAULTS = 20


class Picture(NamedTuple):
  """A picture to predict.

  Attributes:
    path: of its file.
    name: of what is written for it, a path without suffix.
  """

  path: pathlib.Path
  name: str


def find(arguments: Sequence[str], out: pathlib.Path) -> list[Picture]:
  """The pictures that files, folders and patterns name, each once.

  Args:
    arguments: paths of files, paths of folders (with all pictures in them and
      in their subfolders), or patterns such as `shots/**/*.jpg`.
    out: folder for the results, which is not searched for pictures.

  Raises:
    ValueError: there is no argument, an argument matches no picture, or two
      pictures have the same name.
  """
  if not arguments:
    raise ValueError("name the pictures: files, folders or patterns.")
  pictures, faults = {}, []
  for argument in arguments:
    found = _find(argument, out)
    if not found:
      faults.append(f"{reprs.path(argument)} {_why_nothing(argument)}")
    for picture in found:
      pictures.setdefault(picture.path.resolve(), picture)
  check(faults)
  by_name = collections.defaultdict(list)
  for picture in pictures.values():
    # Some file systems do not distinguish a from A.
    by_name[picture.name.casefold()].append(picture)
  check(
    f"{' and '.join(reprs.path(one.path) for one in same)} would both be "
    f"{reprs.path(same[0].name)} (rename one, or predict them into two folders)"
    for same in by_name.values()
    if len(same) > 1
  )
  return list(pictures.values())


def _find(argument: str, out: pathlib.Path) -> list[Picture]:
  path = pathlib.Path(argument)
  if path.is_dir():
    return [
      Picture(file, str(file.relative_to(path).with_suffix("")))
      for file in sorted(path.rglob("*"))
      if file.suffix.lower() in decoding.SUFFIXES + other_kinds.STILLS
      and file.is_file()
      and not any(part.startswith(".") for part in file.relative_to(path).parts)
      and not file.resolve().is_relative_to(out.resolve())
    ]
  paths = [path] if path.exists() else glob.glob(argument, recursive=True)
  files = map(pathlib.Path, sorted(map(str, paths)))
  return [Picture(file, file.stem) for file in files if file.is_file()]


def _why_nothing(argument: str) -> str:
  if pathlib.Path(argument).is_dir():
    for file in sorted(pathlib.Path(argument).rglob("*")):
      kind = other_kinds.of_name(file.name)
      if kind is not None:
        there = f"{reprs.path(file)} {kind.reason}"
        return f"is a folder without pictures; in it, {there}"
    return "is a folder without pictures"
  if glob.has_magic(argument):
    return "is a pattern that matches no file"
  return "does not exist"


def check(faults) -> None:
  """Raises a `ValueError` that names all faults, if there are any."""
  faults = list(faults)
  if faults:
    more = len(faults) - _MAX_FAULTS
    named = "; ".join(faults[:_MAX_FAULTS])
    and_more = f"; and {more} more" if more > 0 else ""
    raise ValueError(f"nothing was written, as {named}{and_more}.")


def max_pixels(megapixels: float) -> int:
  """How many pixels a picture may have, from an option in millions.

  Raises:
    ValueError: if it is not above 0, or no number.
  """
  if not 0 < megapixels < float("inf"):
    raise ValueError(
      f"max_megapixels is {megapixels}; give a number of millions above 0."
    )
  return int(megapixels * 1e6)


def read(
  path: pathlib.Path, *, white: float | None, max_pixels: int
) -> np.ndarray:
  """A picture, [H, W, 3] uint8, RGB, upright.

  Args:
    path: its file.
    white: see `decoding.decode_picture`.
    max_pixels: see `decoding.decode_picture`.

  Raises:
    ValueError: it cannot be read; the message is to follow the file's name.
  """
  try:
    return decoding.decode_picture(
      path.read_bytes(), white=white, other_white=white, max_pixels=max_pixels
    )
  except rasters.TooLarge as error:
    raise ValueError(f"{error}, or raise --max-megapixels") from error
  except rasters.NoWhite as error:
    raise ValueError(f"{error}, or give --white") from error
  except MemoryError as error:
    raise ValueError("needs more memory than there is; cut it") from error
  except OSError as error:
    reason = error.strerror or error
    raise ValueError(f"cannot be opened ({reason})") from error
