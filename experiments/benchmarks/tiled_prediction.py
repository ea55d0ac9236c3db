"""Compares prediction tile by tile with whole pictures, and measures its cost.

    python -m experiments.benchmarks.tiled_prediction
    python -m experiments.benchmarks.tiled_prediction --backbone vgg16 \\
      --strides 8 --paddings same --tile-size 768

A separate process predicts a picture of 6000x8000 pixels, from file to file;
the benchmark prints its peak memory and its time. Then, for each stride and
padding, it predicts a picture of 1024x1536 pixels both by tiles and at once,
and prints how far logits and classes differ. A comparison with too small a
margin shows that the test can fail. Finally it compares ways to put tiles
together, with their times: exact tiles, a cheap margin, and blending. The
networks have random parameters, also in score layers and batch statistics.
"""

import dataclasses
import functools
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fcn_jax as fcn


@dataclasses.dataclass(frozen=True)
class Options:
  """What to measure."""

  backbone: Literal["vgg16", "vgg_small"] = "vgg_small"
  """Backbone of the network."""
  strides: tuple[int, ...] = (32, 16, 8)
  """Strides to compare at."""
  paddings: tuple[Literal["same", "caffe"], ...] = ("same", "caffe")
  """Paddings to compare with."""
  num_classes: int = 21
  """Classes."""
  tile_size: int = 1024
  """See inference.predict_tiled."""
  compared: tuple[int, int] = (1024, 1536)
  """Height and width of the picture that is also predicted at once."""
  compared_tile_size: int = 640
  """Tile size for that picture."""
  cheap_margin: int = 32
  """Margin that is compared with exact tiles and with blending."""
  large: tuple[int, int] = (6000, 8000)
  """Height and width of the picture whose memory and time are measured."""
  only_large: bool = False
  """Measure only that picture, in this process; for the separate process."""


