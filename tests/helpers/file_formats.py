"""Files of all formats, and what must be read of them.

python -m tests.helpers.file_formats    # writes docs/file_formats.md
"""

import io
import pathlib
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from fcn_jax.data.files import decoding
from tests.helpers import raw_pictures

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "file_formats.md"
SHAPE = (6, 9)

_PALETTE = (
  np.random.default_rng(0).permutation(256)[:, None] * np.array([1, 3, 7]) % 256
)
_PALETTE = _PALETTE.astype(np.uint8)
_WHITE_OF_FOLDER = 4095


_TEXT = """\
# File formats

Which files are read as pictures and as masks. A file counts as what it holds,
whatever the suffix of its name. A test writes each of these files, reads it,
compares, and makes this page; do not edit it by hand.

Class ids must be the numbers that were saved. A mask of which nothing says that
is refused, with the reason and what to do. Where a mask is read as

- *numbers*, they are the grey values or the indices of the palette, as they are
  in the file: 4 bits give 0 to 15, and a maximum of 3 gives 0 to 3;
- *colours*, they are RGB of 8 bits. If all of them are grey, they count as
  numbers. Masks in GIF count as colours, as programs that write GIF number the
  colours anew.

In pictures,

- up to 8 bits are spread over 0 to 255;
- more bits are scaled by one number for the whole folder: the largest with as
  many bits as the largest value that occurs, such as 4095. `fcn-jax check-data`
  prints it;
- alpha and bands above the third are left out, and `fcn-jax check-data` says
  from how many;
- colour profiles and gamma are ignored.

Pictures and masks are turned as EXIF or TIFF tags say. If this keeps the size
of a picture, its mask has no such tag, and no other pair of the folder shows
whether masks were drawn after turning, the pair is refused.

HEIC, PSD, DICOM, NIfTI, SVG, PDF and camera raw files are not read; convert
them to PNG. No pictures of more than {limit} pixels are read.

| file | picture | mask |
| --- | --- | --- |
{rows}

## What Pillow writes

Files that Pillow writes from a picture of each of its modes, and how they are
read. Pillow itself converts to RGB or a palette before it writes GIF and WebP.

| mode | {writers} |
| --- | {rules} |
{modes}
"""


class Case(NamedTuple):
  """A file.

  Attributes:
    name: of what it is.
    content: its bytes.
    picture: [H, W, 3] uint8 that must be read of it as a picture; None if it
      must be refused.
    mask: what must be read of it as a mask, numbers or colours; None if it must
      be refused.
    tolerance: of the picture, for lossy formats.
  """

  name: str
  content: bytes
  picture: np.ndarray | None
  mask: np.ndarray | None
  tolerance: int = 0


def labels(bits, *, seed=0, shape=SHAPE):
  """Random samples of some bits."""
  generator = np.random.default_rng(seed)
  dtype = np.uint8 if bits <= 8 else np.uint16
  return generator.integers(0, 2**bits, shape).astype(dtype)


def grey(samples, white):
  """The picture that grey samples show."""
  scaled = np.minimum(samples, white) * (255.0 / white)
  return np.repeat(np.round(scaled).astype(np.uint8)[..., None], 3, axis=-1)


def colors(samples, white):
  """The picture that samples of three colours show."""
  scaled = np.minimum(samples[..., :3], white) * (255.0 / white)
  return np.round(scaled).astype(np.uint8)


def _save(image, image_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, image_format, **options)
  return buffer.getvalue()


def _tiff(samples, **options):
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, samples, **options)
  return buffer.getvalue()


def _image(samples, palette=None):
  image = Image.fromarray(samples)
  if palette is not None:
    image.putpalette(palette.tobytes())
  return image


def _smooth(channels):
  """A picture that lossy formats change little."""
  rows, columns = np.mgrid[:16, :16]
  planes = [rows * 12, columns * 12, 128 + rows * 0, 200 + columns * 0]
  picture = np.stack(planes[:channels], axis=-1).astype(np.uint8)
  return picture if channels > 1 else picture[..., 0]


