"""The few sizes to which pictures of many sizes are padded.

JAX compiles a function again for every size that it meets. This module chooses
a few sizes that hold all pictures and waste little.
"""

import concurrent.futures
from collections.abc import Sequence
from typing import Any

import numpy as np

Size = tuple[int, int]

# Number of batches drawn to find the sizes that they need.
_NUM_TRIALS = 2000


def image_sizes(source: Sequence[Any], *, num_threads: int = 2) -> np.ndarray:
  """Reads heights and widths of all pictures of a source, [length, 2] int32."""
  with concurrent.futures.ThreadPoolExecutor(num_threads) as executor:
    shapes = executor.map(
      lambda index: source[index].label.shape[:2], range(len(source))
    )
    return np.array(list(shapes), np.int32).reshape(-1, 2)


def padded_sizes(
  image_sizes: np.ndarray, *, num_sizes: int = 4, multiple: int = 32
) -> tuple[Size, ...]:
  """Chooses a few sizes to pad pictures to, with little padding.

  Each picture is padded to the smallest of the sizes that hold it, and one of
  them holds all pictures. The search adds the best further size until it has
  `num_sizes`, and then replaces sizes by better ones as long as it finds any.

  Args:
    image_sizes: [N, 2] integers, heights and widths; frequent sizes count for
      more.
    num_sizes: largest number of sizes.
    multiple: sides are multiples of this, or those of the largest picture.

  Returns:
    Heights and widths, from the smallest area to the largest.

  Raises:
    ValueError: there is no picture, or an option is below 1.
  """
  if num_sizes < 1 or multiple < 1:
    raise ValueError(
      "num_sizes and multiple must be at least 1, not"
      f" {num_sizes} and {multiple}"
    )
  image_sizes = np.asarray(image_sizes, np.int64)
  if not image_sizes.size:
    raise ValueError("there are no pictures to choose padded sizes for")
  largest = image_sizes.max(axis=0)
  rounded = np.minimum(-(-image_sizes // multiple) * multiple, largest)
  needed, counts = np.unique(rounded, axis=0, return_counts=True)
  sides = [np.unique(needed[:, axis]) for axis in range(2)]
  candidates = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)

  def saved(candidate: np.ndarray, areas: np.ndarray) -> int:
    held = (needed <= candidate).all(axis=1)
    gains = np.maximum(areas - candidate.prod(), 0)
    return int((gains * counts)[held].sum())

  def areas_with(sizes: Sequence[np.ndarray]) -> np.ndarray:
    areas = np.full(len(needed), largest.prod())
    for size in sizes:
      held = (needed <= size).all(axis=1)
      areas[held] = np.minimum(areas[held], size.prod())
    return areas

  def best(areas: np.ndarray) -> np.ndarray:
    return max(candidates, key=lambda candidate: saved(candidate, areas))

  chosen = []
  for _ in range(num_sizes - 1):
    chosen.append(best(areas_with(chosen)))
  moved = True
  while moved:
    moved = False
    for place, size in enumerate(chosen):
      areas = areas_with(chosen[:place] + chosen[place + 1 :])
      better = best(areas)
      if saved(better, areas) > saved(size, areas):
        chosen[place], moved = better, True
  sizes = {tuple(size.tolist()) for size in [*chosen, largest]}
  return tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size)))


def smallest_holding(
  sizes: Sequence[Size], image_sizes: np.ndarray
) -> Size | None:
  """Returns the first size that holds all pictures; None if none does.

  Args:
    sizes: heights and widths, from the smallest area to the largest.
    image_sizes: [N, 2] integers, heights and widths.
  """
  height, width = np.max(image_sizes, axis=0)
  for size in sizes:
    if height <= size[0] and width <= size[1]:
      return size
  return None


def batch_sizes(
  image_sizes: np.ndarray,
  *,
  batch_size: int,
  scale_range: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
  """Returns the sizes of batches of pictures drawn and scaled at random.

  Args:
    image_sizes: [N, 2] integers, heights and widths.
    batch_size: pictures in a batch.
    scale_range: smallest and largest factor by which pictures are resized.

  Returns:
    [M, 2] int64, heights and widths for `padded_sizes`: those of a sample of
    batches (of all batches if nothing is random), and the largest possible one.
  """
  image_sizes = np.asarray(image_sizes, np.int64)
  smallest, largest = scale_range
  # The same sizes at every start.
  generator = np.random.default_rng(0)
  shape = (_NUM_TRIALS, batch_size)
  drawn = image_sizes[generator.integers(len(image_sizes), size=shape)]
  if batch_size == 1 and smallest == largest:
    drawn = image_sizes[:, None]
  factors = generator.uniform(smallest, largest, size=(*drawn.shape[:2], 1))
  needed = _rescaled(drawn, factors).max(axis=1)
  limit = _rescaled(image_sizes.max(axis=0), np.array([largest]))
  return np.concatenate([needed, limit[None]])


def _rescaled(sizes: np.ndarray, factors: np.ndarray) -> np.ndarray:
  """Does the same as `transforms.rescaled_size`, for many sizes at once."""
  return np.maximum(np.rint(sizes * factors), 1).astype(np.int64)
