"""Writes picture files byte by byte, of kinds that no library here writes."""

import struct
import zlib

import numpy as np

# Adam7: the first column and row of each pass, and its steps.
_PASSES = (
  (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
  (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def pack(rows, bits):
  """Rows of samples, [H, W] or [H, W, C], to rows of bytes, padded."""
  rows = rows.reshape(len(rows), -1).astype(">u4")
  all_bits = np.unpackbits(rows.view(np.uint8).reshape(*rows.shape, 4), axis=-1)
  packed = np.packbits(all_bits[..., -bits:].reshape(len(rows), -1), axis=-1)
  return [row.tobytes() for row in packed]


def chunk(kind, content):
  checksum = struct.pack(">I", zlib.crc32(kind + content))
  return struct.pack(">I", len(content)) + kind + content + checksum


def png(samples, *, bits, color_type, interlaced=False, chunks=()):
  """PNG of samples as they are; `chunks` stand before the samples."""
  parts = [samples]
  if interlaced:
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in _PASSES]
  rows = b"".join(
    b"\0" + row for part in parts if part.size for row in pack(part, bits)
  )
  header = struct.pack(
    ">IIBBBBB",
    *(samples.shape[1], samples.shape[0], bits, color_type),
    *(0, 0, int(interlaced)),
  )
  return b"".join(
    [
      b"\x89PNG\r\n\x1a\n",
      chunk(b"IHDR", header),
      *(chunk(kind, content) for kind, content in chunks),
      chunk(b"IDAT", zlib.compress(rows)),
      chunk(b"IEND", b""),
    ]
  )


def tiff(samples, *, bits, photometric, tags=(), order="<"):
  """TIFF of one strip; `tags` are more pairs of a number and its value."""
  height, width = samples.shape[:2]
  channels = 1 if samples.ndim == 2 else samples.shape[2]
  if bits == 16:
    data = samples.astype(order + "u2").tobytes()
  else:
    data = b"".join(pack(samples, bits))
  entries = dict(
    [
      *((256, width), (257, height), (258, bits), (259, 1), (262, photometric)),
      *((273, 8), (277, channels), (278, height), (279, len(data))),
      *tags,
    ]
  )
  mark = b"II" if order == "<" else b"MM"
  content = mark + struct.pack(order + "HI", 42, 8 + len(data) + len(data) % 2)
  content += data + bytes(len(data) % 2)
  content += struct.pack(order + "H", len(entries))
  for tag, value in sorted(entries.items()):
    kind = 4 if tag in (273, 279) else 3
    packed = struct.pack(
      order + ("I" if kind == 4 else "HH"), value, *[0][: kind == 3]
    )
    content += struct.pack(order + "HHI", tag, kind, 1) + packed
  return content + bytes(4)


def bmp(samples, *, bits, palette, colors=0, compression=0, data=None):
  """BMP of indices, [H, W], with a palette [K, 3]; rows from below."""
  if data is None:
    rows = [row + bytes(-len(row) % 4) for row in pack(samples[::-1], bits)]
    data = b"".join(rows)
  table = b"".join(bytes((*color[::-1], 0)) for color in palette)
  info = struct.pack(
    "<IiiHHIIiiII",
    *(40, samples.shape[1], samples.shape[0], 1, bits, compression),
    *(len(data), 0, 0, colors, 0),
  )
  offset = 14 + len(info) + len(table)
  start = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset)
  return start + info + table + data


def gif(samples, *, palette, at=(0, 0), canvas=None):
  """GIF of indices below 128, not compressed; `at` is its left upper corner."""
  height, width = samples.shape
  canvas = canvas or (width, height)
  content = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0xF6, 0, 0)
  content += bytes(palette[:128].astype(np.uint8).tobytes().ljust(384, b"\0"))
  content += b"," + struct.pack("<HHHHB", *at, width, height, 0) + b"\x07"
  # Codes of 8 bits; 128 clears the table before these need 9.
  codes = bytes(
    code
    for start in range(0, samples.size, 100)
    for code in (128, *samples.ravel()[start : start + 100].tolist())
  ) + bytes([129])
  for start in range(0, len(codes), 255):
    block = codes[start : start + 255]
    content += bytes([len(block)]) + block
  return content + b"\0;"


def netpbm(samples, *, magic, maximum, plain=False):
  """PGM or PPM; `plain` writes the numbers as text."""
  head = (
    f"{magic}\n# by hand\n{samples.shape[1]} {samples.shape[0]}\n{maximum}\n"
  )
  if plain:
    numbers = "\n".join(map(str, samples.ravel().tolist()))
    return (head + numbers + "\n").encode()
  return (
    head.encode() + samples.astype(">u2" if maximum > 255 else "u1").tobytes()
  )
