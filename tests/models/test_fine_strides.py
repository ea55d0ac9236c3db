"""Networks of strides 4, 2 and 1 against a direct computation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn

pytestmark = pytest.mark.usefixtures("standard_promotion")

# Convolutions of each block.
DEPTHS = {"vgg_small": (1, 1, 2, 2, 2), "vgg13_small": (2, 2, 2, 2, 2)}
SIZE = (64, 96)


def small(stride, num_classes=4, backbone="vgg_small"):
  return fcn.models.FCN(
    num_classes,
    backbone=backbone,
    stride=stride,
    head_width=16,
    dropout_rate=0.0,
  )


def random_params(model):
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), np.zeros((1, *SIZE, 3), np.uint8), train=False
    )
  )
  return jax.tree.map(
    lambda leaf: jnp.asarray(
      rng.normal(0, (2 * leaf.shape[-1] / leaf.size) ** 0.5, leaf.shape)
      if len(leaf.shape) > 1
      else rng.normal(0, 0.3, leaf.shape),
      jnp.float32,
    ),
    shapes,
  )


def direct_logits(params, images, stride, depths):
  """Logits of all pixels, with XLA's own operations and `jax.image.resize`."""

  def conv(x, layer):
    kernel, bias = params[layer]["kernel"], params[layer]["bias"]
    x = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + bias.reshape(1, 1, 1, -1)

  inputs = fcn.models.input_normalization.FROM_SCRATCH
  mean, scale = (
    jnp.array(x).reshape(1, 1, 1, 3) for x in (inputs.mean, inputs.scale)
  )
  x = (images.astype(jnp.float32) - mean) * scale
  features = {}
  for block, depth in enumerate(depths, start=1):
    for number in range(1, depth + 1):
      name = f"conv{block}_{number}"
      x = features[name] = jax.nn.relu(conv(x, name))
    shape = x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]
    x = features[f"pool{block}"] = jnp.max(x.reshape(shape), axis=(2, 4))
  x = jax.nn.relu(conv(jax.nn.relu(conv(x, "fc6")), "fc7"))
  scores, reached = conv(x, "score_fr"), 32
  # The layers that the skips score, coarse to fine.
  for name in ("pool4", "pool3", "pool2", "pool1", f"conv1_{depths[0]}"):
    if reached == stride:
      break
    skip = conv(features[name], f"score_{name}")
    scores = jax.image.resize(scores, skip.shape, "bilinear") + skip
    reached //= 2
  return jax.image.resize(
    scores, (*images.shape[:3], scores.shape[-1]), "bilinear"
  )


@pytest.mark.long
@pytest.mark.parametrize(
  ("backbone", "stride"),
  [("vgg_small", 4), ("vgg13_small", 2), ("vgg_small", 1)],
)
def test_logits_are_those_of_a_direct_computation(backbone, stride):
  model = small(stride, backbone=backbone)
  variables = random_params(model)
  images = jnp.asarray(
    np.random.default_rng(1).integers(0, 256, (2, *SIZE, 3)), jnp.uint8
  )
  score_map = model.apply(variables, images, train=False)
  assert score_map.scores.shape == (2, 64 // stride, 96 // stride, 4)
  expected = direct_logits(
    variables["params"], images, stride, DEPTHS[backbone]
  )
  found = fcn.upsampling.to_pixels(score_map)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


@pytest.mark.long
@pytest.mark.parametrize(
  "stride",
  [
    pytest.param(4, marks=pytest.mark.long),
    pytest.param(2, marks=pytest.mark.long),
    1,
  ],
)
def test_a_fine_network_is_trained_from_scratch(stride):
  """One image with a line of so many pixels, which has its class in the end."""
  image = np.full((1, 64, 64, 3), 90, np.uint8)
  label = np.zeros((1, 64, 64), np.int32)
  line = slice(21, 21 + stride)
  image[:, :, line], label[:, :, line] = 200, 1
  model, optimizer = small(stride, num_classes=2), optax.adam(3e-3)
  loss = fcn.losses.make(sampler=fcn.sampling.bernoulli(rate=0.5, unit="pixel"))
  step = fcn.train.make_train_step(model, optimizer, loss)
  state = fcn.train.create_state(jax.random.key(0), model, optimizer)
  batch = fcn.types.Batch(image, label)
  for _ in range(60):
    state, metrics = step(state, batch, jax.random.key(1))
  assert np.isfinite(metrics.loss)
  found = fcn.inference.predict(
    model, fcn.train.variables(state), jnp.asarray(image)
  )
  intersection = np.sum((found == 1) & (label == 1))
  union = np.sum((found == 1) | (label == 1))
  assert intersection / union > 0.8
