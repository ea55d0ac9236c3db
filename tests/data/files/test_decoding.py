import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.files import decoding


def png(array, **options):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format="PNG", **options)
  return buffer.getvalue()


def test_masks_and_pictures_survive_encoding():
  generator = np.random.default_rng(0)
  mask = generator.integers(256, size=(5, 7), dtype=np.uint8)
  picture = generator.integers(256, size=(5, 7, 3), dtype=np.uint8)
  np.testing.assert_array_equal(
    decoding.decode_mask(decoding.encode_png(mask)), mask
  )
  np.testing.assert_array_equal(
    decoding.decode_picture(decoding.encode_png(picture)), picture
  )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_a_palette_mask_are_its_indices(bits):
  mask = Image.new("P", (2, 2))
  mask.putpalette([9, 8, 7, 200, 100, 50])
  mask.putdata([0, 1, 1, 0])
  buffer = io.BytesIO()
  mask.save(buffer, format="PNG", bits=bits)
  decoded = decoding.decode_mask(buffer.getvalue())
  np.testing.assert_array_equal(decoded, [[0, 1], [1, 0]])


def test_a_picture_of_16_bits_is_refused_and_not_cut_off():
  deep = np.array([[0, 300], [40_000, 65_535]], np.uint16)
  with pytest.raises(ValueError, match="more than 8 bits"):
    decoding.decode_picture(png(deep))


def test_a_grey_mask_of_4_bits_keeps_its_ids_and_is_not_spread():
  # Pillow writes no such file, so it is packed by hand.
  def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum

  header = struct.pack(">IIBBBBB", 2, 2, 4, 0, 0, 0, 0)
  rows = zlib.compress(b"\0\x01\0\x2b")
  content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
  content += chunk(b"IDAT", rows) + chunk(b"IEND", b"")
  with Image.open(io.BytesIO(content)) as picture:
    assert np.array(picture).max() == 11 * 17
  np.testing.assert_array_equal(
    decoding.decode_mask(content), [[0, 1], [2, 11]]
  )
