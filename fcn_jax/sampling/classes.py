"""Samplers for rare classes: sample them more, or give them more weight.

Section 3.4 of both papers: patchwise sampling can correct class imbalance;
fully convolutional training does the same by weighting or sampling the loss.
(The papers found it unnecessary for PASCAL VOC, section 4.)
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import platforms
from fcn_jax import reprs
from fcn_jax import types
from fcn_jax.sampling import capacity
from fcn_jax.sampling import sampler as sampler_lib
from fcn_jax.sampling import uniform


def class_counts(labels: jax.Array, *, num_classes: int) -> jax.Array:
  """Counts the pixels of each class.

  Args:
    labels: [...] int32, classes 0..C-1 or `IGNORE_LABEL`.
    num_classes: C.

  Returns:
    [C] int32. Void pixels, and labels outside the classes, are left out.

  Raises:
    ValueError: if `num_classes` is not positive.
  """
  uniform.check_integer("num_classes", num_classes)

  def by_counting(labels):
    known = (labels >= 0) & (labels < num_classes)
    # An additional class takes the pixels that are not counted.
    classes = jnp.where(known, labels, num_classes)
    counts = jnp.bincount(classes, length=num_classes + 1)
    return counts[:-1].astype(jnp.int32)

  def by_comparison(labels):
    # Counting is a scatter, which accelerators are slow at.
    classes = jnp.arange(num_classes, dtype=jnp.int32)[:, None]
    return jnp.sum(labels[None] == classes, axis=1, dtype=jnp.int32)

  labels = jnp.where(labels == types.IGNORE_LABEL, -1, labels.astype(jnp.int32))
  return platforms.dependent(
    labels.reshape(-1), cpu=by_counting, default=by_comparison
  )


@reprs.described
def class_probabilities(
  *,
  count: int,
  num_classes: int,
  frequencies: Sequence[float] | None = None,
  min_probability: float = 0.0,
  redistribute: bool = False,
) -> sampler_lib.Probabilities:
  """Probabilities that keep equally many pixels of each class.

  A pixel of class c is kept with probability min(1, count / (K n_c)), where K
  is the number of classes present and n_c the number of pixels of class c:
  min(n_c, count / K) pixels of each class are expected. The probability is NaN
  where a label is neither void nor a class.

  Args:
    count: expected number of kept pixels in the batch; fewer if a class has
      less than its part.
    num_classes: C.
    frequencies: [C] how common the classes are in the training set (shares or
      counts: only ratios matter). Then n_c is the share of class c times the
      valid pixels of the batch, and K is C: except for void, a pixel's
      probability does not depend on the rest of its batch, and the classes are
      equal over the training set, not in every batch. None counts n_c and K in
      the batch.
    min_probability: floor of the probability of a pixel, which bounds the
      weights of `importance`: where a class would have less, its pixels have
      this instead, and more than `count` pixels are expected.
    redistribute: whether the other classes share what a class with fewer pixels
      than its part leaves over: min(n_c, t) pixels of each class are expected,
      with the same t for all. Without `frequencies`, these sum to `count` where
      there are as many pixels.

  Raises:
    ValueError: if `count` is not positive, `frequencies` are not C positive
      numbers, or `min_probability` is not in 0..1.
  """
  uniform.check_integer("count", count)
  uniform.check_integer("num_classes", num_classes)
  if not 0.0 <= min_probability <= 1.0:
    raise ValueError(
      f"min_probability is {min_probability}; it is the least probability of "
      "keeping a pixel, from 0 to 1."
    )
  shares = None
  if frequencies is not None:
    shares = _checked_shares(frequencies, num_classes)

  def of(labels):
    chex.assert_rank(labels, 3)
    # In float32: the products can exceed int32 in large batches.
    if shares is None:
      class_sizes = class_counts(labels, num_classes=num_classes)
      class_sizes = class_sizes.astype(jnp.float32)
      num_present = jnp.sum(class_sizes > 0).astype(jnp.float32)
    else:
      num_valid = jnp.sum(uniform.valid_pixels(labels))
      class_sizes = num_valid * jnp.asarray(shares, jnp.float32)
      num_present = jnp.float32(num_classes)
    total = count
    if redistribute:
      total = num_present * _equal_part(count, class_sizes)
    # The maximum avoids a division by 0 for classes without a pixel; where it
    # replaces another small number, the probability is 1 either way.
    expected = total / jnp.maximum(num_present * class_sizes, 1.0)
    return _of_class(jnp.clip(expected, min_probability, 1.0), labels)

  def max_count(shape):
    # Probabilities from the batch's own counts sum to `count` at most. From
    # given frequencies they can sum to more, the most where one image is all of
    # the rarest class and the rest of the batch is void.
    mean = float(count)
    if shares is not None:
      mean = count / (num_classes * float(shares.min()))
    num_pixels = shape[1] * shape[2]
    return capacity.tail_bound(
      mean + min_probability * num_pixels,
      num_draws=num_pixels,
      num_images=shape[0],
    )

  return sampler_lib.Probabilities(of, max_count)


def _equal_part(count: int, class_sizes: jax.Array) -> jax.Array:
  """The t at which min(n_c, t), summed over the classes, is `count`.

  If the k smallest classes are kept whole, the others share the rest equally:
  t_k = (count - their pixels) / (C - k). The sum is concave in t, and t the
  largest of all t_k. (Absent classes only add smaller ones.)
  """
  ascending = jnp.sort(class_sizes)
  smaller = jnp.cumsum(ascending) - ascending
  num_others = jnp.arange(len(ascending), 0, -1, dtype=jnp.float32)
  return jnp.max((count - smaller) / num_others)


@reprs.described
def class_balanced(
  *,
  count: int,
  num_classes: int,
  frequencies: Sequence[float] | None = None,
  min_probability: float = 0.0,
  redistribute: bool = False,
) -> sampler_lib.Sampler:
  """Keeps equal numbers of pixels of each class, in expectation.

  Pixels are drawn independently with `class_probabilities`, which are their
  expected weights: by default, the expected sum of the sampled loss is the sum
  over classes of the class's mean loss times min(n_c, count / K). `importance`
  of the same probabilities keeps the whole sum in expectation.

  Args:
    count: see `class_probabilities`, as for the following.
    num_classes: C.
    frequencies: [C], or None.
    min_probability: floor of the probability of a pixel.
    redistribute: whether classes share what others leave over.

  Returns:
    A sampler with weights 0 and 1; NaN where a label is neither void nor a
    class.
  """
  return uniform.independently(
    class_probabilities(
      count=count,
      num_classes=num_classes,
      frequencies=frequencies,
      min_probability=min_probability,
      redistribute=redistribute,
    )
  )


@reprs.described
def class_weighted(*, class_weights: Sequence[float]) -> sampler_lib.Sampler:
  """Keeps every pixel, with the weight of its class.

  The deterministic alternative to `class_balanced`.

  Args:
    class_weights: [C], such as `median_frequency_weights` gives; a weight of 0
      leaves the class out.

  Returns:
    A sampler with these weights; NaN where a label is neither void nor a class.

  Raises:
    ValueError: if a class weight is negative or not finite.
  """
  weights = _checked_classes("class weight", class_weights)
  for index, weight in enumerate(weights):
    if not 0.0 <= weight < np.inf:
      raise ValueError(
        f"the weight of class {index} is {weight}; give a finite number, 0 to "
        "leave the class out."
      )

  def of(labels):
    return _of_class(jnp.asarray(weights, jnp.float32), labels)

  return sampler_lib.Sampler(
    draw=lambda key, labels: of(labels),
    expected_sum=lambda labels: jnp.sum(of(labels)),
  )


def inverse_frequency_weights(frequencies: Sequence[float]) -> np.ndarray:
  """Weights that make all classes count the same in the training set.

  Args:
    frequencies: [C] shares of the pixels, or counts: only ratios matter.

  Returns:
    [C] float32 proportional to 1 / frequency, such that the mean weight of a
    pixel, sum f_c w_c / sum f_c, is 1.

  Raises:
    ValueError: if `frequencies` are not positive numbers.
  """
  shares = _checked_shares(frequencies)
  return (1.0 / (len(shares) * shares)).astype(np.float32)


def median_frequency_weights(frequencies: Sequence[float]) -> np.ndarray:
  """Weights by median frequency balancing: median(frequencies) / frequency.

  Eigen and Fergus, ICCV 2015 (arXiv:1411.4734), on semantic labels. There the
  frequency of a class is the number of its pixels over the number of pixels of
  those images that contain it.

  Args:
    frequencies: [C], in any unit: only ratios matter.

  Returns:
    [C] float32; 1 for the class in the middle.

  Raises:
    ValueError: if `frequencies` are not positive numbers.
  """
  shares = _checked_shares(frequencies)
  return (np.median(shares) / shares).astype(np.float32)


def _of_class(table: jax.Array, labels: jax.Array) -> jax.Array:
  """The entry of [C] `table` for each pixel's class; 0 where void.

  NaN where a label is not a class; plain indexing would use another class's.
  """

  def by_index(table, labels):
    # A negative index would count from the end.
    classes = jnp.where(labels < 0, len(table), labels)
    return table.at[classes].get(mode="fill", fill_value=jnp.nan)

  def by_comparison(table, labels):
    # Indexing is a gather, which accelerators are slow at.
    columns = (-1,) + (1,) * labels.ndim
    classes = jnp.arange(len(table), dtype=jnp.int32).reshape(columns)
    values = jnp.where(labels[None] == classes, table.reshape(columns), 0)
    is_class = (labels >= 0) & (labels < len(table))
    return jnp.where(is_class, jnp.sum(values, axis=0), jnp.nan)

  values = platforms.dependent(
    table, labels.astype(jnp.int32), cpu=by_index, default=by_comparison
  )
  return jnp.where(labels == types.IGNORE_LABEL, 0.0, values)


def _checked_shares(
  frequencies: Sequence[float], num_classes: int | None = None
) -> np.ndarray:
  """Positive frequencies [C], scaled to sum 1, in float64."""
  frequencies = _checked_classes("frequency", frequencies)
  if num_classes is not None and len(frequencies) != num_classes:
    raise ValueError(
      f"frequencies has {len(frequencies)} entries and num_classes is "
      f"{num_classes}; give one for each class, in the order of the labels."
    )
  for index, frequency in enumerate(frequencies):
    if not 0.0 < frequency < np.inf:
      raise ValueError(
        f"the frequency of class {index} is {frequency}, not a positive "
        "number. Merge a class without pixels with another, or leave it out "
        "and renumber the others."
      )
  return frequencies / frequencies.sum()


def _checked_classes(name: str, values: Sequence[float]) -> np.ndarray:
  """One number a class, [C] float64."""
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not len(values):
    raise ValueError(
      f"an array of shape {values.shape} is given; give one {name} for each "
      "class, [C]."
    )
  return values