def png_cases():
  for bits in (1, 2, 4, 8):
    x = labels(bits)
    content = raw_pictures.png(x, bits=bits, color_type=0)
    yield Case(f"PNG, grey, {bits} bits", content, grey(x, 2**bits - 1), x)
    content = raw_pictures.png(
      x,
      bits=bits,
      color_type=3,
      chunks=[(b"PLTE", _PALETTE[: 2**bits].tobytes())],
    )
    yield Case(f"PNG, palette, {bits} bits", content, _PALETTE[x], x)
  x = labels(12)
  content = raw_pictures.png(x, bits=16, color_type=0)
  yield Case("PNG, grey, 16 bits", content, grey(x, _WHITE_OF_FOLDER), x)
  x = labels(8, shape=(*SHAPE, 2))
  content = raw_pictures.png(x, bits=8, color_type=4)
  yield Case(
    "PNG, grey and alpha, 8 bits", content, grey(x[..., 0], 255), x[..., 0]
  )
  x = labels(12, shape=(*SHAPE, 2))
  content = raw_pictures.png(x, bits=16, color_type=4)
  yield Case(
    "PNG, grey and alpha, 16 bits",
    content,
    grey(x[..., 0], _WHITE_OF_FOLDER),
    x[..., 0],
  )
  for channels, color_type, name in ((3, 2, "RGB"), (4, 6, "RGB and alpha")):
    x = labels(8, shape=(*SHAPE, channels))
    content = raw_pictures.png(x, bits=8, color_type=color_type)
    yield Case(f"PNG, {name}, 8 bits", content, x[..., :3], x[..., :3])
    x = labels(12, shape=(*SHAPE, channels))
    content = raw_pictures.png(x, bits=16, color_type=color_type)
    yield Case(
      f"PNG, {name}, 16 bits", content, colors(x, _WHITE_OF_FOLDER), None
    )
  for bits, color_type in ((2, 0), (8, 0), (4, 3)):
    x = labels(bits)
    content = raw_pictures.png(
      x,
      bits=bits,
      color_type=color_type,
      interlaced=True,
      chunks=[(b"PLTE", _PALETTE[:16].tobytes())] * (color_type == 3),
    )
    picture = _PALETTE[x] if color_type == 3 else grey(x, 2**bits - 1)
    name = "palette" if color_type == 3 else "grey"
    yield Case(f"PNG, {name}, {bits} bits, interlaced", content, picture, x)
  x = labels(12, shape=(*SHAPE, 3))
  content = raw_pictures.png(x, bits=16, color_type=2, interlaced=True)
  picture = colors(x, _WHITE_OF_FOLDER)
  yield Case("PNG, RGB, 16 bits, interlaced", content, picture, None)
  x = labels(8)
  for name, chunks in (
    ("gamma", [(b"gAMA", (30_000).to_bytes(4, "big"))]),
    ("significant bits", [(b"sBIT", b"\x03")]),
    ("a transparent grey", [(b"tRNS", bytes([0, int(x[0, 0])]))]),
  ):
    content = raw_pictures.png(x, bits=8, color_type=0, chunks=chunks)
    yield Case(f"PNG, grey, 8 bits, with {name}", content, grey(x, 255), x)
  chunks = [(b"PLTE", _PALETTE.tobytes()), (b"tRNS", bytes([0, 128]))]
  content = raw_pictures.png(x, bits=8, color_type=3, chunks=chunks)
  yield Case("PNG, palette, 8 bits, with transparency", content, _PALETTE[x], x)
  exif = Image.Exif()
  exif[0x0112] = 6
  content = _save(_image(x), "PNG", exif=exif)
  turned = np.rot90(x, -1)
  yield Case("PNG, turned by EXIF data", content, grey(turned, 255), turned)
  frames = [_image(labels(8, seed=seed)) for seed in (1, 2)]
  content = _save(frames[0], "PNG", save_all=True, append_images=frames[1:])
  yield Case("PNG, animated", content, None, None)


