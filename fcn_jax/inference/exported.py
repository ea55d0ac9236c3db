"""Runs an exported network, without the code that made it.

This file imports nothing of fcn_jax, and every file that `exporting.export`
writes has a copy of it. Such a file needs only Python with jax, flatbuffers,
numpy and pillow:

    python network.zip street.jpg

writes the classes of street.jpg to street.jpg.classes.png. In Python:

    sys.path.insert(0, "network.zip")
    import exported

    network = exported.load("network.zip")
    classes = network.predict(images)

With fcn_jax installed: `inference.load_exported("network.zip")`.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image
from PIL import ImageOps

# Written to `metadata.json`; a change of the layout changes the number.
FORMAT = "fcn_jax exported network 1"
PROGRAMS = ("classes", "probabilities")


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedNetwork:
  """A network from a file.

  A program is compiled once for each number of images and each size, rounded up
  to multiples of `multiple_of`; with JAX's compilation cache
  (JAX_COMPILATION_CACHE_DIR), once for all processes.

  Attributes:
    class_names: C names.
    palette: [C, 3] uint8, RGB of each class.
    resize: the factor by which pictures were resized for training; `predict`
      expects pictures of that scale, and `segment` resizes them.
    multiple_of: the programs take heights and widths that are multiples of it.
    metadata: the whole content of `metadata.json`.
  """

  class_names: tuple[str, ...]
  palette: np.ndarray
  resize: float
  multiple_of: int
  metadata: dict[str, Any]
  _variables: dict[str, jax.Array] = dataclasses.field(repr=False)
  _programs: dict[str, Callable[..., jax.Array]] = dataclasses.field(repr=False)

  def predict(self, images: np.ndarray) -> np.ndarray:
    """The likeliest class of every pixel.

    Args:
      images: [N, H, W, 3] uint8, RGB; any size.

    Returns:
      [N, H, W] uint8, classes 0..C-1.

    Raises:
      ValueError: if the images have another shape or type.
    """
    return self._run("classes", images)

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Probabilities of the classes at every pixel: [N, H, W, C] float32.

    Arguments and errors are those of `predict`.
    """
    return self._run("probabilities", images)

  def segment(self, picture: np.ndarray) -> np.ndarray:
    """The classes of one picture, resized as for training.

    The probabilities are resized to the picture's own size, and the largest is
    taken there.

    Args:
      picture: [H, W, 3] uint8, RGB, of its own size.

    Returns:
      [H, W] uint8, classes 0..C-1.

    Raises:
      ValueError: if the picture has another shape or type.
    """
    _check(picture, "picture", ("H", "W", 3))
    size = (picture.shape[1], picture.shape[0])
    resized = tuple(max(1, round(side * self.resize)) for side in size)
    if resized == size:
      return self.predict(picture[None])[0]
    seen = _resize(picture, resized)
    (probabilities,) = self.probabilities(seen[None])
    planes = [
      _resize(plane, size) for plane in np.moveaxis(probabilities, 2, 0)
    ]
    return np.argmax(planes, axis=0).astype(np.uint8)

  def _run(self, program, images):
    _check(images, "images", ("N", "H", "W", 3))
    num_images, *size, _ = images.shape
    missing = [(0, -side % self.multiple_of) for side in size]
    padded = np.pad(images, ((0, 0), *missing, (0, 0)))
    # The program knows the size and does not see the padding.
    sizes = np.full((num_images, 2), size, np.int32)
    values = self._programs[program](self._variables, padded, sizes)
    return np.asarray(values)[:, : size[0], : size[1]]


def _check(array, name, shape):
  fits = len(array.shape) == len(shape) and array.shape[-1] == 3
  if not fits or array.dtype != np.uint8 or 0 in array.shape:
    raise ValueError(
      f"{name} must be [{', '.join(map(str, shape))}] uint8, RGB, not "
      f"{list(array.shape)} {array.dtype}."
    )


def _resize(array, size):
  image = Image.fromarray(np.ascontiguousarray(array))
  return np.array(image.resize(size, Image.Resampling.BILINEAR))


def load(path: str | pathlib.Path) -> ExportedNetwork:
  """Loads a network that `exporting.export` has written.

  Load only files from someone you trust. No pickle is read and no Python of the
  file is run, but JAX warns that an exported program may call any native
  function of jaxlib.

  A file does not last: JAX only promises to run programs from versions up to
  six months older or three weeks newer. Export again from the run when you
  install another JAX.

  Args:
    path: the file.

  Raises:
    ValueError: if the file is damaged, of another kind, or of another JAX.
  """
  path = pathlib.Path(path)
  with path.open("rb") as stream:
    try:
      about, variables, programs = _read(stream)
    except Exception as error:  # zipfile and NumPy raise many kinds.
      raise ValueError(
        f"{path} is not a network that this program can read, or it is damaged "
        f"({error!r}): export it again."
      ) from error
  try:
    calls = {
      name: jax.jit(jax.export.deserialize(bytearray(program)).call)
      for name, program in programs.items()
    }
  except ImportError:  # The error names the package to install.
    raise
  except Exception as error:  # JAX does not say which it raises.
    raise ValueError(
      f"{path} was exported by JAX {about['metadata'].get('jax')}, and JAX "
      f"{jax.__version__} cannot read it ({error!r}): export it again."
    ) from error
  return ExportedNetwork(
    **about, _variables=jax.device_put(variables), _programs=calls
  )


def _read(stream):
  """The public fields of the network, its variables and its programs."""
  with zipfile.ZipFile(stream) as file:
    metadata = json.loads(file.read("metadata.json"))
    if metadata["format"] != FORMAT:
      raise ValueError(f"its format is {metadata['format']!r}")
    about = {
      "class_names": tuple(metadata["class_names"]),
      "palette": np.array(metadata["palette"], np.uint8),
      "resize": float(metadata["resize"]),
      "multiple_of": int(metadata["multiple_of"]),
      "metadata": metadata,
    }
    variables = {name: _array(file, name) for name in metadata["variables"]}
    programs = {name: file.read(f"{name}.jax_export") for name in PROGRAMS}
  return about, variables, programs


def _array(file, name):
  with file.open(f"variables/{name}.npy") as stream:
    array = np.lib.format.read_array(stream, allow_pickle=False)
    stream.read()  # Read to the end, where the checksum is compared.
  return array


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes the classes of pictures, with the network that this file is in."""
  network_file = pathlib.Path(__file__).parent
  parser = argparse.ArgumentParser(
    prog=f"python {network_file.name}",
    description="Writes the classes of each picture to PICTURE.classes.png.",
  )
  parser.add_argument("pictures", nargs="+", type=pathlib.Path)
  pictures = parser.parse_args(arguments).pictures
  try:
    network = load(network_file)
    for path in pictures:
      target = path.with_name(f"{path.name}.classes.png")
      with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert("RGB")
      mask = Image.fromarray(network.segment(np.asarray(picture)))
      mask.putpalette(network.palette.tobytes())
      with target.open("xb") as file:  # Never overwrites.
        mask.save(file, format="PNG")
      print(target)
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1) from error
