"""What users give is checked, and the message says what to do."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import checks
from tests.helpers import mistakes

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "from_arrays.md"


@pytest.mark.parametrize("mistake", mistakes.MISTAKES)
def test_a_mistake_gets_the_sentence_of_the_documentation(mistake):
  # What the table shows is what a user sees, and it is no traceback of others.
  assert mistakes.row(mistake) in PAGE.read_text().splitlines()


def test_the_documentation_has_no_other_mistakes():
  rows = [line for line in PAGE.read_text().splitlines() if line[:2] == "| "]
  assert len(rows) - 2 == len(mistakes.MISTAKES)


def test_pictures_that_are_right_pass():
  for images in (
    np.zeros((1, 4, 4, 3), np.uint8),
    np.zeros((1, 4, 4, 3), np.float32),
    np.array([[[[0.0, 0.5, 2.0]]]]),
    jnp.full((1, 2, 2, 3), 255.0, jnp.bfloat16),
    # Of other channels than RGB, nobody knows the range.
    np.full((1, 2, 2, 4), -1.0),
  ):
    checks.images(images)
    checks.pixels(images)


def test_traced_batches_are_checked_without_reading_them():
  batch = fcn.types.Batch(
    jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32),
    jax.ShapeDtypeStruct((2, 8, 8), jnp.int32),
  )

  def check(batch):
    checks.batch(batch, num_channels=3)
    checks.pixels(batch.images)
    return batch.labels

  assert jax.eval_shape(check, batch).shape == (2, 8, 8)
  with pytest.raises(ValueError, match="labels are float32"):
    jax.eval_shape(check, batch._replace(labels=batch.images))


def test_labels_of_several_heads_are_checked_by_name():
  images = np.zeros((1, 4, 4, 3), np.uint8)
  labels = {"a": np.zeros((1, 4, 4), np.int32), "b": np.zeros((1, 4, 3), int)}
  with pytest.raises(ValueError, match="labels of b have shape"):
    checks.batch(fcn.types.Batch(images, labels))


@pytest.mark.parametrize("size", [64, np.int64(64), (64, 64)])
def test_one_number_is_a_square(size):
  augmentation = fcn.data.Augmentation(crop_size=size)
  augmentation.check()
  assert augmentation.crop_size == checks.size(size, "size") == (64, 64)


@pytest.mark.parametrize("size", [0, -3, 1.5, (4,), (4, 0), (1, 2, 3), "ab"])
def test_other_sizes_are_refused_by_their_name(size):
  with pytest.raises(ValueError, match="crop_size is .* square"):
    fcn.data.Augmentation(crop_size=size).check()


def test_keys_of_both_kinds_are_keys():
  checks.key(jax.random.key(0))
  checks.key(jax.random.PRNGKey(0))
