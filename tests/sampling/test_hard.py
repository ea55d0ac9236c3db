import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import sampling
from tests.helpers import sampler_cases as cases

# Hard examples.


def hardest_oracle(labels, losses, count):
  kept = np.zeros(labels.shape, bool)
  for n in range(len(labels)):
    places = np.flatnonzero(labels[n] != cases.VOID)
    order = np.argsort(-losses[n].ravel()[places], kind="stable")
    kept[n].ravel()[places[order[:count]]] = True
  return kept


@pytest.mark.parametrize("count", [1, 7, 35, 1000])
@pytest.mark.parametrize(
  "losses",
  [
    cases.LOSSES,
    # Many are equal; some are negative; all are equal.
    np.round(cases.LOSSES),
    cases.LOSSES - 1,
    np.zeros_like(cases.LOSSES),
  ],
  ids=["losses", "rounded", "negative", "equal"],
)
def test_the_hardest_pixels_are_kept_and_of_equal_ones_the_first(losses, count):
  weights = sampling.hardest(count=count).draw(
    cases.KEY, jnp.asarray(cases.LABELS), pixel_losses=losses
  )
  np.testing.assert_array_equal(
    weights, hardest_oracle(cases.LABELS, losses, count)
  )


@pytest.mark.parametrize("threshold", [0.0, 0.7, 3.0, 100.0])
@pytest.mark.parametrize("min_count", [0, 6, 1000])
def test_harder_than_keeps_what_is_above_and_the_hardest(threshold, min_count):
  sampler = sampling.harder_than(threshold=threshold, min_count=min_count)
  weights = sampler.draw(
    cases.KEY, jnp.asarray(cases.LABELS), pixel_losses=cases.LOSSES
  )
  expected = hardest_oracle(cases.LABELS, cases.LOSSES, min_count)
  expected |= cases.VALID & (threshold < cases.LOSSES)
  np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_a_bad_loss_keeps_a_valid_pixel_and_no_void_one(bad):
  losses = np.where(cases.VALID, cases.LOSSES, np.float32(bad))
  losses[1, 0, 0] = bad
  labels = jnp.asarray(cases.LABELS)
  sampler = sampling.hardest(count=1)
  weights = sampler.draw(cases.KEY, labels, pixel_losses=losses)
  replaced = np.where(np.isfinite(losses), losses, np.inf)
  expected = hardest_oracle(cases.LABELS, replaced, 1)
  assert expected[1, 0, 0]
  np.testing.assert_array_equal(weights, expected)
  sampler = sampling.harder_than(threshold=100.0, min_count=0)
  weights = sampler.draw(cases.KEY, labels, pixel_losses=losses)
  assert np.flatnonzero(weights).tolist() == [42]


@pytest.mark.parametrize(
  "sampler",
  [
    sampling.hardest(count=5),
    sampling.harder_than(threshold=1.0, min_count=5),
  ],
)
def test_no_gradient_goes_through_the_choice(sampler):
  labels = jnp.asarray(cases.LABELS)

  def total(losses):
    weights = sampler.draw(None, labels, pixel_losses=losses)
    return jnp.sum(weights * losses), weights

  gradient, weights = jax.grad(total, has_aux=True)(jnp.asarray(cases.LOSSES))
  np.testing.assert_array_equal(gradient, weights)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_losses_of_half_precision_are_ordered_too(dtype):
  losses = jnp.asarray(cases.LOSSES, dtype)
  weights = sampling.hardest(count=9).draw(
    None, jnp.asarray(cases.LABELS), pixel_losses=losses
  )
  expected = hardest_oracle(cases.LABELS, np.asarray(losses, np.float32), 9)
  np.testing.assert_array_equal(weights, expected)
