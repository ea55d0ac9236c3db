import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import geometry
from fcn_jax import models

KEY = jax.random.key(0)
VGG16 = {"conv1": (64, 2), "conv2": (128, 2), "conv3": (256, 3)}
VGG16 |= {"conv4": (512, 3), "conv5": (512, 3)}


def small(**options):
  options = {"num_classes": 3, "stride": 8, "head_width": 8} | options
  return models.FCN(backbone="vgg_small", **options)


def images(height=40, width=48, num_images=1, seed=0):
  rng = np.random.default_rng(seed)
  shape = (num_images, height, width, 3)
  return jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)


def shapes_of(model):
  init = functools.partial(model.init, train=False)
  return jax.eval_shape(init, KEY, jnp.zeros((1, 32, 32, 3), jnp.uint8))


def random_variables(model):
  """Random ones, score layers included, without compiling anything."""
  rng = np.random.default_rng(0)

  def draw(leaf):
    fan_in = max(1, leaf.size // leaf.shape[-1])
    values = np.abs(rng.normal(0, fan_in**-0.5, leaf.shape))
    signs = rng.choice([-1, 1], leaf.shape) if leaf.ndim > 1 else 1
    return jnp.asarray(signs * values, leaf.dtype)

  return jax.tree.map(draw, shapes_of(model))


@functools.partial(jax.jit, static_argnums=0)
def infer(model, variables, images):
  return model.apply(variables, images, train=False)


@pytest.fixture(scope="module")
def variables():
  return random_variables(small())


@pytest.mark.parametrize("padding", ["same", "caffe"])
@pytest.mark.parametrize("stride", [32, 16, 8, 4, 2, 1])
def test_parameters_have_the_names_and_shapes_of_the_paper(stride, padding):
  expected, num_inputs = {}, 3
  for block, (width, depth) in VGG16.items():
    for i in range(1, depth + 1):
      expected[f"{block}_{i}"] = (3, 3, num_inputs, width)
      num_inputs = width
  expected["fc6"] = (7, 7, 512, 4096)
  expected["fc7"] = (1, 1, 4096, 4096)
  expected["score_fr"] = (1, 1, 4096, 21)
  if stride <= 16:
    expected["score_pool4"] = (1, 1, 512, 21)
  if stride <= 8:
    expected["score_pool3"] = (1, 1, 256, 21)
  if stride <= 4:
    expected["score_pool2"] = (1, 1, 128, 21)
  if stride <= 2:
    expected["score_pool1"] = (1, 1, 64, 21)
  if stride == 1:
    expected["score_conv1_2"] = (1, 1, 64, 21)

  model = models.FCN(
    num_classes=21, backbone="vgg16", stride=stride, padding=padding
  )
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    KEY,
    jnp.zeros((1, 64, 64, 3), jnp.uint8),
  )
  assert set(shapes) == {"params"}
  assert jax.tree.map(jnp.shape, shapes["params"]) == {
    name: {"kernel": shape, "bias": shape[-1:]}
    for name, shape in expected.items()
  }
  assert {p.dtype for p in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
  count = sum(p.size for p in jax.tree.leaves(shapes))
  assert count == sum(np.prod(s) + s[-1] for s in expected.values())
  assert count // 10**6 == 134  # Table 1 of the papers.


@pytest.mark.parametrize("padding", ["same", "caffe"])
@pytest.mark.parametrize("stride", [32, 16, 8, 4, 2, 1])
def test_the_score_map_has_the_size_that_geometry_says(stride, padding):
  model = small(stride=stride, padding=padding)
  for size in ((1, 1), (33, 47), (500, 375)):
    shape = jnp.zeros((2, *size, 3), jnp.uint8)
    init = functools.partial(model.init_with_output, train=False)
    scores, _ = jax.eval_shape(init, KEY, shape)
    assert scores.stride == stride
    assert scores.image_size == size
    assert scores.scores.shape[0] == 2
    assert scores.scores.shape[3] == 3
    # Cells reach from at most the first to at least the last pixel.
    for cells, side in zip(scores.scores.shape[1:3], size, strict=True):
      assert scores.offset <= (stride - 1) / 2
      reach = scores.offset + (cells - 1) * stride + stride / 2
      assert reach >= side - 1
    if padding == "same":
      assert scores.edge == "clamp"
      assert scores.offset == (stride - 1) / 2
      assert scores.scores.shape[1] == -(-size[0] // stride)
    else:
      assert scores.edge == "zero"


@pytest.mark.parametrize("stride", [32, 8, 4, 2, 1])
def test_the_last_upsampling_lies_on_the_pixels(stride):
  chain = small(stride=stride, padding="caffe").chain()
  *_, crop = chain.crop_offsets()
  assert geometry.grid(chain.upscore) == (1, -crop)


@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_images_of_any_size_are_scored(variables, size):
  scores = infer(small(), variables, images(*size))
  assert np.all(np.isfinite(scores.scores))
  assert np.any(scores.scores)


@pytest.mark.slow
@pytest.mark.parametrize(
  "padding, stride, layer",
  [
    ("same", 32, "score_fr"),
    ("caffe", 16, "score_pool4"),
    ("caffe", 8, "score_pool3"),
    ("caffe", 4, "score_pool2"),
    ("same", 2, "score_pool1"),
    ("caffe", 1, "score_conv1_1"),
  ],
)
def test_a_score_is_centred_where_the_gradient_says(padding, stride, layer):
  model = small(stride=stride, padding=padding, num_classes=1)
  # Positive everywhere, so that each pixel that is seen has a gradient. Only
  # one score layer counts: the others are interpolated.
  positive = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full(
      leaf.shape,
      len(leaf.shape) > 1
      and (path[1].key[:5] != "score" or path[1].key == layer),
      leaf.dtype,
    ),
    shapes_of(model),
  )
  positive = jax.tree.map(
    lambda leaf: leaf / max(1, leaf[..., 0].size), positive
  )
  size = (256, 288)
  image = jnp.full((1, *size, 3), 255.0)
  score_map = infer(model, positive, image)
  # A cell near the middle: its whole receptive field lies in the image.
  cell = [
    round((side / 2 - score_map.offset) / score_map.stride - 0.5)
    for side in size
  ]

  @jax.jit
  @jax.grad
  def gradient(image):
    return model.apply(positive, image, train=False).scores[0, *cell, 0]

  seen = np.any(gradient(image)[0] != 0, axis=-1)
  chain = model.chain()
  layers = chain.skips[-1] if chain.skips else chain.score
  side = geometry.receptive_field(layers)
  for axis in range(2):
    pixels = np.flatnonzero(seen.any(axis=1 - axis))
    assert pixels[0] > 0 and pixels[-1] < size[axis] - 1
    assert len(pixels) == side
    centre = score_map.offset + score_map.stride * cell[axis]
    assert (pixels[0] + pixels[-1]) / 2 == centre


@pytest.mark.slow
def test_whole_numbers_and_floats_score_alike(variables):
  picture = images()
  whole = infer(small(), variables, picture)
  floats = infer(small(), variables, picture.astype(jnp.float32))
  np.testing.assert_array_equal(whole.scores, floats.scores)


def test_images_of_a_batch_do_not_see_each_other(variables):
  pictures = images(num_images=2)
  together = infer(small(), variables, pictures).scores
  alone = infer(small(), variables, pictures[1:]).scores
  np.testing.assert_allclose(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_skip_scales_multiply_the_features_of_the_skips(variables):
  scales = models.fcn.AT_ONCE_SCALES
  assert scales == (0.01, 0.0001)
  scaled = infer(small(skip_scales=scales), variables, images())
  params = dict(variables["params"])
  for name, scale in zip(("score_pool4", "score_pool3"), scales, strict=True):
    kernel, bias = params[name]["kernel"], params[name]["bias"]
    params[name] = {"kernel": scale * kernel, "bias": bias}
  expected = infer(small(), {"params": params}, images())
  np.testing.assert_allclose(
    scaled.scores, expected.scores, rtol=1e-4, atol=1e-5
  )
  plain = infer(small(), variables, images())
  assert not np.allclose(scaled.scores, plain.scores, rtol=1e-2)


@pytest.mark.slow
def test_dropout_needs_a_key_in_training_and_is_off_in_inference(variables):
  model, picture = small(), images()

  @jax.jit
  def train(key):
    rngs = {"dropout": key}
    return model.apply(variables, picture, train=True, rngs=rngs).scores

  np.testing.assert_array_equal(train(KEY), train(KEY))
  assert np.any(train(KEY) != train(jax.random.key(1)))
  with pytest.raises(Exception, match="dropout"):
    jax.eval_shape(
      functools.partial(model.apply, train=True), variables, picture
    )
  no_dropout = functools.partial(small(dropout_rate=0.0).apply, train=True)
  np.testing.assert_allclose(
    jax.jit(no_dropout)(variables, picture).scores,
    infer(model, variables, picture).scores,
    rtol=1e-4,
    atol=1e-5,
  )


def test_batch_statistics_change_in_training_only():
  model = small(normalization="batch")
  variables = random_variables(model)
  assert set(variables) == {"params", "batch_stats"}
  assert "conv1_1_norm" in variables["params"]

  @functools.partial(jax.jit, static_argnames="train")
  def apply(train):
    return model.apply(
      variables,
      images(),
      train=train,
      rngs={"dropout": KEY},
      mutable=["batch_stats"],
    )[1]["batch_stats"]

  before = variables["batch_stats"]
  jax.tree.map(np.testing.assert_array_equal, apply(train=False), before)
  after = apply(train=True)
  changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), after, before)
  assert all(jax.tree.leaves(changed))


