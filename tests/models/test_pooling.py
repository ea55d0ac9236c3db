import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.models import pooling

max_pool_2x2 = jax.jit(
  functools.partial(pooling.max_pool, kernel=2, stride=2, ceil_mode=True)
)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(4, 6), (5, 6), (4, 7), (5, 7), (1, 1)])
def test_max_pool_is_flax_max_pool_rounded_up(size):
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.normal(-3, 1, (2, *size, 3)), jnp.float32)
  flax_pool = jax.jit(
    functools.partial(
      nn.max_pool, window_shape=(2, 2), strides=(2, 2), padding="SAME"
    )
  )
  expected = flax_pool(inputs)
  found = max_pool_2x2(inputs)
  assert found.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 3)
  np.testing.assert_array_equal(found, expected)
  cotangent = jnp.asarray(rng.normal(size=found.shape), jnp.float32)
  gradient, flax_gradient = (
    jax.vjp(pool, inputs)[1](cotangent)[0] for pool in (max_pool_2x2, flax_pool)
  )
  np.testing.assert_allclose(gradient, flax_gradient, atol=1e-6)
