import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fcn_jax import sampling
from fcn_jax import types
from fcn_jax.sampling import capacity
from tests.helpers import sampler_cases as cases

# Bounds of the number of pixels that are kept.


@pytest.mark.parametrize(
  "name, bound",
  [
    ("fixed_count", 5),
    ("fixed_count_in_batch", 9),
    ("one_per_square", 6),
  ],
)
def test_an_exact_bound_is_reached_and_not_exceeded(name, bound):
  labels = np.zeros(cases.SHAPE, np.int32)
  # All that a batch keeps can be in one image.
  labels[1] = cases.VOID
  counts = cases.counts_by_image(cases.draws(cases.SAMPLERS[name], labels))
  stated = capacity.of_sampler(cases.RANDOM_SAMPLERS[name], cases.SHAPE)
  assert counts.max() == stated == bound


@pytest.mark.parametrize("name", cases.RANDOM_SAMPLERS.keys())
def test_the_bound_of_a_small_image_holds(name):
  bound = capacity.of_sampler(cases.RANDOM_SAMPLERS[name], cases.SHAPE)
  assert (
    cases.counts_by_image(cases.draws_of(name)).max()
    <= bound
    <= cases.SHAPE[1] * cases.SHAPE[2]
  )


def test_bounds_are_known_where_there_are_any():
  assert capacity.of_sampler(cases.SAMPLERS["hardest"], cases.SHAPE) == 5
  for name in ("whole_image", "class_weighted", "harder_than"):
    assert capacity.of_sampler(cases.SAMPLERS[name], cases.SHAPE) is None


def of_blocks(rate, stride):
  return cases.on_grid(
    sampling.bernoulli(rate=rate), types.Grid(stride, stride / 2)
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "sampler, most_expected, slack",
  [
    (sampling.bernoulli(rate=0.1, unit="pixel"), 922, 1.25),
    (of_blocks(rate=0.1, stride=4), 922, 2.1),
    (of_blocks(rate=1.0, stride=5), 9216, 1.1),
    (sampling.one_per_square(side=5), 400, 1.0),
    (
      sampling.class_balanced(count=2000, num_classes=4),
      500,
      5.0,
    ),
    (
      sampling.class_balanced(
        count=500,
        num_classes=4,
        frequencies=(4, 4, 4, 1),
      ),
      406,
      5.0,
    ),
    (
      sampling.class_balanced(count=100, num_classes=4, min_probability=0.1),
      922,
      1.4,
    ),
    (
      sampling.near_boundary(rate=0.01, rate_elsewhere=0.2, distance=1),
      1844,
      1.25,
    ),
    (
      sampling.importance(
        probabilities=sampling.class_probabilities(count=2000, num_classes=4),
      ),
      900,
      5.0,
    ),
  ],
)
def test_bounds_of_large_images_are_not_silly(sampler, most_expected, slack):
  bound = capacity.of_sampler(sampler, cases.BIG)
  counts = cases.counts_by_image(
    cases.draws(sampler, cases.BIG_LABELS, cases.KEYS[:100])
  )
  assert counts.max() <= bound <= slack * most_expected


def test_with_a_batch_rich_in_a_rare_class_its_bound_still_holds():
  # All valid pixels are in one image and of the rarest class: the expected
  # number is then count / (C * share) = 80 * 13 / 4 = 260.
  labels = np.full(cases.BIG, cases.VOID, np.int32)
  labels[2, :50] = 3
  sampler = sampling.class_balanced(
    count=80, num_classes=4, frequencies=(4, 4, 4, 1)
  )
  bound = capacity.of_sampler(sampler, cases.BIG)
  counts = cases.counts_by_image(
    cases.draws(sampler, labels, cases.KEYS[:200])
  )[:, 2]
  assert abs(counts.mean() - 260) < 5 * np.sqrt(260 / 200)
  assert counts.max() <= bound < 400


def test_the_bound_holds_where_a_class_takes_what_others_leave_over():
  # All that the batch keeps is in one image.
  labels = np.full(cases.BIG, cases.VOID, np.int32)
  labels[1] = np.arange(96) < 2
  sampler = sampling.class_balanced(
    count=4000, num_classes=4, redistribute=True
  )
  bound = capacity.of_sampler(sampler, cases.BIG)
  counts = cases.counts_by_image(cases.draws(sampler, labels, cases.KEYS[:50]))[
    :, 1
  ]
  assert abs(counts.mean() - 4000) < 5 * np.sqrt(4000 / 50)
  assert counts.max() <= bound < 4600


def test_importance_has_the_bound_of_its_probabilities():
  function = sampling.boundary_probabilities(**cases.BOUNDARY)
  shape = (4, 300, 200)
  sampler = sampling.importance(probabilities=function)
  assert (
    capacity.of_sampler(sampler, shape)
    == capacity.of_sampler(function, shape)
    == capacity.of_sampler(cases.RANDOM_SAMPLERS["near_boundary"], shape)
    < 300 * 200
  )
  unknown = sampling.importance(
    probabilities=sampling.Probabilities(lambda labels: jnp.ones(labels.shape))
  )
  assert capacity.of_sampler(unknown, shape) is None


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.25, 0.9])
@pytest.mark.parametrize("num_draws", [144, 4096, 262_144])
@pytest.mark.parametrize("num_images", [1, 20])
def test_the_tail_bound_is_rarer_than_1e_9_a_step_and_tight(
  rate, num_draws, num_images
):
  bound = capacity.tail_bound(
    rate * num_draws, num_draws=num_draws, num_images=num_images
  )
  binomial = scipy.stats.binom(num_draws, rate)
  assert num_images * binomial.sf(bound) < 1e-9
  # The exact quantile is about six standard deviations above the mean.
  exact = binomial.isf(1e-9 / num_images)
  assert bound <= exact + 0.5 * binomial.std() + 3


def test_the_tail_bound_of_a_certain_draw_is_all_of_it():
  bound = capacity.tail_bound(50, num_draws=50, num_images=4)
  assert bound == 50


def test_of_a_sampler_of_ones_own_nothing_is_known_until_it_says():
  own = sampling.Sampler(draw=lambda key, labels: labels)
  assert capacity.of_sampler(own, (2, 8, 8)) is None
  own = own._replace(max_count=lambda shape: 9)
  assert capacity.of_sampler(own, (2, 8, 8)) == 9
  assert capacity.of_sampler(own, (2, 2, 2)) == 4
