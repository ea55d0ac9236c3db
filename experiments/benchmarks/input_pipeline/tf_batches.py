"""tf.data over the files of the benchmark."""

import pathlib
from collections.abc import Iterator

import tensorflow as tf

import fcn_jax as fcn

_GREY = (0.299, 0.587, 0.114)


def batches(
  pairs: list[tuple[pathlib.Path, pathlib.Path]],
  *,
  batch_size: int,
  crop_size: tuple[int, int],
  scale_range: tuple[float, float],
  jitter: dict[str, float],
  num_workers: int,
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
  """Endless batches, made by as many threads."""

  def factor(strength):
    return tf.random.uniform([], 1 - strength, 1 + strength)

  def read(picture, mask):
    image = tf.io.decode_jpeg(tf.io.read_file(picture), channels=3)
    label = tf.io.decode_png(tf.io.read_file(mask), channels=1)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.cast(
      tf.round(size * tf.random.uniform([], *scale_range)), tf.int32
    )
    # Values are floats from here on.
    image = tf.image.resize(image, size, antialias=True)
    label = tf.image.resize(label, size, method="nearest")
    padding = tf.maximum(tf.constant(crop_size) - size, 0)
    border = [[0, padding[0]], [0, padding[1]], [0, 0]]
    fill = tf.constant(fcn.data.pipeline.transforms.FILL, tf.float32)
    image = tf.pad(image - fill, border) + fill
    label = tf.pad(label, border, constant_values=fcn.types.IGNORE_LABEL)
    both = tf.concat([image, tf.cast(label, tf.float32)], axis=-1)
    both = tf.image.random_crop(both, (*crop_size, 4))
    both = tf.image.random_flip_left_right(both)
    image, label = both[..., :3], tf.cast(both[..., 3], tf.int32)
    image = tf.clip_by_value(image * factor(jitter["brightness"]), 0, 255)
    mean = tf.reduce_mean(tf.tensordot(image, _GREY, 1))
    image = mean + (image - mean) * factor(jitter["contrast"])
    image = tf.clip_by_value(image, 0, 255)
    grey = tf.tensordot(image, _GREY, 1)[..., None]
    image = grey + (image - grey) * factor(jitter["saturation"])
    image = tf.clip_by_value(image, 0, 255)
    if jitter["hue"]:
      image = 255 * tf.image.random_hue(image / 255, jitter["hue"])
    return tf.cast(image, tf.uint8), label

  pictures, masks = zip(*pairs, strict=True)
  dataset = tf.data.Dataset.from_tensor_slices(
    ([str(path) for path in pictures], [str(path) for path in masks])
  )
  dataset = dataset.shuffle(len(pairs)).repeat()
  dataset = dataset.map(read, num_parallel_calls=num_workers)
  dataset = dataset.batch(batch_size).prefetch(2)
  options = tf.data.Options()
  options.threading.private_threadpool_size = num_workers
  options.threading.max_intra_op_parallelism = 1
  return iter(dataset.with_options(options))