def picture(height: int, width: int) -> np.ndarray:
  """Squares of random colours under noise, [height, width, 3] uint8."""
  rng = np.random.default_rng(0)
  squares = rng.integers(0, 128, (height // 64 + 1, width // 64 + 1, 3))
  image = squares.astype(np.uint8).repeat(64, axis=0).repeat(64, axis=1)
  image = np.ascontiguousarray(image[:height, :width])
  for row in image:
    row += rng.integers(0, 128, row.shape, np.uint8)
  return image


def network(
  options: Options, stride: int, padding: str, normalization: str = "batch"
):
  """A network with random parameters, under which all classes occur."""
  model = fcn.models.FCN(
    options.num_classes,
    backbone=options.backbone,
    stride=stride,
    padding=padding,
    normalization=normalization,
  )
  image = picture(256, 256)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), image[None]
  )
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":
      fan_in = leaf.size // leaf.shape[-1]
      values = rng.normal(0, (2 / fan_in) ** 0.5, leaf.shape)
    elif name in ("scale", "var"):
      values = rng.uniform(0.7, 1.4, leaf.shape)
    else:
      values = rng.normal(0, 0.2, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  # The scores of a class are moved to a mean of 0 and all scaled to deviate
  # by 3, about as those of a trained network do.
  logits = whole_logits(model, variables, image)
  scale = 3 / jnp.std(logits - jnp.mean(logits, axis=(0, 1), keepdims=True))
  params = variables["params"]
  for name, layer in params.items():
    if name.startswith("score"):
      params[name] = jax.tree.map(lambda leaf: leaf * scale, layer)
  mean = jnp.mean(whole_logits(model, variables, image), axis=(0, 1))
  params["score_fr"]["bias"] -= mean
  return model, variables


@functools.partial(jax.jit, static_argnums=0)
def whole_logits(model, variables, image):
  score_map = model.apply(variables, image[None], train=False)
  return fcn.upsampling.to_pixels(score_map)[0]


@functools.partial(jax.jit, static_argnums=0)
def tile_logits(model, variables, images, sizes):
  score_map = model.apply(variables, images, train=False, valid_sizes=sizes)
  return fcn.upsampling.to_pixels(score_map)[0]


def largest_difference(options: Options, network, image, whole, margin):
  """Differences of the logits in all tiles from those of the whole picture."""
  model, variables = network
  plan = fcn.inference.tiling_plan.Plan.make(
    model, image, tile_size=options.compared_tile_size, margin=margin
  )
  height, width = options.compared
  largest = 0.0
  for window in plan.windows((slice(0, height), slice(0, width))):
    parts = plan.seen(plan.views[0], window)
    found = tile_logits(model, variables, *plan.images(0, parts))
    inside = tuple(
      slice(pixels.start - part.start, pixels.stop - part.start)
      for pixels, part in zip(window, parts, strict=True)
    )
    difference = np.abs(np.asarray(found)[inside] - whole[window])
    largest = max(largest, float(difference.max()))
  return largest


def compare(options: Options, stride: int, padding: str) -> str:
  """A row of the table: tiles against the whole picture."""
  model, variables = network(options, stride, padding)
  image = picture(*options.compared)
  whole = np.asarray(whole_logits(model, variables, image))
  expected = whole.argmax(axis=-1)
  num_programs = fcn.inference.prediction.compiled_predict._cache_size()
  num_tiles = []

  def counted(windows):
    num_tiles.append(len(windows))
    return windows

  found = fcn.inference.predict_tiled(
    model,
    variables,
    image,
    tile_size=options.compared_tile_size,
    progress=counted,
  )
  num_programs = (
    fcn.inference.prediction.compiled_predict._cache_size() - num_programs
  )
  margin = fcn.inference.exact_margin(model)
  exact, too_small = (
    largest_difference(options, (model, variables), image, whole, pixels)
    for pixels in (None, margin - 64)
  )
  num_different = np.count_nonzero(found != expected)
  return (
    f"| {padding} | {stride} | {margin} | {num_tiles[0]} | {num_programs} | "
    f"{len(np.unique(expected))} | {whole.std():.1f} | {exact:.1e} | "
    f"{num_different} | {too_small:.1e} |"
  )


def compare_ways(options: Options, normalization: str) -> list[str]:
  """Rows of the table: ways to put tiles together against the whole picture."""
  stride, padding = options.strides[-1], options.paddings[0]
  model, variables = network(options, stride, padding, normalization)
  image = picture(*options.compared)
  whole = np.asarray(jax.nn.softmax(whole_logits(model, variables, image)))
  ways = {
    "exact tiles": {},
    f"margin of {options.cheap_margin}": {"margin": options.cheap_margin},
    "blending": {"blending": "gaussian"},
  }
  if normalization == "group":
    # It has no other tiles.
    ways = {"blending": ways["blending"]}
  rows = []
  for name, way in ways.items():
    num_tiles = []

    def counted(windows, num_tiles=num_tiles):
      num_tiles.append(len(windows))
      return windows

    predict = functools.partial(
      fcn.inference.predict_tiled,
      model,
      variables,
      image,
      tile_size=options.compared_tile_size,
      progress=counted,
      **way,
    )
    found = np.empty_like(whole)
    predict(probabilities_out=found)
    classes = predict()  # Compiles.
    start = time.perf_counter()
    predict()
    seconds = time.perf_counter() - start
    share = np.mean(classes != whole.argmax(axis=-1))
    differences = np.abs(found - whole)
    rows.append(
      f"| {name} | {normalization} | {num_tiles[0]} | {seconds:.1f} | "
      f"{100 * share:.3f} | {differences.max():.1e} | "
      f"{differences.mean():.1e} |"
    )
  return rows


def predict_large(options: Options) -> dict[str, float]:
  """Predicts a large picture from disk to disk, in this process."""
  model, variables = network(options, options.strides[-1], options.paddings[0])
  shape = options.large
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    image = np.memmap(folder / "image", np.uint8, "w+", shape=(*shape, 3))
    image[:] = picture(*shape)
    image.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    fcn.inference.predict_tiled(
      model,
      variables,
      np.memmap(folder / "image", np.uint8, "r", shape=(*shape, 3)),
      tile_size=options.tile_size,
      out=np.memmap(folder / "classes", np.uint8, "w+", shape=shape),
    )
    seconds = time.perf_counter() - start
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {"seconds": seconds, "before": before / 2**20, "after": after / 2**20}


def main() -> None:
  options = tyro.cli(Options, description=__doc__)
  if options.only_large:
    print(json.dumps(predict_large(options)))
    return
  # Do this first: a process inherits the peak memory of the one that starts it.
  command = [sys.executable, *sys.argv, "--only-large"]
  result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
  found = json.loads(result.stdout)
  height, width = options.large
  print(
    f"{height}x{width} pixels, stride {options.strides[-1]}, padding "
    f"{options.paddings[0]}, arrays of {options.tile_size} pixels a side: "
    f"{found['seconds']:.0f} s, largest memory {found['after']:.2f} GiB "
    f"({found['before']:.2f} GiB before)."
  )
  height, width = options.compared
  print(
    f"\n{options.backbone}, {options.num_classes} classes, {height}x{width} "
    f"pixels, arrays of {options.compared_tile_size} pixels a side, on "
    f"{jax.devices()[0].device_kind}:\n"
  )
  print(
    "| padding | stride | margin | tiles | programs | classes found | deviation"
    " of the logits | largest difference of logits | pixels of another class |"
    " difference with a margin 64 smaller |"
  )
  print("| --- |" + " ---: |" * 9)
  for padding in options.paddings:
    for stride in options.strides:
      print(compare(options, stride, padding), flush=True)
  print(
    f"\nWays to put tiles together, stride {options.strides[-1]}, padding "
    f"{options.paddings[0]}:\n"
  )
  print(
    "| tiles | normalization | number | seconds | % of pixels of another class"
    " | largest difference of probabilities | mean difference |"
  )
  print("| --- | --- |" + " ---: |" * 5)
  for normalization in ("batch", "group"):
    print(*compare_ways(options, normalization), sep="\n", flush=True)


if __name__ == "__main__":
  main()
