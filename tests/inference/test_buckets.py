import functools

import jax
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import inference
from fcn_jax.inference import buckets
from fcn_jax.inference import prediction
from tests.helpers import narrow
from tests.helpers import tiny_networks

STEP = 32


def photographs(num_pictures, longest, *, seed=0):
  """Different sizes of photographs: three formats, two orientations."""
  rng = np.random.default_rng(seed)
  sizes = set()
  while len(sizes) < num_pictures:
    width, height = [(4, 3), (3, 2), (16, 9)][rng.integers(3)]
    long = int(rng.integers(longest // 5, longest + 1))
    size = round(long * height / width), long
    sizes.add(size if rng.random() < 0.5 else size[::-1])
  return sorted(sizes)


def chosen(sizes, **options):
  needs = [one_array(size) for size in sizes]
  tall = [height > width for height, width in sizes]
  return buckets.choose(needs, tall, **options)


def one_array(size):
  height, width = (-(-side // STEP) * STEP for side in size)
  return ((height, width),)


def arrays_of(found, sizes):
  """The array of each picture."""
  arrays = []
  for size in sizes:
    needs = one_array(size[::-1] if found.is_sideways(size) else size)
    arrays.append(found.smallest(needs))
  return arrays


def wasted(found, sizes):
  """Share of the computed pixels that are in no picture."""
  computed = sum(map(buckets.num_pixels, arrays_of(found, sizes)))
  return 1 - sum(height * width for height, width in sizes) / computed


@pytest.mark.parametrize("seed", range(5))
def test_200_photographs_of_200_sizes_waste_less_than_a_quarter(seed):
  sizes = photographs(200, 2000, seed=seed)
  found = chosen(sizes)
  assert len(found.entries) <= 8
  assert wasted(found, sizes) < 0.22


def test_independent_sides_waste_more():
  rng = np.random.default_rng(0)
  sizes = rng.integers(200, 2001, (200, 2)).tolist()
  found = chosen(sizes)
  assert len(found.entries) <= 8
  assert 0.25 < wasted(found, sizes) < 0.35


def test_sizes_that_are_near_share_an_array():
  small = [(320, 416), (448, 320), (352, 448)]
  large = [(960, 1184), (1280, 992), (992, 1216), (928, 1152)]
  found = chosen(small + large, max_programs=2)
  assert found.entries == (((352, 448),), ((992, 1280),))
  assert found.sideways


def test_few_sizes_are_not_padded_beyond_the_step_nor_turned():
  sizes = photographs(8, 2000)
  found = chosen(sizes * 3)
  assert not found.sideways
  assert arrays_of(found, sizes) == [one_array(size) for size in sizes]


@pytest.mark.parametrize("max_programs", [1, 2, 8])
def test_no_array_has_more_pixels_than_the_largest_picture(max_programs):
  sizes = photographs(50, 2000) + [(200, 3000), (3000, 150)]
  found = chosen(sizes, max_programs=max_programs)
  largest = max(buckets.num_pixels(one_array(size)) for size in sizes)
  assert max(map(buckets.num_pixels, found.entries)) <= largest
  assert None not in arrays_of(found, sizes)


def test_thousands_of_sizes_are_served():
  rng = np.random.default_rng(0)
  sizes = rng.integers(200, 2001, (3000, 2)).tolist()
  found = chosen(sizes)
  assert len(found.entries) == 8
  assert None not in arrays_of(found, sizes)


def test_no_program_at_all_is_refused():
  with pytest.raises(ValueError, match="max_programs is 0; give 1 or more"):
    chosen([(9, 9)], max_programs=0)


@pytest.fixture(scope="module")
def network():
  with pytest.MonkeyPatch.context() as patch:
    tiny_networks.add_tiny(patch)
    model = fcn.models.FCN(num_classes=4, backbone="tiny", stride=8)
    variables = tiny_networks.random_variables(model)
    image = tiny_networks.picture(96, 128)
    apply = jax.jit(functools.partial(model.apply, train=False))
    scores = apply(variables, image[None]).scores
    bias = variables["params"]["score_fr"]["bias"]
    variables["params"]["score_fr"]["bias"] = bias - scores.mean((0, 1, 2))
    yield model, variables


def assert_same_classes(found, expected):
  assert found.shape == expected.shape
  # Rounding may turn a pixel where two classes are almost equally likely.
  assert np.count_nonzero(found != expected) <= 1e-4 * found.size


@pytest.mark.long
def test_200_pictures_of_200_sizes_compile_8_programs(network):
  model, variables = network
  model = model.clone(name="counted")
  sizes = photographs(200, 400)
  shapes = inference.choose_buckets(model, sizes)
  before = prediction.compiled_predict._cache_size()
  found = {}
  for size in sizes:
    image = tiny_networks.picture(*size)
    found[size] = inference.predict_tiled(
      model, variables, image, buckets=shapes
    )
  assert prediction.compiled_predict._cache_size() - before <= 8
  # Unpadded ones are compiled each by itself.
  for size in sizes[::40]:
    image = tiny_networks.picture(*size)
    expected = np.asarray(inference.predict(model, variables, image[None]))[0]
    assert_same_classes(found[size], expected)
    assert len(np.unique(expected)) > 1


CASES = {
  "tiles": {"tile_size": 320},
  "views": {"scales": (1.0, 0.6), "flip": True},
  "views of tiles": {"scales": (1.3,), "flip": True, "tile_size": 320},
  # Without mirrored views: all eight are the same sideways, with any kernels.
  "turned tiles": {"quarter_turns": True, "tile_size": 320},
  "blended": {"tile_size": 96, "blending": "gaussian"},
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_results_are_those_without_buckets(network, case):
  model, variables = network
  options = CASES[case]
  sizes = [(60, 90), (97, 61), (340, 130)]
  shapes = inference.choose_buckets(
    model, sizes, max_programs=2 * len(options.get("scales", "1")), **options
  )
  assert shapes.sideways
  assert len(shapes.entries) == 2
  for size in sizes:
    image = tiny_networks.picture(*size)
    both = []
    for given in (shapes, None):
      probabilities = np.empty((*size, 4), np.float32)
      classes = inference.predict_tiled(
        model,
        variables,
        image,
        buckets=given,
        probabilities_out=probabilities,
        **options,
      )
      both.append((classes, probabilities))
    (classes, found), (expected_classes, expected) = both
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert_same_classes(classes, expected_classes)
    assert np.ptp(expected, axis=(0, 1)).max() > 0.01


def test_each_scale_has_a_share_of_the_programs(network):
  model, _ = network
  sizes = photographs(60, 600)
  shapes = inference.choose_buckets(
    model, sizes, max_programs=8, scales=(0.5, 1.0, 1.5), flip=True
  )
  assert len(shapes.entries) <= 2
  # The tiles, and the arrays at three scales.
  assert {len(entry) for entry in shapes.entries} == {4}
  with pytest.raises(ValueError, match="max_programs is 0"):
    inference.choose_buckets(model, sizes, max_programs=0)


def test_arrays_do_not_exceed_a_tile(network):
  model, _ = network
  shapes = inference.choose_buckets(model, photographs(20, 2000), tile_size=500)
  for _, array in shapes.entries:
    assert max(array) <= 500


NETWORKS = {
  "vgg": {"stride": 8, "padding": "same"},
  "caffe": {"stride": 16, "padding": "caffe"},
  "batch": {"stride": 8, "normalization": "batch"},
  "group": {"stride": 8, "normalization": "group"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_sideways_has_its_result_sideways(name, monkeypatch):
  tiny_networks.add_tiny(monkeypatch)
  model = fcn.models.FCN(num_classes=3, backbone="tiny", **NETWORKS[name])
  variables = tiny_networks.random_variables(model)
  check_turned(model, variables)


@pytest.mark.long
@pytest.mark.parametrize(
  ("network_class", "backbone"),
  [
    (fcn.models.FCN, "alexnet"),
    (fcn.models.FCN, "googlenet"),
    (fcn.models.FCN, "resnet50"),
    (fcn.models.FCNResNet, "resnet50"),
  ],
)
def test_other_networks_see_pictures_sideways(
  monkeypatch, network_class, backbone
):
  narrow.backbones(monkeypatch)
  model = network_class(num_classes=3, backbone=backbone)
  check_turned(model, tiny_networks.random_variables(model))


def check_turned(model, variables):
  # Variances are positive.
  if "batch_stats" in variables:
    variables["batch_stats"] = jax.tree.map(
      lambda leaf: 1 + abs(leaf), variables["batch_stats"]
    )
  image = tiny_networks.picture(75, 101)
  scores = jax.jit(lambda v, x: model.apply(v, x, train=False).scores)
  expected = np.asarray(scores(variables, image[None]))
  found = scores(buckets.exchanged(variables), image.swapaxes(0, 1)[None])
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    np.swapaxes(found, 1, 2) / scale, expected / scale, atol=5e-5
  )
  upright = scores(variables, image.swapaxes(0, 1)[None])
  assert np.abs(np.swapaxes(upright, 1, 2) - expected).max() > 1e-3 * scale
