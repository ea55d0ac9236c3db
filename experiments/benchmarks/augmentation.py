"""What each option of the augmentation costs, and ways to sample a warp.

    python -m experiments.benchmarks.augmentation

The first table has the pictures a second of one thread that reads JPEG pictures
of 480x360 with masks, scales them at random, cuts out 320x320 pixels and makes
one more change, against none. The second one samples a picture of 512x512 at
360x480 places, turned and scaled, by SciPy as `warping` does, by other
libraries where they are installed, and by gathers written in NumPy. All take
turns in each round. `taskset -c 0` keeps them on one core.
"""

import dataclasses
import importlib.util
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tqdm
import tyro
from PIL import Image

import fcn_jax as fcn
from experiments.benchmarks.input_pipeline import picture_files
from fcn_jax.data.pipeline import warping

# The options, as for small data sets.
CHANGES: Mapping[str, Mapping[str, Any]] = {
  "none": {},
  "quarter_turns": {"quarter_turns": True},
  "aspect_range": {"aspect_range": (0.8, 1.25)},
  "rotation": {"rotation": 20.0},
  "elastic": {"elastic_amplitude": 6.0},
  "rotation, elastic": {"rotation": 20.0, "elastic_amplitude": 6.0},
  "gamma_range": {"gamma_range": (0.7, 1.5)},
  "noise": {"noise": 10.0},
  "cutout": {"cutout_count": 4},
  "copy_paste, half of the crops": {},
  "colours": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
  "blur, of every second": {"blur_probability": 0.5},
}
CROP_SIZE = (320, 320)
SCALE_RANGE = (0.5, 2.0)


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the benchmark."""

  num_pictures: int = 20
  """Pictures in a round."""
  rounds: int = 9
  """Rounds; the median counts."""


def time_in_turns(
  functions: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
  """Median seconds of each."""
  seconds = {name: [] for name in functions}
  for _ in tqdm.trange(rounds, disable=None):
    for name, function in functions.items():
      begin = time.perf_counter()
      function()
      seconds[name].append(time.perf_counter() - begin)
  return {name: statistics.median(times) for name, times in seconds.items()}


def changes(source: Any) -> dict[str, Callable[[], None]]:
  """Reads and changes all pictures of a source, for each of `CHANGES`."""

  def changed(name: str) -> Callable[[], None]:
    augmentation = fcn.data.Augmentation(
      crop_size=CROP_SIZE, scale_range=SCALE_RANGE, **CHANGES[name]
    )
    augmentation.check()

    def function() -> None:
      generator = np.random.default_rng(0)
      for number in range(len(source)):
        example, pasted = source[number], None
        if name.startswith("copy_paste") and number % 2:
          other = source[number - 1]
          pasted = fcn.data.pipeline.augmentation.Pasted(
            other.image, other.label, generator.uniform(*SCALE_RANGE), 1
          )
        augmentation.apply(
          generator,
          example.image,
          example.label,
          factor=generator.uniform(*SCALE_RANGE),
          pasted=pasted,
        )

    return function

  return {name: changed(name) for name in CHANGES}


def samplers() -> dict[str, Callable[[], np.ndarray]]:
  """Functions that sample one picture at the same places."""
  generator = np.random.default_rng(0)
  image = generator.integers(256, size=(512, 512, 3), dtype=np.uint8)
  at = warping.places(
    warping.Warp(20.0),
    size=(360, 480),
    corner=(76, 16),
    anchor=(179.5, 239.5),
    old=(512, 512),
    new=(560, 560),
  )
  rows, columns = (part.astype(np.float32) - 0.5 for part in at)
  fill = fcn.data.pipeline.transforms.FILL

  def by_scipy() -> np.ndarray:
    return warping.sample_image(image, at, shrinking=(1, 1), fill=fill)

  def by_gathers() -> np.ndarray:
    row, column = (
      np.minimum(np.clip(part, 0, 511).astype(np.int32), 510)
      for part in (rows, columns)
    )
    down, right = np.clip(rows, 0, 511) - row, np.clip(columns, 0, 511) - column
    first = row * 512 + column
    result = np.empty((*rows.shape, 3), np.uint8)
    for channel in range(3):
      pixels = image[..., channel].ravel()
      total = pixels[first] * ((1 - down) * (1 - right))
      total += pixels[first + 1] * ((1 - down) * right)
      total += pixels[first + 512] * (down * (1 - right))
      total += pixels[first + 513] * (down * right)
      result[..., channel] = total + np.float32(0.5)
    result[((at < 0) | (at >= 512)).any(axis=0)] = fill
    return result

  # The same map as one of a row and a column, for Pillow x first.
  step_down, step_right = at[:, 1, 0] - at[:, 0, 0], at[:, 0, 1] - at[:, 0, 0]
  start = at[:, 0, 0] - (step_down + step_right) / 2
  affine = [
    value
    for axis in (1, 0)
    for value in (step_right[axis], step_down[axis], start[axis])
  ]

  def by_pillow() -> np.ndarray:
    warped = Image.fromarray(image).transform(
      (480, 360),
      Image.Transform.AFFINE,
      affine,
      Image.Resampling.BILINEAR,
      fillcolor=fill,
    )
    return np.array(warped)

  result = {
    "SciPy's map_coordinates (used)": by_scipy,
    "gathers in NumPy": by_gathers,
    "Pillow's affine transform": by_pillow,
  }
  if importlib.util.find_spec("skimage"):
    result["scikit-image's warp"] = _by_skimage(image, rows, columns)
  if importlib.util.find_spec("cv2"):
    result["OpenCV's remap"] = _by_opencv(image, rows, columns)
  return result


def _by_skimage(image, rows, columns):
  from skimage import transform

  places = np.empty((3, *rows.shape, 3), np.float32)
  places[0], places[1] = rows[..., None], columns[..., None]
  places[2] = np.arange(3)
  return lambda: transform.warp(
    image, places, order=1, mode="edge", preserve_range=True
  )


def _by_opencv(image, rows, columns):
  import cv2

  cv2.setNumThreads(1)
  return lambda: cv2.remap(image, columns, rows, cv2.INTER_LINEAR)


def main(options: Options) -> None:
  """Prints both tables."""
  with tempfile.TemporaryDirectory() as folder:
    picture_files.make(pathlib.Path(folder), options.num_pictures)
    source = picture_files.Source(picture_files.find(pathlib.Path(folder)))
    seconds = time_in_turns(changes(source), options.rounds)
  print("| change | pictures/s | ratio |\n| --- | ---: | ---: |")
  for name, value in seconds.items():
    speed, ratio = options.num_pictures / value, seconds["none"] / value
    print(f"| {name} | {speed:.0f} | {ratio:.2f} |")
  seconds = time_in_turns(samplers(), options.rounds)
  first = next(iter(seconds.values()))
  print("\n| sampling | ms | ratio |\n| --- | ---: | ---: |")
  for name, value in seconds.items():
    print(f"| {name} | {1e3 * value:.1f} | {value / first:.2f} |")


if __name__ == "__main__":
  main(tyro.cli(Options, description=__doc__))
