"""Losses of regions: functions of sums over pixels, such as Dice.

Every sum needs all sampled pixels before any of them has a gradient, so these
losses are computed in two sweeps over the pixels: the sums, then the gradient.
`make` takes a `RegionLoss` where it takes a pixel loss.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.losses import pixel_losses
from fcn_jax.losses import sigmoid_losses

Region = Literal["batch", "image"]
Activation = Literal["softmax", "sigmoid"]
Absent = Literal["skip", "count"]


class RegionLoss(NamedTuple):
  """A loss that is a function of sums over the sampled pixels.

  Attributes:
    values: (logits [..., C, P], labels [..., P] int32) -> a tree of arrays
      [..., K, P]: what is summed. Void pixels and those that are left out do
      not count, whatever it returns there.
    of_sums: from the weighted sums, a tree of arrays [N, K] with the sums of
      each image, to the loss []; differentiable once.
    description: what `repr` shows.
  """

  values: Callable[[jax.Array, jax.Array], types.Tree]
  of_sums: Callable[[types.Tree], jax.Array]
  description: str = ""

  def __repr__(self) -> str:
    return self.description or f"RegionLoss(values={reprs.value(self.values)})"


@reprs.described
def dice(*, smooth: float = 1.0, **options: Any) -> RegionLoss:
  """Soft Dice loss, the mean over the classes of 1 - Dice.

  Dice = (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), of probabilities p
  and labels t of 0 or 1. Milletari et al. (2016), without their squares, as in
  nnU-Net (Isensee et al. 2021).

  Args:
    smooth: in pixels; keeps the gradient small where a class has few.
    **options: `over`, `absent`, `classes` and `activation`, see `tversky`.

  Raises:
    ValueError: see `tversky`.
  """
  _check_smooth(smooth)
  return tversky(alpha=0.5, beta=0.5, smooth=smooth / 2, **options)


@reprs.described
def jaccard(*, smooth: float = 1.0, **options: Any) -> RegionLoss:
  """Soft Jaccard loss: the mean over the classes of 1 - intersection / union.

  Rahman and Wang (2016).

  Args:
    smooth: in pixels, see `tversky`.
    **options: see `dice`.
  """
  return tversky(alpha=1.0, beta=1.0, smooth=smooth, **options)


@reprs.described
def tversky(
  *,
  alpha: float = 0.3,
  beta: float = 0.7,
  gamma: float = 1.0,
  smooth: float = 1.0,
  over: Region = "batch",
  absent: Absent = "skip",
  classes: Sequence[int] | None = None,
  activation: Activation = "softmax",
) -> RegionLoss:
  """Tversky loss: 1 - TP / (TP + alpha FP + beta FN), mean over the classes.

  TP, FP and FN are sums of probabilities. Salehi et al. (2017), equation 4;
  with `gamma`, the focal Tversky loss of Abraham and Khan (2019), whose
  exponent is 1 / gamma.

  Args:
    alpha: weight of false positives.
    beta: weight of false negatives; above `alpha`, small classes are found
      sooner.
    gamma: exponent of the loss of a class, above 0.
    smooth: in pixels, added to numerator and denominator.
    over: what the sums are over. "batch": all images together. "image": each
      image, and the loss is the mean over images and classes.
    absent: classes without a label in the batch, or in the image. "skip": the
      mean is over the others. "count": they have a loss, near 1 as soon as some
      pixels are taken for the class.
    classes: those that count, such as all but the background; None for all.
    activation: "softmax" for labels that are numbers of classes, "sigmoid" for
      `bit_masks`.

  Raises:
    ValueError: if an argument is out of its range. The loss raises one if a
      class is not one of the network's.
  """
  _check(alpha, beta, gamma, smooth)
  if activation == "softmax":
    values = _softmax_values
  elif activation == "sigmoid":
    values = _sigmoid_values
  else:
    raise ValueError(
      f'activation is {activation!r}; choose "softmax" or "sigmoid".'
    )
  if over not in ("batch", "image") or absent not in ("skip", "count"):
    raise ValueError(
      f"over is {over!r} and absent is {absent!r}; choose batch or image, and "
      "skip or count."
    )

  def of_sums(sums):
    if over == "batch":
      sums = jax.tree.map(lambda x: jnp.sum(x, axis=0, keepdims=True), sums)
    both, predicted, actual = (
      sums[name] for name in ("both", "predicted", "actual")
    )
    wrong = alpha * (predicted - both) + beta * (actual - both)
    # 1 - (both + smooth) / (both + wrong + smooth), without cancellation.
    losses = _power(_ratio(wrong, both + wrong + smooth), gamma)
    is_counted = _is_class(classes, both.shape[1])
    # Not images without a sampled pixel.
    is_counted &= jnp.sum(predicted, axis=1, keepdims=True) > 0
    if absent == "skip":
      is_counted &= actual > 0
    count = jnp.sum(is_counted, dtype=jnp.int32)
    # NaN sums come from wrong labels and are to show.
    losses = jnp.where(is_counted | jnp.isnan(predicted), losses, 0)
    return jnp.sum(losses) / jnp.maximum(count, 1).astype(losses.dtype)

  return RegionLoss(values, of_sums)


def linear(
  values: Callable[[jax.Array, jax.Array], types.Tree],
  slopes: types.Tree,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A weighted sum of the values of a pixel.

  Args:
    values: see `RegionLoss`, for logits [N, ..., C, P].
    slopes: a tree of weights [N, K].

  Returns:
    (logits, labels) -> [N, ..., 1, P].
  """

  def weighted_sum(values, slopes):
    num_images, num_values = slopes.shape
    between = (1,) * (values.ndim - 3)
    slopes = slopes.reshape(num_images, *between, num_values, 1)
    return jnp.sum(slopes * values, axis=-2, keepdims=True)

  def function(logits, labels):
    terms = jax.tree.map(weighted_sum, values(logits, labels), slopes)
    return jax.tree.reduce(jnp.add, terms)

  return function


