"""The files that `fcn-jax predict` writes."""

import math
import pathlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

import fcn_jax as fcn
from fcn_jax import writing
from fcn_jax.inference import picture_files


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
