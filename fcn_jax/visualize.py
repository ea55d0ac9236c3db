"""Pictures of labels, of predictions and of training curves.

Figures are drawn without pyplot, so nothing here opens a window, keeps a
figure alive or changes the settings of a notebook.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.figure
import matplotlib.patches
import numpy as np

from fcn_jax import types

VOID_COLOR = (224, 224, 192)


def colorize(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """Paints class ids in the colours of a palette.

  Args:
    labels: [...] integers, classes 0..C-1 or `IGNORE_LABEL`.
    palette: [C, 3] uint8, RGB.

  Returns:
    [..., 3] uint8; void in `VOID_COLOR`.
  """
  table = np.full((256, 3), VOID_COLOR, np.uint8)
  table[: len(palette)] = palette
  table[types.IGNORE_LABEL] = VOID_COLOR
  return table[np.asarray(labels)]


def overlay(
  image: np.ndarray,
  labels: np.ndarray,
  palette: np.ndarray,
  opacity: float = 0.5,
) -> np.ndarray:
  """Lays class colours over an image.

  Args:
    image: [H, W, 3] uint8.
    labels: [H, W] integers, classes 0..C-1 or `IGNORE_LABEL`.
    palette: [C, 3] uint8, RGB.
    opacity: of the colours, in 0..1.

  Returns:
    [H, W, 3] uint8; the image itself where void.
  """
  colors = colorize(labels, palette)
  mixed = (1 - opacity) * image + opacity * colors
  void = (np.asarray(labels) == types.IGNORE_LABEL)[..., None]
  return np.where(void, image, np.round(mixed)).astype(np.uint8)


class Curves(NamedTuple):
  """Training losses of one arm of an experiment.

  Attributes:
    iterations: [K] steps taken.
    images: [K] images processed.
    seconds: [S, K] wall time of each of S seeds.
    losses: [S, K] mean loss of a sampled pixel, in nats.
  """

  iterations: np.ndarray
  images: np.ndarray
  seconds: np.ndarray
  losses: np.ndarray


def loss_curves(
  path: pathlib.Path, arms: Mapping[str, Curves], title: str
) -> None:
  """Draws the paper's Figure 5: loss against iterations, images and seconds.

  Lines are means over seeds and bands reach from the smallest to the largest
  loss; against wall time, the seconds are means over seeds too.

  Args:
    path: PNG file to write.
    arms: curves by the name of the arm.
    title: what was trained on what.
  """
  figure = matplotlib.figure.Figure((12, 4), layout="constrained")
  axes = figure.subplots(1, 3, sharey=True)
  for name, curves in arms.items():
    mean = curves.losses.mean(axis=0)
    for axis, x in zip(
      axes,
      (curves.iterations, curves.images, curves.seconds.mean(axis=0)),
      strict=True,
    ):
      (line,) = axis.plot(x, mean, label=name, linewidth=1.5)
      axis.fill_between(
        x,
        curves.losses.min(axis=0),
        curves.losses.max(axis=0),
        color=line.get_color(),
        alpha=0.2,
        linewidth=0,
      )
  for axis, label in zip(
    axes, ("iterations", "images processed", "wall time (s)"), strict=True
  ):
    axis.set_xlabel(label)
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
  axes[0].set_ylabel("training loss (nats a pixel)")
  axes[0].legend(title="arm")
  num_seeds = max(len(curves.losses) for curves in arms.values())
  seeds = f"bands: range over {num_seeds} seeds" if num_seeds > 1 else "1 seed"
  figure.suptitle(f"{title} ({seeds})")
  figure.savefig(path, dpi=90)


def predictions(
  path: pathlib.Path,
  columns: Mapping[str, Sequence[np.ndarray]],
  class_names: Sequence[str],
  palette: np.ndarray,
) -> None:
  """Draws a table of pictures, with the legend of the classes below.

  Args:
    path: PNG file to write.
    columns: by title, a picture for each row: an image [H, W, 3] uint8, or
      labels [H, W], which are painted in class colours.
    class_names: C names.
    palette: [C, 3] uint8, RGB.
  """
  first = next(iter(columns.values()))
  aspects = [picture.shape[0] / picture.shape[1] for picture in first]
  num_rows = len(first)
  figure = matplotlib.figure.Figure(
    (1.7 * len(columns), 1.7 * sum(aspects) + 0.8), layout="constrained"
  )
  axes = figure.subplots(
    num_rows, len(columns), squeeze=False, height_ratios=aspects
  )
  for column, (title, pictures) in enumerate(columns.items()):
    axes[0, column].set_title(title, fontsize=9)
    for row, picture in enumerate(pictures):
      if picture.ndim == 2:
        picture = colorize(picture, palette)
      axes[row, column].imshow(picture, interpolation="nearest")
      axes[row, column].set_axis_off()
  handles = [
    matplotlib.patches.Patch(facecolor=np.array(color) / 255, label=name)
    for name, color in (
      *zip(class_names, palette, strict=True),
      ("void", VOID_COLOR),
    )
  ]
  figure.legend(
    handles=handles,
    loc="outside lower center",
    ncols=min(len(handles), 6),
    fontsize=8,
  )
  figure.savefig(path, dpi=72)
