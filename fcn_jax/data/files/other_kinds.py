"""Files that people take for pictures, but that are not read.

Each is named for what it is, with the way to pictures that are read.
"""

import re
from typing import NamedTuple


class Kind(NamedTuple):
  """A kind of file.

  Attributes:
    reason: what it is and what to do, to be read after the file's name.
    suffixes: of such files, in lower case.
    is_still: whether such a file is a picture, so that it is missed if it is
      left out.
  """

  reason: str
  suffixes: tuple[str, ...] = ()
  is_still: bool = True


_FRAMES = "extract its frames: ffmpeg -i {} frames/%06d.png"


def _video(name: str, *suffixes: str) -> Kind:
  way = _FRAMES.format(f"FILE{suffixes[0]}")
  return Kind(f"is a video ({name}); {way}", suffixes, is_still=False)


def _still(what: str, way: str, *suffixes: str) -> Kind:
  return Kind(f"is {what}, which is not read; {way}", suffixes)


_MP4 = _video("MP4 or QuickTime", ".mp4", ".m4v", ".mov", ".3gp")
_MATROSKA = _video("Matroska or WebM", ".mkv", ".webm")
_AVI = _video("AVI", ".avi")
_MPEG = _video("MPEG", ".mpg", ".mpeg", ".vob")
_OTHER_VIDEO = _video("Windows Media or Flash", ".wmv", ".flv")
_HEIC = _still(
  "a HEIC picture",
  "convert it: heif-convert FILE.heic FILE.png (Debian and Ubuntu:"
  " libheif-examples; macOS: sips -s format png FILE.heic --out FILE.png)",
  ".heic", ".heif", ".hif",
)  # fmt: skip
_SVG = Kind(
  "is an SVG drawing, which has no pixels; draw it: rsvg-convert FILE.svg -o"
  " FILE.png",
  (".svg", ".svgz"),
  is_still=False,
)
_PDF = Kind(
  "is a PDF document; draw its pages: pdftoppm -png -r 150 FILE.pdf page",
  (".pdf",),
  is_still=False,
)
_POSTSCRIPT = Kind(
  "is PostScript, a program that is not run here; if you trust its author, draw"
  " it: gs -dSAFER -sDEVICE=png16m -r150 -o page%03d.png FILE.eps",
  (".eps", ".ps", ".ai"),
  is_still=False,
)
_RAW = _still(
  "a camera's raw file",
  "develop it: dcraw_emu -T FILE.dng, or in a program such as darktable",
  ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef",
)  # fmt: skip
_PHOTOSHOP = _still(
  "a Photoshop file", "export it as PNG, or: magick FILE.psd[0] FILE.png",
  ".psd", ".psb",
)  # fmt: skip
_GIMP = _still("a GIMP file", "export it as PNG", ".xcf")
_JPEG_XL = _still(
  "a JPEG XL picture", "convert it: djxl FILE.jxl FILE.png", ".jxl"
)
_OPEN_EXR = _still(
  "an OpenEXR picture", "convert it to 8 or 16 bits, as PNG or TIFF", ".exr"
)
_HDR = _still(
  "a Radiance HDR picture", "convert it to 8 or 16 bits, as PNG or TIFF",
  ".hdr",
)  # fmt: skip
_DICOM = _still(
  "a DICOM file", "export its pictures: dcm2pnm --write-png FILE.dcm FILE.png",
  ".dcm", ".dicom",
)  # fmt: skip
_NIFTI = _still(
  "a NIfTI volume", "save its slices as PNG", ".nii", ".nii.gz"
)  # fmt: skip
_FITS = _still("a FITS file", "save it as PNG or TIFF", ".fits", ".fit")
_ICON = _still("an icon with several sizes", "save one as PNG", ".ico", ".icns")
_ARRAYS = _still(
  "an array of NumPy",
  "save it as PNG: PIL.Image.fromarray(numpy.load(FILE)).save(FILE.png)",
  ".npy",
)
_HDF5 = _still("an HDF5 file", "save its arrays as PNG", ".h5", ".hdf5")
_ZIP = Kind(
  "is a zip archive, or a file that is one inside; unpack it: unzip FILE",
  (".zip", ".npz"),
  is_still=False,
)
_GZIP = Kind(
  "is packed by gzip; unpack it: gunzip --keep FILE, or tar -xzf FILE",
  (".gz", ".tgz"),
  is_still=False,
)
_WEB_PAGE = Kind(
  "is a web page, not the picture; open the address in a browser to see what it"
  " says, and download the picture itself",
  (".html", ".htm"),
  is_still=False,
)
_LFS = Kind(
  "is a Git LFS pointer, not the picture; fetch it: git lfs pull",
  is_still=False,
)

