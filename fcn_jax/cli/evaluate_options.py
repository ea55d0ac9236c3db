"""The options of `fcn-jax evaluate`."""

import dataclasses
import importlib.util
import pathlib
from typing import Literal

from fcn_jax.inference import tiling_plan
from fcn_jax.runs import config as config_lib


@dataclasses.dataclass(frozen=True)
class Options:
  """What to score, and how."""

  workdir: pathlib.Path
  """Work folder of the run."""
  checkpoint: str = "best"
  """Which step: best (the newest if none was validated), latest, or a
  number."""
  split: str = "validation"
  """Split of the run's data set: train, validation or, if there is one,
  test."""
  data_dir: pathlib.Path | None = None
  """Folder of the data set's files. Default: that of the run."""
  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept. Default: as in the run."""
  scales: tuple[float, ...] = (1.0,)
  """Factors on the size at which the network was trained, to average over."""
  flip: bool = False
  """Average over mirrored pictures, too."""
  band_widths: tuple[int, ...] = (1, 2, 4, 8, 16)
  """Half widths in pixels of the bands along boundaries to score separately."""
  scores: Literal["papers", "all"] = "papers"
  """papers: their four, and Dice; all: also boundary F1, ROC AUC, average
  precision and the calibration error, which need more time."""
  segments: str | None = None
  """Name of a class, such as cell, whose connected pixels are segments to score
  (Rand and information scores). Needs scikit-image."""
  segment_thresholds: tuple[float, ...] = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
  )
  """A pixel is in a segment if the probability of the class is above this."""
  tile_size: int = 1024
  """Side in pixels of the largest square that the network sees at once. Raise
  it for larger pictures with group normalization, or blend their tiles."""
  blending: tiling_plan.Blending = "none"
  """Exact tiles side by side, or tiles that overlap by half and are averaged
  with Gaussian weights."""
  num_pictures: int = 4
  """Pictures in each of worst.png and best.png."""
  out: pathlib.Path | None = None
  """Folder for the results. Default: one in the work folder, named after what
  is scored."""
  overwrite: bool = False
  """Replace existing results."""


def folder_of(options: Options, step: int) -> pathlib.Path:
  """The folder for the results."""
  if options.out is not None:
    return options.out
  parts = ["evaluation", options.split, f"step{step}"]
  if options.scales != (1.0,):
    parts += [f"{scale:g}" for scale in options.scales]
  if options.flip:
    parts.append("flip")
  if options.blending != "none":
    parts.append(options.blending)
  return options.workdir / "-".join(parts)


def check(options: Options) -> None:
  """Raises a `ValueError` for an option out of its range."""
  config_lib.at_least_one(options, "num_pictures", "tile_size")
  scales, widths = options.scales, options.band_widths
  config_lib.require(
    options,
    scales=(scales and min(scales) > 0, "numbers above 0"),
    band_widths=(min(widths, default=1) >= 1, "at least 1"),
  )
  _check_segments(options)


def _check_segments(options: Options) -> None:
  """Raises a `ValueError` if segments cannot be scored so."""
  thresholds = options.segment_thresholds
  if options.segments is None:
    config_lib.require(
      options,
      segment_thresholds=(
        thresholds == Options.segment_thresholds,
        "left out, as there is no --segments CLASS",
      ),
    )
    return
  config_lib.require(
    options,
    segment_thresholds=(
      thresholds and min(thresholds) >= 0 and max(thresholds) < 1,
      "numbers from 0 to less than 1",
    ),
  )
  if importlib.util.find_spec("skimage") is None:
    raise ValueError(
      "--segments needs scikit-image, which is not installed: run "
      "pip install scikit-image."
    )
