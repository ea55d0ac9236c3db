"""Overlapping tiles, blended with Gaussian weights, against loops by hand."""

import functools

import jax
import numpy as np
import pytest
import scipy.ndimage

import fcn_jax as fcn
from fcn_jax.inference import blending
from fcn_jax.inference import tiles
from tests.helpers import tiny_networks

inference = fcn.inference
picture = tiny_networks.picture
NUM_CLASSES = 4
TILE = 96
# Of pictures of 170x211 pixels: half a tile apart, the last at the border.
ROWS, COLUMNS = (0, 48, 74), (0, 48, 96, 115)
SIZE = (170, 211)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
  tiny_networks.add_tiny(monkeypatch)


def network(normalization="group"):
  model = fcn.models.FCN(
    NUM_CLASSES, backbone="tiny", normalization=normalization
  )
  return model, tiny_networks.random_variables(model)


@functools.partial(jax.jit, static_argnums=0)
def alone(model, variables, image):
  """Probabilities of a picture by itself, [H, W, C]."""
  score_map = model.apply(variables, image[None], train=False)
  return jax.nn.softmax(fcn.upsampling.to_pixels(score_map)[0])


def gaussian(length):
  places = np.arange(length) - (length - 1) / 2
  return np.exp(-0.5 * (places / (length / 8)) ** 2)


