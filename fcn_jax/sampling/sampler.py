"""What a sampler is: functions and facts."""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Sampler(NamedTuple):
  """Which pixels enter the loss, and with what weight.

  Write your own with `draw` alone; what you do not state is not used.

  Attributes:
    draw: (key, labels [N, H, W]) -> weights [N, H, W] float32, 0 where void.
      If the sampler `needs_losses`, (key, labels, pixel_losses=[N, H, W]).
    max_count: from the shape (N, H, W) of the labels to how many pixels of an
      image have a weight other than 0 at most; None if not known. Use
      `capacity.tail_bound` where the number is random.
    expected_sum: from labels [N, H, W] to the expected sum of the weights, []
      float32; None if not known.
    needs_losses: whether `draw` asks for the losses of the pixels.
  """

  draw: Callable[..., jax.Array]
  max_count: Callable[[tuple[int, int, int]], int] | None = None
  expected_sum: Callable[[jax.Array], jax.Array] | None = None
  needs_losses: bool = False


class Probabilities(NamedTuple):
  """Probabilities of keeping pixels.

  Attributes:
    of: labels [N, H, W] -> [N, H, W] float32 in 0..1, 0 where void.
    max_count: of the pixels that are drawn with them, see `Sampler`.
  """

  of: Callable[[jax.Array], jax.Array]
  max_count: Callable[[tuple[int, int, int]], int] | None = None
