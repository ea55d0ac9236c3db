"""A folder of pictures and masks, and faults to plant in it."""

import io
import os
import shutil
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 48


def make_folder(root, count=30):
  """Microscopy: grey PNG pictures with 0/255 masks."""
  generator = np.random.default_rng(0)
  (root / "images").mkdir(parents=True)
  (root / "masks").mkdir()
  rows, columns = np.mgrid[:SIDE, :SIDE]
  for number in range(count):
    centre = generator.uniform(10, SIDE - 10, size=2)
    mask = np.hypot(rows - centre[0], columns - centre[1]) < 8
    picture = generator.integers(20, 60, (SIDE, SIDE)) + 120 * mask
    save(root / "images" / f"cell_{number:02d}.png", picture.astype(np.uint8))
    save(root / "masks" / f"cell_{number:02d}.png", mask.astype(np.uint8) * 255)
  return root


def save(path, array, **options):
  Image.fromarray(array).save(path, **options)


def bomb(side=30_000):
  """A PNG file of a few hundred kB that decodes to 900 MB."""

  def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum

  header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
  packer = zlib.compressobj(1)
  row = bytes(side + 1)
  rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
  png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
  return png + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def plant(root, content_of_bomb):
  """Adds pairs with a fault each; returns the faulty files with reasons."""
  images, masks = root / "images", root / "masks"
  picture = (images / "cell_00.png").read_bytes()
  mask = (masks / "cell_00.png").read_bytes()

  def add(stem):
    (images / f"{stem}.png").write_bytes(picture)
    (masks / f"{stem}.png").write_bytes(mask)
    return images / f"{stem}.png", masks / f"{stem}.png"

  faults = {}

  def expect(path, reason):
    faults[path.relative_to(root).as_posix()] = reason

  image, _ = add("truncated_jpeg")
  buffer = io.BytesIO()
  Image.open(image).save(buffer, format="JPEG")
  image.unlink()
  image.with_suffix(".jpg").write_bytes(buffer.getvalue()[:-300])
  expect(image.with_suffix(".jpg"), "truncated")

  image, _ = add("zero_bytes")
  image.write_bytes(b"")
  expect(image, r"empty \(0 bytes\)")

  _, label = add("other_size")
  save(label, np.zeros((SIDE, SIDE - 2), np.uint8))
  expect(label, rf"has {SIDE - 2}x{SIDE} pixels .* its picture .* resize")

  _, label = add("id_out_of_range")
  array = np.array(Image.open(label))
  array[3, 4] = 7
  save(label, array)
  expect(label, "values 7, which are neither a class .* known are 0, 255")

  image, label = add("no_mask")
  label.unlink()
  expect(image, "has no mask")

  image, label = add("no_picture")
  image.unlink()
  expect(label, "has no picture")

  image, _ = add("animated")
  image.unlink()
  frames = [Image.new("L", (SIDE, SIDE), value) for value in (0, 99, 200)]
  frames[0].save(
    image.with_suffix(".gif"), save_all=True, append_images=frames[1:]
  )
  expect(image.with_suffix(".gif"), "several frames")

  image, _ = add("bomb")
  image.write_bytes(content_of_bomb)
  expect(image, "too large")

  _, label = add("bomb_mask")
  label.write_bytes(content_of_bomb)
  expect(label, "too large")

  image, _ = add("link_outside")
  image.unlink()
  outside = root.parent / "outside.png"
  outside.write_bytes(picture)
  image.symlink_to(outside)
  expect(image, "symbolic link to .*outside")

  image, _ = add("dangling_link")
  image.unlink()
  image.symlink_to(images / "nowhere.png")
  expect(image, "not there")

  image, _ = add("text")
  image.write_text("a picture, honestly")
  expect(image, "cannot be read as a picture")

  image, _ = add("two_of_a_name")
  shutil.copy(image, image.with_suffix(".tif"))
  expect(image, "one of 2 pictures of a name")

  _, label = add("truncated_mask")
  label.write_bytes(label.read_bytes()[:60])
  expect(label, "cannot be read as a picture")

  _, label = add("lossy_mask")
  Image.open(label).save(label.with_suffix(".jpg"))
  label.unlink()
  expect(label.with_suffix(".jpg"), "lossy format JPEG")

  _, label = add("coloured_mask")
  array = np.zeros((SIDE, SIDE, 3), np.uint8)
  array[:9, :9] = [255, 0, 0]
  save(label, array)
  expect(label, "colours, and no table")

  image, _ = add("pipe")
  image.unlink()
  os.mkfifo(image)
  expect(image, "not a file")

  image, _ = add("fractions")
  image.unlink()
  save(image.with_suffix(".tif"), np.random.rand(SIDE, SIDE).astype("f4"))
  expect(image.with_suffix(".tif"), "float32.* which is white")

  image, _ = add("flipped_bits")
  content = bytearray(picture)
  content[len(content) // 2] ^= 0xFF
  image.write_bytes(bytes(content))
  expect(image, "is damaged .the checksum of .IDAT. is another")

  image, label = add("both")
  image.write_bytes(b"")
  label.write_bytes(b"")
  expect(image, "empty")
  expect(label, "empty")
  return faults
