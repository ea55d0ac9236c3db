"""The Lovasz-softmax loss of the sampled pixels."""

from typing import Literal

import jax
import jax.numpy as jnp

from fcn_jax import reprs
from fcn_jax import sampling
from fcn_jax import types
from fcn_jax import upsampling
from fcn_jax.losses import forms
from fcn_jax.losses import normalization
from fcn_jax.losses import pixel_losses
from fcn_jax.losses import sampled_loss


@reprs.described
def lovasz_softmax(
  *,
  sampler: sampling.Sampler,
  over: Literal["batch", "image"] = "batch",
  capacity: int | None = None,
) -> sampled_loss.Loss:
  """A loss whose minimum is that of 1 - IU, averaged over the classes.

  It sorts the errors of the sampled pixels, so it needs all of them at once: as
  a list, whose length is that of the largest sample. Berman et al. (2018),
  section 3.1 and algorithm 1. Classes without a label among the sampled pixels
  do not count. A pixel with weight w counts as w equal pixels.

  Args:
    sampler: which pixels enter the loss. For `sampling.whole_image()` the list
      has all pixels, and the logits of all of them are in memory.
    over: what is sorted together, the batch, or each image; then the loss is
      the mean over the images that have sampled pixels.
    capacity: the most pixels of an image there is room for; None asks the
      sampler for its bound, and takes all pixels if it states none.

  Returns:
    A loss, as `make` returns.

  Raises:
    TypeError: if `sampler` is not a `Sampler`.
    ValueError: if `over` is unknown, or `capacity` is less than 1.
  """
  if over not in ("batch", "image"):
    raise ValueError(f"over is {over!r}; choose batch or image.")
  sampled_loss.check_sampler(sampler)
  sampled_loss.check_capacity(capacity)
  problem = forms.Problem(pixel_losses.cross_entropy, sampler, capacity)

  def loss(key, score_map, labels):
    sampled_loss.check_labels(score_map, labels)
    sample, listed = forms.listed_sample(problem, score_map, labels, key)
    logits = upsampling.at_pixels(score_map, sample.indices)
    is_in = (listed != types.IGNORE_LABEL) & (sample.weights != 0)
    # Neither the loss nor its gradient is to see what is left out.
    logits = jnp.where(is_in[..., None], logits, 0)
    weights = jnp.where(is_in, sample.weights, 0).astype(logits.dtype)
    classes = jnp.where(is_in, listed, 0).astype(jnp.int32)
    groups = (logits, classes, weights)
    if over == "batch":
      groups = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), groups)
    of_groups = jax.vmap(_of_pixels)(*groups)
    has_pixels = jnp.any(groups[2] != 0, axis=1)
    value = normalization.divide(
      jnp.sum(jnp.where(has_pixels, of_groups, 0)),
      jnp.sum(has_pixels, dtype=jnp.int32),
    )
    num_kept = normalization.num_kept(listed, sample.weights)
    return sampled_loss.LossTerms(
      loss=value,
      loss_sum=value * num_kept.astype(value.dtype),
      num_kept=num_kept,
      num_valid=sampling.num_valid(labels),
      num_dropped=sample.num_dropped,
    )

  return sampled_loss.Described(loss)


def _of_pixels(logits, labels, weights):
  """The loss of pixels: logits [P, C], labels [P], weights [P]."""
  logits = logits.T
  truth, is_class = pixel_losses.truth(logits, labels)
  truth = truth.astype(logits.dtype)
  # A wrong label is to show.
  probabilities = jnp.where(is_class, jax.nn.softmax(logits, axis=0), jnp.nan)
  errors = jnp.abs(truth - probabilities)
  # Pixels that are left out have weight 0, so their place does not matter.
  order = jnp.argsort(-errors, axis=1)
  errors, truth = (
    jnp.take_along_axis(x, order, axis=1) for x in (errors, truth)
  )
  weights = weights[order]
  num_true = jnp.sum(weights * truth, axis=1, keepdims=True)
  rest = num_true - jnp.cumsum(weights * truth, axis=1)
  union = num_true + jnp.cumsum(weights * (1 - truth), axis=1)
  jaccard = 1 - rest / jnp.where(union > 0, union, 1)
  steps = jnp.diff(jaccard, axis=1, prepend=jnp.zeros_like(jaccard[:, :1]))
  steps = jax.lax.stop_gradient(steps)
  of_classes = jnp.sum(errors * steps, axis=1)
  is_there = num_true[:, 0] > 0
  # Wrong labels alone leave no class, and are to show as well.
  total = jnp.sum(jnp.where(is_there | jnp.isnan(of_classes), of_classes, 0))
  count = jnp.maximum(jnp.sum(is_there, dtype=jnp.int32), 1)
  return total / count.astype(total.dtype)