def test_group_normalization_has_no_statistics():
  shapes = shapes_of(small(normalization="group"))
  assert set(shapes) == {"params"}
  assert shapes["params"]["conv1_1_norm"]["scale"].shape == (16,)


@pytest.mark.parametrize("normalization", ["none", "batch", "group"])
def test_computing_in_bfloat16_keeps_parameters_and_scores_in_float32(
  normalization,
):
  model = small(dtype=jnp.bfloat16, normalization=normalization)
  init = functools.partial(model.init_with_output, train=False)
  # Flax's normalisations compute their statistics in float32.
  with jax.numpy_dtype_promotion("standard"):
    score_map, params = jax.eval_shape(init, KEY, images())
    jaxpr = str(jax.make_jaxpr(init)(KEY, images()))
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  assert score_map.scores.dtype == jnp.float32
  assert "bf16" in jaxpr


def test_scores_in_bfloat16_are_close_to_those_in_float32(variables):
  rough = infer(small(dtype=jnp.bfloat16), variables, images()).scores
  exact = infer(small(), variables, images()).scores
  error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
  assert 0 < error < 0.05


@pytest.mark.parametrize(
  "options",
  [
    {"backbone": "vgg"},
    {"stride": 12},
    {"padding": "valid"},
    {"normalization": "layer"},
    {"num_classes": 0},
    {"num_classes": 256},
  ],
)
def test_an_unknown_option_is_an_error_that_names_it(options):
  ((name, value),) = options.items()
  with pytest.raises(ValueError, match=f"{name} is {value!r}"):
    models.FCN(**{"num_classes": 2} | options)


def test_one_scale_for_two_skips_is_an_error():
  with pytest.raises(ValueError, match="for pool4 and pool3"):
    models.FCN(2, skip_scales=(0.01,))


@pytest.mark.parametrize("shape", [(64, 96, 3), (1, 64, 96, 1), (1, 3, 64, 96)])
def test_images_of_another_shape_are_refused(variables, shape):
  with pytest.raises(ValueError, match=r"must be \[N, H, W, 3\]"):
    small().apply(variables, jnp.zeros(shape), train=False)
