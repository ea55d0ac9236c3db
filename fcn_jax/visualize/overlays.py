"""Draws an overlay with its legend, by Pillow alone.

Exported networks contain this module and `painting`, too.
"""

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.visualize import painting

# The longer side of an overlay with a legend, in pixels.
_MAX_SIDE = 2048


def labelled(
  image: np.ndarray,
  classes: np.ndarray,
  class_names: Sequence[str],
  palette: np.ndarray,
) -> PIL.Image.Image:
  """Draws what `pictures.labelled_overlay` returns, with its arguments."""
  counts = np.zeros(256, np.int64)
  for row in classes:
    counts += np.bincount(row, minlength=256)
  factor = math.ceil(max(classes.shape) / _MAX_SIDE)
  small = PIL.Image.fromarray(image).reduce(factor)
  picture = PIL.Image.fromarray(
    painting.overlay(
      np.asarray(small),
      classes[::factor, ::factor],
      palette,
      background=painting.background_of(class_names),
    )
  )
  legend = _legend(counts, class_names, palette, picture.width)
  canvas = PIL.Image.new(
    "RGB", (legend.width, picture.height + legend.height), "white"
  )
  canvas.paste(picture, (0, 0))
  canvas.paste(legend, (0, picture.height))
  return canvas


def _legend(
  counts: np.ndarray,
  class_names: Sequence[str],
  palette: np.ndarray,
  width: int,
) -> PIL.Image.Image:
  """The legend of the classes that occur, at least `width` pixels wide."""
  size = min(28, max(12, width // 50))
  font = PIL.ImageFont.load_default(size)
  entries = []
  # The overlay does not paint these.
  bare = (types.IGNORE_LABEL, painting.background_of(class_names))
  for label in np.argsort(-counts, kind="stable"):
    if counts[label]:
      name = "void" if label == types.IGNORE_LABEL else class_names[label]
      name = reprs.shown(name)
      share = f"{name}: {100 * counts[label] / counts.sum():.1f} %"
      entries.append((share, None if label in bare else tuple(palette[label])))
  longest = max(math.ceil(font.getlength(text)) for text, _ in entries)
  line, entry = round(1.5 * size), longest + 2 * size + size // 2
  num_columns = max(1, min(len(entries), (width - size) // entry))
  num_lines = math.ceil(len(entries) / num_columns)
  legend = PIL.Image.new(
    "RGB",
    (max(width, entry + size), num_lines * line + size),
    "white",
  )
  draw = PIL.ImageDraw.Draw(legend)
  for number, (text, color) in enumerate(entries):
    x = size // 2 + number // num_lines * entry
    y = size // 2 + number % num_lines * line
    draw.rectangle((x, y, x + size, y + size), fill=color, outline="grey")
    draw.text((x + 1.5 * size, y + size / 2), text, "black", font, anchor="lm")
  return legend
