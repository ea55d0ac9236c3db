import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import types
from fcn_jax.losses import places
from tests.helpers import score_maps


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("number", range(0, 6, 2))
def test_labels_at_places_are_those_of_a_loop(number, dtype):
  stride, offset, edge = score_maps.GRIDS[number]
  score_map = score_maps.make_map(stride=stride, offset=offset, edge=edge)
  labels = np.asarray(score_maps.make_labels(score_map))
  # Numbers that are no classes, too.
  labels = np.where(labels == 1, 254, labels).astype(dtype)
  generator = np.random.default_rng(0)
  chosen = generator.integers(0, stride**2, (len(labels), 3), dtype=np.int32)

  def take(by_product):
    return places.take(
      score_map,
      jnp.asarray(labels),
      jnp.asarray(chosen),
      fill=types.IGNORE_LABEL,
      by_product=by_product,
    )

  found = take(False)
  by_product = take(True)
  assert by_product.dtype == dtype
  np.testing.assert_array_equal(by_product, found)
  # Block (0, 0) lies between the first two cells around the first pixel.
  first = int(np.ceil(offset + stride * np.floor(-offset / stride)))
  expected = np.full(found.shape, types.IGNORE_LABEL, dtype)
  for n, m, row, column in np.ndindex(*found.shape):
    y = first + row * stride + chosen[n, m] // stride
    x = first + column * stride + chosen[n, m] % stride
    if 0 <= y < labels.shape[1] and 0 <= x < labels.shape[2]:
      expected[n, m, row, column] = labels[n, y, x]
  np.testing.assert_array_equal(found, expected)
