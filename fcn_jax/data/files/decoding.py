"""Encodes and decodes pictures and masks, and says what is wrong with them.

`tiff` and `pillow_formats` read what is stored; this module says what it means
for a picture and for a mask. docs/file_formats.md lists what is accepted. TFDS
would decode with TensorFlow or OpenCV, whichever it finds, and these two
disagree about masks with a colour palette.

Exported networks contain this module and those that it imports, so that they
read the same pictures. Besides Pillow, their libraries are imported where they
are needed.
"""

import io
import types
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fcn_jax.data.files import other_kinds
from fcn_jax.data.files import pillow_formats
from fcn_jax.data.files import rasters

# Suffixes of pictures, in lower case.
SUFFIXES = (
  ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff",
  ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif",
)  # fmt: skip


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
  content: bytes,
  *,
  white: float | None = None,
  other_white: float | None = None,
  first_frame: bool = False,
  max_pixels: int | None = None,
) -> np.ndarray:
  """Decodes a picture to RGB, rotated according to its EXIF data.

  Grey, palette, CMYK and other colours are converted; transparency and bands
  above the third are dropped.

  Args:
    content: the bytes of a file in a format of docs/file_formats.md.
    white: for pictures of more than 8 bits, the value that becomes 255, as
      larger ones do. None refuses such pictures.
    other_white: the same for pictures of fractions and of 8 bits with a sign.
      It is another argument, as the white of a folder's integers says nothing
      about its fractions.
    first_frame: whether to take the first picture of an animation; otherwise
      animations are refused.
    max_pixels: larger pictures are refused before they are decoded; None for
      Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS`.

  Returns:
    [H, W, 3] uint8.

  Raises:
    ValueError: the content is empty, broken or no picture, or a white is not
      above 0; `rasters.TooLarge`: the picture is too large;
      `rasters.UnreadKind`: it is animated or of another kind that is not read,
      or has more than 8 bits a channel and no `white` (`rasters.NoWhite`).
  """
  for given in (white, other_white):
    if given is not None and not 0 < given < np.inf:
      raise ValueError(f"cannot have {given} as white; give a number above 0")
  raster = _read(content, first_frame=first_frame, max_pixels=max_pixels)
  samples = raster.samples
  if samples.dtype != np.uint8:
    samples = _to_bytes(samples, white, other_white)
    if raster.inverted:
      samples = 255 - samples
  elif raster.kind != "palette":
    if raster.inverted:
      samples = raster.white - samples
    if raster.white != 255:
      spread = np.round(np.arange(256) * (255.0 / raster.white))
      samples = spread.astype(np.uint8)[samples]
  if raster.kind == "palette":
    # Black for indices without a colour.
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(raster.palette)] = raster.palette
    return palette[samples]
  if raster.kind == "cmyk":
    return rasters.array_of(Image.fromarray(samples, "CMYK"), "RGB")
  if raster.kind == "grey":
    return np.repeat(samples[..., None], 3, axis=-1)
  return samples


def _to_bytes(
  samples: np.ndarray, white: float | None, other_white: float | None
) -> np.ndarray:
  """Samples of other types, scaled so that `white` becomes 255."""
  if samples.dtype.kind not in "iu" or samples.dtype.itemsize == 1:
    if samples.dtype.kind not in "if":
      raise rasters.UnreadKind(
        f"has pixels of the type {samples.dtype}, which are not read; convert"
        " it to 8 or 16 bits without sign"
      )
    if other_white is None:
      raise rasters.NoWhite(
        f"has pixels of the type {samples.dtype}, and nothing says which is"
        f" white; its values go from {samples.min():g} to {samples.max():g};"
        " convert it to 8 or 16 bits without sign"
      )
    white = other_white
    if not np.isfinite(samples).all():
      raise ValueError(
        "has values that are not finite (NaN or infinite); replace them"
      )
  if white is None:
    raise rasters.NoWhite(
      f"has more than 8 bits a channel ({samples.dtype}), which would be cut"
      " off; convert it to 8 bits"
    )
  if samples.min() < 0:
    raise ValueError(
      f"has negative values (from {samples.min()}); shift them to 0 or above"
    )
  result = np.empty(samples.shape, np.uint8)
  for rows in rasters.strips(*samples.shape[:2]):
    scaled = np.minimum(samples[rows].astype(np.float64), float(white))
    result[rows] = np.round(scaled * (255.0 / white))
  return result


