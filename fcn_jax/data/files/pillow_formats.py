"""Reads the formats that Pillow decodes, and undoes what it does to samples."""

import contextlib
import io
import logging
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fcn_jax.data.files import rasters

# The formats that a file may have, whatever its name: only formats of pictures.
# Pillow knows others that start programs (EPS) or hold something else. It opens
# MPO, which phones use, as JPEG. TIFF files come here if they are lossy.
_FORMATS = (
  "PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000",
  "AVIF",
)  # fmt: skip

_LOSSY = (
  "is a mask in the lossy format {}, which changes class ids at every edge;"
  " save masks as PNG in the program that made them"
)
_ORIENTATION = 0x0112

# As many as libtiff allows; programs write about ten.
_MOST_SCANS = 100
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Behind the data of a scan, in which a zero or a number of a part follows 255.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# It remarks on odd files; what matters is in the messages here.
logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)


@rasters.explained()
def header(content: bytes) -> rasters.Header:
  """What the file says of itself.

  Raises:
    FileFault: as `read`.
  """
  image = _open(content)
  channels = len(image.getbands()) + ("transparency" in image.info)
  # Pillow decodes a PNG file to find EXIF data behind the samples.
  marks = (b"Exif", b"eXIf", b"EXIF", b"exif", b"Orientation")
  turned = any(mark in content for mark in marks)
  orientation = image.getexif().get(_ORIENTATION, 1) if turned else 1
  return rasters.Header(
    size=(image.height, image.width),
    bits=_bits(image, content),
    channels=channels,
    orientation=orientation,
  )


@rasters.explained()
def is_plain(content: bytes) -> bool:
  """Whether a picture is PNG or JPEG with 8-bit channels."""
  image = _open(content, first_frame=True)
  plain = image.format == "PNG" and not getattr(image, "is_animated", False)
  jpeg = image.format in ("JPEG", "MPO")
  return (plain or jpeg) and _bits(image, content) <= 8


@rasters.explained()
def read(
  content: bytes, *, first_frame: bool = False, max_pixels: int | None = None
) -> rasters.Raster:
  """Reads the stored samples of a picture.

  Args:
    content: the bytes of the file.
    first_frame: whether to take the first picture of an animation; otherwise
      animations are refused.
    max_pixels: see `rasters.check_size`.

  Raises:
    FileFault: it is broken, no picture, animated, too large, or of a kind that
      cannot be read.
  """
  image = _open(content, first_frame=first_frame, max_pixels=max_pixels)
  image_format, bits = image.format, _bits(image, content)
  if image_format == "PNG":
    _check_png(content)
  _check_kind(image, bits)
  extents = image.tile[0].extents if image.tile else None
  if image_format == "PPM" and image.mode not in ("1", "F"):
    samples = _read_netpbm(image, content)
  elif image_format == "PNG" and bits == 16:
    samples = _read_deep_png(content)
  else:
    image.load()
    samples = None
  raster = (
    _raster_of_image(image, bits)
    if samples is None
    else _raster_of_samples(samples, _white(image, bits))
  )
  not_ids = _why_not_ids(image, content, raster, extents)
  if image_format == "GIF" and raster.kind == "palette":
    # Programs that write GIF number the colours anew; only colours are kept.
    raster = raster._replace(
      samples=raster.palette[raster.samples], kind="rgb", palette=None
    )
  orientation = image.getexif().get(_ORIENTATION, 1)
  return raster._replace(
    samples=rasters.upright(raster.samples, orientation), not_ids=not_ids
  )


def _open(
  content: bytes, *, first_frame: bool = False, max_pixels: int | None = None
) -> Image.Image:
  """Opens a picture without decoding it."""
  image = _identified(content)
  rasters.check_size(image.width, image.height, max_pixels)
  # Phones store a second picture for depth behind the first (MPO).
  several = image.format != "MPO" and getattr(image, "is_animated", False)
  # Nobody asks for the number of frames: counting them decodes some formats.
  if several and not first_frame:
    raise rasters.several()
  if image.format in ("JPEG", "MPO"):
    _check_scans(content)
  return image


def _identified(content: bytes) -> Image.Image:
  """A picture in the first format that takes it, as by `Image.open`.

  `Image.open` also compares its size with a limit that all threads share.
  """
  Image.init()
  for name in _FORMATS:
    # Formats that Pillow was built without are not there.
    factory, accepts = Image.OPEN.get(name, (None, None))
    if factory is None or accepts and accepts(content[:16]) is not True:
      continue
    # What formats raise for files of others, and for broken ones.
    with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
      return factory(io.BytesIO(content), "")
  raise rasters.FileFault(
    "cannot be read as a picture (it has none of the formats that are read);"
    " copy or download it again"
  )


