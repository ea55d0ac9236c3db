import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import blocks
from fcn_jax import types


@pytest.fixture(params=["tpu", "default"])
def each_form(request, monkeypatch):
  """Runs a test with the form for a TPU and with that for other devices."""
  monkeypatch.setattr(
    jax.lax,
    "platform_dependent",
    lambda *arrays, **forms: forms[request.param](*arrays),
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "stride, offset, size",
  [
    (8, 3.5, (40, 37)),
    (8, 0.0, (17, 16)),
    (4, -6.0, (9, 30)),
    (1, 0.0, (5, 6)),
  ],
)
def test_every_pixel_has_the_value_of_its_block(
  each_form, stride, offset, size
):
  grid = types.Grid(stride, offset)
  shape = blocks.shape(grid, size)
  generator = np.random.default_rng(0)
  values = generator.random((3, *shape)) < 0.5
  found = blocks.spread(grid, jnp.asarray(values), size)
  # Cells lie at offset + i * stride, and a block begins with a cell.
  first = np.floor(-offset / stride)
  row, column = (
    (np.floor((np.arange(side) - offset) / stride) - first).astype(int)
    for side in size
  )
  np.testing.assert_array_equal(found, values[:, row[:, None], column])