_COMPRESSIONS = ("lzw", "deflate", "packbits", "zstd", "lzma")


def tiff_cases():
  for bits in (1, 2, 4, 8, 12, 16):
    x = labels(min(bits, 12))
    white = _WHITE_OF_FOLDER if bits > 8 else 2**bits - 1
    for order in "<>" if bits in (12, 16) else "<":
      content = raw_pictures.tiff(x, bits=bits, photometric=1, order=order)
      suffix = ", big-endian" if order == ">" else ""
      yield Case(f"TIFF, grey, {bits} bits{suffix}", content, grey(x, white), x)
    content = raw_pictures.tiff(x, bits=bits, photometric=0)
    whole = 255 - grey(x, white)
    yield Case(f"TIFF, grey, {bits} bits, WhiteIsZero", content, whole, None)
  for bits in (1, 8):
    x = labels(bits)
    tags = [(266, 2)]
    mirrored = np.frombuffer(
      bytes(int(f"{b:08b}"[::-1], 2) for b in range(256)), np.uint8
    )
    if bits == 8:
      content = raw_pictures.tiff(mirrored[x], bits=8, photometric=1, tags=tags)
      yield Case("TIFF, grey, 8 bits, fill order 2", content, grey(x, 255), x)
  x, rgb = labels(8), labels(8, shape=(*SHAPE, 3))
  for name in _COMPRESSIONS:
    content = _tiff(x, compression=name, photometric="minisblack")
    yield Case(f"TIFF, grey, 8 bits, {name}", content, grey(x, 255), x)
  deep = labels(12)
  picture = grey(deep, _WHITE_OF_FOLDER)
  for name in ("lzw", "deflate"):
    content = _tiff(
      deep, compression=name, predictor=True, photometric="minisblack"
    )
    yield Case(
      f"TIFF, grey, 16 bits, {name}, predictor", content, picture, deep
    )
  content = _tiff(deep, byteorder=">", bigtiff=True, photometric="minisblack")
  yield Case("BigTIFF, grey, 16 bits, big-endian", content, picture, deep)
  large = labels(8, shape=(40, 50))
  content = _tiff(large, tile=(16, 32), photometric="minisblack")
  yield Case("TIFF, grey, 8 bits, tiles", content, grey(large, 255), large)
  content = _tiff(large, rowsperstrip=7, compression="lzw", photometric=1)
  yield Case("TIFF, grey, 8 bits, strips", content, grey(large, 255), large)
  bilevel = labels(1)
  for name in ("group3", "group4", "tiff_ccitt"):
    content = _save(_image(bilevel.astype(bool)), "TIFF", compression=name)
    yield Case(f"TIFF, grey, 1 bit, {name}", content, grey(bilevel, 1), bilevel)
  for bits in (1, 4, 8):
    x = labels(bits)
    content = _save(_image(x, _PALETTE), "TIFF")
    if bits == 8:
      yield Case("TIFF, palette, 8 bits", content, _PALETTE[x], x)
  small = labels(6).astype(np.int64)
  for dtype in ("i1", "i2", "i4", "u4", "i8", "u8"):
    x = small.astype(dtype)
    name = f"{np.dtype(dtype).name}"
    content = _tiff(x, photometric="minisblack")
    picture = None if dtype == "i1" else grey(x, _WHITE_OF_FOLDER)
    yield Case(f"TIFF, grey, {name}", content, picture, x)
  content = _tiff((small - 50).astype(np.int16), photometric="minisblack")
  yield Case("TIFF, grey, int16, negative", content, None, None)
  content = _tiff((small + 70_000).astype(np.uint32), photometric="minisblack")
  yield Case(
    "TIFF, grey, uint32, above 65535",
    content,
    np.full((*SHAPE, 3), 255, np.uint8),
    None,
  )
  for dtype in ("f2", "f4", "f8"):
    content = _tiff(small.astype(dtype), photometric="minisblack")
    yield Case(f"TIFF, grey, {np.dtype(dtype).name}", content, None, None)
  content = _tiff(rgb, photometric="rgb")
  yield Case("TIFF, RGB, 8 bits", content, rgb, rgb)
  planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
  content = _tiff(planes, photometric="rgb", planarconfig="separate")
  yield Case("TIFF, RGB, 8 bits, planes", content, rgb, rgb)
  deep = labels(12, shape=(*SHAPE, 3))
  for compression in (None, "lzw"):
    content = _tiff(deep, photometric="rgb", compression=compression)
    yield Case(
      f"TIFF, RGB, 16 bits{', lzw' if compression else ''}",
      content,
      colors(deep, _WHITE_OF_FOLDER),
      None,
    )
  planes = np.ascontiguousarray(np.moveaxis(deep, -1, 0))
  content = _tiff(planes, photometric="rgb", planarconfig="separate")
  yield Case(
    "TIFF, RGB, 16 bits, planes", content, colors(deep, _WHITE_OF_FOLDER), None
  )
  rgba = labels(8, shape=(*SHAPE, 4))
  content = _tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])
  yield Case(
    "TIFF, RGB and alpha, 8 bits", content, rgba[..., :3], rgba[..., :3]
  )
  content = _tiff(rgba, photometric="rgb", extrasamples=["assocalpha"])
  yield Case(
    "TIFF, RGB multiplied by alpha, 8 bits", content, rgba[..., :3], None
  )
  content = _tiff(
    rgba[..., :2], photometric="minisblack", extrasamples=["unassalpha"]
  )
  yield Case(
    "TIFF, grey and alpha, 8 bits",
    content,
    grey(rgba[..., 0], 255),
    rgba[..., 0],
  )
  for bits, count in ((8, 5), (12, 4), (12, 8)):
    x = labels(bits, shape=(*SHAPE, count))
    white = 255 if bits == 8 else _WHITE_OF_FOLDER
    content = _tiff(x, photometric="minisblack", planarconfig="contig")
    name = f"TIFF, {count} bands, {8 if bits == 8 else 16} bits"
    yield Case(name, content, colors(x, white), None)
  x = labels(8, shape=(*SHAPE, 6))
  content = _tiff(x, photometric="rgb", extrasamples=[0, 0, 0])
  yield Case("TIFF, RGB and 3 more bands", content, x[..., :3], None)
  content = _save(_image(rgb).convert("CMYK"), "TIFF")
  yield Case("TIFF, CMYK", content, rgb, None, tolerance=1)
  for mode in ("YCbCr", "LAB"):
    image = Image.frombytes(mode, SHAPE[::-1], rgb.tobytes())
    yield Case(f"TIFF, {mode}", _save(image, "TIFF"), None, None)
  smooth = _smooth(3)
  content = _save(_image(smooth), "TIFF", compression="jpeg", quality=95)
  yield Case("TIFF, RGB, jpeg", content, smooth, None, tolerance=20)
  content = _tiff(smooth, photometric="rgb", compression="webp")
  yield Case("TIFF, RGB, webp", content, None, None)
  content = _save(_image(_smooth(1)), "TIFF", compression="jpeg", quality=95)
  picture = grey(_smooth(1), 255)
  yield Case("TIFF, grey, jpeg", content, picture, None, tolerance=20)
  x = labels(8)
  content = _tiff(x, photometric=1, extratags=[(274, 3, 1, 6, True)])
  turned = np.rot90(x, -1)
  yield Case(
    "TIFF, turned by its orientation", content, grey(turned, 255), turned
  )
  content = _tiff(np.stack([x, x]), photometric="minisblack")
  yield Case("TIFF, 2 pages", content, None, None)
  buffer = io.BytesIO()
  with tifffile.TiffWriter(buffer) as writer:
    writer.write(x, photometric="minisblack")
    writer.write(x[::2, ::2], photometric="minisblack", subfiletype=1)
  yield Case("TIFF, with a smaller copy", buffer.getvalue(), grey(x, 255), x)
  content = _tiff(x, photometric="minisblack", compression="jpeg2000")
  yield Case("TIFF, JPEG 2000", content, None, None)
  content = _tiff(x, photometric="minisblack", compression="png")
  yield Case("TIFF, PNG", content, None, None)