def _check_png(content: bytes) -> None:
  """Compares the checksums of a PNG file.

  Pillow skips those of pixels, and stops before their last checksum: one bit
  that is flipped then gives other class ids.
  """
  place, whole = 8, memoryview(content)
  while place + 12 <= len(content):
    (size,) = struct.unpack_from(">I", content, place)
    end = place + 8 + size
    name = content[place + 4 : place + 8]
    # Lower case marks what is not needed, of which transparency is used.
    needed = name[:1].isupper() or name == b"tRNS"
    if needed and end + 4 <= len(content):
      (checksum,) = struct.unpack_from(">I", content, end)
      if zlib.crc32(whole[place + 4 : end]) != checksum:
        raise rasters.FileFault(
          f"is damaged (the checksum of {name.decode('latin-1')!a} is another);"
          " copy or download it again"
        )
    place = end + 4


def _check_scans(content: bytes) -> None:
  """Refuses a progressive JPEG file of very many scans.

  A scan of twelve bytes makes the decoder go through the whole picture.
  """
  place, scans = 2, 0
  while place + 4 <= len(content) and scans <= _MOST_SCANS:
    marker, length = content[place + 1], content[place + 2 : place + 4]
    if content[place] != 0xFF or marker == _END_OF_IMAGE:
      break
    # More bytes of 255 may stand before a marker.
    if marker == 0xFF:
      place += 1
      continue
    place += 2 + int.from_bytes(length, "big")
    if marker == _START_OF_SCAN:
      scans += 1
      following = _NEXT_MARKER.search(content, place)
      if following is None:
        break
      place = following.start()
  if scans > _MOST_SCANS:
    raise rasters.FileFault(
      f"is a JPEG file of more than {_MOST_SCANS} scans, which takes long; no"
      " program writes such files: save it as PNG"
    )


def _bits(image: Image.Image, content: bytes) -> int:
  """Bits of each channel in the file; Pillow keeps or says few of them."""
  if image.format == "PNG":
    return content[24]
  if image.format == "PPM" and image.mode != "F":
    return 1 if image.mode == "1" else _netpbm_maximum(image).bit_length()
  if image.format == "JPEG2000":
    # The marker SIZ; precision is that of the first channel, less 1.
    place = content.find(b"\xff\x4f\xff\x51") + 42
    return (content[place] & 127) + 1 if place < len(content) else 8
  if image.format in ("BMP", "DIB"):
    start = 14 if image.format == "BMP" else 0
    (size,) = struct.unpack_from("<I", content, start)
    place = start + (10 if size == 12 else 14)
    return min(struct.unpack_from("<H", content, place)[0], 8)
  if image.mode == "F" or image.mode == "I":
    return 32
  return 16 if image.mode.startswith("I;16") else 8


def _check_kind(image: Image.Image, bits: int) -> None:
  """Refuses what Pillow misreads or cuts off."""
  # With a grey palette, Pillow takes 4 bits for 8, and 8 or 4 for 1.
  wanted = {"1": 1, "L": 8}.get(image.mode, bits)
  if image.format in ("BMP", "DIB") and bits != wanted:
    raise rasters.UnreadKind(
      "is a BMP file of a kind that is misread (a grey palette of few colours);"
      " save it as PNG"
    )
  if image.format == "JPEG2000" and bits > 8 and len(image.getbands()) > 1:
    raise rasters.UnreadKind(
      f"is a JPEG 2000 file with more than 8 bits a channel ({bits}), which"
      " would be cut off; save it as PNG or TIFF"
    )
  if image.mode in ("LAB", "HSV", "YCbCr"):
    raise rasters.UnreadKind(
      f"has colours in the space {image.mode}, which are not read; save it as"
      " RGB"
    )


def _raster_of_image(image: Image.Image, bits: int) -> rasters.Raster:
  """The samples of a decoded picture, without what Pillow did to them."""
  mode, palette = image.mode, None
  if mode in ("P", "PA"):
    kind, samples = "palette", rasters.array_of(image.getchannel(0))
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
  elif mode == "CMYK":
    kind, samples = "cmyk", rasters.array_of(image)
  elif mode == "1":
    samples = rasters.array_of(image).astype(np.uint8)
    return rasters.Raster(samples, "grey", 1)
  elif mode in ("L", "LA", "La", "F") or mode.startswith("I"):
    bands = image.getbands()
    kind = "grey"
    grey = image if len(bands) == 1 else image.getchannel(0)
    samples = rasters.array_of(grey)
  else:
    kind, samples = "rgb", rasters.array_of(image, "RGB")
  white = 255 if samples.dtype == np.uint8 else 65535
  # Pillow spreads fewer bits over 0..255, as 255 is a multiple of 1, 3 and 15.
  if image.format == "PNG" and kind == "grey" and bits < 8:
    white = 2**bits - 1
    samples = samples // (255 // white)
  dropped, varied_alpha = _alpha(image)
  return rasters.Raster(
    samples, kind, white, palette, dropped=dropped, varied_alpha=varied_alpha
  )


def _alpha(image: Image.Image) -> tuple[str, bool]:
  """`Raster.dropped` and `Raster.varied_alpha`."""
  if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
    alpha = image.getchannel(len(image.getbands()) - 1)
    lowest, highest = alpha.getextrema()
    return "" if lowest == 255 else "alpha", lowest < highest
  return "alpha" if "transparency" in image.info else "", False


