"""The files of `fcn-jax predict`: the pictures, and what is written."""

import collections
import glob
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

import fcn_jax as fcn
from fcn_jax import writing

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


class Outputs(NamedTuple):
  """Files that are written for a picture."""

  classes: pathlib.Path
  overlay: pathlib.Path
  probabilities: pathlib.Path | None


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
      faults.append(f"{argument} {_why_nothing(argument)}")
    for picture in found:
      pictures.setdefault(picture.path.resolve(), picture)
  check(faults)
  by_name = collections.defaultdict(list)
  for picture in pictures.values():
    # Some file systems do not distinguish a from A.
    by_name[picture.name.casefold()].append(picture)
  check(
    f"{' and '.join(str(picture.path) for picture in same)} would both be "
    f"{same[0].name} (rename one, or predict them into two folders)"
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
      if file.suffix.lower() in fcn.data.files.decoding.SUFFIXES
      and file.is_file()
      and not any(part.startswith(".") for part in file.relative_to(path).parts)
      and not file.resolve().is_relative_to(out.resolve())
    ]
  paths = [path] if path.exists() else glob.glob(argument, recursive=True)
  files = map(pathlib.Path, sorted(map(str, paths)))
  return [Picture(file, file.stem) for file in files if file.is_file()]


def _why_nothing(argument: str) -> str:
  if pathlib.Path(argument).is_dir():
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


def outputs(
  picture: Picture, out: pathlib.Path, probabilities: bool
) -> Outputs:
  """What is written for a picture."""
  return Outputs(
    classes=out / "classes" / f"{picture.name}.png",
    overlay=out / "overlays" / f"{picture.name}.jpg",
    probabilities=(
      out / "probabilities" / f"{picture.name}.npz" if probabilities else None
    ),
  )


def write_classes(
  path: pathlib.Path, classes: np.ndarray, palette: np.ndarray
) -> None:
  """Writes class indices as a PNG with a palette.

  Args:
    path: file to write.
    classes: [H, W] uint8.
    palette: [C, 3] uint8, RGB.
  """
  picture = PIL.Image.fromarray(np.asarray(classes))
  colors = fcn.visualize.colorize(np.arange(256), palette)
  picture.putpalette(colors.tobytes())
  picture.save(path, format="PNG")


def array_on_disk(
  path: pathlib.Path, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> np.memmap:
  """Makes an array in a new file.

  Raises:
    WriteError: if there is no room for it.
  """
  writing.create(path, size=math.prod(shape) * np.dtype(dtype).itemsize)
  return np.memmap(path, dtype, "r+", shape=shape)


def publish(
  file: pathlib.Path, path: pathlib.Path, *, overwrite: bool = False
) -> None:
  """Gives a finished file its name, in a folder that is made if need be.

  Args:
    file: on the same file system.
    path: its new name.
    overwrite: whether to replace a file of that name.

  Raises:
    FileExistsError: if there is a file of that name.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  writing.publish(file, path, replace=overwrite)
