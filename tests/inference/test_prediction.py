import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
  before = fcn.inference.prediction.compiled_predict._cache_size()
  for _ in range(3):
    fcn.inference.predict(MODEL, variables, IMAGES[:, :16, :16])
  assert fcn.inference.prediction.compiled_predict._cache_size() == before + 1


def test_equally_likely_classes_give_the_lowest():
  variables = jax.tree.map(jnp.zeros_like, random_variables())
  classes = fcn.inference.predict(MODEL, variables, IMAGES[:, :16, :16])
  np.testing.assert_array_equal(classes, 0)


@pytest.mark.slow
def test_a_padded_image_is_predicted_as_alone_and_void_outside():
  variables = random_variables()
  sizes = jnp.array([[21, 47], [33, 30]], jnp.int32)
  found = fcn.inference.predict(MODEL, variables, IMAGES, sizes)
  for n, (height, width) in enumerate(sizes.tolist()):
    alone = fcn.inference.predict(
      MODEL, variables, IMAGES[n : n + 1, :height, :width]
    )
    # Rounding may turn a pixel where two classes are almost equally likely.
    assert np.mean(found[n, :height, :width] == alone[0]) > 0.99
    assert len(np.unique(alone)) > 1
    assert np.all(found[n, height:] == fcn.types.IGNORE_LABEL)
    assert np.all(found[n, :, width:] == fcn.types.IGNORE_LABEL)


@pytest.mark.slow
def test_no_array_of_all_logits_is_in_the_compiled_program():
  num_classes = 200
  model = MODEL.clone(num_classes=num_classes)
  images = jnp.zeros((1, 128, 128, 3), jnp.uint8)
  variables = jax.eval_shape(
    lambda key: model.init(key, images, train=False), jax.random.key(0)
  )

  def largest(function):
    compiled = jax.jit(function).lower(variables, images).compile()
    shapes = re.findall(r"[a-z]+\d+\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in set(shapes))

  def by_all_logits(variables, images):
    score_map = model.apply(variables, images, train=False)
    return jnp.argmax(fcn.upsampling.to_pixels(score_map), axis=-1)

  num_logits = images[..., 0].size * num_classes
  assert largest(by_all_logits) >= num_logits
  predict = functools.partial(fcn.inference.predict, model)
  assert largest(predict) <= num_logits / 4


# Classes that do not exclude each other.


@pytest.mark.slow
def test_sigmoids_give_bit_masks_of_the_classes_above_one_half():
  variables = random_variables()
  sizes = jnp.array([[21, 47], [33, 30]], jnp.int32)
  masks = fcn.inference.predict(
    MODEL, variables, IMAGES, sizes, activation="sigmoid"
  )
  assert masks.dtype == jnp.uint32
  scores = jax.jit(
    lambda x: MODEL.apply(variables, x, train=False, valid_sizes=sizes)
  )(IMAGES)
  logits = np.asarray(jax.jit(fcn.upsampling.to_pixels)(scores))
  found = fcn.losses.unpack_bit_masks(masks, num_classes=4)
  for n, (height, width) in enumerate(sizes.tolist()):
    inside = logits[n, :height, :width]
    assert 0 < np.mean(inside > 0) < 1
    right = found[n, :height, :width] == (inside > 0)
    # Rounding may turn a class whose probability is almost one half.
    assert np.all(right | (np.abs(inside) < 1e-4))
  assert np.all(masks[0, 21:] == fcn.types.IGNORE_LABEL)


@pytest.mark.long
def test_one_logit_predicts_as_the_softmax_of_0_and_that_logit():
  four = random_variables()["params"]
  one, two = (MODEL.clone(num_classes=number) for number in (1, 2))

  def params_of(change):
    scores = {name for name in four if name.startswith("score_")}
    changed = {name: jax.tree.map(change, four[name]) for name in scores}
    return {**four, **changed}

  of_one = params_of(lambda leaf: leaf[..., :1])
  of_two = params_of(
    lambda leaf: jnp.concatenate([0 * leaf[..., :1], leaf[..., :1]], axis=-1)
  )
  scores = one.apply({"params": of_one}, IMAGES, train=False).scores
  for params in (of_one, of_two):
    bias = params["score_fr"]["bias"]
    # Both classes are to occur.
    params["score_fr"]["bias"] = bias.at[-1].add(-jnp.median(scores))
  expected = fcn.inference.predict(two, {"params": of_two}, IMAGES)
  found = fcn.inference.predict(
    one, {"params": of_one}, IMAGES, activation="sigmoid"
  )
  assert found.dtype == jnp.int32
  assert 0.1 < np.mean(expected) < 0.9
  assert np.mean(found == expected) > 0.999
  with pytest.raises(ValueError, match='one class.*give activation="sigmoid"'):
    fcn.inference.predict(one, {"params": of_one}, IMAGES)


def test_activations_that_cannot_be_are_explained():
  variables = random_variables()
  with pytest.raises(ValueError, match="'relu'; choose"):
    fcn.inference.predict(MODEL, variables, IMAGES, activation="relu")
  model = MODEL.clone(num_classes=24)
  with pytest.raises(ValueError, match="24 classes; a bit mask has room for"):
    fcn.inference.predict(model, variables, IMAGES, activation="sigmoid")
