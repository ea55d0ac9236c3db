"""Averages over scales, flips and turns are those of a loop."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from tests.helpers import tiny_networks

pytestmark = pytest.mark.slow

inference = fcn.inference
picture = functools.partial(tiny_networks.picture, patch=20)
NUM_CLASSES = 3
SIZE = (93, 122)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
  tiny_networks.add_tiny(monkeypatch)


def network(**options):
  options = {"backbone": "tiny"} | options
  model = fcn.models.FCN(NUM_CLASSES, **options)
  return model, tiny_networks.random_variables(model)


def whole(model, variables, image):
  """Probabilities of a whole picture, at its own size."""
  score_map = jax.jit(functools.partial(model.apply, train=False))(
    variables, image[None]
  )
  return np.asarray(jax.nn.softmax(fcn.upsampling.to_pixels(score_map)[0]))


def resized(values, size):
  """Bilinear interpolation, pixel by pixel as a matrix for each axis."""
  for axis, new in enumerate(size):
    old = values.shape[axis]
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    tents = np.abs(centres.clip(0, old - 1)[:, None] - np.arange(old))
    weights = np.maximum(1 - tents, 0)
    values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
  return values


def by_a_loop(model, variables, image, scales, flip=False, quarter_turns=False):
  found = []
  height, width = image.shape[:2]
  for scale in scales:
    size = round(height * scale), round(width * scale)
    small = np.array(
      Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    )
    for turns in range(4 if quarter_turns else 1):
      turned = np.rot90(small, turns)
      views = [whole(model, variables, turned)]
      if flip:
        views.append(whole(model, variables, turned[:, ::-1])[:, ::-1])
      found += [
        resized(np.rot90(view, -turns), (height, width)) for view in views
      ]
  return np.mean(found, axis=0)


@pytest.mark.parametrize(
  "options, of_network",
  [
    pytest.param(
      {"scales": (0.7, 1.0, 1.4), "flip": True}, {}, marks=pytest.mark.long
    ),
    ({"scales": (0.5,)}, {"padding": "caffe", "stride": 16}),
    ({"scales": (1.0,), "quarter_turns": True}, {}),
    (
      {"scales": (0.7,), "flip": True, "quarter_turns": True},
      {"padding": "caffe", "stride": 16},
    ),
  ],
)
def test_the_average_is_that_of_a_loop_over_whole_pictures(options, of_network):
  model, variables = network(**of_network)
  image = picture(*SIZE)
  found = inference.probabilities(model, variables, image, **options)
  assert (found.shape, found.dtype) == ((*SIZE, NUM_CLASSES), np.float32)
  expected = by_a_loop(model, variables, image, **options)
  assert np.ptp(expected, axis=(0, 1)).max() > 0.1
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
  "options",
  [
    {"scales": (0.5, 1.2), "flip": True},
    {"quarter_turns": True},
    {"scales": (1.2,), "flip": True, "quarter_turns": True},
  ],
)
def test_tiles_have_the_average_of_the_whole_picture(options):
  model, variables = network(stride=32)
  image = picture(305, 411)
  # No class wins everywhere.
  mean = np.mean(np.log(whole(model, variables, image)), axis=(0, 1))
  variables["params"]["score_fr"]["bias"] -= mean
  classes = inference.predict_tiled(
    model, variables, image, tile_size=384, **options
  )
  found = inference.probabilities(
    model, variables, image, tile_size=384, **options
  )
  # One tile: compared with the loop above.
  expected = inference.probabilities(
    model, variables, image, tile_size=512, **options
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert len(np.unique(classes)) > 1
  np.testing.assert_array_equal(classes, found.argmax(axis=-1))


def test_one_scale_without_flip_is_the_softmax_of_the_logits():
  model, variables = network()
  image = picture(*SIZE)
  found = inference.probabilities(model, variables, image)
  np.testing.assert_allclose(found, whole(model, variables, image), atol=1e-6)


def test_with_flips_the_mirrored_picture_has_the_mirrored_probabilities():
  model, variables = network()
  image = picture(*SIZE)
  found, mirrored = (
    inference.probabilities(model, variables, each, flip=True)
    for each in (image, image[:, ::-1])
  )
  np.testing.assert_array_equal(mirrored[:, ::-1], found)
  without = inference.probabilities(model, variables, image[:, ::-1])
  assert np.abs(without[:, ::-1] - found).max() > 1e-3


def test_with_turns_a_turned_picture_has_the_turned_probabilities():
  model, variables = network()
  image = picture(*SIZE)
  found = inference.probabilities(model, variables, image, quarter_turns=True)
  for turns in (1, 2, 3):
    turned = inference.probabilities(
      model, variables, np.rot90(image, turns), quarter_turns=True
    )
    np.testing.assert_allclose(np.rot90(turned, -turns), found, atol=1e-6)
  mirrored = inference.probabilities(
    model, variables, image[:, ::-1], quarter_turns=True
  )
  assert np.abs(mirrored[:, ::-1] - found).max() > 1e-3


def test_pictures_of_many_sizes_share_few_programs():
  model, variables = network()
  model = model.clone(name="counted")
  before = inference.tiling_plan.probabilities_at._cache_size()
  for height, width in ((70, 153), (90, 182), (128, 161)):
    inference.probabilities(
      model,
      variables,
      picture(height, width),
      scales=(1.0, 0.5),
      flip=True,
      quarter_turns=True,
    )
  # One for each scale; mirrored and turned pictures need none of their own.
  assert inference.tiling_plan.probabilities_at._cache_size() == before + 2


def test_only_pictures_of_bytes_or_single_precision_are_rescaled():
  model, variables = network()
  image = picture(*SIZE).astype(np.float64)
  with pytest.raises(ValueError, match="must be uint8 or float32"):
    inference.probabilities(model, variables, image, scales=(0.5,))
