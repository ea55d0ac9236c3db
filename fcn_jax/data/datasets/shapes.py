"""The data set `shapes`: textured shapes, made by this package, no download.

A small network learns from them within minutes, but they have what makes real
segmentation hard: objects that hide each other, textures, a background that
fills most of the picture, and a rare class.

The hues of a class scatter around its own, so that neighbouring classes
overlap, and most of its objects have its texture; a few objects have any hue.
Stars are small, occur in few pictures, and are striped like boxes. Pixels at
the outline of every object are void, as in PASCAL VOC.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fcn_jax import types
from fcn_jax.data.datasets import textures
from fcn_jax.data.files import decoding

CLASS_NAMES = ("background", "disk", "box", "triangle", "ring", "star")

# RGB of each class in figures.
PALETTE = (
  (0, 0, 0), (214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14),
  (240, 220, 40),
)  # fmt: skip

MIN_SIDE = 96
MAX_SIDE = 160

SPLITS = ("train", "validation")
_SEED = 0


@dataclasses.dataclass(frozen=True)
class _Kind:
  """How the objects of one class look.

  Attributes:
    label: class id.
    hue: the middle of the hues, in turns (0 red, 1/3 green, 2/3 blue).
    texture: the texture most of the objects have.
    radius: the smallest and the largest radius in pixels.
    frequency: share of the class among the objects that are not stars.
  """

  label: int
  hue: float
  texture: str
  radius: tuple[float, float]
  frequency: float


_KINDS = (
  _Kind(1, 0.00, "noise", (9.0, 26.0), 0.32),
  _Kind(2, 0.58, "stripes", (10.0, 27.0), 0.28),
  _Kind(3, 0.36, "checks", (12.0, 30.0), 0.22),
  _Kind(4, 0.10, "gradient", (12.0, 27.0), 0.18),
)
_STAR = _Kind(5, 0.80, "stripes", (12.0, 20.0), 0.0)

_HUE_DEVIATION = 0.05
# Shares of objects without the hue, or the texture, of their class.
_ODD_HUE = 0.04
_ODD_TEXTURE = 0.3
_STAR_SHARE = 0.4


def example(
  *, split: str, index: int, seed: int = _SEED
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one example; the same arguments give the same example.

  Args:
    split: "train" or "validation".
    index: number of the example in its split.
    seed: another seed gives another data set.

  Returns:
    The picture, [H, W, 3] uint8, and its labels, [H, W] uint8: class ids into
    `CLASS_NAMES`, or `types.IGNORE_LABEL`. H and W are between `MIN_SIDE` and
    `MAX_SIDE`.

  Raises:
    ValueError: `split` is unknown.
  """
  if split not in SPLITS:
    raise ValueError(f"no split {split!r} in shapes; it has {SPLITS}")
  generator = np.random.default_rng((seed, SPLITS.index(split), index))
  height, width = generator.integers(MIN_SIDE, MAX_SIDE + 1, size=2)
  grid = np.mgrid[:height, :width].astype(np.float32)

  picture = textures.paint(
    generator,
    grid,
    hue=generator.uniform(),
    saturation=generator.uniform(0.05, 0.35),
    texture=str(generator.choice(textures.NAMES)),
  )
  label = np.zeros((height, width), np.uint8)
  # Objects are numbered, so that the outline between two of one class is void.
  number = np.zeros((height, width), np.uint8)
  for count, kind in enumerate(_choose_objects(generator), start=1):
    # The border of the picture cuts some objects.
    centre = generator.uniform(0.05, 0.95, size=2) * (height, width)
    radius = generator.uniform(*kind.radius)
    # No object reaches farther than this from its centre.
    reach = 1.25 * radius
    top, left = np.maximum(centre - reach, 0).astype(int)
    bottom, right = (centre + reach).astype(int) + 1
    window = np.s_[top:bottom, left:right]
    mask = _place(generator, grid[:, *window], kind, centre, radius)
    paint = _paint_object(generator, grid[:, *window], kind)
    picture[window][mask] = paint[mask]
    label[window][mask] = kind.label
    number[window][mask] = count
  picture += generator.normal(0.0, 0.03, picture.shape).astype(np.float32)
  label[_outline(number)] = types.IGNORE_LABEL
  return (picture.clip(0.0, 1.0) * 255.0).round().astype(np.uint8), label


def _choose_objects(generator: np.random.Generator) -> list[_Kind]:
  """Returns the objects of one picture, from the hindmost to the foremost."""
  frequencies = [kind.frequency for kind in _KINDS]
  numbers = generator.choice(
    len(_KINDS), size=generator.integers(3, 9), p=frequencies
  )
  objects = [_KINDS[number] for number in numbers]
  if generator.uniform() < _STAR_SHARE:
    objects.append(_STAR)
  return objects