def _raster_of_samples(samples: np.ndarray, white: int) -> rasters.Raster:
  """A picture of 1 to 4 channels, the last of which may be alpha."""
  channels = 1 if samples.ndim == 2 else samples.shape[2]
  dropped, varied_alpha = "", False
  if channels in (2, 4):
    alpha = samples[..., -1]
    dropped = "" if (alpha == white).all() else "alpha"
    varied_alpha = bool((alpha != alpha.flat[0]).any())
    samples = samples[..., :-1]
  if channels < 3:
    samples = samples.reshape(samples.shape[:2])
  kind = "grey" if channels < 3 else "rgb"
  return rasters.Raster(
    samples, kind, white, dropped=dropped, varied_alpha=varied_alpha
  )


def _white(image: Image.Image, bits: int) -> int:
  if image.format == "PPM" and bits <= 8:
    return _netpbm_maximum(image)
  return 2**bits - 1


def _netpbm_maximum(image: Image.Image) -> int:
  """The value that a PGM or PPM file calls white."""
  decoder, _, _, arguments = image.tile[0]
  if decoder != "raw":
    return arguments[-1]
  return 65535 if "16" in str(arguments) else 255


def _read_deep_png(content: bytes) -> np.ndarray:
  """The samples of a PNG file of 16 bits, which Pillow cuts off."""
  try:
    import imagecodecs
  except ImportError as error:
    raise rasters.UnreadKind(
      "has 16 bits a channel, which needs one more library: pip install"
      " imagecodecs"
    ) from error
  return imagecodecs.png_decode(content)


def _read_netpbm(image: Image.Image, content: bytes) -> np.ndarray:
  """The samples of a PGM or PPM file, which Pillow scales to 8 or 16 bits."""
  decoder, _, offset, _ = image.tile[0]
  shape = (image.height, image.width, len(image.getbands()))
  maximum = _netpbm_maximum(image)
  dtype = np.dtype(np.uint8 if maximum < 256 else ">u2")
  if decoder == "ppm_plain":
    text = re.sub(rb"#[^\r\n]*", b"", content[offset:]).decode("ascii")
    # A list of numbers of Python would take ten times the memory.
    samples = np.fromstring(text, np.int64, sep=" ")
  else:
    data = content[offset:]
    samples = np.frombuffer(
      data[: len(data) // dtype.itemsize * dtype.itemsize], dtype
    )
  if samples.size != np.prod(shape):
    raise rasters.FileFault(
      f"has {samples.size} values in place of {np.prod(shape)}, because it is"
      " truncated or holds several pictures; save one picture a file"
    )
  if samples.min() < 0 or samples.max() > maximum:
    raise rasters.FileFault(
      f"has values from {samples.min()} to {samples.max()}, but says that"
      f" {maximum} is the largest; save it as PNG"
    )
  samples = samples.astype(dtype.newbyteorder("=")).reshape(shape)
  return samples[..., 0] if shape[2] == 1 else samples


def _why_not_ids(
  image: Image.Image,
  content: bytes,
  raster: rasters.Raster,
  extents: tuple[int, int, int, int] | None,
) -> str:
  """Why the samples cannot be the class ids that somebody saved."""
  name = image.format
  if name in ("JPEG", "MPO", "AVIF"):
    return _LOSSY.format(name)
  if name == "TIFF":
    return _LOSSY.format("JPEG (in a TIFF file)")
  if name == "WEBP" and b"VP8 " in _riff_chunks(content):
    return _LOSSY.format("WebP (it also has a lossless form)")
  if name == "JPEG2000":
    return (
      "is a mask in the format JPEG 2000, and nothing says whether it is"
      " lossless; save masks as PNG"
    )
  if name == "PPM" and image.mode == "1":
    return (
      "is a PBM mask, in which 1 is black: some programs show the numbers in"
      " the file, others invert them, so nothing says which are the class ids;"
      " save it as PNG"
    )
  sixteen = {"BMP": 28, "DIB": 14, "TGA": 16}.get(name)
  if sixteen and raster.kind == "rgb" and content[sixteen] == 16:
    return (
      "is a mask with colours of 5 bits a channel, which readers scale in"
      " different ways; save it as PNG"
    )
  transparent = image.info.get("transparency")
  if name == "GIF" and (raster.samples == transparent).any():
    return (
      "is a GIF mask with transparent pixels, whose class nobody can tell; save"
      " it without transparency, best as PNG"
    )
  if name == "GIF" and extents != (0, 0, image.width, image.height):
    return "is a GIF mask whose frame does not fill the picture; save it as PNG"
  return ""


def _riff_chunks(content: bytes) -> Iterator[bytes]:
  """The names of the chunks of a WebP file, those of its first frame too."""
  place = 12
  while place + 8 <= len(content):
    name, size = struct.unpack_from("<4sI", content, place)
    yield name
    # A frame (of an animation) holds chunks behind 16 bytes of its own.
    place += 24 if name == b"ANMF" else 8 + size + size % 2
