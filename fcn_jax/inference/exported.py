"""Runs an exported network, without the code that made it.

Every file that `exporting.export` writes has a copy of this module, and of the
modules that it imports. Such a file needs only Python with jax, flatbuffers,
numpy and pillow; TIFF files and pictures of 16 bits also need tifffile and
imagecodecs.

    python network.zip street.jpg --overlay

writes the classes of street.jpg to segmented/classes/street.png, and the
picture, painted, to segmented/overlays/street.jpg. Pictures are read, and
refused, as by `fcn-jax predict`. In Python:

    sys.path.insert(0, "network.zip")
    import exported

    network = exported.load("network.zip")
    picture = exported.read_picture(content)  # The bytes of a file.
    classes = network.segment(picture)

A server that gets pictures of many sizes prepares for them, see `for_sizes` and
docs/serving.md:

    network = network.for_sizes([(768, 1024), (2048, 2048)])
    network.warm_up()

With fcn_jax installed: `inference.load_exported("network.zip")`.
"""

import dataclasses
import functools
import json
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from fcn_jax.data.files import decoding
from fcn_jax.data.files import rasters
from fcn_jax.inference import buckets
from fcn_jax.inference import exported_command
from fcn_jax.inference import picture_files
from fcn_jax.visualize import overlays

# Written to `metadata.json`; a change of the layout changes the number.
FORMAT = "fcn_jax exported network 1"
PROGRAMS = ("classes", "probabilities")
# What `read_picture` raises, for servers that answer each in its own way.
TooLarge = rasters.TooLarge
UnreadKind = rasters.UnreadKind


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedNetwork:
  """A network from a file.

  A program is compiled once for each number of images and each size, rounded up
  to multiples of `multiple_of`; see `for_sizes` for fewer. With JAX's
  compilation cache (JAX_COMPILATION_CACHE_DIR), it is compiled once for all
  processes. Threads may share a network.

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
  _buckets: buckets.Buckets = buckets.Buckets()

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
    size = picture.shape[:2]
    seen_size = self._seen(size)
    if seen_size == size:
      return self.predict(picture[None])[0]
    seen = _resize(picture, seen_size)
    (probabilities,) = self.probabilities(seen[None])
    planes = [
      _resize(plane, size) for plane in np.moveaxis(probabilities, 2, 0)
    ]
    return np.argmax(planes, axis=0).astype(np.uint8)

  def overlay(self, picture: np.ndarray, classes: np.ndarray) -> Image.Image:
    """The picture painted with its classes, with a legend.

    Args:
      picture: as for `segment`.
      classes: [H, W] uint8, as from `segment`.
    """
    return overlays.labelled(picture, classes, self.class_names, self.palette)

  def for_sizes(
    self,
    sizes: Sequence[tuple[int, int]],
    *,
    max_programs: int = buckets.MAX_PROGRAMS,
  ) -> "ExportedNetwork":
    """The same network, with few shapes of arrays for pictures of these sizes.

    Its results are the same up to rounding. A picture that fits into none of
    the arrays still gets a program of its own.

    Args:
      sizes: height and width of pictures as `segment` takes them, each as often
        as it is expected.
      max_programs: for how many shapes a program is compiled at most, see
        `buckets`.

    Raises:
      ValueError: if `max_programs` is less than 1.
    """
    chosen = buckets.choose(
      [self._needs(self._seen(size)) for size in sizes],
      [height > width for height, width in sizes],
      max_programs=max_programs,
    )
    return dataclasses.replace(self, _buckets=chosen)

  @property
  def shapes(self) -> list[tuple[int, int]]:
    """Height and width of the arrays of `for_sizes`."""
    return [shape for (shape,) in self._buckets.entries]

  def fits(self, size: tuple[int, int]) -> bool:
    """Whether a picture of a height and a width fits into one of `shapes`."""
    needs = self._needs(self._seen(size))
    if self._buckets.is_sideways(size):
      needs = (needs[0][::-1],)
    return self._buckets.smallest(needs) is not None

  def warm_up(self) -> None:
    """Compiles what `segment` needs for `shapes`, before the first picture."""
    program = PROGRAMS[0] if self.resize == 1 else PROGRAMS[1]
    for height, width in self.shapes:
      image = np.zeros((1, height, width, 3), np.uint8)
      sizes = np.array([[height, width]], np.int32)
      jax.block_until_ready(
        self._programs[program](self._variables, image, sizes)
      )
    if self._buckets.sideways:
      jax.block_until_ready(self._exchanged)

  @functools.cached_property
  def _exchanged(self):
    """The variables for pictures that are predicted sideways."""
    return buckets.exchanged(self._variables)

  def _seen(self, size):
    """Height and width at which the network sees a picture."""
    height, width = (max(1, round(side * self.resize)) for side in size)
    return height, width

  def _needs(self, size):
    height, width = (-(-side // self.multiple_of) for side in size)
    return ((height * self.multiple_of, width * self.multiple_of),)

  def _run(self, program, images):
    _check(images, "images", ("N", "H", "W", 3))
    is_sideways = self._buckets.is_sideways(images.shape[1:3])
    variables = self._variables
    if is_sideways:
      images, variables = np.swapaxes(images, 1, 2), self._exchanged
    num_images, *size, _ = images.shape
    needs = self._needs(size)
    (shape,) = self._buckets.smallest(needs) or needs
    missing = [
      (0, side - filled) for side, filled in zip(shape, size, strict=True)
    ]
    padded = np.pad(images, ((0, 0), *missing, (0, 0)))
    # The program knows the size and does not see the padding.
    sizes = np.full((num_images, 2), size, np.int32)
    values = self._programs[program](variables, padded, sizes)
    found = np.asarray(values)[:, : size[0], : size[1]]
    return np.swapaxes(found, 1, 2) if is_sideways else found


def _check(array, name, shape):
  fits = len(array.shape) == len(shape) and array.shape[-1] == 3
  if not fits or array.dtype != np.uint8 or 0 in array.shape:
    raise ValueError(
      f"{name} must be [{', '.join(map(str, shape))}] uint8, RGB, not "
      f"{list(array.shape)} {array.dtype}."
    )


def _resize(array, size):
  """Resizes an array to a height and a width."""
  image = Image.fromarray(np.ascontiguousarray(array))
  return np.array(image.resize(size[::-1], Image.Resampling.BILINEAR))


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
        f"({repr(error)[:200]}): export it again."
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
      f"{jax.__version__} cannot read it ({repr(error)[:200]}): export it "
      "again."
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


def read_picture(
  content: bytes, *, white: float | None = None, max_megapixels: float = 250.0
) -> np.ndarray:
  """Decodes a picture by the rules of `fcn-jax predict`.

  Only formats of pictures are opened, whatever the file is called. Threads may
  decode at the same time.

  Args:
    content: the bytes of its file.
    white: for pictures of more than 8 bits a channel, the value of white; None
      refuses them.
    max_megapixels: larger pictures are refused before they are decoded.

  Returns:
    [H, W, 3] uint8, RGB, upright.

  Raises:
    ValueError: what is wrong with the file, to be read after its name;
      `TooLarge` if it has too many pixels; `UnreadKind` if it may be whole, but
      is of a kind that is not read, such as PostScript, or 16 bits without
      `white`.
  """
  return decoding.decode_picture(
    content,
    white=white,
    other_white=white,
    max_pixels=picture_files.max_pixels(max_megapixels),
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes the classes of pictures, with the network that this file is in."""
  network_file = pathlib.Path(__file__).parent
  exported_command.main(network_file, load, arguments)
