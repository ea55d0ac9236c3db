"""Other pixel losses against NumPy, and in all forms of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from fcn_jax import losses
from fcn_jax import sampling
from tests.helpers import loss_forms
from tests.helpers import score_maps

NUM_CLASSES = 5
ALPHA = (1.0, 0.5, 2.0, 0.0, 3.0)


def probabilities(logits):
  return scipy.special.softmax(logits, axis=-2)


def truth(values, labels):
  """Values [C, P] of each pixel's own class."""
  return values[labels, np.arange(len(labels))]


def numpy_smoothed(logits, labels, smoothing=0.1):
  target = np.full(logits.shape, smoothing / len(logits))
  target[labels, np.arange(len(labels))] += 1 - smoothing
  return -np.sum(target * np.log(probabilities(logits)), axis=0)


def numpy_focal(logits, labels, gamma=2.0):
  p = truth(probabilities(logits), labels)
  return -((1 - p) ** gamma) * np.log(p)


def numpy_symmetric(logits, labels, alpha=0.3, beta=0.7, log_zero=-4.0):
  p = probabilities(logits)
  log_q = np.full(logits.shape, log_zero)
  log_q[labels, np.arange(len(labels))] = 0
  reverse = -np.sum(p * log_q, axis=0)
  return -alpha * np.log(truth(p, labels)) + beta * reverse


def numpy_generalized(logits, labels, q=0.7):
  return (1 - truth(probabilities(logits), labels) ** q) / q


CASES = {
  "smoothed": (losses.smoothed_cross_entropy(smoothing=0.1), numpy_smoothed),
  "focal": (losses.focal(), numpy_focal),
  "focal with alpha": (
    losses.focal(gamma=0.5, alpha=ALPHA),
    lambda logits, labels: (
      np.array(ALPHA)[labels] * numpy_focal(logits, labels, 0.5)
    ),
  ),
  "symmetric": (
    losses.symmetric_cross_entropy(alpha=0.3, beta=0.7),
    numpy_symmetric,
  ),
  "generalized": (losses.generalized_cross_entropy(), numpy_generalized),
  "class-weighted": (
    losses.class_weighted(losses.cross_entropy, class_weights=ALPHA),
    lambda logits, labels: (
      -np.array(ALPHA)[labels] * np.log(truth(probabilities(logits), labels))
    ),
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_their_formulas(name):
  ours, formula = CASES[name]
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 3, (NUM_CLASSES, 200))
  labels = rng.integers(0, NUM_CLASSES, 200)
  with jax.enable_x64(True):
    found = ours(jnp.asarray(logits), jnp.asarray(labels, jnp.int32))
  np.testing.assert_allclose(found, formula(logits, labels), rtol=1e-10)


def test_multi_label_cross_entropy_is_a_sum_over_the_classes():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 3, (NUM_CLASSES, 200))
  classes = rng.random((200, NUM_CLASSES)) < 0.4
  p = scipy.special.expit(logits)
  expected = -np.sum(np.log(np.where(classes.T, p, 1 - p)), axis=0)
  labels = losses.bit_masks(jnp.asarray(classes)).astype(jnp.int32)
  with jax.enable_x64(True):
    found = losses.sigmoid_cross_entropy(jnp.asarray(logits), labels)
  np.testing.assert_allclose(found, expected, rtol=1e-10)


ALL_LOSSES = {name: ours for name, (ours, _) in CASES.items()} | {
  "sigmoid": losses.sigmoid_cross_entropy
}


@pytest.mark.long
@pytest.mark.parametrize(
  "name",
  [
    pytest.param(
      name, marks=() if name in ("focal", "sigmoid") else pytest.mark.long
    )
    for name in ALL_LOSSES
  ],
)
def test_all_forms_are_equal_and_void_does_not_count(name):
  loss_forms.check(
    ALL_LOSSES[name],
    sampling.places(rate=1 / 16),
    score_maps.make_bit_masks if name == "sigmoid" else score_maps.make_labels,
  )


