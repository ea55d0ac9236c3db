"""Pictures that are made to crash, to take long, or to fill the memory."""

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from fcn_jax.cli import check_data
from fcn_jax.data.datasets import class_table
from fcn_jax.data.datasets import mask_counts
from fcn_jax.data.files import decoding
from tests.helpers import planted
from tests.helpers import raw_pictures

SEVERAL = "has several frames or pages; save the one"


def saved(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def noise(seed=0, shape=(40, 50)):
  return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def cut_gif():
  """Ends in the header of its second frame."""
  frames = [Image.fromarray(noise(seed)) for seed in range(3)]
  content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
  return content[: len(content) * 2 // 3 + 40]


def tiff(num_pages=1, **options):
  buffer = io.BytesIO()
  with tifffile.TiffWriter(buffer) as writer:
    for _ in range(num_pages):
      writer.write(
        np.zeros((4, 4), np.uint8),
        photometric="minisblack",
        metadata=None,
        **options,
      )
  return buffer.getvalue()


def tiff_with_next_page(offset, **options):
  """A file of one page that says where the next one is."""
  content = tiff(**options)
  (page,) = struct.unpack_from("<I", content, 4)
  (count,) = struct.unpack_from("<H", content, page)
  place = page + 2 + 12 * count
  offset = {"itself": page, "end": place}.get(offset, offset)
  return content[:place] + struct.pack("<I", offset) + content[place + 4 :]


def jpeg_of_scans(count):
  """A progressive picture of 81 million pixels, with the last scan repeated."""
  content = saved(Image.new("RGB", (16, 16)), "JPEG", progressive=True)
  place = content.index(b"\xff\xc2") + 5
  content = content[:place] + struct.pack(">HH", 9000, 9000) + content[place:]
  content = content[: place + 4] + content[place + 8 :]
  last = content[content.rindex(b"\xff\xda") : -2]
  return content[:-2] + last * count + b"\xff\xd9"


def tiff_of(*tags):
  """A small TIFF file with other tags."""
  return raw_pictures.tiff(
    np.zeros((4, 4), np.uint8), bits=8, photometric=1, tags=tags
  )


@pytest.mark.parametrize("decode", [decoding.decode_picture, decoding.facts])
@pytest.mark.parametrize(
  "content, message",
  [
    (cut_gif, SEVERAL),
    (lambda: tiff_with_next_page("itself"), SEVERAL),
    (lambda: tiff_with_next_page("itself", subfiletype=1), SEVERAL),
    (lambda: tiff_with_next_page("end"), "cannot be read as a picture"),
    (lambda: tiff_with_next_page(1), "cannot be read as a picture"),
    (lambda: tiff(3_000), SEVERAL),
    (lambda: tiff(3_000, subfiletype=1), SEVERAL),
    (lambda: jpeg_of_scans(10_000), "more than 100 scans, which takes long"),
    (
      lambda: tiff_of((256, 9000), (257, 9000), (277, 100)),
      "is too large: 9000x9000 pixels .* of 100 bytes",
    ),
    (
      lambda: tiff_of((256, 9000), (257, 9000), (322, 1), (323, 1), (324, 8)),
      "strips or tiles, more than 100000, which takes long",
    ),
  ],
)
def test_it_is_refused_in_a_paragraph_and_a_moment(decode, content, message):
  content = content()
  start = time.process_time()
  with pytest.raises(ValueError, match=message) as raised:
    decode(content)
  assert "\n" not in str(raised.value)
  assert time.process_time() - start < 2


@pytest.mark.parametrize("offset", [0xFFFFFFF0, 5_000])
def test_a_tiff_file_whose_next_page_is_outside_is_read(offset):
  picture = decoding.decode_picture(tiff_with_next_page(offset))
  assert picture.shape == (4, 4, 3)


def test_progressive_pictures_are_read():
  image = Image.fromarray(noise(shape=(40, 50, 3)))
  content = saved(
    image, "JPEG", progressive=True, exif=b"Exif\0\0\xff\xda" * 99
  )
  assert content.count(b"\xff\xda") > 100
  np.testing.assert_array_equal(
    decoding.decode_picture(content), np.array(Image.open(io.BytesIO(content)))
  )


@pytest.mark.parametrize(
  "kind", ["RGB", "CMYK", "deep", "LA", "1", "P", "nibbles"]
)
def test_a_picture_of_several_strips_is_read_as_pillow_reads_it(kind):
  """Rows are handled a million pixels at a time."""
  values = noise(shape=(1100, 2000, 3))
  image = Image.fromarray(values)
  if kind == "nibbles":
    ids = values[..., 0] >> 4
    content = raw_pictures.png(ids, bits=4, color_type=0)
    expected = np.repeat(ids[..., None] * 17, 3, axis=-1)
  elif kind == "deep":
    deep = values[..., 0].astype(np.uint16) << 8
    content = saved(Image.fromarray(deep), "PNG")
    scaled = np.round(np.minimum(deep, 40_000.0) * (255 / 40_000.0))
    expected = np.repeat(scaled[..., None].astype(np.uint8), 3, axis=-1)
  else:
    image = image.convert(kind)
    content = saved(image, "TIFF" if kind == "CMYK" else "PNG")
    expected = np.array(image.getchannel(0) if kind == "LA" else image)
    if kind in ("CMYK", "1", "P", "LA"):
      grey = Image.fromarray(expected) if kind == "LA" else image
      expected = np.array(grey.convert("RGB"))
  white = 40_000 if kind == "deep" else None
  found = decoding.decode_picture(content, white=white)
  np.testing.assert_array_equal(found, expected)


def coloured(shape):
  """A mask of 40 colours in tiles, its table and its labels."""
  generator = np.random.default_rng(0)
  palette = generator.integers(256, size=(40, 3), dtype=np.uint8)
  tiles = generator.integers(40, size=(shape[0] // 20, shape[1] // 20))
  labels = np.kron(tiles, np.ones((20, 20), int)).astype(np.uint8)
  colors = {tuple(c): label for label, c in enumerate(palette.tolist())}
  table = class_table.ClassTable(
    names=tuple(map(str, range(40))),
    palette=tuple(colors),
    values={255: 255},
    colors=colors,
    origin="classes.json",
  )
  return saved(Image.fromarray(palette[labels]), "PNG"), table, labels


def test_a_coloured_mask_takes_few_bytes_a_pixel():
  """88 megapixels took 3.4 GB."""
  content, table, labels = coloured((1400, 3000))
  for read in (table.decode, mask_counts.facts_of):
    tracemalloc.start()
    found = read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # RGB and labels, and what a strip needs.
    assert peak < 5 * labels.size + 60_000_000, read
  decoded = table.decode(content)
  np.testing.assert_array_equal(decoded, labels)
  pixels = np.bincount(labels.ravel(), minlength=40)
  of_codes = dict(
    zip(found.values.tolist(), found.pixels.tolist(), strict=True)
  )
  for (red, green, blue), label in table.colors.items():
    assert of_codes[red << 16 | green << 8 | blue] == pixels[label]


def test_neighbours_are_counted_over_the_edges_of_strips(monkeypatch):
  content, _, _ = coloured((100, 200))
  whole = mask_counts.facts_of(content)
  monkeypatch.setattr("fcn_jax.data.files.rasters._STRIP", 7 * 200)
  strips = mask_counts.facts_of(content)
  for one, other in zip(whole[2:6], strips[2:6], strict=True):
    np.testing.assert_array_equal(one, other)
  assert whole.solid.sum() < whole.pixels.sum()


def test_a_photo_in_place_of_a_coloured_mask_is_told_by_its_first_colours(
  monkeypatch,
):
  monkeypatch.setattr("fcn_jax.data.files.rasters._STRIP", 5_000)
  monkeypatch.setattr(mask_counts, "_MOST_COLORS", 10_000)
  _, table, _ = coloured((40, 40))
  pixels = noise(shape=(120, 150, 3))
  content = saved(Image.fromarray(pixels), "PNG")
  first = sorted(map(tuple, pixels.reshape(-1, 3).tolist()))[0]
  with pytest.raises(ValueError, match=f"has the values .{str(first)[1:-1]}"):
    table.decode(content)
  with pytest.raises(ValueError, match="more than 10000 colours; it is a phot"):
    mask_counts.facts_of(content)


@pytest.mark.parametrize("level", [1, 6])
def test_a_flipped_bit_of_a_png_mask_never_gives_other_class_ids(level):
  """Pillow compares no checksums of pixels."""
  ids = noise(shape=(60, 60)) % 5
  content = saved(Image.fromarray(ids), "PNG", compress_level=level)
  refused = 0
  for place in range(8, len(content), 2):
    damaged = bytearray(content)
    damaged[place] ^= 1 << place % 7
    try:
      found = decoding.decode_mask(bytes(damaged))
    except ValueError:
      refused += 1
    else:
      np.testing.assert_array_equal(found, ids)
  assert refused > len(content) * 0.45


def test_a_wrong_checksum_in_a_png_file_is_told():
  content = bytearray(saved(Image.fromarray(noise()), "PNG"))
  content[content.index(b"IDAT") + 300] ^= 1
  with pytest.raises(
    ValueError, match="damaged .*checksum of 'IDAT' is anothe"
  ):
    decoding.decode_picture(bytes(content))


def test_check_data_names_hostile_pictures_and_goes_on(tmp_path, capsys):
  cells = planted.make_folder(tmp_path / "cells", count=12)
  files = {"a.gif": cut_gif(), "b.tif": tiff_with_next_page("itself")}
  for name, content in files.items():
    (cells / "images" / name).write_bytes(content)
    mask = sorted((cells / "masks").iterdir())[0]
    (cells / "masks" / f"{name[0]}.png").write_bytes(mask.read_bytes())
  with pytest.raises(SystemExit):
    check_data.main(["folder", "--data-dir", str(cells)])
  printed = capsys.readouterr()
  for name in files:
    assert f"{name} {SEVERAL}" in printed.out + printed.err