# By the first bytes.
_BY_START = (
  (b"\x1a\x45\xdf\xa3", _MATROSKA),
  (b"\0\0\1\xba", _MPEG),
  (b"\0\0\1\xb3", _MPEG),
  (b"FLV\1", _OTHER_VIDEO),
  (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _OTHER_VIDEO),
  (b"%!PS", _POSTSCRIPT),
  (b"\xc5\xd0\xd3\xc6", _POSTSCRIPT),
  (b"8BPS", _PHOTOSHOP),
  (b"gimp xcf", _GIMP),
  (b"\xff\x0a", _JPEG_XL),
  (b"\0\0\0\x0cJXL ", _JPEG_XL),
  (b"\x76\x2f\x31\x01", _OPEN_EXR),
  (b"#?RADIANCE", _HDR),
  (b"FUJIFILMCCD-RAW", _RAW),
  (b"SIMPLE  =", _FITS),
  (b"\0\0\1\0", _ICON),
  (b"icns", _ICON),
  (b"\x93NUMPY", _ARRAYS),
  (b"\x89HDF\r\n\x1a\n", _HDF5),
  (b"PK\3\4", _ZIP),
  (b"\x1f\x8b", _GZIP),
  (b"version https://git-lfs", _LFS),
)
# ISO media files (MP4 and its kin) name their kind, and those that they fit.
_BRANDS = (
  ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"), _HEIC),
  ((b"crx ",), _RAW),
)
_ALL = (
  _MP4, _MATROSKA, _AVI, _MPEG, _OTHER_VIDEO, _HEIC, _SVG, _PDF, _POSTSCRIPT,
  _RAW, _PHOTOSHOP, _GIMP, _JPEG_XL, _OPEN_EXR, _HDR, _DICOM, _NIFTI, _FITS,
  _ICON, _ARRAYS, _HDF5, _ZIP, _GZIP, _WEB_PAGE, _LFS,
)  # fmt: skip

# Of all kinds, and of those that hold a picture.
SUFFIXES = tuple(suffix for kind in _ALL for suffix in kind.suffixes)
STILLS = tuple(
  suffix for kind in _ALL if kind.is_still for suffix in kind.suffixes
)


def of(content: bytes) -> Kind | None:
  """The kind of a file by its first kilobyte; None if it is not known."""
  start = content[:1024]
  for magic, kind in _BY_START:
    if start.startswith(magic):
      return kind
  if start[4:8] == b"ftyp":
    return _of_media(start)
  if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
    return _AVI
  if start[128:132] == b"DICM":
    return _DICOM
  if start[344:348] in (b"n+1\0", b"ni1\0"):
    return _NIFTI
  # The standard allows other bytes before it.
  if b"%PDF-" in start:
    return _PDF
  return _of_markup(start)


def _of_media(start: bytes) -> Kind | None:
  length = int.from_bytes(start[:4], "big")
  brands = [start[8:12]]
  brands += [start[place : place + 4] for place in range(16, length, 4)]
  if b"avif" in brands or b"avis" in brands:
    return None  # Pillow reads these.
  for names, kind in _BRANDS:
    if any(brand in names for brand in brands):
      return kind
  return _MP4


def _of_markup(start: bytes) -> Kind | None:
  text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
  if not text.startswith(b"<"):
    return None
  if re.search(rb"<svg[\s>]", text):
    return _SVG
  if re.match(rb"<!doctype html|<html|<head", text):
    return _WEB_PAGE
  return None


def of_name(name: str) -> Kind | None:
  """The kind of a file by its name; None if it is not known."""
  lower = name.lower()
  for kind in _ALL:
    if lower.endswith(kind.suffixes):
      return kind
  return None