@pytest.mark.parametrize("name", CASES)
def test_a_certain_network_has_a_finite_gradient(name):
  logits = jnp.array([[200.0, -200.0], [0.0, 0.0], [0.0, 1.0], [0, 0], [0, 0]])
  labels = jnp.array([0, 0], jnp.int32)
  gradient = jax.grad(lambda x: jnp.sum(ALL_LOSSES[name](x, labels)))(logits)
  assert np.all(np.isfinite(gradient))


def test_a_label_that_is_no_class_shows_as_nan():
  logits = jnp.zeros((NUM_CLASSES, 2))
  for name, (ours, _) in CASES.items():
    found = ours(logits, jnp.array([NUM_CLASSES, 1], jnp.int32))
    assert np.isnan(found[0]) and np.isfinite(found[1]), name
  # Class numbers, and bits of more classes than there are logits.
  found = losses.sigmoid_cross_entropy(
    jnp.zeros((NUM_CLASSES, 4)), jnp.array([1, 1 << 13, 0, 1 << 12], jnp.int32)
  )
  assert np.isnan(found[0]) and np.isnan(found[1])
  assert np.isfinite(found[2]) and np.isfinite(found[3])


@pytest.mark.parametrize(
  "make, options, message",
  [
    (losses.smoothed_cross_entropy, {"smoothing": 1.5}, "smoothing is 1.5"),
    (losses.focal, {"gamma": -1.0}, "gamma is -1"),
    (losses.focal, {"alpha": [1.0, -2.0]}, "0 or more"),
    (losses.focal, {"alpha": 0.25}, "one finite number for each class"),
    (losses.symmetric_cross_entropy, {"log_zero": 0.0}, "below 0"),
    (losses.generalized_cross_entropy, {"q": 0.0}, "q is 0"),
  ],
)
def test_options_out_of_their_range_are_named(make, options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_weights_of_another_number_of_classes_are_refused():
  loss = losses.focal(alpha=(1.0, 2.0))
  with pytest.raises(ValueError, match="2 class weights .* for 5 classes"):
    loss(jnp.zeros((NUM_CLASSES, 3)), jnp.zeros(3, jnp.int32))


def test_more_classes_than_bits_are_refused():
  with pytest.raises(ValueError, match="24 classes; .* room for 23"):
    losses.bit_masks(jnp.zeros((2, 2, 24), bool))


def test_labels_of_one_logit_are_0_and_1_or_bit_masks():
  logits = jnp.array([[2.0, -1.0, 0.5]])
  classes = np.array([0, 1, 1], np.int32)
  found = losses.sigmoid_cross_entropy(logits, jnp.asarray(classes))
  of_masks = losses.bit_masks(classes[:, None]).astype(np.int32)
  for labels in (classes, of_masks):
    found = losses.sigmoid_cross_entropy(logits, jnp.asarray(labels))
    expected = sklearn.metrics.log_loss(
      classes, scipy.special.expit(logits[0]), normalize=False
    )
    np.testing.assert_allclose(found.sum(), expected, rtol=1e-6)
  wrong = losses.sigmoid_cross_entropy(logits, jnp.array([2, -1, 255]))
  assert np.all(np.isnan(wrong))


def test_labels_of_the_other_kind_are_refused():
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  masks = score_maps.make_bit_masks(score_map)
  key = jax.random.key(0)
  with pytest.raises(
    ValueError, match="labels are int32; bit masks are uint32"
  ):
    losses.make(losses.sigmoid_cross_entropy)(key, score_map, labels)
  with pytest.raises(ValueError, match="labels are uint32, so they are bit"):
    losses.make()(key, score_map, masks)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.dice().values])
def test_the_softmax_of_one_logit_is_refused(loss):
  with pytest.raises(ValueError, match="one class.*sigmoid_cross_entropy"):
    loss(jnp.zeros((1, 3)), jnp.zeros(3, jnp.int32))
