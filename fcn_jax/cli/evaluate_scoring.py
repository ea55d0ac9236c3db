"""Predicts a split and scores it, for `fcn-jax evaluate`.

`options` are the `evaluate.Options`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

import fcn_jax as fcn
from fcn_jax.inference import replicas as replicas_lib
from fcn_jax.runs import processes

# Labels are padded to multiples of this for the bands: fewer compilations.
_MULTIPLE = 128


class Findings(NamedTuple):
  """What scoring a split gives.

  Attributes:
    names: of the N images.
    confusions: [N, C, C] int64, true classes in rows, of each image.
    bands: [B, C, C] int64, of all images, for each band's width.
    boundary_f1: [N, C] of each image; None with `scores="papers"`.
    ranking: of `metrics.ranking_counts`, of all images; None likewise.
    calibration: of `metrics.calibration_counts`; None likewise.
    segments: [N, T, 2] Rand and information scores of each image at each
      threshold; None without `segments`.
  """

  names: tuple[str, ...]
  confusions: np.ndarray
  bands: np.ndarray
  boundary_f1: np.ndarray | None = None
  ranking: np.ndarray | None = None
  calibration: np.ndarray | None = None
  segments: np.ndarray | None = None


class Predicted(NamedTuple):
  """One image, with what is counted of its probabilities.

  Attributes:
    classes: [H, W] uint8.
    ranking: of `metrics.ranking_counts`; None with `scores="papers"`.
    calibration: of `metrics.calibration_counts`; None likewise.
    of_segments: [H, W] float32, probabilities of the class `segments`; None
      without.
  """

  classes: np.ndarray
  ranking: np.ndarray | None = None
  calibration: np.ndarray | None = None
  of_segments: np.ndarray | None = None


def predict(
  options: Any,
  network: fcn.runs.TrainedModel,
  image: np.ndarray,
) -> np.ndarray:
  """The likeliest classes [H, W] uint8 of a picture, at its own size."""
  return fcn.inference.predict_tiled(
    network.model, network.variables, image, **views(options, network)
  )


def views(options: Any, network: fcn.runs.TrainedModel) -> dict[str, Any]:
  """Options of a prediction: what the network sees of a picture."""
  resize = network.config.data.resize
  return {
    "scales": tuple(resize * scale for scale in options.scales),
    "flip": options.flip,
    "quarter_turns": options.quarter_turns,
    "tile_size": options.tile_size,
    "blending": options.blending,
  }


def predict_and_count(
  options: Any,
  network: fcn.runs.TrainedModel,
  dataset: fcn.data.Dataset,
  example: fcn.data.Example,
) -> Predicted:
  """Predicts an image, and counts its probabilities if they are scored.

  Tile by tile, so that the probabilities of all classes of a large picture are
  never held at once.
  """
  if options.scores == "papers" and options.segments is None:
    return Predicted(predict(options, network, example.image))
  size = example.label.shape
  classes = np.empty(size, np.uint8)
  ranking = calibration = of_segments = None
  if options.scores == "all":
    ranking = calibration = 0
  if options.segments is not None:
    of_segments = np.empty(size, np.float32)
  plan = fcn.inference.tiling_plan.Plan.make(
    network.model, example.image, **views(options, network)
  )
  for window, found, probabilities in fcn.inference.tiling.parts(
    plan, [plan.prepared(network.variables)]
  ):
    classes[window] = found
    if options.scores == "all":
      given = example.label[window], probabilities
      ranking = ranking + fcn.metrics.ranking_counts(*given)
      calibration = calibration + fcn.metrics.calibration_counts(*given)
    if options.segments is not None:
      one = dataset.class_names.index(options.segments)
      of_segments[window] = probabilities[..., one]
  return Predicted(classes, ranking, calibration, of_segments)


def score_segments(
  is_true: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float]
) -> list[fcn.metrics.SegmentScores]:
  """Scores of the segments of an image at each threshold.

  Args:
    is_true: [H, W] bool, whether a pixel is of the segments' class.
    probabilities: [H, W], of that class.
    thresholds: of the probability.
  """
  true = fcn.metrics.segments(is_true)
  return [
    fcn.metrics.segment_scores(
      true, fcn.metrics.segments_of_thin_borders(probabilities > threshold)
    )
    for threshold in thresholds
  ]


def score(
  options: Any,
  network: fcn.runs.TrainedModel,
  dataset: fcn.data.Dataset,
  devices: Sequence[jax.Device],
) -> Findings:
  """Predicts all images and counts.

  Each process does a share of the images, one on each device at a time.
  """
  num_classes, widths = dataset.num_classes, options.band_widths
  names, confusions, boundary_f1, segments = [], [], [], []
  bands = np.zeros((len(widths), num_classes, num_classes), np.int64)
  ranking = calibration = 0
  progress = tqdm.tqdm(
    processes.own_share(range(len(dataset.source))),
    desc="scoring",
    unit="image",
    disable=None if processes.is_first() else True,
  )
  # Predict and count in one loop: the scores are sums over pixels.
  total = np.zeros((num_classes, num_classes), np.int64)
  replicas = [
    dataclasses.replace(network, variables=variables)
    for variables in replicas_lib.copies(network.variables, devices)
  ]

  def predicted(network, index):
    example = dataset.source[index]
    return example, predict_and_count(options, network, dataset, example)

  for _, (example, found) in replicas_lib.in_order(
    predicted, replicas, progress
  ):
    label = example.label
    names.append(example.name)
    confusions.append(count(label, found.classes, num_classes))
    for number, width in enumerate(widths):
      near = only_band(label, width)
      bands[number] += count(near, found.classes, num_classes)
    if options.scores == "all":
      ranking = ranking + found.ranking
      calibration = calibration + found.calibration
      boundary_f1.append(
        fcn.metrics.boundary_f1(label, found.classes, num_classes=num_classes)
      )
    if options.segments is not None:
      is_true = label == dataset.class_names.index(options.segments)
      segments.append(
        score_segments(is_true, found.of_segments, options.segment_thresholds)
      )
    total += confusions[-1]
    mean_iu = fcn.metrics.scores(total).mean_iu
    progress.set_postfix(mean_iu=f"{100 * mean_iu:.1f} %")
  findings = Findings(
    sum(map(tuple, processes.gather(names)), ()),
    _of_all(confusions, (num_classes, num_classes), np.int64),
    _sum(bands),
  )
  if options.scores == "all":
    findings = findings._replace(
      boundary_f1=_of_all(boundary_f1, (num_classes,), np.float64),
      ranking=_sum(ranking),
      calibration=_sum(calibration),
    )
  if options.segments is not None:
    shape = len(options.segment_thresholds), 2
    findings = findings._replace(segments=_of_all(segments, shape, np.float64))
  return findings


def _of_all(found, shape, dtype) -> np.ndarray:
  """What is found for each image, also by other processes, [N, *shape]."""
  return processes.concatenated(np.array(found, dtype).reshape(-1, *shape))


def _sum(counts) -> np.ndarray:
  """The sum over all processes; a process without images has 0."""
  return sum(
    np.asarray(one) for one in processes.gather(np.asarray(counts).tolist())
  )


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