def netpbm_cases():
  for maximum in (1, 3, 254, 255, 4095, 65535):
    x = labels(12) if maximum > 4000 else labels(12) % (maximum + 1)
    white = maximum if maximum < 256 else _WHITE_OF_FOLDER
    for plain in (False, True):
      magic = "P2" if plain else "P5"
      content = raw_pictures.netpbm(
        x, magic=magic, maximum=maximum, plain=plain
      )
      yield Case(
        f"PGM ({magic}), maximum {maximum}", content, grey(x, white), x
      )
  for maximum in (15, 255, 4095):
    x = labels(12, shape=(*SHAPE, 3)) % (maximum + 1)
    white = maximum if maximum < 256 else _WHITE_OF_FOLDER
    for plain in (False, True):
      magic = "P3" if plain else "P6"
      content = raw_pictures.netpbm(
        x, magic=magic, maximum=maximum, plain=plain
      )
      yield Case(
        f"PPM ({magic}), maximum {maximum}",
        content,
        colors(x, white),
        x if maximum == 255 else None,
      )
  x = labels(8) % 9
  content = raw_pictures.netpbm(x, magic="P5", maximum=3)
  yield Case("PGM, values above its maximum", content, None, None)
  content = raw_pictures.netpbm(x, magic="P5", maximum=9) * 2
  yield Case("PGM, 2 pictures", content, None, None)
  bilevel = labels(1)
  rows = b"".join(raw_pictures.pack(bilevel, 1))
  content = b"P4 9 6\n" + rows
  yield Case("PBM (P4)", content, grey(1 - bilevel, 1), None)
  text = " ".join(map(str, bilevel.ravel())).encode()
  yield Case("PBM (P1)", b"P1 9 6\n" + text, grey(1 - bilevel, 1), None)
  content = _save(_image(x.astype(np.float32)), "PPM")
  yield Case("PFM", content, None, None)


