"""Reads TIFF files, of as many kinds as tifffile can read exactly.

Pillow would cut colours of 16 bits down to 8, invert some files and not others,
and read few layouts of channels.
"""

import io
import logging
import math
import struct

import numpy as np
import tifffile

from fcn_jax.data.files import rasters

# Compressions that keep every value. tifffile knows many more, some of them
# lossy, and each is one more decoder to be attacked.
_LOSSLESS = {
  1: "none",
  2: "CCITT RLE",
  3: "CCITT group 3",
  4: "CCITT group 4",
  5: "LZW",
  8: "deflate",
  32773: "PackBits",
  32946: "deflate",
  34925: "LZMA",
  50000: "Zstandard",
}
# Old and new JPEG, for pictures only; Pillow reads them.
_JPEG = (6, 7)

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED = 0, 1, 2, 3, 5
_YCBCR = 6
_KINDS = {
  _MIN_IS_WHITE: ("grey", 1),
  _MIN_IS_BLACK: ("grey", 1),
  _RGB: ("rgb", 3),
  _PALETTE: ("palette", 1),
  _SEPARATED: ("cmyk", 4),
}
_ALPHA = (1, 2)
_CMYK_INKS = 1
_ASSOCIATED_ALPHA = 1

# Most pages, with smaller copies and masks of transparency: each level of a
# pyramid has half the size.
_MOST_PAGES = 64
# Most strips or tiles, each of which takes some time, however small it is.
_MOST_SEGMENTS = 100_000

# Tags without which a file would be misread.
_NEEDED = frozenset(
  (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322,
   323, 324, 325, 332, 338, 339, 347)
)  # fmt: skip

# It remarks on odd tags; what matters is in the messages here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@rasters.explained()
def is_jpeg(content: bytes, *, max_pixels: int | None = None) -> bool:
  """Whether the pixels of a TIFF file are compressed as JPEG.

  Arguments and errors are those of `read`.
  """
  with _opened(content) as file:
    return int(_page(file, max_pixels).compression) in _JPEG


@rasters.explained()
def header(content: bytes) -> rasters.Header:
  """What the file says of itself.

  Raises:
    FileFault: as `read`.
  """
  with _opened(content) as file:
    page = _page(file, None)
    return rasters.Header(
      size=(page.imagelength, page.imagewidth),
      bits=int(np.max(page.bitspersample)),
      channels=page.samplesperpixel,
      orientation=_orientation(page),
    )


@rasters.explained()
def read(content: bytes, *, max_pixels: int | None = None) -> rasters.Raster:
  """Reads the stored samples of a TIFF file.

  Args:
    content: the bytes of the file.
    max_pixels: see `rasters.check_size`.

  Raises:
    FileFault: it is broken, has several pages, is too large, or is of a kind
      that cannot be read exactly.
  """
  with _opened(content) as file:
    page = _page(file, max_pixels)
    kind, num_colors, dropped = _channels(page)
    _check_segments(page, len(content))
    samples = page.asarray(squeeze=False, maxworkers=1)
    # Separate planes, depth, height, width, channels side by side.
    planes = list(samples[:, 0])
    samples = planes[0] if len(planes) == 1 else np.concatenate(planes, -1)
    extra = samples[..., num_colors:]
    samples = samples[..., :num_colors]
    samples = samples[..., 0] if num_colors == 1 else samples
    if samples.dtype == bool:
      samples = samples.astype(np.uint8)
    bits = page.bitspersample
    varied_alpha = False
    if dropped == "alpha":
      dropped = "" if (extra == 2**bits - 1).all() else "alpha"
      varied_alpha = bool((extra != extra.flat[0]).any())
    photometric = int(page.photometric)
    return rasters.Raster(
      samples=rasters.upright(samples, _orientation(page)),
      kind=kind,
      white=2**bits - 1,
      palette=_palette(page) if photometric == _PALETTE else None,
      inverted=photometric == _MIN_IS_WHITE,
      dropped=dropped,
      varied_alpha=varied_alpha,
      not_ids=_why_not_ids(page, dropped),
    )


def _opened(content: bytes) -> tifffile.TiffFile:
  return tifffile.TiffFile(io.BytesIO(content), _multifile=False)


