"""The loss in all of its forms, in one program, which compiles fastest."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import losses
from fcn_jax import types
from tests.helpers import score_maps


def of(pixel_loss, sampler):
  """A compiled function from score map and labels to each form's results.

  These are the terms of the loss and the gradient of `LossTerms.loss`.
  """
  forms = ["logits", "strips", "blocks", "pixels"]
  forms += ["places"] if sampler.places else []

  def compute(form, score_map, labels):
    loss = losses.make(
      pixel_loss, sampler=sampler, normalize="valid", form=form, capacity=10**6
    )

    def loss_of(score_map):
      terms = loss(jax.random.key(3), score_map, labels)
      return terms.loss, terms

    gradient, terms = jax.grad(loss_of, has_aux=True)(score_map)
    return terms, gradient.scores

  return jax.jit(
    lambda score_map, labels: {
      form: compute(form, score_map, labels) for form in forms
    }
  )


def check(loss, sampler, labels_of):
  """All forms have equal terms and gradients, and none for void.

  Args:
    loss: of pixels or of regions.
    sampler: which pixels enter the loss.
    labels_of: from a score map to labels.
  """
  all_forms = of(loss, sampler)
  with jax.enable_x64(True):
    score_map = score_maps.make_map(dtype=np.float64)
    labels = labels_of(score_map)
    found = all_forms(score_map, labels)
    void = jnp.full_like(labels, types.IGNORE_LABEL)
    of_void = all_forms(score_map, void)
  # NumPy compares 64-bit numbers out here; JAX does not.
  found, of_void = jax.device_get((found, of_void))
  terms, gradient = expected = found.pop("logits")
  assert terms.num_kept > 0
  assert np.abs(gradient).max() > 0
  for form in found.values():
    chex.assert_trees_all_close(form, expected, rtol=1e-10, atol=1e-12)
  for terms, gradient in of_void.values():
    assert terms.loss == 0
    np.testing.assert_array_equal(gradient, 0)