def blended(probabilities_of, *, tile=(TILE, TILE), rows=ROWS):
  """The weighted mean of the tiles' probabilities, by a loop."""
  weight = np.outer(*map(gaussian, tile))[..., None]
  total = np.zeros((*SIZE, NUM_CLASSES))
  weights = np.zeros((*SIZE, 1))
  for top in rows:
    for left in COLUMNS:
      window = slice(top, top + tile[0]), slice(left, left + tile[1])
      total[window] += weight * np.asarray(probabilities_of(window))
      weights[window] += weight
  return total / weights


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["group", "none"])
def test_probabilities_are_the_weighted_mean_of_tiles_predicted_alone(
  normalization,
):
  model, variables = network(normalization)
  image = picture(*SIZE)
  expected = blended(lambda part: alone(model, variables, image[part]))
  found = inference.probabilities(
    model, variables, image, tile_size=TILE, blending="gaussian"
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert np.ptp(expected, axis=(0, 1)).max() > 0.05
  # The whole picture has others.
  difference = np.abs(found - np.asarray(alone(model, variables, image)))
  assert difference.max() > 1e-3


@pytest.mark.slow
def test_each_tile_is_averaged_over_scales_and_flips():
  model, variables = network()
  image = picture(*SIZE)
  small = np.array(
    fcn.data.pipeline.transforms.resize(image, image[..., 0], size=(85, 106))[0]
  )

  def at(values, positions, axis):
    low = np.floor(positions).astype(int)
    high = np.ceil(positions).astype(int)
    shape = [1, 1, 1]
    shape[axis] = -1
    fraction = (positions - low).reshape(shape)
    return np.take(values, low, axis) * (1 - fraction) + fraction * np.take(
      values, high, axis
    )

  def of_view(view, window, mirrored):
    positions, part = [], []
    for axis, pixels in enumerate(window):
      native, side = SIZE[axis], view.shape[axis]
      places = np.arange(pixels.start, pixels.stop)
      if mirrored and axis == 1:
        places = native - 1 - places
      place = ((places + 0.5) * side / native - 0.5).clip(0, side - 1)
      begin = int(np.floor(place.min()))
      part.append(slice(begin, int(np.ceil(place.max())) + 1))
      positions.append(place - begin)
    if mirrored:
      view = view[:, ::-1]
    values = np.asarray(alone(model, variables, view[tuple(part)]))
    return at(at(values, positions[0], 0), positions[1], 1)

  def mean_of_views(window):
    return np.mean(
      [
        of_view(view, window, mirrored)
        for view in (image, small)
        for mirrored in (False, True)
      ],
      axis=0,
    )

  found = inference.probabilities(
    model,
    variables,
    image,
    tile_size=98,
    scales=(1.0, 0.5),
    flip=True,
    blending="gaussian",
  )
  # The arrays of mirrored tiles are two columns wider than the tiles.
  expected = blended(mean_of_views, tile=(98, 96), rows=(0, 49, 72))
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_a_picture_of_one_tile_is_predicted_as_without_blending():
  model, variables = network()
  for size in ((96, 96), (50, 83)):
    image = picture(*size)
    for options in ({}, {"flip": True, "scales": (0.8,)}):
      plain, blended_ = (
        np.empty((*size, NUM_CLASSES), np.float32) for _ in range(2)
      )
      expected = inference.predict_tiled(
        model,
        variables,
        image,
        tile_size=TILE,
        probabilities_out=plain,
        **options,
      )
      found = inference.predict_tiled(
        model,
        variables,
        image,
        tile_size=TILE,
        blending="gaussian",
        probabilities_out=blended_,
        **options,
      )
      np.testing.assert_array_equal(blended_, plain)
      np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_arrays_may_lie_on_disk_and_every_tile_is_reported(tmp_path):
  model, variables = network()
  on_disk = np.memmap(tmp_path / "image", np.uint8, "w+", shape=(*SIZE, 3))
  on_disk[:] = picture(*SIZE)
  out = np.memmap(tmp_path / "out", np.uint8, "w+", shape=SIZE)
  probabilities = np.memmap(
    tmp_path / "float", np.float16, "w+", shape=(*SIZE, NUM_CLASSES)
  )
  reported = []

  def progress(windows):
    for window in windows:
      reported.append(window)
      yield window

  found = inference.predict_tiled(
    model,
    variables,
    on_disk,
    tile_size=TILE,
    blending="gaussian",
    out=out,
    probabilities_out=probabilities,
    progress=progress,
  )
  assert found is out
  begins = [(rows.start, columns.start) for rows, columns in reported]
  assert begins == [(row, column) for row in ROWS for column in COLUMNS]
  expected = inference.probabilities(
    model, variables, picture(*SIZE), tile_size=TILE, blending="gaussian"
  )
  np.testing.assert_allclose(probabilities, expected, atol=1e-3)
  np.testing.assert_array_equal(out, expected.argmax(axis=-1))
  assert len(np.unique(out)) > 1
  # Without probabilities to fill, the classes are the same.
  np.testing.assert_array_equal(
    inference.predict_tiled(
      model, variables, on_disk, tile_size=TILE, blending="gaussian"
    ),
    out,
  )


@pytest.mark.parametrize(
  ("stop", "tile", "begins"),
  [
    (211, 96, COLUMNS),
    (192, 96, (0, 48, 96)),
    (97, 96, (0, 1)),
    (96, 96, (0,)),
    (50, 96, (0,)),
    (10, 3, (0, 1, 2, 3, 4, 5, 6, 7)),
    (3, 1, (0, 1, 2)),
  ],
)
def test_overlapping_tiles_are_half_a_tile_apart_and_end_at_the_border(
  stop, tile, begins
):
  parts = tiles.overlapping(0, stop, tile)
  assert [part.start for part in parts] == list(begins)
  assert {part.stop - part.start for part in parts} == {min(stop, tile)}
  assert parts[-1].stop == stop


def test_weights_are_those_of_nnunet():
  # Its importance map: a filtered impulse at the centre, sigma of an eighth.
  length, stop = 65, 150
  impulse = np.zeros(length)
  impulse[length // 2] = 1
  weights = scipy.ndimage.gaussian_filter(
    impulse, length / 8, order=0, mode="constant", cval=0
  )
  parts = tiles.overlapping(0, stop, length)
  total = np.zeros(stop)
  for part in parts:
    total[part] += weights
  found = blending.shares(parts)
  for share, part in zip(found, parts, strict=True):
    np.testing.assert_allclose(share, weights / total[part], rtol=1e-6)
    assert share.min() > 0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"blending": "mean"}, "blending is mean; it must be none or gaussian"),
    (
      {"blending": "gaussian", "margin": 8},
      "margin is 8; with blending gaussian the network sees nothing",
    ),
    ({}, r"blend tiles that have statistics of their own \(blending gaussian"),
  ],
)
def test_options_that_cannot_be_are_explained(options, message):
  model, variables = network()
  with pytest.raises(ValueError, match=message):
    inference.predict_tiled(
      model, variables, picture(*SIZE), tile_size=160, **options
    )