def _place(
  generator: np.random.Generator,
  grid: np.ndarray,
  kind: _Kind,
  centre: np.ndarray,
  radius: float,
) -> np.ndarray:
  """Returns the mask, [H, W] bool, of an object turned at random."""
  aspect = generator.uniform(0.7, 1.0)
  turn = generator.uniform(0.0, 2.0)
  v, u = textures.rotate(grid[0] - centre[0], grid[1] - centre[1], turn)
  distance = np.hypot(u, v)
  match CLASS_NAMES[kind.label]:
    case "disk":
      return np.hypot(u, v / aspect) <= radius
    case "box":
      return (np.abs(u) <= 0.85 * radius) & (
        np.abs(v) <= 0.85 * radius * aspect
      )
    case "triangle":
      return (v >= -radius / 2) & (np.sqrt(3.0) * np.abs(u) + v <= radius)
    case "ring":
      return (distance <= radius) & (distance >= 0.5 * radius)
    case "star":
      # The five lines through the tips of a star: a point in the star is
      # outside at most one of them. Their distance from the centre is cos(72
      # degrees) radii.
      turns = np.arange(5) * 2.0 * np.pi / 5
      beyond = [
        u * np.cos(turn) + v * np.sin(turn) > np.cos(2 * np.pi / 5) * radius
        for turn in turns
      ]
      return (np.sum(beyond, axis=0) <= 1) & (distance <= radius)
    case name:
      raise AssertionError(name)


def _paint_object(
  generator: np.random.Generator, grid: np.ndarray, kind: _Kind
) -> np.ndarray:
  hue = generator.normal(kind.hue, _HUE_DEVIATION)
  if generator.uniform() < _ODD_HUE:
    hue = generator.uniform()
  texture = kind.texture
  if generator.uniform() < _ODD_TEXTURE:
    texture = str(generator.choice(textures.NAMES))
  return textures.paint(
    generator,
    grid,
    hue=hue,
    saturation=generator.uniform(0.55, 0.95),
    texture=texture,
  )


def _outline(number: np.ndarray) -> np.ndarray:
  """Returns the pixels, [H, W] bool, that touch another object at a side."""
  outline = np.zeros(number.shape, bool)
  vertical = number[1:] != number[:-1]
  outline[1:] |= vertical
  outline[:-1] |= vertical
  horizontal = number[:, 1:] != number[:, :-1]
  outline[:, 1:] |= horizontal
  outline[:, :-1] |= horizontal
  return outline


@dataclasses.dataclass(eq=False)
class ShapesConfig(tfds.core.BuilderConfig):
  """How many examples are made.

  Attributes:
    num_train: examples in the split "train".
    num_validation: examples in the split "validation".
  """

  num_train: int = 0
  num_validation: int = 0


class Shapes(tfds.core.GeneratorBasedBuilder):
  """TFDS builder of `shapes` (all of it) and `shapes/tiny` (for tests)."""

  SPLITS = SPLITS
  EXTRAS: ClassVar[Mapping[str, tfds.features.FeatureConnector]] = {}
  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First version."}
  BUILDER_CONFIGS = [
    ShapesConfig(
      name="full",
      description="1,000 examples for training, 200 for validation.",
      num_train=1000,
      num_validation=200,
    ),
    ShapesConfig(
      name="tiny",
      description="The first 12 and 5 examples of `full`.",
      num_train=12,
      num_validation=5,
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Textured shapes that hide each other, with one rare class.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="png"),
          "label": tfds.features.Image(
            shape=(None, None, 1), encoding_format="png"
          ),
          "name": tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(
        {
          "class_names": list(CLASS_NAMES),
          "palette": [list(c) for c in PALETTE],
        }
      ),
      # Example `index` of a split stays at place `index`.
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator]:
    del dl_manager
    config = self.builder_config
    return {
      "train": self._generate_examples("train", config.num_train),
      "validation": self._generate_examples(
        "validation", config.num_validation
      ),
    }

  def _generate_examples(
    self, split: str, num_examples: int
  ) -> Iterator[tuple[int, dict[str, bytes | str]]]:
    for index in range(num_examples):
      image, label = example(split=split, index=index)
      yield (
        index,
        {
          "image": decoding.encode_png(image),
          "label": decoding.encode_png(label),
          "name": f"{split}_{index:04d}",
        },
      )
