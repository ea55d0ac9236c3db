"""The loss in all of its forms, in one program, which compiles fastest."""

import jax

from fcn_jax import losses


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
