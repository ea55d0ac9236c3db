import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fcn_jax import losses
from fcn_jax import types

VOID = types.IGNORE_LABEL
SHAPE = (2, 4, 5)
NUM_CLASSES = 3


def example(seed=0):
  """Logits, labels with void pixels, and weights that are 0 there."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 3, (*SHAPE, NUM_CLASSES)).astype(np.float32)
  labels = rng.integers(0, NUM_CLASSES, SHAPE).astype(np.int32)
  labels[rng.random(SHAPE) < 0.2] = VOID
  weights = (rng.random(SHAPE) < 0.6) & (labels != VOID)
  return (
    jnp.asarray(logits),
    jnp.asarray(labels),
    jnp.asarray(weights, jnp.float32),
  )


def loop(logits, labels, weights):
  """Sum of the weighted losses, pixel by pixel, in float64."""
  total = 0.0
  for index in np.ndindex(labels.shape):
    if labels[index] != VOID:
      z = np.asarray(logits[index], np.float64)
      probability = np.exp(z[labels[index]]) / np.exp(z).sum()
      total -= float(weights[index]) * np.log(probability)
  return total


class LossTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_every_normalization_agrees_with_a_loop_over_pixels(self):
    logits, labels, weights = example()
    num_valid = sum(label != VOID for label in np.ravel(labels))
    num_kept = sum(weight != 0 for weight in np.ravel(weights))
    assert 0 < num_kept < num_valid < labels.size
    total = loop(logits, labels, weights)
    for normalize, expected_sum, count in (
      ("sum", None, 1),
      ("valid", None, num_valid),
      ("kept", None, num_kept),
      ("expected", 0.6 * num_valid, 0.6 * num_valid),
    ):
      loss = self.variant(
        functools.partial(
          losses.masked_cross_entropy,
          normalize=normalize,
          expected_sum=expected_sum,
        )
      )(logits, labels, weights)
      np.testing.assert_allclose(loss, total / count, rtol=1e-5)

  @chex.variants(with_jit=True, without_jit=True)
  def test_pixel_losses_agree_with_optax_and_are_0_where_void(self):
    logits, labels, _ = example()
    pixel_losses = self.variant(losses.pixel_cross_entropy)(logits, labels)
    void = np.asarray(labels) == VOID
    expected = optax.softmax_cross_entropy_with_integer_labels(
      logits, jnp.where(void, 0, labels)
    )
    expected = np.where(void, 0.0, expected)
    np.testing.assert_allclose(pixel_losses, expected, atol=1e-6)


@pytest.mark.parametrize("normalize", ["sum", "valid", "kept", "expected"])
def test_a_batch_of_void_has_no_loss_and_no_gradient(normalize):
  logits, labels, _ = example()
  labels = jnp.full_like(labels, VOID)
  loss, gradient = jax.value_and_grad(losses.masked_cross_entropy)(
    logits,
    labels,
    jnp.zeros(SHAPE),
    normalize=normalize,
    expected_sum=0.0 if normalize == "expected" else None,
  )
  assert loss == 0
  np.testing.assert_array_equal(gradient, np.zeros(logits.shape))


@pytest.mark.parametrize("normalize", ["sum", "valid", "kept"])
@pytest.mark.parametrize("scale", [1.0, 1e30, np.inf, np.nan])
def test_logits_of_void_and_dropped_pixels_have_no_gradient(normalize, scale):
  logits, labels, weights = example()
  out = np.asarray(weights) == 0
  # Extreme logits where no loss is taken must not reach the others.
  extreme = jnp.where(out[..., None], scale * logits, logits)
  loss, gradient = jax.value_and_grad(losses.masked_cross_entropy)(
    extreme, labels, weights, normalize=normalize
  )
  assert np.all(np.isfinite(gradient))
  assert not np.any(np.asarray(gradient)[out])
  assert np.all(np.any(np.asarray(gradient)[~out], axis=-1))
  unscaled = losses.masked_cross_entropy(
    logits, labels, weights, normalize=normalize
  )
  np.testing.assert_allclose(loss, unscaled, rtol=1e-6)


def test_void_has_no_loss_even_under_a_weight():
  logits, labels, _ = example()
  loss = losses.masked_cross_entropy(
    logits, labels, jnp.ones(SHAPE), normalize="sum"
  )
  expected = loop(logits, labels, np.ones(SHAPE))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_only_expected_makes_the_sampled_loss_unbiased(rate):
  rng = np.random.default_rng(0)
  shape = (1, 2, 3)
  logits = jnp.asarray(rng.normal(0, 2, (*shape, 2)), jnp.float32)
  labels = jnp.asarray([[[0, 1, VOID], [1, 0, 1]]], jnp.int32)
  valid = np.argwhere(np.asarray(labels) != VOID)

  def mean_over_all_masks(**options):
    loss_of = jax.jit(functools.partial(losses.masked_cross_entropy, **options))
    total = 0.0
    for kept in itertools.product((0, 1), repeat=len(valid)):
      weights = np.zeros(shape, np.float32)
      weights[tuple(valid.T)] = kept
      probability = rate ** sum(kept) * (1 - rate) ** (len(kept) - sum(kept))
      total += probability * float(loss_of(logits, labels, weights))
    return total

  whole = losses.masked_cross_entropy(
    logits, labels, jnp.ones(shape), normalize="valid"
  )
  unbiased = mean_over_all_masks(
    normalize="expected", expected_sum=rate * len(valid)
  )
  np.testing.assert_allclose(unbiased, whole, rtol=1e-5)
  assert abs(mean_over_all_masks(normalize="kept") - whole) > 1e-3 * whole


def test_labels_of_another_size_are_refused():
  logits, labels, weights = example()
  with pytest.raises(AssertionError):
    losses.masked_cross_entropy(logits[:, 1:], labels, weights, normalize="sum")


@pytest.mark.parametrize("label", [-1, 3, 254])
def test_a_label_outside_the_classes_is_not_trained_in_silence(label):
  loss = losses.pixel_cross_entropy(jnp.zeros((1, 3)), jnp.array([label]))
  assert jnp.isnan(loss).all()
