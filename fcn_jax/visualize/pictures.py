"""Draws pictures with a legend of their classes."""

import math
import os
from collections.abc import Mapping, Sequence

import matplotlib.patches
import numpy as np
import PIL.Image

from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.visualize import figures
from fcn_jax.visualize import overlays
from fcn_jax.visualize import painting


def predictions(
  columns: Mapping[str, Sequence[np.ndarray]],
  class_names: Sequence[str],
  palette: np.ndarray,
  *,
  row_titles: Sequence[str] = (),
  column_width: float = 1.7,
  path: str | os.PathLike[str] | None = None,
) -> figures.Figure:
  """Draws a table of pictures, with the legend of the classes below.

  Args:
    columns: by title, a picture for each row: an image [H, W, 3] uint8, or
      labels [H, W], which are painted in class colours.
    class_names: C names.
    palette: [C, 3] uint8, RGB.
    row_titles: written above the rows; none if empty.
    column_width: in inches of 150 pixels.
    path: PNG file to write, or None to write nothing.

  Returns:
    The figure.
  """
  first = next(iter(columns.values()))
  aspects = [picture.shape[0] / picture.shape[1] for picture in first]
  num_rows = len(first)
  entries = (
    *zip(class_names, palette, strict=True),
    ("void", painting.VOID_COLOR),
  )
  # As many as fit, but at most six.
  entries_a_line = min(
    len(entries), 6, max(1, round(column_width * len(columns) / 1.1))
  )
  figure = figures.Figure(
    (
      column_width * len(columns),
      column_width * sum(aspects)
      + 0.2 * len(row_titles)
      + max(0.8, 0.4 + 0.17 * math.ceil(len(entries) / entries_a_line)),
    ),
    layout="constrained",
    dpi=150,
  )
  axes = figure.subplots(
    num_rows, len(columns), squeeze=False, height_ratios=aspects
  )
  for column, (title, pictures) in enumerate(columns.items()):
    # The title of a row is below those of the columns.
    below = "\n" if len(row_titles) else ""
    axes[0, column].set_title(reprs.in_figure(title) + below, fontsize=9)
    for row, picture in enumerate(pictures):
      if picture.ndim == 2:
        picture = painting.colorize(picture, palette)
      axes[row, column].imshow(picture, interpolation="nearest")
      axes[row, column].set_axis_off()
  for axis, title in zip(axes[:, 0], row_titles, strict=False):
    axis.set_title(reprs.in_figure(title), fontsize=8, loc="left")
  handles = [
    matplotlib.patches.Patch(
      facecolor=np.array(color) / 255, label=reprs.in_figure(name)
    )
    for name, color in entries
  ]
  figure.legend(
    handles=handles,
    loc="outside lower center",
    ncols=entries_a_line,
    fontsize=8,
  )
  figures.save(figure, path)
  return figure


def labelled_overlay(
  image: np.ndarray,
  classes: np.ndarray,
  class_names: Sequence[str],
  palette: np.ndarray,
  *,
  path: str | os.PathLike[str] | None = None,
) -> PIL.Image.Image:
  """Draws an overlay, with the classes in it and their shares below.

  Args:
    image: [H, W, 3] uint8.
    classes: [H, W] integers, classes 0..C-1 or `IGNORE_LABEL`. Pictures of
      more than 2048 pixels a side are drawn smaller; the shares are those of
      all pixels.
    class_names: C names.
    palette: [C, 3] uint8, RGB.
    path: file to write, whose suffix decides the format; None to write
      nothing.

  Returns:
    The picture.
  """
  canvas = overlays.labelled(image, classes, class_names, palette)
  if path is not None:
    with writing.whole(path, replace=True) as partial:
      canvas.save(partial)
  return canvas
