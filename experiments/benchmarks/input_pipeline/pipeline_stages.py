"""The stages of the input pipeline, each as a function of one picture."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import fcn_jax as fcn
from experiments.benchmarks.input_pipeline import pillow_transforms
from fcn_jax.data.pipeline import batching
from fcn_jax.data.pipeline import photometric

try:
  from experiments.benchmarks.input_pipeline import torch_loaders
except ModuleNotFoundError:
  torch_loaders = None
else:
  # As in the workers of a DataLoader.
  torch_loaders.torch.set_num_threads(1)


class Stage(NamedTuple):
  """One stage of one contestant.

  Attributes:
    function: called with a random generator and an input.
    inputs: what it is called with, one after the other.
  """

  function: Callable[[np.random.Generator, Any], Any]
  inputs: Sequence[Any]


def of_fcn_jax(
  pairs: Sequence[tuple[pathlib.Path, pathlib.Path]],
  *,
  crop_size: tuple[int, int],
  scale_range: tuple[float, float],
  jitter: dict[str, float],
  batch_size: int,
) -> dict[str, Stage]:
  """The stages of `fcn_jax.data`; each gets what the one before makes."""
  transforms = fcn.data.pipeline.transforms

  def picture(_, pair):
    return fcn.data.files.decoding.decode_picture(pair[0].read_bytes())

  def mask(_, pair):
    return fcn.data.files.decoding.decode_mask(pair[1].read_bytes())

  def crop(generator, pair):
    factor = generator.uniform(*scale_range)
    return transforms.random_crop(
      generator, *pair, size=crop_size, factor=factor
    )

  def batch(_, crops):
    return batching.stack(crops, size=crop_size, with_valid_sizes=False)

  wholes = [(picture(None, pair), mask(None, pair)) for pair in pairs]
  crops = _each(crop, wholes)
  return {
    "read and decode a picture": Stage(picture, pairs),
    "read and decode a mask": Stage(mask, pairs),
    "scale and crop": Stage(crop, wholes),
    "flip": Stage(lambda g, pair: transforms.random_flip(g, *pair), crops),
    "jitter": Stage(
      lambda g, pair: photometric.color_jitter(g, pair[0], **jitter), crops
    ),
    "jitter without hue": Stage(
      lambda g, pair: photometric.color_jitter(
        g, pair[0], **(jitter | {"hue": 0.0})
      ),
      crops,
    ),
    "blur, of every second": Stage(
      lambda g, pair: photometric.random_blur(g, pair[0], probability=0.5),
      crops,
    ),
    "batch": Stage(batch, _chunks(crops, batch_size)),
  }


def of_pillow(
  pairs: Sequence[tuple[pathlib.Path, pathlib.Path]],
  *,
  crop_size: tuple[int, int],
  scale_range: tuple[float, float],
  jitter: dict[str, float],
  batch_size: int,
) -> dict[str, Stage]:
  """The stages as people write them for PyTorch, on Pillow's images."""

  def picture(_, pair):
    return Image.open(pair[0]).convert("RGB")

  def mask(_, pair):
    image = Image.open(pair[1])
    image.load()
    return image

  def crop(generator, pair):
    return pillow_transforms.random_scale_and_crop(
      generator, *pair, size=crop_size, scale_range=scale_range
    )

  def batch(_, crops):
    tensors = [torch_loaders.to_tensors(*pair) for pair in crops]
    return torch_loaders.collate(tensors)

  wholes = [(picture(None, pair), mask(None, pair)) for pair in pairs]
  crops = _each(crop, wholes)
  stages = {
    "read and decode a picture": Stage(picture, pairs),
    "read and decode a mask": Stage(mask, pairs),
    "scale and crop": Stage(crop, wholes),
    "flip": Stage(
      lambda g, pair: pillow_transforms.random_flip(g, *pair), crops
    ),
    "jitter": Stage(
      lambda g, pair: pillow_transforms.color_jitter(g, pair[0], **jitter),
      crops,
    ),
    "jitter without hue": Stage(
      lambda g, pair: pillow_transforms.color_jitter(
        g, pair[0], **(jitter | {"hue": 0.0})
      ),
      crops,
    ),
    "blur, of every second": Stage(
      lambda g, pair: pillow_transforms.random_blur(
        g, pair[0], probability=0.5
      ),
      crops,
    ),
  }
  if torch_loaders is not None:
    stages["batch"] = Stage(batch, _chunks(crops, batch_size))
  return stages


def _each(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
  return [
    function(np.random.default_rng(number), one)
    for number, one in enumerate(inputs)
  ]


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
  return [items[start : start + size] for start in range(0, len(items), size)]
