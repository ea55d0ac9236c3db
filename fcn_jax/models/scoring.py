"""The last layer of a network: a score of each class."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Scores(nn.Module):
  """A 1x1 convolution whose sums are not rounded to the dtype of the features.

  Its parameters are named as those of `flax.linen.Conv`, and begin with zeros:
  a new network finds all classes equally likely.

  Attributes:
    num_classes: classes to score, C.
    dtype: of the features and of the kernel in the products; sums and scores
      are float32, or float64 if it is that.
    param_dtype: of the parameters.
  """

  num_classes: int
  dtype: jnp.dtype
  param_dtype: jnp.dtype

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    """Scores [N, h, w, C] of features [N, h, w, D]."""
    shape = 1, 1, features.shape[-1], self.num_classes
    zeros = nn.initializers.zeros
    kernel = self.param("kernel", zeros, shape, self.param_dtype)
    bias = self.param("bias", zeros, shape[-1:], self.param_dtype)
    is_wide = jnp.dtype(self.dtype) == jnp.float64
    wide = jnp.float64 if is_wide else jnp.float32
    scores = jnp.dot(
      features.astype(self.dtype),
      kernel[0, 0].astype(self.dtype),
      preferred_element_type=wide,
    )
    return scores + bias.astype(wide).reshape(1, 1, 1, -1)
