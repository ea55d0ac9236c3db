"""How many pixels a sampler keeps at most, for arrays of fixed size.

Under `jax.jit` the list of sampled pixels needs a length that does not depend
on the draw. `bounded_by` attaches a sufficient length to a sampler; where the
count is random, such a list is too short less than once in 1e9 steps.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

# The largest probability of a step in which some image does not fit.
OVERFLOW_PROBABILITY = 1e-9


def bounded_by(max_count: Callable[..., int]) -> Callable[[Any], Any]:
  """Declares how many pixels of an image a sampler keeps at most.

  Args:
    max_count: from the shape (N, H, W) of the labels and, by keyword, the
      sampler's options to the number of pixels. Use `tail_bound` where the
      number is random.

  Returns:
    A decorator of samplers.
  """

  def mark(sampler):
    sampler.max_count = max_count
    return sampler

  return mark


def of_sampler(
  sampler: Callable[..., Any], shape: tuple[int, int, int]
) -> int | None:
  """The number of pixels that is enough for each image of a batch.

  Args:
    sampler: a function, or a `functools.partial` of one with its options bound
      by keyword.
    shape: N, H and W of the labels.

  Returns:
    The bound; None if the sampler has none.
  """
  max_count, options = _max_count(sampler)
  if max_count is None:
    return None
  return min(shape[1] * shape[2], max_count(shape, **options))


def is_known(sampler: Callable[..., Any]) -> bool:
  """Whether `of_sampler` has a bound for a sampler."""
  return _max_count(sampler)[0] is not None


def _max_count(sampler):
  """The `max_count` of a sampler, or None, and the options bound to it."""
  options = {}
  while isinstance(sampler, functools.partial):
    if sampler.args:
      return None, {}
    options = {**sampler.keywords, **options}
    sampler = sampler.func
  return getattr(sampler, "max_count", None), options


def tail_bound(mean: float, *, num_draws: int, num_images: int) -> int:
  """A count that independent draws almost surely never exceed in a step.

  Chernoff's bound for the sum X of n independent Bernoulli variables, with
  equal or different probabilities, and mean m:
  P(X >= a) <= exp(-n KL(a / n || m / n)) for a >= m.

  Args:
    mean: expected count in an image, m.
    num_draws: independent draws in an image, n.
    num_images: images a step.

  Returns:
    The smallest count whose bound, summed over the images, is below
    `OVERFLOW_PROBABILITY`; at most `num_draws`.
  """
  probability = min(mean / num_draws, 1.0)

  def is_enough(count: int) -> bool:
    share = (count + 1) / num_draws
    if share > 1.0:
      return True
    if share <= probability:
      return False
    divergence = share * math.log(share / probability)
    if share < 1.0:
      divergence += (1 - share) * math.log((1 - share) / (1 - probability))
    log_overflow = math.log(num_images) - num_draws * divergence
    return log_overflow < math.log(OVERFLOW_PROBABILITY)

  low, high = 0, num_draws
  while low < high:
    middle = (low + high) // 2
    if is_enough(middle):
      high = middle
    else:
      low = middle + 1
  return low
