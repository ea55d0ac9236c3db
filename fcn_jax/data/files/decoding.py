"""Encodes and decodes pictures and masks, and says what is wrong with them.

Pillow does all the work. TFDS would decode with TensorFlow or OpenCV, whichever
it finds, and these two disagree about masks with a colour palette.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL import ImageOps

# Suffixes of pictures, in lower case.
SUFFIXES = (
  ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff",
  ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif",
)  # fmt: skip

# The formats that a file may have, whatever its name: only formats of pictures.
# Pillow knows others that start programs (EPS) or hold something else. It opens
# MPO, which phones use, as JPEG.
_FORMATS = (
  "PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000",
  "AVIF",
)  # fmt: skip
# These formats change the values of pixels, so ids are lost.
_LOSSY = ("JPEG", "MPO", "AVIF")

_EXIF_ORIENTATION = 0x0112


def encode_png(array: np.ndarray) -> bytes:
  """Returns a PNG file.

  Args:
    array: [H, W] uint8 (grey) or [H, W, 3] uint8 (RGB).
  """
  buffer = io.BytesIO()
  # Level 1 takes a third of the time of the default for a tenth more bytes.
  Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
  return buffer.getvalue()


def decode_picture(
  content: bytes, *, white: int | None = None, first_frame: bool = False
) -> np.ndarray:
  """Decodes a picture to RGB, rotated according to its EXIF data.

  Grey, palette, CMYK and other colours are converted; transparency is dropped.

  Args:
    content: the bytes of a file in any common format.
    white: for grey pictures of 16 bits, the value that becomes 255, as larger
      ones do. None refuses such pictures.
    first_frame: whether to take the first picture of an animation; otherwise
      animations are refused.

  Returns:
    [H, W, 3] uint8.

  Raises:
    ValueError: the content is empty, broken, no picture, animated or too large,
      or has more than 8 bits a channel and no `white`.
  """
  return rgb_of(_load(content, first_frame=first_frame), white=white)


def rgb_of(image: Image.Image, *, white: int | None = None) -> np.ndarray:
  """Converts a picture to RGB as `decode_picture` does, but for its turn.

  Raises:
    ValueError: the picture has more than 8 bits a channel and no `white`.
  """
  if image.mode.startswith(("I", "F")):
    if white is None or image.mode == "F":
      raise ValueError(
        f"has more than 8 bits a channel (Pillow's mode {image.mode!r}), which"
        " would be cut off; convert it to 8 bits"
      )
    grey = np.minimum(np.asarray(image), white) * (255.0 / white)
    image = Image.fromarray(np.round(grey).clip(0).astype(np.uint8))
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")  # Pillow needs this step.
  # Converting a picture that is already RGB would copy it.
  return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def is_plain(content: bytes) -> bool:
  """Whether a picture is PNG or JPEG with 8-bit channels, to store as it is.

  Args:
    content: the bytes of a file that `decode_picture` can decode.
  """
  image = _open(content, first_frame=True)
  deep = image.mode.startswith(("I", "F"))
  plain = image.format == "PNG" and not getattr(image, "is_animated", False)
  return (plain or image.format in ("JPEG", "MPO")) and not deep


def deepest_value(content: bytes) -> int | None:
  """The largest value in a grey picture of 16 bits; None for other pictures.

  Raises:
    ValueError: see `decode_picture`.
  """
  if not _open(content).mode.startswith("I"):
    return None
  return int(np.asarray(_load(content)).max())


def decode_mask(content: bytes) -> np.ndarray:
  """Decodes a mask whose pixel values are class ids.

  Args:
    content: the bytes of a file, grey or with a colour palette; the indices of
      a palette are the ids. Ids are those in the file: 4-bit grey has 0..15.

  Returns:
    [H, W] uint8.

  Raises:
    ValueError: the content is empty, broken, no picture, in a lossy format, has
      colours in place of ids, or ids above 255.
  """
  return ids_of(decode_values(content))


def ids_of(values: np.ndarray) -> np.ndarray:
  """Class ids [H, W] uint8 from what `decode_values` returns.

  Raises:
    ValueError: the values are colours, or above 255.
  """
  if values.ndim == 3:
    raise ValueError(
      "is not a mask of class ids: it has colours instead of grey values or a"
      " palette; convert it so that each pixel holds its class id"
    )
  if values.max() > 255:
    raise ValueError(f"has the value {values.max()}; class ids are at most 255")
  return values.astype(np.uint8)


def decode_labels(
  content: bytes, labels: Sequence[int], reason: str
) -> np.ndarray:
  """Decodes a mask, and maps its values to labels.

  Args:
    content: as for `decode_mask`.
    labels: the label of the values 0, 1, 2, ...; -1 for a value that masks must
      not have. They must not have larger values either.
    reason: what is wrong with such values; follows them in the message.

  Returns:
    [H, W] uint8.

  Raises:
    ValueError: as `decode_mask`, or the mask has other values.
  """
  mask = decode_mask(content)
  table = np.full(256, -1, np.int16)
  table[: len(labels)] = labels
  known = table >= 0
  if not known[mask].all():
    wrong = [value for value in np.unique(mask).tolist() if not known[value]]
    raise ValueError(f"has the values {wrong[:8]}{reason}")
  return table.astype(np.uint8)[mask]


def decode_values(content: bytes) -> np.ndarray:
  """Decodes a mask to numbers or colours.

  Args:
    content: the bytes of a file in any common format that loses nothing.

  Returns:
    [H, W] uint8 or uint16, the grey values or palette indices in the file; or
    [H, W, 3] uint8, RGB.

  Raises:
    ValueError: the content is empty, broken, no picture, animated, too large,
      in a lossy format, or has fractions or more than 16 bits a channel.
  """
  image = _load(content)
  # Pillow spreads fewer bits over 0..255. Their number is in PNG's header.
  is_grey_png = image.format == "PNG" and image.mode in ("L", "LA")
  return values_of(image, bits=content[24] if is_grey_png else 8)


def values_of(image: Image.Image, *, bits: int = 8) -> np.ndarray:
  """The values of a mask in Pillow's memory, see `decode_values`.

  Args:
    image: the mask.
    bits: of grey values in the file.

  Raises:
    ValueError: the mask has fractions or more than 16 bits a channel, or is
      from a file in a lossy format.
  """
  if image.format in _LOSSY or image.info.get("lossy"):
    raise ValueError(
      f"is a mask in the lossy format {image.format}, which changes class ids"
      " at every edge; save masks as PNG in the program that made them"
    )
  if image.mode == "F":
    raise ValueError("has fractional values; save class ids as integers")
  if image.mode == "1":
    return np.array(image, np.uint8)
  if image.mode.startswith("I"):
    values = np.array(image)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
      raise ValueError(
        f"has values from {values.min()} to {values.max()}; class ids are in"
        " 0..65535"
      )
    return values.astype(np.uint16)
  if image.mode in ("L", "LA"):
    grey = np.array(image.getchannel(0))
    return grey // (255 // (2**bits - 1)) if bits < 8 else grey
  if image.mode == "P":
    return np.array(image)
  return np.array(image.convert("RGB"))


def mask_palette(content: bytes) -> np.ndarray | None:
  """The palette of a mask, [K, 3] uint8 RGB; None if it has none.

  Raises:
    ValueError: the file cannot be read, as for `decode_values`.
  """
  image = _load(content)
  if image.mode != "P":
    return None
  palette = np.array(image.getpalette("RGB"), np.uint8)
  return palette.reshape(-1, 3)


def _open(content: bytes, *, first_frame: bool = False) -> Image.Image:
  """Opens a picture without decoding it; one kind of error for all faults."""
  if not content:
    raise ValueError("is empty (0 bytes); copy or download it again")
  try:
    image = Image.open(io.BytesIO(content), formats=_FORMATS)
  except Image.DecompressionBombError as error:
    reason = str(error).rstrip(".")
    raise ValueError(f"is too large: {reason}; cut it into tiles") from error
  # Broken files make Pillow raise OSError, SyntaxError, ValueError, zlib.error,
  # struct.error and others.
  except Exception as error:
    raise ValueError(_unreadable(error)) from error
  # Pillow itself refuses only above twice its limit. The caller may have
  # changed the limit.
  limit = Image.MAX_IMAGE_PIXELS
  if limit is not None and image.width * image.height > limit:
    raise ValueError(
      f"is too large: {image.width}x{image.height} pixels (width x height),"
      f" more than {limit} in all; cut it into tiles"
    )
  # Phones store a second picture for depth behind the first (MPO).
  several = image.format != "MPO" and getattr(image, "is_animated", False)
  if several and not first_frame:
    raise ValueError(
      f"has {image.n_frames} frames or pages; save the one that you need as a"
      " separate picture"
    )
  return image


def _load(content: bytes, *, first_frame: bool = False) -> Image.Image:
  """Opens, decodes and turns upright."""
  image = _open(content, first_frame=first_frame)
  image_format = image.format
  try:
    image.load()
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
      image = ImageOps.exif_transpose(image)
  except Exception as error:  # As in `_open`.
    raise ValueError(_unreadable(error)) from error
  image.format = image_format  # Lost if the picture was rotated.
  return image


def _unreadable(error: Exception) -> str:
  # Pillow names the buffer that it read from, which means nothing to the user.
  reason = str(error).partition(" <_io.BytesIO")[0]
  return f"cannot be read as a picture ({reason}); copy or download it again"