def _softmax_values(logits, labels):
  truth, is_label = pixel_losses.truth(logits, labels)
  return _values(jax.nn.softmax(logits, axis=-2), truth, is_label)


def _sigmoid_values(logits, labels):
  truth, is_label = sigmoid_losses.truth(logits, labels)
  return _values(jax.nn.sigmoid(logits), truth, is_label)


def _values(probabilities, truth, is_label):
  # A wrong label is to show.
  predicted = jnp.where(is_label[..., None, :], probabilities, jnp.nan)
  return {
    "both": jnp.where(truth, probabilities, 0),
    "predicted": predicted,
    "actual": truth.astype(probabilities.dtype),
  }


def _ratio(numerator, denominator):
  """The ratio; 0, with zero gradient, where the denominator is 0."""
  is_zero = denominator == 0
  return jnp.where(is_zero, 0, numerator / jnp.where(is_zero, 1, denominator))


def _power(base, exponent):
  """The power, with gradient 0 at 0, where that of a root is not finite."""
  if exponent == 1:
    return base
  is_positive = base > 0
  power = jnp.where(is_positive, base, 1) ** exponent
  return jnp.where(is_positive | jnp.isnan(base), power, 0)


def _is_class(classes, num_classes):
  """Marks the classes that count, [1, C]."""
  if classes is None:
    return np.ones((1, num_classes), bool)
  if not classes or not all(0 <= c < num_classes for c in classes):
    raise ValueError(
      f"classes are {list(classes)}; give at least one, from 0 to "
      f"{num_classes - 1}, as the network has {num_classes} classes."
    )
  return np.isin(np.arange(num_classes), classes)[None]


def _check(alpha, beta, gamma, smooth):
  if not (alpha >= 0 and beta >= 0 and alpha + beta > 0):
    raise ValueError(
      f"alpha is {alpha} and beta is {beta}; neither may be negative, and one "
      "must be above 0."
    )
  if not gamma > 0:
    raise ValueError(f"gamma is {gamma}; it must be above 0.")
  _check_smooth(smooth)


def _check_smooth(smooth):
  if not smooth >= 0:
    raise ValueError(f"smooth is {smooth}; it must be 0 or more.")
