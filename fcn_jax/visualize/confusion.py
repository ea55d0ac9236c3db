"""The confusion matrix as a picture."""

import os
from collections.abc import Sequence

import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
import PIL.Image

from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.visualize import figures

# With more classes than this there is no room for numbers.
_MAX_NUMBERED = 40


def confusion_matrix(
  confusion: np.ndarray,
  class_names: Sequence[str],
  *,
  path: str | os.PathLike[str] | None = None,
) -> figures.Figure:
  """Draws a confusion matrix.

  Each row shows in percent how the pixels of a true class were classified;
  beside the name of the class is its share of all pixels.

  Args:
    confusion: [C, C] counts, true classes in rows.
    class_names: C names.
    path: PNG file to write, or None to write nothing.

  Returns:
    The figure.
  """
  figure = _draw(confusion, class_names)
  if path is not None:
    picture = PIL.Image.fromarray(_pixels(figure))
    # With full colours the file would be large.
    picture = picture.quantize(128, dither=PIL.Image.Dither.NONE)
    with writing.whole(path, replace=True) as partial:
      picture.save(partial, format="PNG", optimize=True)
  return figure


def confusion_matrix_image(
  confusion: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
  """The picture of `confusion_matrix` as [H, W, 3] uint8."""
  return _pixels(_draw(confusion, class_names))


def _pixels(figure: matplotlib.figure.Figure) -> np.ndarray:
  """A figure as [H, W, 3] uint8."""
  canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def _draw(confusion: np.ndarray, class_names: Sequence[str]) -> figures.Figure:
  confusion = np.asarray(confusion, np.float64)
  num_classes = len(class_names)
  numbered = num_classes <= _MAX_NUMBERED
  # Inches per class; they decide how large the letters look.
  cell = 0.36 if numbered else max(0.09, 0.36 * _MAX_NUMBERED / num_classes)
  letters = min(9.0, 65 * cell)
  true = confusion.sum(axis=1)
  with np.errstate(invalid="ignore"):
    percent = 100 * confusion / true[:, None]
    shares = 100 * true / true.sum()

  side = max(3.0, cell * num_classes)
  figure = figures.Figure(
    (side + 2.8, side + 1.6), layout="compressed", dpi=150
  )
  axes = figure.subplots()
  # Rows of classes without a true pixel are not defined, and grey.
  axes.set_facecolor("lightgrey")
  picture = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
  bar = figure.colorbar(picture, shrink=0.8, pad=0.02)
  bar.set_label("pixels of the true class (%)")
  ticks = np.arange(num_classes)
  # Longer ones would leave no room for the matrix.
  class_names = [reprs.in_figure(name, max_length=30) for name in class_names]
  axes.set_xticks(ticks, class_names, rotation=90, fontsize=letters)
  axes.set_yticks(
    ticks,
    [
      f"{name} ({_in_percent(share)})"
      for name, share in zip(class_names, shares, strict=True)
    ],
    fontsize=letters,
  )
  axes.set_xlabel("predicted class")
  axes.set_ylabel("true class (share of all pixels)")
  if numbered:
    for (row, column), value in np.ndenumerate(percent):
      # Zeros are left out, so that confusions stand out.
      if value >= 0.5:
        axes.text(
          column,
          row,
          f"{value:.0f}",
          color="white" if value > 60 else "black",
          fontsize=letters - 1,
          ha="center",
          va="center",
        )
  return figure


def _in_percent(share: float) -> str:
  if not share > 0:
    return "none"
  if share < 0.05:
    return "<0.1 %"
  return f"{share:.{0 if share >= 9.5 else 1}f} %"
