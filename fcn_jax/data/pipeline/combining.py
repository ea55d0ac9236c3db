"""Further features of a data set as channels of its images, or as labels.

    dataset = data.load("nyudv2", split="train", extras=("depth",))
    dataset = data.pipeline.combining.with_channels(dataset, "color_depth")

Networks need this if they see more than colours or have two heads (CVPR 2015,
section 5: NYUDv2 and SIFT Flow).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from fcn_jax.data import examples
from fcn_jax.data.datasets import sift_flow

Modalities = Literal["color", "hha", "color_depth", "color_hha"]

# The features whose channels lie side by side in the images, and which of them
# to ask `load` for.
_FEATURES: Mapping[str, Sequence[str]] = {
  "color": ("image",),
  "hha": ("hha",),
  "color_depth": ("image", "depth"),
  "color_hha": ("image", "hha"),
}
EXTRAS: Mapping[str, Sequence[str]] = {
  modalities: tuple(name for name in names if name != "image")
  for modalities, names in _FEATURES.items()
}

# Further labels, and how many classes they have.
NUM_CLASSES: Mapping[str, int] = {"geometric": len(sift_flow.GEOMETRIC_NAMES)}


def with_channels(
  dataset: examples.Dataset, modalities: Modalities
) -> examples.Dataset:
  """Returns the data set with other channels in its images.

  Args:
    dataset: with the extras `EXTRAS[modalities]`.
    modalities: "color" [H, W, 3] uint8, the images as they are; "hha" the same
      of HHA; "color_hha" [H, W, 6] uint8, for `models.LateFusion`;
      "color_depth" [H, W, 4] float32, see `log_depth`.
  """
  if modalities == "color":
    return dataset

  def combine(example: examples.Example) -> examples.Example:
    parts = [_channels(example, name) for name in _FEATURES[modalities]]
    return example._replace(image=np.concatenate(parts, axis=-1))

  return _changed(dataset, combine)


def with_labels(dataset: examples.Dataset, extra: str) -> examples.Dataset:
  """Returns the data set with two kinds of labels, [H, W, 2], its own first.

  Args:
    dataset: with that extra.
    extra: name of further labels, [H, W], one of `NUM_CLASSES`.
  """

  def combine(example: examples.Example) -> examples.Example:
    further = example.extras[extra].astype(example.label.dtype)
    return example._replace(label=np.stack([example.label, further], axis=-1))

  return _changed(dataset, combine)


def log_depth(depth: np.ndarray) -> np.ndarray:
  """Returns the natural logarithm of depths, as the released network sees it.

  Args:
    depth: [H, W] uint16. 0, which has no logarithm, counts as 1, which is
      nearer than anything measured.

  Returns:
    [H, W] float32.
  """
  return np.log(np.maximum(depth, 1), dtype=np.float32)


def picture_of(image: np.ndarray) -> np.ndarray:
  """Returns the part of an image to show: its first three channels as uint8.

  Args:
    image: [H, W, C] uint8, or float32 in 0..255, with three channels or more.
  """
  return np.rint(image[..., :3]).astype(np.uint8)


def _channels(example: examples.Example, feature: str) -> np.ndarray:
  """A feature as [H, W, C]."""
  if feature == "image":
    return example.image
  if feature == "depth":
    return log_depth(example.extras["depth"])[..., None]
  return example.extras[feature]


def _changed(
  dataset: examples.Dataset,
  change: Callable[[examples.Example], examples.Example],
) -> examples.Dataset:
  source = examples.Mapped(dataset.source, change)
  return dataclasses.replace(dataset, source=source)
