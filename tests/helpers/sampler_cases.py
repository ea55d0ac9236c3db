"""All samplers with small options, labels for them, and oracles."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from fcn_jax import sampling
from fcn_jax import types

VOID = types.IGNORE_LABEL

NUM_DRAWS = 4000

# Of another generator than the default, whose compilation takes seconds.
KEY = jax.random.key(0, impl="rbg")

KEYS = jax.random.split(jax.random.key(7, impl="rbg"), NUM_DRAWS)

SHAPE = (2, 6, 7)

NUM_CLASSES = 4

FREQUENCIES = (8.0, 4.0, 3.0, 1.0)

# Neither class 3 in the first image nor class 2 in the batch is there; blocks
# and squares of 3 pixels are cut off at the right; one of them is all void.
LABELS = np.array(
  [
    [
      [0, 0, 0, 1, 1, 1, VOID],
      [0, 0, 0, 1, 1, 1, VOID],
      [0, 0, 0, 0, 1, 1, VOID],
      [0, 0, 0, 0, 0, 0, 0],
      [VOID, 0, 0, 0, 0, 0, 0],
      [VOID, VOID, 0, 0, 0, 0, 0],
    ],
    [
      [0, 0, 0, 0, 0, 0, 3],
      [0, 0, 0, 0, 0, 3, 0],
      [0, 0, 0, 0, 0, 0, 0],
      [0, 0, VOID, VOID, VOID, 0, 0],
      [0, 0, VOID, 1, VOID, 0, 0],
      [0, 0, VOID, VOID, VOID, 0, 0],
    ],
  ],
  np.int32,
)

VALID = LABELS != VOID

# Blocks begin at the top left, as squares do.
GRID = types.Grid(stride=3, offset=0.0)

LOSSES = np.random.default_rng(3).exponential(size=SHAPE).astype(np.float32)

BOUNDARY = {"rate": 0.8, "rate_elsewhere": 0.3, "distance": 1}

CLASSES = {"count": 12, "num_classes": NUM_CLASSES}

# A pixel of class 0 would have 4 / 59.
FLOOR = {**CLASSES, "min_probability": 0.2}

# Class 3 has two pixels, so the others share two of its four.
REDISTRIBUTED = {**CLASSES, "redistribute": True}

TRAINING_SET = {**CLASSES, "frequencies": FREQUENCIES}


def with_losses(sampler, pixel_losses=LOSSES):
  """The sampler with losses of its own."""
  draw = functools.partial(sampler.draw, pixel_losses=pixel_losses)
  return sampler._replace(draw=draw, needs=())


def on_grid(sampler, grid=GRID):
  """The sampler with a grid."""
  draw, max_count, expected_sum = (
    functools.partial(function, grid=grid) for function in sampler[:3]
  )
  return sampling.Sampler(draw, max_count, expected_sum)


RANDOM_SAMPLERS = {
  "bernoulli": sampling.bernoulli(rate=0.3, unit="pixel"),
  "bernoulli by gaps": sampling.bernoulli(rate=0.2, unit="pixel"),
  "bernoulli of blocks": on_grid(sampling.bernoulli(rate=0.3)),
  "places": on_grid(sampling.places(rate=1 / 3)),
  "random places": on_grid(sampling.places(rate=1 / 3, arrangement="random")),
  "places in every other block": on_grid(sampling.places(rate=1 / 18)),
  "fixed_count": sampling.fixed_count(count=5),
  "fixed_count_in_batch": sampling.fixed_count_in_batch(count=9),
  "one_per_square": sampling.one_per_square(side=3),
  "class_balanced": sampling.class_balanced(**CLASSES),
  "class_balanced by set": sampling.class_balanced(**TRAINING_SET),
  "class_balanced with a floor": sampling.class_balanced(**FLOOR),
  "class_balanced, redistributed": sampling.class_balanced(**REDISTRIBUTED),
  "near_boundary": sampling.near_boundary(**BOUNDARY),
  "importance of boundaries": sampling.importance(
    probabilities=sampling.boundary_probabilities(**BOUNDARY),
  ),
  "importance of classes": sampling.importance(
    probabilities=sampling.class_probabilities(**CLASSES),
  ),
  "importance with a floor": sampling.importance(
    probabilities=sampling.class_probabilities(**FLOOR),
  ),
}

SAMPLERS = {
  **RANDOM_SAMPLERS,
  "whole_image": sampling.whole_image(),
  "center_pixel": sampling.center_pixel(),
  "class_weighted": sampling.class_weighted(class_weights=(0.5, 1.0, 2.0, 4.0)),
  "hardest": with_losses(sampling.hardest(count=5)),
  "harder_than": with_losses(sampling.harder_than(threshold=1.0, min_count=5)),
}


def draws(sampler, labels=LABELS, keys=KEYS):
  """Weights [D, N, H, W] for each of D keys."""
  labels = np.broadcast_to(labels, (len(keys), *labels.shape[-3:]))
  return np.asarray(compiled_over_keys(sampler)(keys, labels))


@functools.cache
def compiled_over_keys(sampler):
  # Not `vmap`, of which some random functions take longer to compile.
  return jax.jit(
    lambda keys, labels: jax.lax.map(lambda x: sampler.draw(*x), (keys, labels))
  )


@functools.cache
def draws_of(name):
  """As `draws`, from `LABELS`; once for all tests."""
  return draws(SAMPLERS[name])


def counts_by_image(weights):
  return np.sum(weights != 0, axis=(-2, -1))


def near_boundary_oracle(labels, distance):
  near = np.zeros(labels.shape, bool)
  for n, i, j in np.ndindex(labels.shape):
    around = labels[
      n,
      max(i - distance, 0) : i + distance + 1,
      max(j - distance, 0) : j + distance + 1,
    ]
    near[n, i, j] = np.any(around != labels[n, i, j])
  return near


def class_probabilities_oracle(
  labels,
  count,
  num_classes,
  frequencies=None,
  min_probability=0.0,
  redistribute=False,
):
  valid = labels[labels != VOID].tolist()
  sizes = collections.Counter(valid)
  num_present = len(sizes)
  if frequencies is not None:
    num_present = num_classes
    sizes = {
      c: len(valid) * f / sum(frequencies) for c, f in enumerate(frequencies)
    }
  part = count / num_present
  if redistribute and count < sum(sizes.values()):
    part = scipy.optimize.brentq(
      lambda part: sum(min(n, part) for n in sizes.values()) - count, 0, count
    )
  elif redistribute:
    part = max(sizes.values())
  probabilities = np.zeros(labels.shape)
  for place, label in np.ndenumerate(labels):
    if label != VOID:
      expected = min(1.0, part / sizes[label])
      probabilities[place] = max(min_probability, expected)
  return probabilities


BIG = (4, 96, 96)

BIG_LABELS = np.random.default_rng(5).integers(0, 4, BIG).astype(np.int32)

# Of these, training had fewer in its images than this batch has.
BIG_LABELS[0] = 3


# All pixels alike.


def labels_with_void(shape=(2, 45, 38)):
  labels = np.random.default_rng(0).integers(0, 5, shape).astype(np.int32)
  labels[labels == 4] = VOID
  return jnp.asarray(labels)