def other_cases():
  x, rgb = labels(8), labels(8, shape=(*SHAPE, 3))
  content = _save(_image(x), "BMP")
  yield Case("BMP, grey, 8 bits", content, grey(x, 255), x)
  for bits in (1, 4, 8):
    y = labels(bits)
    content = raw_pictures.bmp(y, bits=bits, palette=_PALETTE[: 2**bits])
    yield Case(f"BMP, palette, {bits} bits", content, _PALETTE[y], y)
  y = labels(4)
  greys = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 3, axis=1)
  content = raw_pictures.bmp(y, bits=4, palette=greys)
  yield Case("BMP, palette of greys, 4 bits", content, None, None)
  two = np.array([[0] * 3, [255] * 3], np.uint8)
  content = raw_pictures.bmp(labels(1), bits=8, palette=two, colors=2)
  yield Case("BMP, palette of 2 greys, 8 bits", content, None, None)
  y = labels(1)
  content = raw_pictures.bmp(y, bits=1, palette=two)
  yield Case("BMP, black and white, 1 bit", content, grey(y, 1), y)
  runs = b"".join(
    b"".join(bytes((1, int(v))) for v in row) + b"\0\0" for row in x[::-1]
  )
  content = raw_pictures.bmp(
    x, bits=8, palette=_PALETTE, compression=1, data=runs + b"\0\1"
  )
  yield Case("BMP, palette, 8 bits, run lengths", content, _PALETTE[x], x)
  words = labels(8, shape=(*SHAPE, 2))
  content = raw_pictures.bmp(
    words[..., 0], bits=16, palette=(), data=bytes(6 * 20)
  )
  black = np.zeros((*SHAPE, 3), np.uint8)
  yield Case("BMP, RGB, 5 bits a channel", content, black, None)
  yield Case("BMP, RGB", _save(_image(rgb), "BMP"), rgb, rgb)
  yield Case("TGA, grey", _save(_image(x), "TGA"), grey(x, 255), x)
  content = _save(_image(x, _PALETTE), "TGA")
  yield Case("TGA, palette", content, _PALETTE[x], x)
  content = _save(_image(rgb), "TGA", compression="tga_rle")
  yield Case("TGA, RGB, run lengths", content, rgb, rgb)
  content = b"\0\0\2" + bytes(9) + bytes([9, 0, 6, 0, 16, 0]) + bytes(108)
  yield Case("TGA, RGB, 5 bits a channel", content, black, None)
  y = labels(7)
  content = _save(_image(x), "GIF")
  yield Case("GIF, grey", content, grey(x, 255), grey(x, 255))
  content = raw_pictures.gif(y, palette=_PALETTE)
  yield Case("GIF, palette", content, _PALETTE[y], _PALETTE[y])
  content = _save(_image(y, _PALETTE), "GIF", interlace=1)
  yield Case("GIF, palette, interlaced", content, _PALETTE[y], _PALETTE[y])
  content = _save(_image(y, _PALETTE), "GIF", transparency=int(y[0, 0]))
  yield Case("GIF, with transparent pixels", content, _PALETTE[y], None)
  content = raw_pictures.gif(y, palette=_PALETTE, at=(1, 0), canvas=(10, 6))
  whole = np.zeros((6, 10, 3), np.uint8) + _PALETTE[0]
  whole[:, 1:] = _PALETTE[y]
  yield Case("GIF, frame smaller than the picture", content, whole, None)
  frames = [_image(labels(8, seed=seed)) for seed in (1, 2)]
  content = _save(frames[0], "GIF", save_all=True, append_images=frames[1:])
  yield Case("GIF, animated", content, None, None)
  smooth = _smooth(3)
  content = _save(_image(rgb), "WEBP", lossless=True)
  yield Case("WebP, lossless", content, rgb, rgb)
  rgba = np.dstack([rgb, labels(8, seed=5)])
  content = _save(_image(rgba), "WEBP", lossless=True, exact=True)
  yield Case("WebP, lossless, with alpha", content, rgb, rgb)
  content = _save(_image(smooth), "WEBP", quality=95)
  yield Case("WebP, lossy", content, smooth, None, tolerance=30)
  alpha = np.dstack([smooth, smooth[..., 0]])
  content = _save(_image(alpha), "WEBP", quality=95, exact=True)
  yield Case("WebP, lossy, with alpha", content, smooth, None, tolerance=30)
  frames = [_image(labels(8, seed=seed)) for seed in (1, 2)]
  content = _save(frames[0], "WEBP", save_all=True, append_images=frames[1:])
  yield Case("WebP, animated", content, None, None)
  content = _save(_image(x), "JPEG2000")
  yield Case("JPEG 2000, grey", content, grey(x, 255), None)
  content = _save(_image(rgb), "JPEG2000")
  yield Case("JPEG 2000, RGB", content, rgb, None)
  content = _save(_image(smooth), "AVIF", quality=95)
  yield Case("AVIF", content, smooth, None, tolerance=30)
  content = _save(_image(_smooth(1)), "JPEG", quality=95)
  picture = grey(_smooth(1), 255)
  yield Case("JPEG, grey", content, picture, None, tolerance=20)
  content = _save(_image(smooth), "JPEG", quality=95, progressive=True)
  yield Case("JPEG, RGB", content, smooth, None, tolerance=20)
  content = _save(_image(smooth).convert("CMYK"), "JPEG", quality=95)
  yield Case("JPEG, CMYK", content, smooth, None, tolerance=20)


