"""Masks of all kinds in a folder: labels are what was written, or a refusal.

FORMAT_EXAMPLES=5000 pytest tests/data/datasets/test_folder_formats.py
"""

import io
import json
import os
import pathlib
import tempfile

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import tifffile
from hypothesis import strategies
from PIL import Image

from fcn_jax import types
from fcn_jax.data.datasets import folder
from fcn_jax.data.files import checking
from tests.helpers import raw_pictures

_EXAMPLES = int(os.environ.get("FORMAT_EXAMPLES", "15"))
# The files are tiny, so a failure is read without being made smaller first.
_settings = hypothesis.settings(
  deadline=None,
  max_examples=_EXAMPLES,
  phases=(hypothesis.Phase.reuse, hypothesis.Phase.generate),
)
_COLORS = np.random.default_rng(0).permutation(2**24)[:256]
_PALETTE = np.stack([_COLORS >> 16, _COLORS >> 8 & 255, _COLORS & 255], -1)
_PALETTE = _PALETTE.astype(np.uint8)


def _pillow(array, name, palette=None, **options):
  image = Image.fromarray(array)
  if palette is not None:
    image.putpalette(palette.tobytes())
  buffer = io.BytesIO()
  image.save(buffer, name, **options)
  return buffer.getvalue()


def _tifffile(array, **options):
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, array, **options)
  return buffer.getvalue()


def _choose(draw, *values):
  return draw(strategies.sampled_from(values))


def _png(draw, x):
  return _pillow(x, "PNG", optimize=_choose(draw, True, False))


def _png_of_few_bits(draw, x):
  bits = _choose(draw, *(b for b in (1, 2, 4, 8, 16) if x.max() < 2**b))
  interlaced = _choose(draw, True, False)
  return raw_pictures.png(x, bits=bits, color_type=0, interlaced=interlaced)


def _png_with_palette(draw, x):
  return _pillow(x, "PNG", _PALETTE)


def _png_in_grey_colors(draw, x):
  return _pillow(np.stack([x] * _choose(draw, 3, 4), axis=-1), "PNG")


def _pillow_tiff(draw, x):
  names = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")
  palette = _choose(draw, None, _PALETTE)
  name = _choose(draw, *names, *([] if palette is not None else ["jpeg"]))
  return _pillow(x, "TIFF", palette, compression=name)


def _other_tiff(draw, x):
  kind = _choose(draw, "u1", "u2", "u4", "i2", "i4", "f4")
  compression = _choose(draw, None, "lzw", "deflate", "lzma", "packbits")
  predictable = compression in ("lzw", "deflate") and kind != "f4"
  return _tifffile(
    x.astype(kind),
    photometric=_choose(draw, "minisblack", "miniswhite"),
    compression=compression,
    predictor=predictable and _choose(draw, False, True),
    tile=_choose(draw, None, (16, 16)),
    byteorder=_choose(draw, "<", ">"),
    bigtiff=_choose(draw, False, True),
    rowsperstrip=_choose(draw, None, 3),
  )


def _tiff_of_few_bits(draw, x):
  return raw_pictures.tiff(
    x,
    bits=_choose(draw, *(b for b in (1, 2, 4, 8, 12, 16) if x.max() < 2**b)),
    photometric=_choose(draw, 0, 1),
    order=_choose(draw, "<", ">"),
  )


def _netpbm(draw, x):
  maximum = draw(strategies.integers(1, 65535))
  return raw_pictures.netpbm(
    x,
    magic="P2" if (plain := _choose(draw, True, False)) else "P5",
    maximum=maximum,
    plain=plain,
  )


def _bmp(draw, x):
  bits = _choose(draw, *(b for b in (1, 4, 8) if x.max() < 2**b))
  greys = np.stack([np.arange(256)] * 3, -1).astype(np.uint8)
  palette = _choose(draw, _PALETTE, greys)[: 2**bits]
  return raw_pictures.bmp(x, bits=bits, palette=palette)


def _tga(draw, x):
  palette = _choose(draw, None, _PALETTE)
  return _pillow(x, "TGA", palette, compression=_choose(draw, None, "tga_rle"))


def _gif(draw, x):
  return _pillow(x, "GIF", interlace=_choose(draw, 0, 1))


def _webp(draw, x):
  array = np.stack([x] * 3, axis=-1)
  lossless = _choose(draw, True, False)
  return _pillow(array, "WEBP", lossless=lossless, quality=90)


def _never_exact(draw, x):
  return _pillow(x, _choose(draw, "JPEG", "JPEG2000", "AVIF"))


_WRITERS = (
  _png, _png_of_few_bits, _png_with_palette, _png_in_grey_colors, _pillow_tiff,
  _other_tiff, _tiff_of_few_bits, _netpbm, _bmp, _tga, _gif, _webp,
  _never_exact,
)  # fmt: skip


@strategies.composite
def folders(draw):
  """A writer's masks of random labels: arrays and files."""
  write = draw(strategies.sampled_from(_WRITERS))
  values = draw(
    strategies.lists(
      strategies.integers(0, 255), min_size=2, max_size=6, unique=True
    )
  )
  arrays = draw(
    strategies.lists(
      hypothesis.extra.numpy.arrays(
        np.uint8,
        hypothesis.extra.numpy.array_shapes(
          min_dims=2, max_dims=2, min_side=1, max_side=20
        ),
        elements=strategies.sampled_from(values),
        fill=strategies.nothing(),
      ),
      min_size=1,
      max_size=3,
    )
  )
  return arrays, [write(draw, array) for array in arrays]


def _read(arrays, contents, classes):
  """Values and labels of all pixels, or None if the folder is refused."""
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for number, (array, content) in enumerate(
      zip(arrays, contents, strict=True)
    ):
      path = root / "images" / f"{number}.png"
      path.write_bytes(_pillow(np.zeros_like(array), "PNG"))
      # What it is counts, not how it is called.
      (root / "masks" / f"{number}.png").write_bytes(content)
    if classes is not None:
      (root / folder.CLASSES_FILE).write_text(json.dumps(classes))
    try:
      found = folder.find(root)
      survey = checking.survey(found)
      survey.check()
    except ValueError:
      return None
    labels = [
      found.decode_mask(pair.mask.read_bytes())
      for pair in sorted(found.pairs, key=lambda pair: pair.name)
    ]
  for array, label in zip(arrays, labels, strict=True):
    assert array.shape == label.shape
  return np.concatenate([a.ravel() for a in arrays]), np.concatenate(
    [label.ravel() for label in labels]
  )


@_settings
@hypothesis.given(folders())
def test_labels_with_a_table_are_what_was_written_or_the_folder_is_refused(
  written,
):
  classes = {"classes": [{"name": str(v), "value": v} for v in range(255)]}
  read = _read(*written, classes)
  if read is not None:
    values, labels = read
    np.testing.assert_array_equal(labels, values)
    assert (labels != types.IGNORE_LABEL).any()


@_settings
@hypothesis.given(folders())
def test_without_a_table_values_stay_apart_or_the_folder_is_refused(written):
  read = _read(*written, None)
  if read is not None:
    values, labels = read
    pairs = set(zip(values.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == len(set(values.tolist())) == len(set(labels.tolist()))