class PictureFacts(NamedTuple):
  """What a picture says about the pictures of its folder.

  Attributes:
    header: what its file says of itself.
    deepest: the largest value, if the picture has more than 8 bits a channel;
      otherwise 0.
    dropped: the channels that are left out, such as "alpha"; empty if none is.
  """

  header: rasters.Header
  deepest: int
  dropped: str


def facts(content: bytes) -> PictureFacts:
  """Reads what `PictureFacts` holds; decodes the picture only if needed.

  Raises:
    ValueError: see `decode_picture`.
  """
  found = header(content)
  deepest, dropped = 0, ""
  if found.bits > 8 or found.channels not in (1, 3):
    raster = _read(content)
    dropped = raster.dropped
    if raster.samples.dtype.kind in "iu" and found.bits > 8:
      deepest = int(raster.samples.max())
  return PictureFacts(found, deepest, dropped)


def header(content: bytes) -> rasters.Header:
  """What a file says of itself, without decoding it.

  Raises:
    ValueError: see `decode_picture`.
  """
  _check_kind(content)
  if content.startswith(rasters.TIFF):
    return _tiff().header(content)
  return pillow_formats.header(content)


is_plain = pillow_formats.is_plain


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
  """Decodes a mask to numbers or colours, as they are in the file.

  Args:
    content: see `mask_raster`.

  Returns:
    [H, W] uint8 or uint16, the grey values or palette indices in the file; or
    [H, W, 3] uint8, RGB. Masks in GIF have colours, as programs that write GIF
    number the colours anew.

  Raises:
    ValueError: see `mask_raster`.
  """
  return mask_raster(content).samples


def mask_raster(content: bytes) -> rasters.Raster:
  """What is stored in a mask: the samples of `decode_values` and all else.

  Args:
    content: the bytes of a file in a format of docs/file_formats.md that loses
      nothing.

  Raises:
    ValueError: the content is empty, broken, no picture, animated, too large,
      has fractions or more than 16 bits a channel, or nothing says that its
      values are those that were saved.
  """
  raster = _read(content)
  if raster.not_ids:
    raise ValueError(raster.not_ids)
  values = raster.samples
  if values.dtype.kind not in "iu":
    raise ValueError("has fractional values; save class ids as integers")
  if raster.kind == "cmyk":
    raise ValueError(
      "is a mask in CMYK, whose inks are no class ids; save it in grey, with a"
      " palette or in RGB"
    )
  if raster.kind == "rgb" and raster.white != 255:
    raise ValueError(
      f"has colours up to {raster.white} a channel; colours of classes are in"
      " 0..255, so convert it to 8 bits"
    )
  if values.dtype == np.uint8:
    return raster
  if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
    raise ValueError(
      f"has values from {values.min()} to {values.max()}; class ids are in"
      " 0..65535"
    )
  return raster._replace(samples=values.astype(np.uint16))


def _read(
  content: bytes, *, first_frame: bool = False, max_pixels: int | None = None
) -> rasters.Raster:
  """What is stored in a file of any accepted format."""
  _check_kind(content)
  if content.startswith(rasters.TIFF) and not _tiff().is_jpeg(
    content, max_pixels=max_pixels
  ):
    return _tiff().read(content, max_pixels=max_pixels)
  return pillow_formats.read(
    content, first_frame=first_frame, max_pixels=max_pixels
  )


def _check_kind(content: bytes) -> None:
  if not content:
    raise ValueError("is empty (0 bytes); copy or download it again")
  kind = other_kinds.of(content)
  if kind is not None:
    raise rasters.UnreadKind(kind.reason)


def _tiff() -> types.ModuleType:
  """The reader of TIFF files, whose libraries other pictures do without."""
  try:
    from fcn_jax.data.files import tiff
  except ImportError as error:
    raise rasters.UnreadKind(
      "is a TIFF file, which needs two more libraries: pip install tifffile"
      " imagecodecs"
    ) from error
  return tiff
