"""Tiles of a picture have the classes that the whole picture has there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from tests.helpers import tiny_networks

inference = fcn.inference
picture = tiny_networks.picture
NUM_CLASSES = 4
TILE_SIZE = 320
every_net = pytest.mark.parametrize(
  "padding, stride",
  [("same", 32), ("same", 8), ("caffe", 4), ("same", 1)],
)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
  tiny_networks.add_tiny(monkeypatch)


def net(**options):
  options = {"backbone": "tiny", "normalization": "batch"} | options
  return fcn.models.FCN(NUM_CLASSES, **options)


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, variables, image):
  """Logits of a whole picture, [H, W, C]."""
  score_map = model.apply(variables, image[None], train=False)
  return fcn.upsampling.to_pixels(score_map)[0]


def random_variables(model, image, seed=0):
  """Those of a network that finds every class somewhere in an image.

  Scores and batch statistics are not zero.
  """
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    image[None, :32, :32],
  )
  rng = np.random.default_rng(seed)

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
  mean = jnp.mean(logits_of(model, variables, image), axis=(0, 1))
  variables["params"]["score_fr"]["bias"] -= mean
  return variables


def check_classes(found, logits):
  """Classes are those of the logits, which must differ from place to place."""
  logits = np.asarray(logits)
  expected = logits.argmax(axis=-1)
  assert found.dtype == np.uint8
  counts = np.bincount(expected.ravel())
  assert np.count_nonzero(counts > 0.01 * expected.size) > 1
  chosen = np.take_along_axis(logits, found[..., None].astype(int), axis=-1)
  # Rounding may turn a pixel where two classes are almost equally likely.
  np.testing.assert_allclose(chosen[..., 0], logits.max(axis=-1), atol=1e-5)
  assert np.count_nonzero(found != expected) <= 1e-4 * expected.size


def log_ratios(probabilities):
  """Logits up to a constant for each pixel."""
  logs = np.log(np.asarray(probabilities, np.float64))
  return logs - logs.mean(axis=-1, keepdims=True)


def test_views_of_a_scale_share_the_shape_of_their_tiles():
  plan = inference.tiling_plan.Plan.make(
    net(),
    picture(345, 451),
    tile_size=TILE_SIZE,
    scales=(1.0, 1.3),
    flip=True,
    quarter_turns=True,
  )
  assert len(plan.windows(plan.whole)) > 1
  assert [len(set(plan.arrays[:8])), len(set(plan.arrays[8:]))] == [1, 1]


@pytest.mark.long
@every_net
def test_tiles_have_the_classes_and_logits_of_the_whole_picture(
  padding, stride
):
  model = net(padding=padding, stride=stride, normalization="batch")
  image = picture(345, 451)
  variables = random_variables(model, image)
  logits = logits_of(model, variables, image)
  found = inference.predict_tiled(model, variables, image, tile_size=TILE_SIZE)
  check_classes(found, logits)
  probabilities = np.empty((345, 451, NUM_CLASSES), np.float32)
  again = inference.predict_tiled(
    model,
    variables,
    image,
    tile_size=TILE_SIZE,
    probabilities_out=probabilities,
  )
  check_classes(again, logits)
  np.testing.assert_allclose(
    log_ratios(probabilities),
    log_ratios(jax.nn.softmax(logits)),
    atol=1e-4,
  )


@pytest.mark.slow
def test_tiles_have_the_bit_masks_of_the_whole_picture():
  model = net()
  image = picture(345, 451)
  variables = random_variables(model, image)
  expected = np.asarray(jax.nn.sigmoid(logits_of(model, variables, image)))
  probabilities = np.empty(expected.shape, np.float32)
  for out in (None, probabilities):
    masks = inference.predict_tiled(
      model,
      variables,
      image,
      tile_size=TILE_SIZE,
      activation="sigmoid",
      probabilities_out=out,
    )
    assert masks.dtype == np.uint32
    found = fcn.losses.unpack_bit_masks(masks, num_classes=NUM_CLASSES)
    assert np.mean(found != (expected >= 0.5)) < 1e-4
    # Some pixels have no class, and some have several.
    assert {0, 2} <= {*found.sum(axis=-1).ravel().tolist()}
  np.testing.assert_allclose(probabilities, expected, atol=1e-5)
  mirrored = inference.probabilities(
    model, variables, image[:, ::-1], flip=True, activation="sigmoid"
  )
  of_mirrored = jax.nn.sigmoid(logits_of(model, variables, image[:, ::-1]))
  np.testing.assert_allclose(
    mirrored, (of_mirrored + expected[:, ::-1]) / 2, atol=1e-5
  )


@pytest.mark.slow
@every_net
def test_the_pixels_seen_are_those_that_the_gradient_says(padding, stride):
  # Positive everywhere, so that each pixel that is seen has a gradient, and
  # equal everywhere, so that pooling shares it.
  model = net(padding=padding, stride=stride, normalization="none")
  image = jnp.full((480, 64, 3), 200.0)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), image[None]
  )
  variables = jax.tree.map(
    lambda leaf: jnp.full(leaf.shape, leaf.shape[-1] / leaf.size), shapes
  )

  @jax.jit
  def gradient(weights):
    return jax.grad(
      lambda x: jnp.vdot(
        weights, jnp.sum(logits_of(model, variables, x), axis=(1, 2))
      )
    )(image)

  for first, last in [(224, 255), (239, 239), (240, 240), (231, 262)]:
    weights = np.zeros(480, np.float32)
    weights[first : last + 1] = 1
    (rows,) = np.nonzero(np.any(gradient(weights) != 0, axis=(1, 2)))
    seen = fcn.geometry.pixels_seen(model.chain(), first, last)
    assert (rows[0], rows[-1]) == seen


def test_the_exact_margin_is_no_larger_than_alignment_to_the_stride_asks_for():
  for padding in ("same", "caffe"):
    model = net(padding=padding, backbone="vgg16")
    begin, end = fcn.geometry.pixels_seen(model.chain(), 0, 31)
    margin = inference.exact_margin(model)
    assert max(-begin, end - 31) <= margin < max(-begin, end - 31) + 32


@pytest.fixture(scope="module")
def trained():
  """A network, its variables, a picture, and its logits."""
  with pytest.MonkeyPatch.context() as monkeypatch:
    tiny_networks.add_tiny(monkeypatch)
    model, image = net(), picture(345, 451)
    variables = random_variables(model, image)
    yield model, variables, image, logits_of(model, variables, image)


@pytest.mark.slow
@pytest.mark.parametrize(
  "height, width, options",
  [
    (345, 451, {}),
    (99, 70, {}),
    pytest.param(
      *(345, 451, {"scales": (0.5, 1.25), "flip": True}),
      marks=pytest.mark.long,
    ),
  ],
)
def test_classes_with_probabilities_are_those_without_to_the_bit(
  trained, height, width, options
):
  model, variables, *_ = trained
  image = picture(height, width, seed=3)
  plan = inference.tiling_plan.Plan.make(
    model, image, tile_size=TILE_SIZE, **options
  )
  windows = plan.windows((slice(0, height), slice(0, width)))
  prepared = plan.prepared(variables)
  for window in windows:
    classes, probabilities = plan.classes_and_probabilities(prepared, window)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, plan.classes(prepared, window))
    np.testing.assert_allclose(
      probabilities, plan.probabilities(prepared, window), atol=1e-6
    )
  assert len(windows) > 1 or height < 100


@pytest.mark.slow
def test_a_smaller_margin_is_cheaper_and_its_disagreement_is_told(trained):
  model, variables, image, logits = trained
  options = {"tile_size": TILE_SIZE}
  tiles = []

  def count(windows):
    tiles.append(len(windows))
    return windows

  found = inference.predict_tiled(
    model, variables, image, margin=0, progress=count, **options
  )
  inference.predict_tiled(model, variables, image, progress=count, **options)
  assert tiles == [4, 12]
  expected = np.asarray(logits).argmax(axis=-1)
  share = inference.disagreement(
    model, variables, image, margin=0, num_tiles=4, **options
  )
  assert share == pytest.approx(np.mean(found != expected), abs=1e-4)
  assert 0.001 < share < 0.5
  exact = inference.exact_margin(model)
  assert (
    inference.disagreement(
      model, variables, image, margin=exact, num_tiles=2, **options
    )
    == 0
  )
  fewer = inference.predict_tiled(
    model, variables, image, margin=exact - 64, **options
  )
  assert 0 < np.count_nonzero(fewer != expected) < share * expected.size


@pytest.mark.slow
def test_one_program_serves_all_tiles_of_all_large_pictures(trained):
  model, variables, image, _ = trained
  model = model.clone(name="counted")
  before = inference.prediction.compiled_predict._cache_size()
  for height, width in ((345, 451), (330, 321), (322, 400)):
    inference.predict_tiled(
      model, variables, image[:height, :width], tile_size=TILE_SIZE
    )
  assert inference.prediction.compiled_predict._cache_size() == before + 1


@pytest.mark.slow
def test_small_pictures_share_the_shapes_to_which_they_are_padded(trained):
  model, variables, image, _ = trained
  model = model.clone(name="counted")
  before = inference.prediction.compiled_predict._cache_size()
  for height, width in ((70, 90), (128, 65), (101, 128)):
    part = image[:height, :width]
    found = inference.predict_tiled(model, variables, part, tile_size=TILE_SIZE)
    logits = logits_of(model, variables, part)
    assert np.mean(found == np.asarray(logits).argmax(axis=-1)) > 0.999
  assert inference.prediction.compiled_predict._cache_size() == before + 1


@pytest.mark.slow
@pytest.mark.parametrize("height, width", [(1, 1), (1, 400), (360, 33)])
def test_strips_and_single_pixels_have_their_classes(trained, height, width):
  model, variables, image, _ = trained
  part = np.resize(image, (height, width, 3))
  found = inference.predict_tiled(model, variables, part, tile_size=TILE_SIZE)
  logits = np.asarray(logits_of(model, variables, part))
  np.testing.assert_array_equal(found, logits.argmax(axis=-1))


@pytest.mark.slow
def test_arrays_may_lie_on_disk(trained, tmp_path):
  model, variables, image, logits = trained
  on_disk = np.memmap(tmp_path / "image", np.uint8, "w+", shape=image.shape)
  on_disk[:] = image
  out = np.memmap(tmp_path / "out", np.uint8, "w+", shape=image.shape[:2])
  probabilities = np.memmap(
    tmp_path / "float", np.float16, "w+", shape=logits.shape
  )
  found = inference.predict_tiled(
    model,
    variables,
    on_disk,
    tile_size=TILE_SIZE,
    out=out,
    probabilities_out=probabilities,
  )
  assert found is out
  check_classes(out, logits)
  np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), atol=1e-3)


@pytest.mark.slow
def test_statistics_of_the_whole_picture_are_refused_for_tiles_only(trained):
  _, _, image, _ = trained
  model = net(normalization="group")
  image = image[:200, :300]
  variables = random_variables(model, image)
  with pytest.raises(ValueError, match="tile_size of 300"):
    inference.predict_tiled(model, variables, image, tile_size=290)
  found = inference.predict_tiled(model, variables, image, tile_size=300)
  check_classes(found, logits_of(model, variables, image))


@pytest.mark.parametrize(
  "options, message",
  [
    ({"tile_size": 200}, "tile_size is 200 pixels.* at least 223"),
    ({"margin": -1}, "margin is -1"),
    ({"scales": ()}, "scales are empty"),
    ({"scales": (0.0,)}, "must be above 0"),
    ({"out": np.empty((345, 450), np.uint8)}, "out has shape"),
    ({"out": np.empty((345, 451), np.int32)}, "out has .* type int32"),
    ({"probabilities_out": np.empty((345, 451))}, "probabilities_out has"),
  ],
)
def test_options_that_cannot_be_are_explained(trained, options, message):
  model, variables, image, _ = trained
  options = {"tile_size": TILE_SIZE} | options
  with pytest.raises(ValueError, match=message):
    inference.predict_tiled(model, variables, image, **options)


def test_several_pictures_at_once_are_refused(trained):
  model, variables, image, _ = trained
  with pytest.raises(ValueError, match="one picture"):
    inference.predict_tiled(model, variables, image[None])
