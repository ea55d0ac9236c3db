"""How many pixels a sampler keeps at most, for arrays of fixed size.

Under `jax.jit` the list of sampled pixels needs a length that does not depend
on the draw. A sampler states a sufficient one (`Sampler.max_count`); where the
count is random, such a list is too short less than once in 1e9 steps.
"""

import math

from fcn_jax.sampling import sampler as sampler_lib

# The largest probability of a step in which some image does not fit.
OVERFLOW_PROBABILITY = 1e-9


def of_sampler(
  sampler: sampler_lib.Sampler, shape: tuple[int, int, int], **known
) -> int | None:
  """The number of pixels that is enough for each image of a batch.

  Args:
    sampler: see `Sampler.max_count`.
    shape: N, H and W of the labels.
    **known: `grid`, if the sampler needs it.

  Returns:
    The bound, from 1 to H * W; None if the sampler states none.
  """
  if sampler.max_count is None:
    return None
  return max(1, min(shape[1] * shape[2], sampler.max_count(shape, **known)))


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
