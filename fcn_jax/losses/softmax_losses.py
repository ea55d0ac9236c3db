"""Pixel losses for classes that exclude each other, beside cross-entropy.

Each function returns a `PixelLoss` for `make`. What `make` and samplers do
about void, weights and normalization holds for all of them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.losses import pixel_losses


def smoothed_cross_entropy(*, smoothing: float) -> pixel_losses.PixelLoss:
  """Cross-entropy with label smoothing.

  The target is (1 - smoothing) for the true class, plus smoothing / C for every
  class. Szegedy et al. (2016), section 7.

  Args:
    smoothing: in 0..1; 0 is `cross_entropy`.

  Raises:
    ValueError: if `smoothing` is not in 0..1.
  """
  _check("smoothing", smoothing, "in 0..1", 0 <= smoothing <= 1)

  def loss(logits, labels):
    truth = pixel_losses.score_of_truth(logits, labels)
    target = (1 - smoothing) * truth + smoothing * jnp.mean(logits, axis=-2)
    return jax.nn.logsumexp(logits, axis=-2) - target

  return loss


def focal(
  *, gamma: float = 2.0, alpha: Sequence[float] | None = None
) -> pixel_losses.PixelLoss:
  """Cross-entropy that counts less where the network is right already.

  -alpha_t (1 - p_t)^gamma log(p_t), where p_t is the softmax probability of the
  true class. Lin et al. (2017), section 3.2, with a softmax over classes.

  Args:
    gamma: at least 0; 0 is cross-entropy.
    alpha: [C] weights of the classes; None for 1.

  Raises:
    ValueError: if `gamma` or a weight is negative. The loss raises one if there
      are not as many weights as classes.
  """
  _check("gamma", gamma, "0 or more", gamma >= 0)

  def loss(logits, labels):
    cross_entropy = pixel_losses.cross_entropy(logits, labels)
    # 1 - p_t. Where it is 0, its power may have no finite derivative.
    wrong = -jnp.expm1(-cross_entropy)
    is_positive = wrong > 0
    factor = jnp.where(is_positive, wrong, 1) ** gamma
    return jnp.where(is_positive, factor, 0.0**gamma) * cross_entropy

  return loss if alpha is None else class_weighted(loss, class_weights=alpha)


def symmetric_cross_entropy(
  *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> pixel_losses.PixelLoss:
  """Cross-entropy and reverse cross-entropy, for labels that may be wrong.

  alpha CE + beta RCE, where RCE = -sum_c p_c log(q_c) takes the label q as the
  prediction, and log(0) as `log_zero`: RCE = -log_zero (1 - p_t). Wang et al.
  (2019), equations 5 to 8.

  Args:
    alpha: factor of the cross-entropy, 0 or more.
    beta: factor of the reverse one, 0 or more.
    log_zero: below 0.

  Raises:
    ValueError: if an argument is out of its range.
  """
  _check("alpha", alpha, "0 or more", alpha >= 0)
  _check("beta", beta, "0 or more", beta >= 0)
  _check("log_zero", log_zero, "below 0", log_zero < 0)

  def loss(logits, labels):
    cross_entropy = pixel_losses.cross_entropy(logits, labels)
    reverse = log_zero * jnp.expm1(-cross_entropy)
    return alpha * cross_entropy + beta * reverse

  return loss


def generalized_cross_entropy(*, q: float = 0.7) -> pixel_losses.PixelLoss:
  """(1 - p_t^q) / q, for labels that may be wrong.

  Between cross-entropy (q towards 0) and the mean absolute error (q = 1). Zhang
  and Sabuncu (2018), equation 6.

  Args:
    q: above 0, at most 1.

  Raises:
    ValueError: if `q` is out of its range.
  """
  _check("q", q, "above 0, at most 1", 0 < q <= 1)

  def loss(logits, labels):
    return -jnp.expm1(-q * pixel_losses.cross_entropy(logits, labels)) / q

  return loss


def class_weighted(
  pixel_loss: pixel_losses.PixelLoss, *, class_weights: Sequence[float]
) -> pixel_losses.PixelLoss:
  """A pixel loss times the weight of the pixel's class, under any sampler.

  `sampling.class_weighted` gives the weights to the sampler instead: there they
  count in "kept" and "expected", here they do not.

  Args:
    pixel_loss: such as `cross_entropy`; not `sigmoid_cross_entropy`, whose
      pixels have no single class.
    class_weights: [C], 0 or more.

  Raises:
    ValueError: if a weight is negative or not finite. The loss raises one if
      there are not as many weights as classes.
  """
  weights = np.asarray(class_weights, np.float64)
  if weights.ndim != 1 or not np.all((weights >= 0) & (weights < np.inf)):
    raise ValueError(
      f"class_weights are {class_weights}; give one finite number for each "
      "class, 0 or more."
    )

  def loss(logits, labels):
    num_classes = logits.shape[-2]
    if len(weights) != num_classes:
      raise ValueError(
        f"{len(weights)} class weights are given for {num_classes} classes; "
        "give one for each class, in the order of the labels."
      )
    table = jnp.asarray(weights, logits.dtype)
    table = table.reshape([1] * (logits.ndim - 2) + [num_classes, 1])
    weight = pixel_losses.score_of_truth(
      jnp.broadcast_to(table, logits.shape), labels
    )
    return weight * pixel_loss(logits, labels)

  return loss


def _check(name, value, what, is_right):
  if not is_right:
    raise ValueError(f"{name} is {value}; give a number {what}.")