def _page(file: tifffile.TiffFile, max_pixels: int | None) -> tifffile.TiffPage:
  """The only page, besides smaller copies of it and masks of transparency."""
  found = None
  # Pages are read one by one, and not counted: there may be any number of them,
  # and the last may say that the first is next.
  for number, frame in enumerate(file.pages):
    page = frame.aspage()
    if number == _MOST_PAGES:
      raise rasters.several()
    if page.is_reduced or page.is_mask:
      continue
    if found is not None:
      raise rasters.several()
    found = page
  if found is None:
    raise rasters.FileFault("cannot be read as a picture (it has no page)")
  page = found
  # ImageJ writes one page for any number of pictures in files above 4 GB.
  described = (file.imagej_metadata or {}).get("images", 1)
  if page.imagedepth > 1 or int(described) > 1:
    raise rasters.several()
  bits = int(np.max(page.bitspersample))
  size = page.samplesperpixel * max(1, bits // 8)
  rasters.check_size(
    page.imagewidth, page.imagelength, max_pixels, bytes_per_pixel=size
  )
  # A tile may be larger than the picture, and is decoded as a whole.
  rasters.check_size(
    page.tilewidth, page.tilelength, max_pixels, bytes_per_pixel=size
  )
  if math.prod(page.chunked) > _MOST_SEGMENTS:
    raise rasters.FileFault(
      f"is a TIFF file of {math.prod(page.chunked)} strips or tiles, more than"
      f" {_MOST_SEGMENTS}, which takes long; save it with larger ones"
    )
  _check_tags(file, page)
  compression = int(page.compression)
  if compression not in _LOSSLESS and compression not in _JPEG:
    raise rasters.UnreadKind(
      f"is a TIFF file with the compression {page.compression!s}, which is not"
      " read; save it with LZW or deflate, or as PNG"
    )
  return page


def _check_tags(file: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
  """Checks that all needed tags are read; tifffile leaves out broken ones."""
  tiff, stream = file.tiff, file.filehandle
  stream.seek(page.offset)
  (count,) = struct.unpack(tiff.tagnoformat, stream.read(tiff.tagnosize))
  entries = stream.read(count * tiff.tagsize)
  codes = {
    struct.unpack_from(tiff.byteorder + "H", entries, place)[0]
    for place in range(0, len(entries) - 1, tiff.tagsize)
  }
  lost = sorted(code for code in codes & _NEEDED if code not in page.tags)
  if lost:
    raise rasters.FileFault(
      f"cannot be read as a picture (broken TIFF tags {lost}); copy or download"
      " it again"
    )


def _channels(page: tifffile.TiffPage) -> tuple[str, int, str]:
  """The kind, its number of channels, and which further ones are dropped."""
  photometric = int(page.photometric)
  inks = page.tags.valueof(332, _CMYK_INKS)
  bits = page.bitspersample
  if (
    photometric not in _KINDS
    or (photometric == _SEPARATED and inks != _CMYK_INKS)
    or (photometric == _PALETTE and page.dtype != np.uint8)
    or page.dtype is None
    or isinstance(bits, tuple)
  ):
    name = getattr(page.photometric, "name", photometric)
    raise rasters.UnreadKind(
      f"is a TIFF file of a kind that is not read (photometric {name}, bits"
      f" {bits}); save it as RGB or grey"
    )
  kind, count = _KINDS[photometric]
  extra = page.samplesperpixel - count
  if extra < 0:
    raise rasters.FileFault(
      f"cannot be read as a picture ({page.samplesperpixel} channels cannot be"
      f" {kind}); save it anew"
    )
  alpha = (
    extra == 1 and page.extrasamples[:1] and page.extrasamples[0] in _ALPHA
  )
  dropped = "alpha" if alpha else f"{extra} of its bands" if extra else ""
  if kind == "grey" and page.samplesperpixel > 2 and not alpha:
    # Satellites' pictures: any number of bands, which nobody names.
    return "rgb", 3, f"{extra - 2} of its bands" if extra > 2 else ""
  return kind, count, dropped


def _check_segments(page: tifffile.TiffPage, size: int) -> None:
  """Checks that all strips or tiles are there.

  tifffile reads zeros in place of those that are not.
  """
  expected = math.prod(page.chunked)
  ends = [
    offset + count if offset and count else math.inf
    for offset, count in zip(
      page.dataoffsets, page.databytecounts, strict=False
    )
  ]
  # Some writers describe one block of samples as several strips.
  there = len(ends) >= expected or page.is_contiguous
  if not ends or not there or max(ends) > size:
    raise rasters.FileFault(
      "cannot be read as a picture (the file is truncated, or parts of the"
      " picture were never written); copy or download it again"
    )


def _orientation(page: tifffile.TiffPage) -> int:
  return int(page.tags.valueof(274, 1))


def _palette(page: tifffile.TiffPage) -> np.ndarray:
  colors = np.asarray(page.colormap).T
  # The format asks for 16 bits; some programs write 8.
  return (colors // 256 if colors.max() > 255 else colors).astype(np.uint8)


def _why_not_ids(page: tifffile.TiffPage, dropped: str) -> str:
  photometric = int(page.photometric)
  if photometric == _MIN_IS_WHITE:
    return (
      "is a mask in which 0 is white (photometric WhiteIsZero): some programs"
      " show the numbers in the file, others invert them, so nothing says which"
      " are the class ids; save it as PNG"
    )
  if page.extrasamples[:1] == (_ASSOCIATED_ALPHA,) and dropped:
    return (
      "is a mask whose colours are multiplied by its alpha channel, which"
      " changes class ids; save it without alpha"
    )
  if dropped.endswith("bands") or (
    photometric == _MIN_IS_BLACK and page.samplesperpixel > 2
  ):
    return (
      f"has {page.samplesperpixel} bands, and nothing says which of them holds"
      " the class ids; save this one alone"
    )
  return ""
