"""What is stored in a picture file, before anybody interprets it.

Programs that read pictures scale, invert and convert what they find. That suits
pictures, but not class ids, and not 16 bits. `tiff` and `pillow_formats`
therefore return the stored numbers; `decoding` says what they mean.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

# The first bytes of TIFF and BigTIFF.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Pixels that are handled at a time where a step needs much memory for each.
_STRIP = 1 << 20
# Bytes that the samples in a file may take for each pixel of Pillow's limit:
# three channels of 16 bits. A small file can claim any number of channels.
_BYTES_PER_PIXEL = 6


class Raster(NamedTuple):
  """The samples of a picture as they are in its file, turned upright.

  Attributes:
    samples: [H, W], or [H, W, 3] for "rgb" and [H, W, 4] for "cmyk"; uint8 if
      the file has up to 8 bits a channel, otherwise as the file says.
    kind: "grey", "palette", "rgb" or "cmyk".
    white: the sample that is full intensity, such as 15 for 4 bits; for more
      than 8 bits, the largest that fits.
    palette: [K, 3] uint8, RGB, if the samples are its indices.
    inverted: whether 0 is white.
    dropped: which channels of the file are left out, such as "alpha"; empty if
      none is, or if alpha is opaque everywhere.
    varied_alpha: whether an alpha channel that is left out has several values.
    not_ids: why the samples cannot be the class ids that somebody saved, and
      what to do; empty if they can.
  """

  samples: np.ndarray
  kind: str
  white: int
  palette: np.ndarray | None = None
  inverted: bool = False
  dropped: str = ""
  varied_alpha: bool = False
  not_ids: str = ""


class Header(NamedTuple):
  """What a file says of itself, before its samples are decoded.

  Attributes:
    size: height and width as they are stored.
    bits: of the deepest channel.
    channels: how many, alpha included.
    orientation: 1 to 8, as in EXIF.
  """

  size: tuple[int, int]
  bits: int
  channels: int
  orientation: int


class FileFault(ValueError):
  """What is wrong with a file, in words to follow its name."""


class TooLarge(FileFault):
  """A picture has more pixels than it may have."""


class UnreadKind(FileFault):
  """A file may be whole, but pictures of its kind are not read."""


class NoWhite(UnreadKind):
  """Nobody has said which value is white."""


def several() -> UnreadKind:
  """The fault of a file with more than one picture."""
  return UnreadKind(
    "has several frames or pages; save the one that you need as a separate"
    " picture"
  )


@contextlib.contextmanager
def explained() -> Iterator[None]:
  """Turns whatever a reader raises into a `FileFault`.

  Broken files make them raise OSError, SyntaxError, ValueError, IndexError,
  zlib.error, struct.error and others.
  """
  try:
    yield
  except FileFault:
    raise
  except MemoryError as error:
    raise FileFault(
      "needs more memory than there is; cut it into tiles"
    ) from error
  except Image.DecompressionBombError as error:
    # Some of Pillow's formats compare with its own limit.
    reason = str(error).rstrip(".")
    raise FileFault(
      f"has more pixels than Pillow reads in this format ({reason}); cut it"
      " into tiles, or save it as PNG"
    ) from error
  except Exception as error:
    # Pillow names the buffer that it read from, which means nothing to users.
    reason = " ".join(str(error).partition(" <_io.BytesIO")[0].split())
    raise FileFault(
      f"cannot be read as a picture ({reason}); copy or download it again"
    ) from error


def check_size(
  width: int,
  height: int,
  max_pixels: int | None,
  *,
  bytes_per_pixel: int = 1,
) -> None:
  """Raises `TooLarge` if a picture has more pixels than it may have.

  Args:
    width: of the picture.
    height: of the picture.
    max_pixels: how many it may have; None for Pillow's limit, above which
      Pillow itself only warns.
    bytes_per_pixel: of all channels together.
  """
  limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
  if limit is None:
    return
  if width * height > limit:
    raise TooLarge(
      f"is too large: {width}x{height} pixels (width x height), more than"
      f" {limit} in all; cut it into tiles"
    )
  if width * height * bytes_per_pixel > limit * _BYTES_PER_PIXEL:
    raise TooLarge(
      f"is too large: {width}x{height} pixels (width x height) of"
      f" {bytes_per_pixel} bytes, more than {limit * _BYTES_PER_PIXEL} bytes"
      " in all; cut it into tiles, or leave out bands"
    )


def strips(height: int, width: int) -> Iterator[slice]:
  """Rows of a picture, so many that they have about a million pixels."""
  rows = max(1, _STRIP // max(1, width))
  for start in range(0, height, rows):
    yield slice(start, min(start + rows, height))


def array_of(image: Image.Image, mode: str | None = None) -> np.ndarray:
  """The pixels of a picture of Pillow, a new array.

  `np.array(image)` needs memory for three copies, this for one.

  Args:
    image: a picture that is loaded.
    mode: to convert it to.
  """
  result = None
  for rows in strips(image.height, image.width):
    strip = image.crop((0, rows.start, image.width, rows.stop))
    if mode is not None and strip.mode != mode:
      strip = strip.convert(mode)
    pixels = np.asarray(strip)
    if result is None:
      shape = (image.height, *pixels.shape[1:])
      result = np.empty(shape, pixels.dtype)
    result[rows] = pixels
  return result


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
  """Turns samples as EXIF asks for.

  Args:
    samples: [H, W] or [H, W, C].
    orientation: 1 to 8, the tag "Orientation" of EXIF and TIFF.
  """
  if orientation in (5, 6, 7, 8):
    samples = samples.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    samples = samples[::-1]
  if orientation in (2, 3, 6, 7):
    samples = samples[:, ::-1]
  return np.ascontiguousarray(samples)
