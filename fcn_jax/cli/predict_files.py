"""The files that `fcn-jax predict` writes.

While it writes, a journal in the folder says which files it may make and how.
If it ends early, the same command finds the journal, and knows these files from
those of others.
"""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

import fcn_jax as fcn
from fcn_jax import writing
from fcn_jax.inference import picture_files
from fcn_jax.runs import records

JOURNAL_FILE = ".predict.json"
# The folder that is made first.
CLASSES = "classes"


class Outputs(NamedTuple):
  """Files that are written for a picture."""

  classes: pathlib.Path
  overlay: pathlib.Path
  probabilities: pathlib.Path | None


def outputs(
  picture: picture_files.Picture, out: pathlib.Path, probabilities: bool
) -> Outputs:
  """What is written for a picture."""
  return Outputs(
    classes=out / CLASSES / f"{picture.name}.png",
    overlay=out / "overlays" / f"{picture.name}.jpg",
    probabilities=(
      out / "probabilities" / f"{picture.name}.npz" if probabilities else None
    ),
  )


def names_begun(out: pathlib.Path, facts: Mapping[str, Any]) -> set[str]:
  """Names of pictures whose files an early end may have left.

  Args:
    out: the folder of the files.
    facts: which network, and how it predicts.

  Returns:
    The names; none if no prediction ended early here, or one of other facts.

  Raises:
    ValueError: the journal is damaged.
  """
  path = out / JOURNAL_FILE
  if not path.exists():
    return set()
  try:
    journal = records.read_json(path)
    names, before = {*journal["names"]}, journal["facts"]
  except (ValueError, TypeError, KeyError):
    raise ValueError(
      f"{path} is damaged: remove it. Files that exist then need --overwrite, "
      "or another --out."
    ) from None
  return names if before == json.loads(json.dumps(facts)) else set()


@contextlib.contextmanager
def journal(
  out: pathlib.Path, facts: Mapping[str, Any], names: Iterable[str]
) -> Iterator[None]:
  """Keeps a journal in a folder until all files are written; see `names_begun`.

  Args:
    out: the folder, which exists.
    facts: which network, and how it predicts.
    names: of the pictures.

  Raises:
    WriteError: it cannot be written.
  """
  path = out / JOURNAL_FILE
  records.write_json(path, {"facts": facts, "names": sorted(names)})
  try:
    yield
  except BaseException:
    if not (out / CLASSES).exists():
      path.unlink()
    raise
  path.unlink()


def are_done(paths: Outputs, picture: pathlib.Path) -> bool:
  """Whether all files of a picture are there, and newer than the picture."""
  return all(
    path.exists() and path.stat().st_mtime_ns > picture.stat().st_mtime_ns
    for path in paths
    if path is not None
  )


def count(path: pathlib.Path) -> np.ndarray:
  """[256] pixels of each class in a file of classes."""
  with PIL.Image.open(path, formats=["PNG"]) as picture:
    return np.array(picture.histogram())


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
