"""Scores the network of a run, at the native size of the pictures.

    fcn-jax evaluate --workdir RUN --split test
    fcn-jax evaluate --workdir RUN --scales 0.75 1.0 1.25 --flip

Labels are never resized. Each picture is resized as in training, times each of
the scales. The probabilities of the classes are resized back to the size of the
picture and averaged, and each pixel gets the likeliest class. One confusion
matrix over the split gives the four scores of the papers. Matrices of the bands
along boundaries (trimaps) show how well the network finds outlines.

Writes to a new folder in the work folder: summary.json, table.md,
per_image.csv, confusion_matrix.png, boundary_bands.png, worst.png and best.png
(by the pixel accuracy of each image).
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
import tyro

import fcn_jax as fcn
from fcn_jax.cli import errors
from fcn_jax.cli import evaluate_report as report
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import trained_model

# Labels are padded to multiples of this for the bands: fewer compilations.
_MULTIPLE = 128


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
  tile_size: int = 1024
  """Side in pixels of the largest square that the network sees at once. Raise
  it for larger pictures with group normalization."""
  num_pictures: int = 4
  """Pictures in each of worst.png and best.png."""
  out: pathlib.Path | None = None
  """Folder for the results. Default: one in the work folder, named after what
  is scored."""
  overwrite: bool = False
  """Replace existing results."""


class Findings(NamedTuple):
  """What scoring a split gives.

  Attributes:
    names: of the N images.
    confusions: [N, C, C] int64, true classes in rows, of each image.
    bands: [B, C, C] int64, of all images, for each band's width.
  """

  names: tuple[str, ...]
  confusions: np.ndarray
  bands: np.ndarray


def folder_of(options: Options, step: int) -> pathlib.Path:
  """The folder for the results."""
  if options.out is not None:
    return options.out
  parts = ["evaluation", options.split, f"step{step}"]
  if options.scales != (1.0,):
    parts += [f"{scale:g}" for scale in options.scales]
  if options.flip:
    parts.append("flip")
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


def check_folder(folder: pathlib.Path, overwrite: bool) -> None:
  """Raises a `ValueError` if results exist and may not be replaced."""
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"{folder} is a file; give a folder as --out.")
  there = [name for name in report.FILES if (folder / name).exists()]
  if there and not overwrite:
    raise ValueError(
      f"{folder} already holds {', '.join(there)}: replace them with "
      "--overwrite, or give another --out."
    )


def load_split(
  options: Options, network: fcn.runs.TrainedModel
) -> fcn.data.Dataset:
  """The split to score.

  Raises:
    ValueError: if there is no such split, or the classes are not those that
      the network was trained on.
  """
  changes = {
    name: value
    for name in ("data_dir", "prepared_dir")
    if (value := getattr(options, name)) is not None
  }
  data = dataclasses.replace(network.config.data, **changes)
  dataset = batches.load_split(data, options.split)
  if dataset.class_names != network.class_names:
    raise ValueError(
      f"the data have the classes {', '.join(dataset.class_names)}, but the "
      f"network was trained on {', '.join(network.class_names)}: give the "
      "folder of its own data as --data-dir."
    )
  return dataset


def predict(
  options: Options, network: fcn.runs.TrainedModel, image: np.ndarray
) -> np.ndarray:
  """The likeliest classes [H, W] uint8 of a picture, at its own size."""
  return fcn.inference.predict_tiled(
    network.model,
    network.variables,
    image,
    scales=tuple(
      network.config.data.resize * scale for scale in options.scales
    ),
    flip=options.flip,
    tile_size=options.tile_size,
  )


def score(
  options: Options,
  network: fcn.runs.TrainedModel,
  dataset: fcn.data.Dataset,
) -> Findings:
  """Predicts all images and counts."""
  num_classes, widths = dataset.num_classes, options.band_widths
  names, confusions = [], []
  bands = np.zeros((len(widths), num_classes, num_classes), np.int64)
  progress = tqdm.trange(
    len(dataset.source), desc="scoring", unit="image", disable=None
  )
  # Predict and count in one loop: the scores are sums over pixels.
  total = np.zeros((num_classes, num_classes), np.int64)
  for index in progress:
    example = dataset.source[index]
    classes = predict(options, network, example.image)
    names.append(example.name)
    confusions.append(count(example.label, classes, num_classes))
    for number, width in enumerate(widths):
      label = only_band(example.label, width)
      bands[number] += count(label, classes, num_classes)
    total += confusions[-1]
    mean_iu = fcn.metrics.scores(total).mean_iu
    progress.set_postfix(mean_iu=f"{100 * mean_iu:.1f} %")
  return Findings(tuple(names), np.array(confusions), bands)


def count(
  label: np.ndarray, classes: np.ndarray, num_classes: int
) -> np.ndarray:
  """The confusion matrix [C, C] int64 of one image."""
  valid = label != fcn.types.IGNORE_LABEL
  cells = label[valid] * num_classes + classes[valid]
  counts = np.bincount(cells, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes)


def only_band(label: np.ndarray, width: int) -> np.ndarray:
  """Labels [H, W], void outside the band along boundaries."""
  height, width_of_image = label.shape
  # Repeating the border neither adds a boundary nor hides one.
  padded = np.pad(
    label,
    [(0, -side % _MULTIPLE) for side in label.shape],
    mode="edge",
  )
  band = _boundary_band(jnp.asarray(padded[None]), width=width)[0]
  is_inside = np.asarray(band)[:height, :width_of_image]
  return np.where(is_inside, label, fcn.types.IGNORE_LABEL)


_boundary_band = functools.partial(jax.jit, static_argnames="width")(
  fcn.metrics.boundary_band
)


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, scores and writes the report.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options, prog="fcn-jax evaluate", description=__doc__, args=arguments
  )
  with errors.explained():
    check_options(options)
    which = trained_model.parse_which(options.checkpoint)
    network = fcn.runs.load(options.workdir, which)
    network.check_is_trained()
    folder = folder_of(options, network.step)
    check_folder(folder, options.overwrite)
    dataset = load_split(options, network)
  # Once, not for each image.
  network = dataclasses.replace(
    network, variables=jax.device_put(network.variables)
  )
  try:
    findings = score(options, network, dataset)
  except KeyboardInterrupt:
    sys.exit("interrupted; nothing was written.")
  folder.mkdir(parents=True, exist_ok=True)
  print(
    report.write(
      folder,
      findings,
      dataset,
      widths=options.band_widths,
      facts={
        "run": str(options.workdir),
        "step": network.step,
        "split": options.split,
        "resize": network.config.data.resize,
        "scales": options.scales,
        "flip": options.flip,
      },
      num_pictures=options.num_pictures,
      predict=functools.partial(predict, options, network),
    )
  )
