import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.files import decoding
from tests.helpers import raw_pictures


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
  ids = np.array([[0, 1], [2, 11]])
  content = raw_pictures.png(ids, bits=4, color_type=0)
  with Image.open(io.BytesIO(content)) as picture:
    assert np.array(picture).max() == 11 * 17
  np.testing.assert_array_equal(decoding.decode_mask(content), ids)


@pytest.mark.parametrize("tags", [(256, 257), (322, 323)])
def test_a_tiff_file_of_huge_size_or_tiles_is_refused_unread(tags):
  content = raw_pictures.tiff(
    np.zeros((4, 4), np.uint8),
    bits=8,
    photometric=1,
    tags=[(tag, 60_000) for tag in tags] + [(324, 8), (325, 16)],
  )
  for decode in (decoding.decode_mask, decoding.facts):
    with pytest.raises(ValueError, match="is too large: 60000x60000"):
      decode(content)


def test_a_strip_that_unpacks_to_more_than_its_picture_is_not_unpacked():
  packed = zlib.compress(bytes(200_000_000))
  content = raw_pictures.tiff(
    np.zeros((4, 4), np.uint8), bits=8, photometric=1, tags=[(259, 8)]
  )
  # The strip is moved behind the file.
  for tag, value in ((273, len(content)), (279, len(packed))):
    place = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
    content = content[:place] + struct.pack("<I", value) + content[place + 4 :]
  tracemalloc.start()
  with contextlib.suppress(ValueError):
    assert decoding.decode_mask(content + packed).shape == (4, 4)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 20_000_000


def test_formats_that_are_not_on_the_list_are_not_read():
  content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
  with pytest.raises(ValueError, match="is PostScript, a program that is not"):
    decoding.decode_picture(content)
