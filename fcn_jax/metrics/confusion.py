"""The four scores of the papers and Dice, from a confusion matrix.

Section 4 of both papers. Sum the matrix over the whole data set before you take
scores: a mean of the scores of images or batches gives a different, wrong
number.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import label_bits
from fcn_jax import platforms
from fcn_jax import types


class Scores(NamedTuple):
  """Scores in 0..1; NaN where no pixel defines them.

  Attributes:
    pixel_accuracy: share of the pixels that are right.
    mean_accuracy: mean over classes of the share of a class's pixels found.
    mean_iu: mean over classes of intersection over union.
    frequency_weighted_iu: the same weighted by the classes' pixel counts.
    class_iu: [C] intersection over union; NaN, and left out of the means, for a
      class that has neither a true nor a predicted pixel.
  """

  pixel_accuracy: float
  mean_accuracy: float
  mean_iu: float
  frequency_weighted_iu: float
  class_iu: np.ndarray


def confusion_matrix(
  labels: jax.Array, predictions: jax.Array, *, num_classes: int
) -> jax.Array:
  """Counts pixels by true and predicted class.

  Args:
    labels: [...] int32, classes 0..C-1 or `IGNORE_LABEL`.
    predictions: [...] int32, classes 0..C-1.
    num_classes: C.

  Returns:
    [C, C] int32; entry (i, j) counts pixels of class i predicted as j. Void
    pixels, and labels and predictions outside the classes, are left out;
    `num_unpredicted` counts the latter. Sum the matrices of several batches on
    the host in int64.

  Raises:
    ValueError: if labels or predictions are uint32, and so bit masks.
  """
  chex.assert_equal_shape((labels, predictions))
  if jnp.uint32 in (labels.dtype, predictions.dtype):
    raise ValueError(
      f"labels are {labels.dtype} and predictions {predictions.dtype}; uint32 "
      "are bit masks: use multilabel_confusion_matrix, or give int32."
    )

  def by_counting(labels, predictions):
    labels, predictions = labels.reshape(-1), predictions.reshape(-1)
    cells = labels * num_classes + predictions
    # One cell beyond the matrix counts the pixels without a class.
    known = _is_class(labels, num_classes) & _is_class(predictions, num_classes)
    cells = jnp.where(known, cells, num_classes**2)
    counts = jnp.bincount(cells, length=num_classes**2 + 1)
    counts = counts[:-1].reshape(num_classes, num_classes)
    return counts.astype(jnp.int32)

  def by_product(labels, predictions):
    # Counting is a scatter, which accelerators are slow at. Row by row, as
    # these arrays are large; and for each image by itself, so that devices with
    # parts of the batch exchange only the sums.
    classes = jnp.arange(num_classes, dtype=jnp.int32)[None, :, None]

    def add(counts, row):
      is_true, is_predicted = (
        (values[:, None] == classes).astype(jnp.int8) for values in row
      )
      return counts + jnp.einsum(
        "ntw,npw->ntp",
        is_true,
        is_predicted,
        preferred_element_type=jnp.int32,
      ), None

    rows = [_rows(values) for values in (labels, predictions)]
    counts = jnp.zeros((rows[0].shape[1], num_classes, num_classes), jnp.int32)
    counts, _ = jax.lax.scan(add, counts, rows)
    return jnp.sum(counts, axis=0, dtype=jnp.int32)

  return platforms.dependent(
    labels.astype(jnp.int32),
    predictions.astype(jnp.int32),
    cpu=by_counting,
    default=by_product,
  )


def multilabel_confusion_matrix(
  labels: jax.Array, predictions: jax.Array, *, num_classes: int
) -> jax.Array:
  """Counts the pixels of each class that are found, missed and made up.

  Scores of class c are those of a matrix of its own:
  `scores(matrix[c]).class_iu[1]` is its IU, from which Dice is 2 IU / (1 + IU).
  A network of one class predicts 0 and 1: use `confusion_matrix` with two.

  Args:
    labels: [...] uint32, from `losses.bit_masks`.
    predictions: [...] uint32, from `inference.predict`.
    num_classes: C.

  Returns:
    [C, 2, 2] int32; entry (c, i, j) counts pixels that have class c (i = 1) or
    not (i = 0), and are predicted to have it (j = 1) or not, as in
    scikit-learn. Pixels that are void in either are left out.

  Raises:
    ValueError: if labels or predictions are not uint32, and so no bit masks.
  """
  chex.assert_equal_shape((labels, predictions))
  label_bits.check(labels)
  label_bits.check(predictions, "predictions")
  is_valid = labels != types.IGNORE_LABEL
  is_valid &= predictions != types.IGNORE_LABEL

  def of_class(bit):
    is_true, is_predicted = (
      (masks >> bit) & 1 == 1 for masks in (labels, predictions)
    )
    counts = [
      jnp.sum(is_valid & (is_true == i) & (is_predicted == j), dtype=jnp.int32)
      for i in (False, True)
      for j in (False, True)
    ]
    return jnp.stack(counts).reshape(2, 2)

  # One class after the other, without arrays of all classes.
  bits = jnp.arange(num_classes, dtype=jnp.uint32) + label_bits.SHIFT
  return jax.lax.map(of_class, bits)


def num_unpredicted(
  labels: jax.Array, predictions: jax.Array, *, num_classes: int
) -> jax.Array:
  """Number of pixels whose label is a class and whose prediction is none.

  `inference.predict` predicts no class, but `IGNORE_LABEL`, for pixels outside
  the images' `valid_sizes`, where labels should be void.

  Args:
    labels: [...] int32, classes 0..C-1 or `IGNORE_LABEL`.
    predictions: [...] int32.
    num_classes: C.

  Returns:
    [] int32.
  """
  chex.assert_equal_shape((labels, predictions))
  unpredicted = ~_is_class(predictions, num_classes)
  unpredicted &= _is_class(labels, num_classes)
  return jnp.sum(unpredicted, dtype=jnp.int32)


def _rows(values: jax.Array) -> jax.Array:
  """Values [N, H, ...] as [H, N, W]; those of fewer axes as one row."""
  if values.ndim < 3:
    return values.reshape(1, 1, -1)
  values = values.reshape(*values.shape[:2], -1)
  return jnp.moveaxis(values, 1, 0)


def _is_class(numbers: jax.Array, num_classes: int) -> jax.Array:
  return (numbers >= 0) & (numbers < num_classes)


def scores(confusion: np.ndarray) -> Scores:
  """The four scores of a confusion matrix.

  Args:
    confusion: [C, C] counts, true classes in rows.
  """
  confusion = np.asarray(confusion, np.float64)
  right = np.diag(confusion)
  true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
  with np.errstate(invalid="ignore"):
    accuracy = right / true
    class_iu = right / (true + predicted - right)
  present = true > 0
  total = true.sum()
  return Scores(
    pixel_accuracy=_ratio(right.sum(), total),
    mean_accuracy=_ratio(accuracy[present].sum(), present.sum()),
    mean_iu=_ratio(np.nansum(class_iu), np.sum(~np.isnan(class_iu))),
    frequency_weighted_iu=_ratio(
      (true[present] * class_iu[present]).sum(), total
    ),
    class_iu=class_iu,
  )


def dice(confusion: np.ndarray) -> np.ndarray:
  """The Dice coefficient of each class, also called F1 of its pixels.

  Twice the pixels that are right, over the sum of the true and the predicted
  pixels of the class (Dice, 1945). For one class, it orders predictions as IU
  does, since it is 2 IU / (1 + IU).

  Args:
    confusion: [C, C] counts, true classes in rows.

  Returns:
    [C] float64 in 0..1; NaN for a class that has neither a true nor a predicted
    pixel.
  """
  confusion = np.asarray(confusion, np.float64)
  with np.errstate(invalid="ignore"):
    return 2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1))


def _ratio(total: float, count: float) -> float:
  return float(total / count) if count else float("nan")
