"""Prediction for one picture of any size, tile by tile.

The memory, on the device and on the host, is that of one tile, whatever the
size of the picture; with blending, that of one row of tiles. The picture may be
a `np.memmap`, and so may the arrays to fill.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from fcn_jax import checks
from fcn_jax import models
from fcn_jax import types
from fcn_jax.inference import blending as blending_lib
from fcn_jax.inference import buckets as buckets_lib
from fcn_jax.inference import replicas as replicas_lib
from fcn_jax.inference import tiles
from fcn_jax.inference import tiling_plan
from fcn_jax.losses import region_losses

# Wraps the tiles and yields them, as `tqdm.tqdm` does.
Progress = Callable[
  [Sequence[tiling_plan.Window]], Iterable[tiling_plan.Window]
]

TILE_SIZE = 1024


def predict_tiled(
  model: models.Network,
  variables: types.Variables,
  image: np.ndarray,
  *,
  tile_size: int = TILE_SIZE,
  margin: int | None = None,
  blending: tiling_plan.Blending = "none",
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
  activation: region_losses.Activation = "softmax",
  out: np.ndarray | None = None,
  probabilities_out: np.ndarray | None = None,
  progress: Progress = iter,
  devices: Sequence[jax.Device] | None = None,
  buckets: buckets_lib.Buckets | None = None,
) -> np.ndarray:
  """The likeliest class, or the classes, of every pixel of a picture.

  The result equals that of the whole picture, up to rounding: see `tiles`. With
  scales, flips or turns, it is the class of the largest mean probability. There
  is one exception: `models.FCNResNet` on sides that are not multiples of 8.
  There the scores of tiles lie 8 pixels apart, but those of the whole picture a
  little less, which adds up to a shift of at most 7 pixels at the far end.

  With blending "gaussian" the result is not exact: tiles overlap by half, the
  network sees nothing around them, and their probabilities are averaged with
  Gaussian weights, see `blending`. This suits networks that use statistics of
  what they see ("group" normalization), for which there are no exact tiles.

      classes = predict_tiled(model, variables, image, progress=tqdm.tqdm)

  All tiles have arrays of one shape (one for each scale), also those of other
  pictures larger than a tile, so the network is compiled once. Smaller
  pictures are padded to multiples of 64 pixels, and the network is compiled for
  each such size. If the sizes of all pictures are known, `choose_buckets` keeps
  to few programs:

      buckets = choose_buckets(model, [image.shape[:2] for image in images])
      for image in images:
        classes = predict_tiled(model, variables, image, buckets=buckets)

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    image: [H, W, 3] uint8 or float, RGB in 0..255; uint8 or float32 with
      scales, for which the whole picture is resized. Other channels if the
      network has others.
    tile_size: side in pixels of the largest square that the network sees; it
      limits the memory. The square holds a tile and the margin around it; the
      smaller it is, the more work is done twice.
    margin: least number of pixels that the network sees around a tile; None for
      all that matter (`exact_margin`). Fewer are faster but not exact, see
      `disagreement`.
    blending: "none" for exact tiles side by side, or "gaussian".
    scales: factors by which the picture is resized; probabilities are averaged.
    flip: whether they are also averaged with those of the mirrored picture.
    quarter_turns: whether they are also averaged with those of the picture
      turned by 90, 180 and 270 degrees. With `flip` there are eight views.
    activation: see `predict`; with "sigmoid", averaged probabilities count.
    out: [H, W] array to fill; a new one if None.
    probabilities_out: [H, W, C] float array to fill with the probabilities.
    progress: wraps the list of tiles, such as `tqdm.tqdm`.
    devices: that predict tiles at the same time, such as `jax.local_devices()`;
      the result is that of one device. None for the default device.
    buckets: the shapes of the arrays, from `choose_buckets` with the same
      options; a picture that fits into none has arrays of its own.

  Returns:
    [H, W], `out` if that was given: uint8, or uint32 if they are bit masks, as
    with "sigmoid" and several classes.

  Raises:
    ValueError: if the image has the wrong shape, dtype or range, variables are
      not those of a network, an array to fill has the wrong shape, tiles do
      not fit into `tile_size`, an option is out of range, there is a margin
      with blending, or the network has "group" normalization and the picture
      is larger than a tile and its tiles are not blended.
  """
  _check_arguments(model, variables, image)
  plan = tiling_plan.Plan.make(
    model,
    image,
    tile_size=tile_size,
    margin=margin,
    scales=scales,
    flip=flip,
    quarter_turns=quarter_turns,
    activation=activation,
    blending=blending,
    buckets=buckets,
  )
  height, width = image.shape[:2]
  if out is None:
    out = np.empty((height, width), plan.dtype)
  _check_array("out", out, (height, width), plan.dtype)
  if probabilities_out is not None:
    shape = (height, width, models.heads.num_classes(model))
    _check_array("probabilities_out", probabilities_out, shape, np.floating)
  windows = plan.windows(plan.whole)
  if devices is not None:
    devices = devices[: len(windows)]
  all_classes, all_probabilities = out, probabilities_out
  if plan.sideways:
    all_classes = np.swapaxes(out, 0, 1)
    if probabilities_out is not None:
      all_probabilities = np.swapaxes(probabilities_out, 0, 1)
  replicas = replicas_lib.copies(plan.prepared(variables), devices)
  if probabilities_out is None and not is_blended(plan):
    for window, classes in replicas_lib.in_order(
      plan.classes, replicas, progress(windows)
    ):
      all_classes[window] = classes
    return out
  for window, classes, found in parts(plan, replicas, progress):
    all_classes[window] = classes
    if probabilities_out is not None:
      all_probabilities[window] = found
  return out


def choose_buckets(
  model: models.Network,
  sizes: Iterable[tuple[int, int]],
  *,
  max_programs: int = buckets_lib.MAX_PROGRAMS,
  tile_size: int = TILE_SIZE,
  margin: int | None = None,
  blending: tiling_plan.Blending = "none",
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
) -> buckets_lib.Buckets:
  """The shapes of arrays that serve pictures of many sizes, see `buckets`.

  Args:
    model: the network.
    sizes: height and width of each picture.
    max_programs: for how many shapes the network is compiled at most. Each of
      the scales takes an equal share of them, and one at least.
    tile_size: this and the others: as for `predict_tiled`.
    margin: see there.
    blending: see there.
    scales: see there.
    flip: see there.
    quarter_turns: see there.

  Raises:
    ValueError: see `predict_tiled`; or `max_programs` is less than 1.
  """
  sizes = [(height, width) for height, width in sizes]
  needs = {
    size: tiling_plan.needs(
      model,
      size,
      tile_size=tile_size,
      margin=margin,
      scales=scales,
      flip=flip,
      quarter_turns=quarter_turns,
      blending=blending,
    )
    for size in set(sizes)
  }
  return buckets_lib.choose(
    [needs[size] for size in sizes],
    [height > width for height, width in sizes],
    # 1 if there are more scales than programs.
    max_programs=max_programs // len(scales) or min(max_programs, 1),
  )


def is_blended(plan: tiling_plan.Plan) -> bool:
  """Whether the picture has tiles that overlap."""
  return plan.blending == "gaussian" and len(plan.windows(plan.whole)) > 1


def parts(
  plan: tiling_plan.Plan,
  replicas: Sequence[tiling_plan.Prepared],
  progress: Progress = iter,
) -> Iterator[tuple[tiling_plan.Window, np.ndarray, np.ndarray]]:
  """Predicts a picture part by part, with probabilities.

  Args:
    plan: how the picture is cut.
    replicas: what `plan.prepared` gives, on each device.
    progress: wraps the list of tiles.

  Yields:
    The pixels of each part, their labels [h, w] of `plan.dtype`, and their
    probabilities [h, w, C] float32, which may be overwritten afterwards.
  """
  if is_blended(plan):
    for window, found in blending_lib.bands(plan, replicas, progress):
      yield window, plan.labels_of(found), found
    return
  for window, found in replicas_lib.in_order(
    plan.classes_and_probabilities, replicas, progress(plan.windows(plan.whole))
  ):
    yield window, *found


def probabilities(
  model: models.Network,
  variables: types.Variables,
  image: np.ndarray,
  *,
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
  tile_size: int = TILE_SIZE,
  activation: region_losses.Activation = "softmax",
  blending: tiling_plan.Blending = "none",
) -> np.ndarray:
  """Probabilities of the classes at every pixel of a picture.

  They are averaged over views: the picture rescaled, mirrored or turned. A
  network that was trained on pictures of half their size is used at their own
  size with `scales=(0.5,)`.

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    image: [H, W, 3] uint8, RGB.
    scales: see `predict_tiled`.
    flip: see `predict_tiled`.
    quarter_turns: see `predict_tiled`.
    tile_size: see `predict_tiled`.
    activation: see `predict`. With "sigmoid", the probabilities of a pixel do
      not sum to 1.
    blending: see `predict_tiled`.

  Returns:
    [H, W, C] float32.

  Raises:
    ValueError: see `predict_tiled`.
  """
  _check_arguments(model, variables, image)
  found = np.empty(
    (*image.shape[:2], models.heads.num_classes(model)), np.float32
  )
  predict_tiled(
    model,
    variables,
    image,
    tile_size=tile_size,
    scales=scales,
    flip=flip,
    quarter_turns=quarter_turns,
    activation=activation,
    blending=blending,
    probabilities_out=found,
  )
  return found


def exact_margin(model: models.Network) -> int:
  """The most pixels around a tile that its logits depend on."""
  surroundings = tiles.Surroundings.of(model, None)
  last = surroundings.alignment - 1
  begin, end = surroundings.around(0, last)
  return max(-begin, end - 1 - last)


def disagreement(
  model: models.Network,
  variables: types.Variables,
  image: np.ndarray,
  *,
  margin: int,
  tile_size: int = TILE_SIZE,
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
  activation: region_losses.Activation = "softmax",
  num_tiles: int = 4,
) -> float:
  """Share of pixels whose class changes with a margin, on some of the tiles.

  Args:
    model: the network.
    variables: its parameters (and batch statistics), `{"params": ...}`.
    image: [H, W, 3] uint8, RGB.
    margin: as for `predict_tiled`; compared with the exact one.
    tile_size: see `predict_tiled`.
    scales: see `predict_tiled`.
    flip: see `predict_tiled`.
    quarter_turns: see `predict_tiled`.
    activation: see `predict`.
    num_tiles: number of tiles to compare, spread evenly over the picture.

  Returns:
    A share in 0..1.

  Raises:
    ValueError: see `predict_tiled`.
  """
  options = {
    "tile_size": tile_size,
    "scales": scales,
    "flip": flip,
    "quarter_turns": quarter_turns,
    "activation": activation,
  }
  _check_arguments(model, variables, image)
  cheap = tiling_plan.Plan.make(model, image, margin=margin, **options)
  exact = tiling_plan.Plan.make(model, image, margin=None, **options)
  height, width = image.shape[:2]
  windows = cheap.windows((slice(0, height), slice(0, width)))
  num_tiles = min(num_tiles, len(windows))
  # Both plans have the same views.
  variables = jax.device_put(cheap.prepared(variables))
  num_pixels = num_different = 0
  for i in range(num_tiles):
    window = windows[int((i + 0.5) * len(windows) / num_tiles)]
    found = cheap.classes(variables, window)
    expected = np.empty_like(found)
    top, left = (part.start for part in window)
    for rows, columns in exact.windows(window):
      expected[
        rows.start - top : rows.stop - top,
        columns.start - left : columns.stop - left,
      ] = exact.classes(variables, (rows, columns))
    num_pixels += found.size
    num_different += np.count_nonzero(found != expected)
  return num_different / num_pixels


def _check_arguments(model, variables, image):
  """Raises a `ValueError` if the network cannot take these."""
  checks.variables(variables)
  checks.image(image, num_channels=model.num_channels)
  if not isinstance(image, np.memmap):  # It may be larger than the memory.
    checks.pixels(image)


def _check_array(name, array, shape, dtype):
  if array.shape != shape or not np.issubdtype(array.dtype, dtype):
    raise ValueError(
      f"{name} has shape {array.shape} and type {array.dtype}; it must be "
      f"{shape} {dtype.__name__}."
    )
