"""Cuts a picture into tiles, and predicts one of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import geometry
from fcn_jax import models
from fcn_jax import types
from fcn_jax.inference import buckets as buckets_lib
from fcn_jax.inference import prediction
from fcn_jax.inference import tiles
from fcn_jax.inference import views
from fcn_jax.losses import region_losses

# Pixels of a picture: rows and columns.
Window = tuple[slice, slice]

# The network's variables for views whose axes are exchanged (True), or not.
Prepared = Mapping[bool, types.Variables]

# How the tiles of a picture are put together: exact ones beside one another,
# or by `blending`.
Blending = Literal["none", "gaussian"]


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a picture is cut.

  Attributes:
    model: the network.
    views: what the network sees of the picture.
    surroundings: of the network.
    tile: height and width of the tiles.
    arrays: for each view, height and width of the arrays for the network.
    taps: how many rows and columns are interpolated.
    sideways: whether rows and columns are exchanged in the views, and hence in
      all that is said of them here.
    activation: see `predict`.
    blending: whether tiles overlap.
  """

  model: models.Network
  views: Sequence[views.View]
  surroundings: tiles.Surroundings
  tile: tuple[int, int]
  arrays: Sequence[tuple[int, int]]
  taps: tuple[int, int]
  sideways: bool
  activation: region_losses.Activation
  blending: Blending

  @classmethod
  def make(
    cls,
    model: models.Network,
    image: np.ndarray,
    *,
    tile_size: int,
    margin: int | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    quarter_turns: bool = False,
    activation: region_losses.Activation = "softmax",
    blending: Blending = "none",
    buckets: buckets_lib.Buckets | None = None,
  ) -> "Plan":
    """Cuts a picture; the arguments are those of `predict_tiled`."""
    prediction.check(activation, models.heads.num_classes(model))
    all_views = views.make(
      image, scales=scales, flip=flip, quarter_turns=quarter_turns
    )
    sideways = buckets is not None and buckets.is_sideways(image.shape[:2])
    if sideways:
      all_views = [view.sideways for view in all_views]
    surroundings = _surroundings(model, margin, blending)
    sides = [view.sides for view in all_views]
    largest = max(side.view for both in sides for side in both)
    has_exact_tiles = blending == "none" and largest > tile_size
    if has_exact_tiles and model.normalization == "group":
      raise ValueError(
        'normalization "group" uses statistics of the whole picture, which its '
        f"tiles do not have: give a tile_size of {largest} pixels or more, if "
        "memory allows; or blend tiles that have statistics of their own "
        "(blending gaussian), which is not exact."
      )
    if has_exact_tiles and hasattr(model, "resized"):
      # A tile must not be resized by its own sides.
      model = model.clone(resized=False)
    tile = _tile(sides, tile_size, surroundings)
    bucket = None
    if buckets is not None:
      bucket = buckets.smallest(
        _needs(sides, tile, tile_size, surroundings, num_scales=len(scales))
      )
    if bucket is not None:
      taps, *of_scales = bucket
    else:
      taps = tuple(map(tiles.padded_side, tile))
      each = [
        [
          side.array_side(length, tile_size, surroundings)
          for side, length in zip(both, tile, strict=True)
        ]
        for both in sides
      ]
      of_scales = _of_scales(each, len(scales))
    # Views of one scale are neighbours.
    arrays = np.repeat(of_scales, len(sides) // len(scales), axis=0)
    return cls(
      model,
      all_views,
      surroundings,
      tile,
      [(height, width) for height, width in arrays.tolist()],
      taps,
      sideways,
      activation,
      blending,
    )

  @property
  def dtype(self) -> type[np.integer]:
    """Of the labels: bytes of classes, or bit masks."""
    is_mask = (
      self.activation == "sigmoid" and models.heads.num_classes(self.model) > 1
    )
    return np.uint32 if is_mask else np.uint8

  @property
  def whole(self) -> Window:
    """All pixels of the picture."""
    height, width = self.views[0].native_size
    return slice(0, height), slice(0, width)

  def parts(self, within: Window) -> tuple[list[slice], list[slice]]:
    """Rows and columns of the tiles of a part of the picture."""
    cut = tiles.cut if self.blending == "none" else tiles.overlapping
    rows, columns = (
      cut(part.start, part.stop, side)
      for part, side in zip(within, self.tile, strict=True)
    )
    return rows, columns

  def windows(self, within: Window) -> list[Window]:
    """The tiles of a part of the picture, row by row."""
    rows, columns = self.parts(within)
    return [(row, column) for row in rows for column in columns]

  def prepared(self, variables: types.Variables) -> Prepared:
    """The variables as the methods below take them.

    A view with exchanged axes needs exchanged kernels, and so does a picture
    that is predicted sideways. They are exchanged once, not for every tile.
    """
    return {
      exchanged: (
        buckets_lib.exchanged(variables)
        if exchanged != self.sideways
        else variables
      )
      for exchanged in {view.exchanged for view in self.views}
    }

  def classes(self, variables: Prepared, window: Window) -> np.ndarray:
    """Classes in one of the tiles, [h, w] of `dtype`."""
    if len(self.views) > 1 or not self.views[0].is_plain:
      found = self.probabilities(variables, window)
      return self.labels_of(found)
    parts = self.seen(self.views[0], window)
    found = prediction.compiled_predict(
      self.model,
      variables[False],
      *self.images(0, parts),
      activation=self.activation,
    )
    return np.asarray(found)[0][_inside(window, parts)].astype(self.dtype)

  def classes_and_probabilities(
    self, variables: Prepared, window: Window
  ) -> tuple[np.ndarray, np.ndarray]:
    """What `classes` and `probabilities` say, in one pass of the network."""
    if len(self.views) > 1 or not self.views[0].is_plain:
      found = self.probabilities(variables, window)
      return self.labels_of(found), found
    parts = self.seen(self.views[0], window)
    inside = _inside(window, parts)
    classes, probabilities = (
      np.asarray(found)[0][inside]
      for found in prediction.predict_with_probabilities(
        self.model,
        variables[False],
        *self.images(0, parts),
        activation=self.activation,
      )
    )
    return classes.astype(self.dtype), probabilities

  def probabilities(self, variables: Prepared, window: Window) -> np.ndarray:
    """Mean probabilities in one of the tiles, [h, w, C] float32."""
    total = None
    for number, view in enumerate(self.views):
      parts = self.seen(view, window)
      taps = [
        views.taps(side.positions(pixels), part.start, length)
        for side, pixels, part, length in zip(
          view.sides, window, parts, self.taps, strict=True
        )
      ]
      images, sizes = self.images(number, parts)
      found = probabilities_at(
        self.model,
        variables[view.exchanged],
        images,
        sizes,
        *taps,
        activation=self.activation,
      )
      total = found if total is None else total + found
    height, width = (pixels.stop - pixels.start for pixels in window)
    return np.asarray(total)[:height, :width] / len(self.views)

  def labels_of(self, probabilities: np.ndarray) -> np.ndarray:
    """Labels [h, w] of `dtype` of [h, w, C] probabilities."""
    if self.activation == "softmax":
      return np.argmax(probabilities, axis=-1).astype(np.uint8)
    return prediction.labels_of(probabilities >= 0.5).astype(self.dtype)

  def seen(self, view: views.View, window: Window) -> list[slice]:
    """Rows and columns of a view that the network must see for a window."""
    return [
      slice(*self.surroundings.inside(*side.ends(pixels), side.view))
      for side, pixels in zip(view.sides, window, strict=True)
    ]

  def images(
    self, number: int, parts: Sequence[slice]
  ) -> tuple[np.ndarray, np.ndarray]:
    """A part of a view as images [1, h, w, C], with its size [1, 2] int32."""
    pixels = self.views[number].image[tuple(parts)]
    images = np.zeros((1, *self.arrays[number], pixels.shape[-1]), pixels.dtype)
    images[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    return images, np.array([pixels.shape[:2]], np.int32)


def _inside(window: Window, parts: Window) -> Window:
  """A window, counted from the begin of the part that the network sees."""
  return tuple(
    slice(pixels.start - part.start, pixels.stop - part.start)
    for pixels, part in zip(window, parts, strict=True)
  )


def needs(
  model: models.Network,
  size: tuple[int, int],
  *,
  tile_size: int,
  margin: int | None = None,
  scales: Sequence[float] = (1.0,),
  flip: bool = False,
  quarter_turns: bool = False,
  blending: Blending = "none",
) -> buckets_lib.Shapes:
  """What `buckets.choose` is told of a picture of a height and a width.

  Args:
    model: the network.
    size: height and width of the picture.
    tile_size: this and the others: as for `predict_tiled`.
    margin: see there.
    scales: see there.
    flip: see there.
    quarter_turns: see there.
    blending: see there.

  Returns:
    Height and width of a tile, and of the array for each scale, rounded up to
    multiples of the coarsest stride, so that few differ.
  """
  sides = views.sides(
    size, scales=scales, flip=flip, quarter_turns=quarter_turns
  )
  surroundings = _surroundings(model, margin, blending)
  tile = _tile(sides, tile_size, surroundings)
  return _needs(sides, tile, tile_size, surroundings, num_scales=len(scales))


def _needs(sides, tile, tile_size, surroundings, *, num_scales):
  step = int(geometry.grid(surroundings.chain.score).stride)

  def stepped(side):
    return -(-side // step) * step

  least = [
    [
      side.least_side(length, surroundings)
      for side, length in zip(both, tile, strict=True)
    ]
    for both in sides
  ]
  of_scales = _of_scales(least, num_scales).tolist()
  return (
    (stepped(tile[0]), stepped(tile[1])),
    *(
      # Arrays do not exceed a tile for the sake of the step.
      tuple(max(side, min(stepped(side), tile_size)) for side in both)
      for both in of_scales
    ),
  )


def _of_scales(sizes, num_scales):
  """The shape that the views of a scale share, which are neighbours."""
  return np.reshape(sizes, (num_scales, -1, 2)).max(axis=1)


def _tile(sides, tile_size, surroundings):
  """Height and width of the tiles."""
  for side in (side.view for both in sides for side in both):
    # Raises if it leaves nothing for some layer.
    geometry.output_size(surroundings.chain.score, side)
  rows, columns = (
    tiles.choose_tile(both, tile_size, surroundings)
    for both in zip(*sides, strict=True)
  )
  return rows, columns


# Pictures of many sizes ask for the same.
@functools.lru_cache(maxsize=8)
def _surroundings(model, margin, blending):
  """What the network sees around a tile; checks the options."""
  if blending not in get_args(Blending):
    raise ValueError(
      f"blending is {blending}; it must be {' or '.join(get_args(Blending))}."
    )
  if blending == "none":
    return tiles.Surroundings.of(model, margin)
  if margin is not None:
    raise ValueError(
      f"margin is {margin}; with blending {blending} the network sees nothing "
      "around a tile: leave one of them out."
    )
  return tiles.Surroundings.none(model)


@functools.partial(jax.jit, static_argnums=0, static_argnames="activation")
def probabilities_at(
  model: models.Network,
  variables: types.Variables,
  images: jax.Array,
  sizes: jax.Array,
  rows: views.Taps,
  columns: views.Taps,
  *,
  activation: region_losses.Activation,
) -> jax.Array:
  """Probabilities of the classes, interpolated at rows and columns.

  Args:
    model: the network.
    variables: its parameters (and batch statistics).
    images: [1, h, w, C], one image, in 0..255.
    sizes: [1, 2] int32, its height and width in the array.
    rows: taps of K rows.
    columns: taps of L columns.
    activation: from scores to probabilities.

  Returns:
    [K, L, C] float32.
  """
  score_map = models.heads.predicted_scores(model, variables, images, sizes)
  values = prediction.probabilities_of(score_map, activation)[0]
  for axis, taps in enumerate((rows, columns)):
    shape = [1, 1, 1]
    shape[axis] = -1
    fraction = taps.fraction.reshape(shape)
    low, high = (
      jnp.take(values, index, axis=axis) for index in (taps.lower, taps.upper)
    )
    values = low * (1 - fraction) + high * fraction
  return values
