"""Few shapes of arrays, for pictures of many sizes.

A program of a network is compiled for the shapes of its arrays, which takes
seconds. A picture can be put into a larger array: the network is told its size
and does not see the rest (`valid_region`), so the result is that of the picture
alone. Hence a few shapes, *buckets*, serve many sizes, at the price of the
pixels that are computed in vain. `choose` keeps these few:

- While there are at most as many sizes as programs, each has its own program.
- Otherwise pictures that are taller than wide are predicted *sideways*: rows
  and columns are exchanged in the picture, in all kernels of the network, and
  in the result. All layers are square and treat rows as they treat columns, so
  this is the same computation up to rounding, and portraits share the programs
  of landscapes.
- Sizes are then put into groups, each with the smallest shape that holds its
  sizes: the two groups that add the fewest pixels are joined until few are left
  (as Ward's clustering does), then single sizes move to other groups as long as
  that saves pixels.
- No array has more pixels than the largest picture needs, so that what fits
  into memory one by one also fits in buckets. If sizes cannot be joined under
  this condition, such as panoramas with squares, there are more programs.

Exported networks contain this module, too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Height and width of each array that a picture needs.
Shapes = tuple[tuple[int, int], ...]

MAX_PROGRAMS = 8

# Of more, those that are almost equal count as one: joining takes time with the
# square of their number.
_MOST_SIZES = 500
_MOST_PASSES = 10


class Buckets(NamedTuple):
  """Shapes of arrays for pictures of many sizes.

  Attributes:
    entries: the shapes for a picture, those of fewest pixels first.
    sideways: whether pictures that are taller than wide exchange their rows and
      columns.
  """

  entries: tuple[Shapes, ...] = ()
  sideways: bool = False

  def is_sideways(self, size: Sequence[int]) -> bool:
    """Whether a picture of a height and a width is predicted sideways."""
    return self.sideways and size[0] > size[1]

  def smallest(self, needs: Shapes) -> Shapes | None:
    """The smallest arrays that hold those of a picture; None if none do.

    Args:
      needs: heights and widths; exchanged if the picture `is_sideways`.
    """
    for entry in self.entries:
      if (np.array(entry) >= needs).all():
        return entry
    return None


def choose(
  needs: Sequence[Shapes],
  tall: Sequence[bool],
  *,
  max_programs: int = MAX_PROGRAMS,
) -> Buckets:
  """Chooses the shapes that serve all pictures with the fewest pixels.

  Args:
    needs: for each of N pictures, the V arrays that it needs: N times V heights
      and widths, those of upright pictures.
    tall: for each picture, whether it is taller than wide.
    max_programs: how many entries to choose at most, if the arrays do not
      become too large by it (see above).

  Raises:
    ValueError: if `max_programs` is less than 1.
  """
  if max_programs < 1:
    raise ValueError(
      f"max_programs is {max_programs}; give 1 or more: a program is compiled "
      "for each."
    )
  if not len(needs):
    return Buckets()
  upright = np.asarray(needs, np.int64)
  distinct = np.unique(upright, axis=0)
  if len(distinct) <= max_programs:
    return Buckets(_sorted(distinct))
  lying = np.where(np.asarray(tall)[:, None, None], upright[..., ::-1], upright)
  sizes, counts = _coarse(lying)
  groups = _joined(sizes, counts, max_programs)
  _improve(groups, sizes, counts)
  shapes = [sizes[groups == group].max(axis=0) for group in np.unique(groups)]
  return Buckets(_sorted(shapes), sideways=True)


def _sorted(shapes: Iterable[np.ndarray]) -> tuple[Shapes, ...]:
  entries = {tuple(map(tuple, entry.tolist())) for entry in shapes}
  return tuple(sorted(entries, key=lambda entry: (num_pixels(entry), entry)))


def num_pixels(shapes: Shapes) -> int:
  """Pixels of the arrays of a picture."""
  return sum(height * width for height, width in shapes)


def _coarse(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """At most `_MOST_SIZES` sizes that hold all, and the number of each."""
  step = 1
  while True:
    steps = -(-shapes // step)
    _, groups = np.unique(steps, axis=0, return_inverse=True)
    counts = np.bincount(groups)
    if len(counts) <= _MOST_SIZES:
      break
    step *= 2
  sizes = [shapes[groups == group].max(axis=0) for group in range(len(counts))]
  return np.stack(sizes), counts


def _joined(
  sizes: np.ndarray, counts: np.ndarray, max_groups: int
) -> np.ndarray:
  """The group of each size, [N], from sizes [N, V, 2] and their counts [N]."""
  groups = np.arange(len(sizes))
  shapes, weights = sizes.copy(), counts.copy()
  largest = sizes.prod(axis=-1).max(axis=0)
  is_left = np.full(len(sizes), True)

  def added(group):
    """Pixels that joining a group with each other one adds."""
    areas = np.maximum(shapes, shapes[group]).prod(axis=-1)
    own = shapes.prod(axis=-1).sum(axis=-1) * weights
    both = areas.sum(axis=-1) * (weights + weights[group])
    fits = is_left & (areas <= largest).all(axis=-1)
    fits[group] = False
    return np.where(fits, both - own - own[group], np.inf)

  costs = np.stack([added(group) for group in groups])
  while is_left.sum() > max_groups:
    one, other = divmod(int(costs.argmin()), len(sizes))
    if costs[one, other] == np.inf:
      break
    groups[groups == other] = one
    shapes[one] = np.maximum(shapes[one], shapes[other])
    weights[one] += weights[other]
    is_left[other] = False
    costs[other] = costs[:, other] = np.inf
    costs[one] = costs[:, one] = added(one)
  return groups


def _improve(groups: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> None:
  """Moves sizes between groups, in place, as long as that saves pixels."""
  largest = sizes.prod(axis=-1).max(axis=0)

  def cost(members):
    if not len(members):
      return 0
    areas = sizes[members].max(axis=0).prod(axis=-1)
    if (areas > largest).any():
      return np.inf
    return areas.sum() * counts[members].sum()

  for _ in range(_MOST_PASSES):
    before = groups.copy()
    for size in range(len(sizes)):
      own = np.flatnonzero(groups == groups[size])
      best, most = groups[size], 0
      saved = cost(own) - cost(own[own != size])
      for other in np.unique(groups):
        members = np.flatnonzero(groups == other)
        if other == groups[size]:
          continue
        gain = saved - (cost(np.append(members, size)) - cost(members))
        if gain > most:
          best, most = other, gain
      groups[size] = best
    if (groups == before).all():
      return


@jax.jit
def exchanged(variables: Any) -> Any:
  """The variables of a network that sees rows as columns, and columns as rows.

  Args:
    variables: a tree; arrays of four axes are kernels, [height, width, inputs,
      outputs].
  """
  return jax.tree.map(
    lambda leaf: jnp.swapaxes(leaf, 0, 1) if leaf.ndim == 4 else leaf, variables
  )
