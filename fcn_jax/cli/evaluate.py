"""Scores the network of a run, at the native size of the pictures.

    fcn-jax evaluate --workdir RUN --split test
    fcn-jax evaluate --workdir RUN --scales 0.75 1.0 1.25 --flip

Labels are never resized. Each picture is resized as in training, times each of
the scales. The probabilities of the classes are resized back to the size of the
picture and averaged, and each pixel gets the likeliest class. One confusion
matrix over the split gives the four scores of the papers and Dice. Matrices of
the bands along boundaries (trimaps) show how well the network finds outlines.
--scores all adds boundary F1, areas under the ROC and precision-recall curves,
and the calibration error; --segments adds scores of segments, such as cells.

Writes to a new folder in the work folder: summary.json, table.md,
per_image.csv, confusion_matrix.png, boundary_bands.png, worst.png and best.png
(by the pixel accuracy of each image); with --scores all, reliability.png.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import pathlib
import sys
from collections.abc import Sequence
from typing import Literal

import jax
import tyro

import fcn_jax as fcn
from fcn_jax import platforms
from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.cli import devices as devices_lib
from fcn_jax.cli import errors
from fcn_jax.cli import evaluate_report as report
from fcn_jax.cli import evaluate_scoring as scoring
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder as folder_lib
from fcn_jax.runs import processes as processes_lib
from fcn_jax.runs import trained_model
from fcn_jax.runs import watch


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
  group_by: str | None = None
  """Regular expression for groups of pictures that belong into one split
  (folder). Default: that of the run."""
  prepared_dir: pathlib.Path | None = None
  """Where prepared data sets are kept. Default: as in the run."""
  scales: tuple[float, ...] = (1.0,)
  """Factors on the size at which the network was trained, to average over."""
  flip: bool = False
  """Average over mirrored pictures, too."""
  quarter_turns: bool = False
  """Average over pictures turned by 90, 180 and 270 degrees, too; with --flip
  over eight views. For networks that were trained with turns."""
  band_widths: tuple[int, ...] = (1, 2, 4, 8, 16)
  """Half widths in pixels of the bands along boundaries to score separately."""
  scores: Literal["papers", "all"] = "papers"
  """papers: their four, and Dice; all: also boundary F1, ROC AUC, average
  precision and the calibration error, which need more time."""
  segments: str | None = None
  """Name of a class, such as cell, whose connected pixels are segments to score
  (Rand and information scores). Needs scikit-image."""
  segment_thresholds: tuple[float, ...] = tuple(i / 10 for i in range(1, 10))
  """A pixel is in a segment if the probability of the class is above this."""
  tile_size: int = 1024
  """Side in pixels of the largest square that the network sees at once. Raise
  it for larger pictures with group normalization, or blend their tiles."""
  blending: fcn.inference.tiling_plan.Blending = "none"
  """Exact tiles side by side, or tiles that overlap by half and are averaged
  with Gaussian weights."""
  num_devices: int | None = None
  """Devices that predict at the same time, each a picture of its own. The
  results are the same. Default: all; on a CPU, one."""
  num_pictures: int = 4
  """Pictures in each of worst.png and best.png."""
  out: pathlib.Path | None = None
  """Folder for the results. Default: one in the work folder, named after what
  is scored."""
  overwrite: bool = False
  """Replace existing results."""
  processes: processes_lib.Processes = processes_lib.Processes()
  """Each process scores its share of the images."""


def folder_of(options: Options, step: int) -> pathlib.Path:
  """The folder for the results."""
  if options.out is not None:
    return options.out
  parts = ["evaluation", options.split, f"step{step}"]
  if options.scales != (1.0,):
    parts += [f"{scale:g}" for scale in options.scales]
  if options.flip:
    parts.append("flip")
  if options.quarter_turns:
    parts.append("turns")
  if options.blending != "none":
    # Their tiles have an influence on the result.
    parts += [options.blending, str(options.tile_size)]
  if options.scores != "papers":
    parts.append(options.scores)
  if options.segments is not None:
    parts.append("segments")
  return options.workdir / "-".join(parts)


def check_options(options: Options) -> None:
  """Raises a `ValueError` for an option out of its range."""
  config_lib.at_least_one(options, "num_pictures", "tile_size")
  scales, widths = options.scales, options.band_widths
  config_lib.require(
    options,
    scales=(scales and min(scales) > 0, "numbers above 0"),
    band_widths=(min(widths, default=1) >= 1, "at least 1"),
  )
  check_segments(options)


def check_segments(options: Options) -> None:
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


def load_split(
  options: Options, network: fcn.runs.TrainedModel
) -> fcn.data.Dataset:
  """The split to score.

  Raises:
    ValueError: if there is no such split, the classes are not those that the
      network was trained on, or there is no class for `segments`.
  """
  changes = {
    name: value
    for name in ("data_dir", "group_by", "prepared_dir")
    if (value := getattr(options, name)) is not None
  }
  data = dataclasses.replace(network.config.data, **changes)
  dataset = batches.load_split(data, options.split, classes=network.classes)
  if dataset.class_names != network.class_names:
    raise ValueError(
      f"the data have the classes {reprs.names(dataset.class_names)}, but the "
      f"network was trained on {reprs.names(network.class_names)}: give the "
      "folder of its own data as --data-dir, or list the network's classes and "
      "their values in a file classes.json in the folder."
    )
  if options.data_dir is None and network.fingerprint not in (
    None,
    dataset.fingerprint,
  ):
    print(
      f"warning: the data have changed since {reprs.path(options.workdir)} was"
      " trained, in their files or in how they are split. Pictures of"
      f" {reprs.shown(options.split)} may be among those that it was trained"
      " on.",
      file=sys.stderr,
    )
  if options.segments not in (None, *dataset.class_names):
    raise ValueError(
      f"segments is {options.segments!r}; it must be one of the classes "
      f"{reprs.names(dataset.class_names)}."
    )
  return dataset


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, scores and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options,
    prog="fcn-jax evaluate",
    description=__doc__,
    args=arguments,
    config=(tyro.conf.OmitArgPrefixes,),
  )
  with contextlib.ExitStack() as resources:
    with errors.explained():
      processes_lib.start(options.processes, saves=False)
      check_options(options)
      which = trained_model.parse_which(options.checkpoint)
      network = fcn.runs.load(options.workdir, which)
      network.check_is_trained()
      folder = folder_of(options, network.step)
      check_results = functools.partial(
        folder_lib.check_results,
        folder,
        report.FILES,
        overwrite=options.overwrite,
        option="--out",
      )
      check_results()
      resources.enter_context(folder_lib.held(folder))
      # Another program may have written there just now.
      check_results()
      devices = devices_lib.of(options.num_devices)
      dataset = load_split(options, network)
    with platforms.known(), errors.explained(writing.WriteError):
      tables = evaluated(options, network, dataset, devices, folder)
  if processes_lib.is_first():
    print(reprs.printable(tables))


def evaluated(
  options: Options,
  network: fcn.runs.TrainedModel,
  dataset: fcn.data.Dataset,
  devices: Sequence[jax.Device] | None,
  folder: pathlib.Path,
) -> str:
  """Scores, and writes the report to a folder.

  Returns:
    Its tables; nothing in other processes than the first, which write nothing.
  """
  # Once, not for each image.
  network = dataclasses.replace(
    network, variables=jax.device_put(network.variables)
  )
  try:
    findings = scoring.score(options, network, dataset, devices)
  except KeyboardInterrupt:
    errors.interrupted("interrupted; nothing was written.")
  if not processes_lib.is_first():
    return ""
  return report.write(
    folder,
    findings,
    dataset,
    widths=options.band_widths,
    segments=options.segments,
    thresholds=options.segment_thresholds,
    facts={
      "run": str(options.workdir),
      "step": network.step,
      "split": options.split,
      "resize": network.config.data.resize,
      "scales": options.scales,
      "flip": options.flip,
      "quarter_turns": options.quarter_turns,
      "blending": options.blending,
      "tile_size": options.tile_size,
      "scores": options.scores,
    },
    num_pictures=options.num_pictures,
    predict=functools.partial(scoring.predict, options, network),
  )
