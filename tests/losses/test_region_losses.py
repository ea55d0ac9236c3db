"""Losses of regions against NumPy, and in all forms of the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from fcn_jax import losses
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from tests.helpers import loss_forms
from tests.helpers import score_maps

NUM_CLASSES = 5
VOID = types.IGNORE_LABEL

CASES = {
  "dice": losses.dice(),
  "dice of images": losses.dice(over="image", absent="count", smooth=0.5),
  "dice of classes": losses.dice(classes=(1, 3)),
  "jaccard": losses.jaccard(over="image"),
  "tversky": losses.tversky(),
  "focal tversky": losses.tversky(gamma=0.75, smooth=0.0),
}


def numpy_tversky(
  p, truth, weights, *, alpha, beta, smooth=1.0, gamma=1.0, over="batch",
  absent="skip", classes=None,
):  # fmt: skip
  """The loss by loops: p and truth [N, H, W, C], weights [N, H, W]."""
  images = [slice(None)] if over == "batch" else range(len(p))
  of_classes = []
  for image in images:
    w = np.atleast_3d(weights[image])
    for c in classes or range(p.shape[-1]):
      p_c = p[image][..., c].reshape(w.shape)
      t_c = truth[image][..., c].reshape(w.shape)
      hits = np.sum(w * p_c * t_c)
      false_positives = np.sum(w * p_c * (1 - t_c))
      false_negatives = np.sum(w * (1 - p_c) * t_c)
      if absent == "skip" and not np.any(w * t_c):
        continue
      bottom = hits + alpha * false_positives + beta * false_negatives + smooth
      of_classes.append((1 - (hits + smooth) / bottom) ** gamma)
  return np.mean(of_classes)


FORMULAS = {
  "dice": {"alpha": 0.5, "beta": 0.5, "smooth": 0.5},
  "dice of images": {
    "alpha": 0.5, "beta": 0.5, "smooth": 0.25, "over": "image",
    "absent": "count",
  },
  "dice of classes": {
    "alpha": 0.5, "beta": 0.5, "smooth": 0.5, "classes": (1, 3),
  },
  "jaccard": {"alpha": 1.0, "beta": 1.0, "over": "image"},
  "tversky": {"alpha": 0.3, "beta": 0.7},
  "focal tversky": {"alpha": 0.3, "beta": 0.7, "gamma": 0.75, "smooth": 0.0},
}  # fmt: skip


def importance():
  probabilities = sampling.class_probabilities(
    count=300, num_classes=NUM_CLASSES
  )
  return sampling.importance(probabilities=probabilities)


def make_labels(score_map):
  """Labels with class 3 in the first image only, and class 4 in none."""
  labels = score_maps.make_labels(score_map)
  labels = labels.at[1].set(jnp.where(labels[1] == 3, 0, labels[1]))
  return jnp.where(labels == 4, 1, labels)


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_their_formulas(name):
  sampler, key = importance(), jax.random.key(0)
  with jax.enable_x64(True):
    score_map = score_maps.make_map(dtype=np.float64)
    labels = make_labels(score_map)
    loss = losses.make(CASES[name], sampler=sampler, form="logits")
    found, weights, logits = jax.device_get(
      jax.jit(
        lambda: (
          loss(key, score_map, labels).loss,
          sampler.draw(key, labels),
          upsampling.to_pixels(score_map),
        )
      )()
    )
  assert np.unique(weights).size > 3
  truth = np.asarray(labels)[..., None] == np.arange(NUM_CLASSES)
  p = scipy.special.softmax(logits, axis=-1)
  expected = numpy_tversky(p, truth, weights, **FORMULAS[name])
  np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.long
@pytest.mark.parametrize(
  "name, sampler",
  [
    ("dice", sampling.places(rate=1 / 16)),
    ("dice of images", sampling.whole_image()),
    pytest.param("jaccard", importance(), marks=pytest.mark.long),
    pytest.param(
      "focal tversky",
      sampling.uncertain_weighted(count=200),
      marks=pytest.mark.long,
    ),
    ("sigmoid", sampling.uncertain(count=256, unit="block")),
  ],
  ids=lambda value: value if isinstance(value, str) else "",
)
def test_all_forms_are_equal_and_void_does_not_count(name, sampler):
  if name == "sigmoid":
    loss, labels_of = losses.dice(activation=name), score_maps.make_bit_masks
  else:
    loss, labels_of = CASES[name], make_labels
  loss_forms.check(loss, sampler, labels_of)


@functools.partial(jax.jit, static_argnums=2)
def loss_of(scores, labels, loss):
  score_map = types.ScoreMap(scores, 1, 0.0, labels.shape[1:], "clamp")
  result = losses.make(loss, form="logits")
  return result(jax.random.key(0), score_map, labels).loss


def test_an_absent_class_is_left_out_or_counts():
  # Two classes of three have labels; the network is certain and right.
  labels = jnp.array([[[0, 0, 1, 1]]])
  scores = 100 * jax.nn.one_hot(labels, 3)
  assert loss_of(scores, labels, losses.dice(smooth=0.0)) < 1e-6
  # Now it takes one pixel for the third class.
  scores = scores.at[0, 0, 0].set(jnp.array([0.0, 0.0, 100.0]))
  skipped = loss_of(scores, labels, losses.dice(smooth=0.0))
  counted = loss_of(scores, labels, losses.dice(smooth=0.0, absent="count"))
  np.testing.assert_allclose(skipped, (1 / 3 + 0) / 2, atol=1e-6)
  np.testing.assert_allclose(counted, (1 / 3 + 0 + 1) / 3, atol=1e-6)


def test_an_image_of_void_does_not_count_in_a_mean_over_images():
  labels = jnp.array([[[0, 1, 1]], [[VOID, VOID, VOID]]])
  scores = jax.random.normal(jax.random.key(0), (2, 1, 3, 2))
  for absent in ("skip", "count"):
    dice = losses.dice(over="image", absent=absent)
    both = loss_of(scores, labels, dice)
    alone = loss_of(scores[:1], labels[:1], dice)
    np.testing.assert_allclose(both, alone, rtol=1e-6)


def test_a_perfect_prediction_has_a_finite_gradient():
  labels = jnp.array([[[0, 1, 1]]])
  scores = 500 * jax.nn.one_hot(labels, 2)
  for ours in (losses.dice(), losses.tversky(gamma=0.75, smooth=0.0)):
    gradient = jax.grad(loss_of)(scores, labels, ours)
    assert np.all(np.isfinite(gradient))


def test_a_label_that_is_no_class_shows_as_nan():
  scores = jnp.zeros((1, 1, 3, 2))
  labels = jnp.array([[[0, 1, 2]]])
  assert np.isnan(loss_of(scores, labels, losses.dice()))
  sigmoid = losses.dice(activation="sigmoid")
  assert np.isnan(loss_of(scores, labels, sigmoid))
  assert np.isnan(loss_of_lovasz(scores, labels))
  # Wrong labels alone show as well.
  assert np.isnan(loss_of_lovasz(scores, jnp.full_like(labels, 2)))


def numpy_lovasz_grad(sorted_truth):
  """Algorithm 1 of Berman et al. (2018), as they published it."""
  gts = sorted_truth.sum()
  intersection = gts - sorted_truth.cumsum()
  union = gts + (1 - sorted_truth).cumsum()
  jaccard = 1 - intersection / union
  jaccard[1:] = jaccard[1:] - jaccard[:-1]
  return jaccard


def numpy_lovasz(p, labels):
  """Probabilities [P, C] and labels [P]."""
  of_classes = []
  for c in np.unique(labels):
    truth = (labels == c).astype(float)
    errors = np.abs(truth - p[:, c])
    order = np.argsort(-errors, kind="stable")
    of_classes.append(errors[order] @ numpy_lovasz_grad(truth[order]))
  return np.mean(of_classes)


@functools.partial(jax.jit, static_argnums=2)
def loss_of_lovasz(scores, labels, sampler=sampling.whole_image()):
  score_map = types.ScoreMap(scores, 1, 0.0, labels.shape[1:], "clamp")
  result = losses.lovasz_softmax(sampler=sampler)
  return result(jax.random.key(0), score_map, labels).loss


@pytest.mark.parametrize("over", ["batch", "image"])
def test_lovasz_is_the_published_algorithm_on_the_sampled_pixels(over):
  sampler, key = sampling.fixed_count(count=100), jax.random.key(3)
  with jax.enable_x64(True):
    score_map = score_maps.make_map(dtype=np.float64)
    labels = make_labels(score_map)
    loss = losses.lovasz_softmax(sampler=sampler, over=over)
    terms, weights, logits = jax.device_get(
      jax.jit(
        lambda: (
          loss(key, score_map, labels),
          sampler.draw(key, labels),
          upsampling.to_pixels(score_map),
        )
      )()
    )
  found, num_kept, kept = terms.loss, terms.num_kept, weights != 0
  p = scipy.special.softmax(logits, axis=-1)
  labels = np.asarray(labels)
  assert num_kept == kept.sum() == 200
  if over == "batch":
    expected = numpy_lovasz(p[kept], labels[kept])
  else:
    expected = np.mean(
      [numpy_lovasz(p[i][kept[i]], labels[i][kept[i]]) for i in range(2)]
    )
  np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_at_certain_predictions_lovasz_is_the_mean_of_1_minus_iu():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, (2, 4, 5))
  predictions = rng.integers(0, 3, labels.shape)
  found = loss_of_lovasz(
    100 * jax.nn.one_hot(predictions, 3), jnp.asarray(labels, jnp.int32)
  )
  ius = [
    np.sum((labels == c) & (predictions == c))
    / np.sum((labels == c) | (predictions == c))
    for c in range(3)
  ]
  np.testing.assert_allclose(found, 1 - np.mean(ius), atol=1e-6)


@pytest.mark.slow
def test_a_pixel_of_weight_2_counts_as_two_in_lovasz():
  rng = np.random.default_rng(0)
  scores = jnp.asarray(rng.normal(size=(1, 1, 6, 3)), jnp.float32)
  labels = jnp.asarray(rng.integers(0, 3, (1, 1, 6)), jnp.int32)
  weights = jnp.array([[[1, 2, 0, 1, 2, 1]]], jnp.float32)
  weighted = sampling.Sampler(draw=lambda key, labels: weights)
  order = np.array([0, 1, 1, 3, 4, 4, 5])
  expected = loss_of_lovasz(scores[:, :, order], labels[:, :, order])
  found = loss_of_lovasz(scores, labels, weighted)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_void_has_no_gradient_in_lovasz_and_all_void_has_loss_0():
  rng = np.random.default_rng(0)
  scores = jnp.asarray(rng.normal(size=(2, 1, 6, 3)), jnp.float32)
  scores = scores.at[0, 0, 0].set(jnp.nan)
  labels = jnp.array([[[VOID, 0, 1, 2, 0, 1]], [[VOID] * 6]])
  gradient = jax.grad(loss_of_lovasz)(scores, labels)
  np.testing.assert_array_equal(np.asarray(gradient)[labels == VOID], 0)
  assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 0
  assert loss_of_lovasz(scores, jnp.full_like(labels, VOID)) == 0


@pytest.mark.slow
def test_a_weighted_sum_has_the_sum_of_losses_and_gradients():
  sampler, key = sampling.bernoulli(rate=0.5), jax.random.key(0)
  score_map = score_maps.make_map()
  labels = score_maps.make_labels(score_map)
  dice = losses.make(losses.dice(), sampler=sampler)
  entropy = losses.make(sampler=sampler)
  both = losses.weighted_sum((2.0, entropy), (0.5, dice))

  def compute(loss):
    def value(score_map):
      terms = loss(key, score_map, labels)
      return terms.loss, terms

    return jax.jit(jax.value_and_grad(value, has_aux=True))(score_map)

  (found, terms), gradient = compute(both)
  (of_dice, _), dice_gradient = compute(dice)
  (of_entropy, _), entropy_gradient = compute(entropy)
  np.testing.assert_allclose(found, 2 * of_entropy + 0.5 * of_dice, rtol=1e-5)
  np.testing.assert_allclose(
    gradient.scores,
    2 * entropy_gradient.scores + 0.5 * dice_gradient.scores,
    atol=1e-7,
  )
  np.testing.assert_allclose(
    terms.loss, terms.loss_sum / float(terms.num_kept), rtol=1e-5
  )


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: losses.dice(over="class"), "over is 'class'"),
    (lambda: losses.dice(absent="no"), "absent is 'no'"),
    (lambda: losses.dice(activation="tanh"), "activation is 'tanh'"),
    (lambda: losses.dice(smooth=-1.0), r"smooth is -1\.0"),
    (lambda: losses.tversky(gamma=float("nan")), "gamma is nan"),
    (
      lambda: losses.lovasz_softmax(sampler=sampling.whole_image(), capacity=0),
      "capacity is 0",
    ),
    (lambda: losses.tversky(alpha=0.0, beta=0.0), "alpha is 0.0"),
    (lambda: losses.tversky(gamma=0.0), "gamma is 0.0"),
    (lambda: losses.weighted_sum(), "at least one pair"),
    (
      lambda: losses.lovasz_softmax(
        sampler=sampling.whole_image(), over="class"
      ),
      "over is 'class'",
    ),
    (
      lambda: losses.make(losses.dice(), sampler=sampling.hardest(count=10)),
      "chooses pixels by their losses",
    ),
  ],
)
def test_arguments_out_of_range_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_labels_and_classes_that_do_not_fit_are_refused():
  scores = jnp.zeros((1, 1, 3, 2))
  with pytest.raises(ValueError, match=r"classes are \[2\]"):
    loss_of(scores, jnp.zeros((1, 1, 3), int), losses.dice(classes=(2,)))
  with pytest.raises(ValueError, match=r"bit_masks\(labels\)"):
    loss_of(scores, jnp.zeros((1, 1, 3, 2), int), losses.dice())