def cases():
  """All files."""
  return [*png_cases(), *tiff_cases(), *netpbm_cases(), *other_cases()]


def outcome(decode, content):
  """What a decoder returns, or the text of its refusal."""
  try:
    return decode(content)
  except ValueError as error:
    return str(error)


def read_as_picture(case):
  return outcome(
    lambda content: decoding.decode_picture(content, white=_WHITE_OF_FOLDER),
    case.content,
  )


def read_as_mask(case):
  return outcome(decoding.decode_values, case.content)


def page():
  """The text of docs/file_formats.md."""
  rows = [
    f"| {case.name} | {describe_picture(case)} | {describe_mask(case)} |"
    for case in cases()
  ]
  outcomes = {mode: mode_outcomes(mode) for mode in Image.MODES}
  modes = [
    f"| `{mode}` | {' | '.join(outcomes[mode].values())} |"
    for mode in Image.MODES
  ]
  return _TEXT.format(
    limit=Image.MAX_IMAGE_PIXELS,
    rows="\n".join(rows),
    writers=" | ".join(WRITERS),
    rules=" | ".join("---" for _ in WRITERS),
    modes="\n".join(modes),
  )


def describe_picture(case):
  found = read_as_picture(case)
  return f"no: {_short(found)}" if isinstance(found, str) else "yes"


