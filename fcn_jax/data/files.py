"""Pictures and masks as bytes: encoding, decoding, and what is wrong with them.

Pillow does all of it. TFDS would decode by TensorFlow or OpenCV, whichever it
finds, and the two disagree about masks that have a colour palette.
"""

import io

import numpy as np
from PIL import Image


def encode_png(array: np.ndarray) -> bytes:
  """Returns a PNG file.

  Args:
    array: [H, W] uint8 (grey) or [H, W, 3] uint8 (RGB).
  """
  buffer = io.BytesIO()
  # Level 1 takes a third of the time of the default for a tenth more bytes.
  Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
  return buffer.getvalue()


def decode_picture(content: bytes) -> np.ndarray:
  """Decodes a PNG or JPEG file to RGB.

  Args:
    content: the bytes of the file.

  Returns:
    [H, W, 3] uint8.

  Raises:
    ValueError: the content is empty, broken, no picture, or has more than 8
      bits a channel.
  """
  image = _open(content)
  if image.mode.startswith(("I", "F")):
    raise ValueError(
      f"has more than 8 bits a channel (Pillow's mode {image.mode!r}), which"
      " would be cut off; convert it to 8 bits"
    )
  return np.array(image.convert("RGB"))


def decode_mask(content: bytes) -> np.ndarray:
  """Decodes a mask: a PNG file whose pixel values are class ids.

  Args:
    content: the bytes of the file: 8-bit grey, or 8-bit with a colour palette,
      whose indices are then the ids.

  Returns:
    [H, W] uint8.

  Raises:
    ValueError: the content is empty, broken, no picture, or has colours
      in place of ids.
  """
  image = _open(content)
  # The bit depth of a PNG file stands in its header.
  num_bits = content[24] if content.startswith(b"\x89PNG") else 8
  if image.mode not in ("L", "P"):
    raise ValueError(
      f"is no mask of class ids: it has Pillow's mode {image.mode!r} where"
      " 8-bit grey ('L') or an 8-bit palette ('P') is expected; convert it so"
      " that each pixel holds its class id"
    )
  if image.mode == "L" and num_bits != 8:
    # Pillow spreads the values over 0..255.
    raise ValueError(f"is a mask with {num_bits} bits a pixel; save it with 8")
  return np.array(image)


def _open(content: bytes) -> Image.Image:
  """Opens and decodes, with one kind of error for whatever is wrong."""
  if not content:
    raise ValueError("is empty (0 bytes); copy or download it again")
  try:
    image = Image.open(io.BytesIO(content))
    image.load()
  # Broken files make Pillow raise OSError, SyntaxError, ValueError, zlib.error,
  # struct.error and others.
  except Exception as error:
    raise ValueError(
      f"cannot be read as a picture ({error}); copy or download it again"
    ) from error
  return image
