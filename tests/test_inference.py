import jax
import jax.numpy as jnp
import numpy as np

import fcn_jax as fcn

MODEL = fcn.models.FCN(
  num_classes=4, backbone="vgg_small", stride=8, head_width=8
)
IMAGES = jnp.asarray(
  np.random.default_rng(0).integers(0, 256, (2, 33, 47, 3)), jnp.uint8
)


def random_variables():
  shapes = jax.eval_shape(
    lambda key: MODEL.init(key, IMAGES, train=False), jax.random.key(0)
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda p: jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype), shapes
  )


def test_the_prediction_is_the_class_of_the_largest_logit_at_every_pixel():
  variables = random_variables()
  classes = fcn.inference.predict(MODEL, variables, IMAGES)
  assert (classes.shape, classes.dtype) == ((2, 33, 47), jnp.int32)
  scores = jax.jit(lambda x: MODEL.apply(variables, x, train=False))(IMAGES)
  logits = np.asarray(jax.jit(fcn.upsampling.to_pixels)(scores))
  assert len(np.unique(classes)) > 1
  chosen = np.take_along_axis(logits, np.asarray(classes)[..., None], axis=-1)
  np.testing.assert_allclose(chosen[..., 0], logits.max(axis=-1), atol=1e-4)


def test_images_of_one_size_are_compiled_once():
  variables = random_variables()
  before = fcn.inference.predict._cache_size()
  for _ in range(3):
    fcn.inference.predict(MODEL, variables, IMAGES[:, :16, :16])
  assert fcn.inference.predict._cache_size() == before + 1