def describe_mask(case):
  found = read_as_mask(case)
  if isinstance(found, str):
    return f"no: {_short(found)}"
  return "numbers" if found.ndim == 2 else "colours"


def _short(message):
  return message.partition(";")[0].replace("|", "/").removeprefix("is a mask ")


WRITERS = (
  "PNG", "TIFF", "BMP", "TGA", "GIF", "PPM", "WEBP", "JPEG2000", "AVIF", "JPEG",
)  # fmt: skip
# Pillow converts to RGB or a palette before it writes these.
_CONVERTING = ("GIF", "WEBP")
_OPTIONS = {"WEBP": {"lossless": True, "exact": True}}


def _of_mode(mode):
  """A random picture of one of Pillow's modes, and what is stored in it."""
  size = SHAPE[::-1]
  if mode == "1":
    x = labels(1)
    return _image(x.astype(bool)), x
  if mode in ("I", "F"):
    x = labels(8).astype(np.int32 if mode == "I" else np.float32)
    return _image(x), x
  if mode.startswith("I;16"):
    x = labels(12)
    order = ">u2" if mode == "I;16B" else "<u2"
    return Image.frombytes(mode, size, x.astype(order).tobytes()), x
  count = Image.getmodebands(mode)
  x = labels(8, shape=(*SHAPE, count))
  image = Image.frombytes(mode, size, x.tobytes())
  if mode in ("P", "PA"):
    image.putpalette(_PALETTE.tobytes())
  return image, x[..., 0] if count < 3 else x[..., :3]


def mode_outcomes(mode):
  """How files of one of Pillow's modes are read, by the format of the file.

  Raises:
    AssertionError: a mask is read, but not as it was.
  """
  image, stored = _of_mode(mode)
  found = {}
  for writer in WRITERS:
    try:
      content = _save(image, writer, **_OPTIONS.get(writer, {}))
    except (OSError, ValueError, SystemError):
      found[writer] = "not written"
      continue
    mask = outcome(decoding.decode_values, content)
    if not isinstance(mask, str):
      if writer in _CONVERTING:
        shown = image.convert("RGBA" if image.mode == "RGBa" else image.mode)
        expected = np.array(shown.convert("RGB"))
      else:
        expected = stored
      if mask.ndim == 2 and expected.ndim == 3:
        mask = np.stack([mask] * 3, axis=-1)
      np.testing.assert_array_equal(mask, expected, f"{mode} in {writer}")
      found[writer] = "numbers" if mask.ndim == 2 else "colours"
      continue
    picture = outcome(
      lambda content: decoding.decode_picture(content, white=_WHITE_OF_FOLDER),
      content,
    )
    found[writer] = "refused" if isinstance(picture, str) else "picture only"
  return found


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")
