"""The data of a run."""

import jax
import numpy as np
import pytest

from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from tests.helpers import tiny_runs


@pytest.fixture(scope="module")
def dataset(prepared_dir):
  options = config_lib.Data(dataset="shapes/tiny", prepared_dir=prepared_dir)
  return batches.load_split(options, "train")


def taken(made, first, count):
  """Some batches, on the host, from the first one on."""
  iterator = made.starting_at(first)
  result = [next(iterator) for _ in range(count)]
  iterator.close()
  return result


def assert_same_batches(one, other):
  for a, b in zip(one, other, strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_that_goes_on_sees_the_batches_that_it_would_have_seen(
  tmp_path, dataset, prepared_dir
):
  config = tiny_runs.config(tmp_path, prepared_dir)
  made = batches.training_batches(config, dataset)
  whole = taken(made, 0, 7)
  assert whole[0].images.shape == (4, 64, 64, 3)
  assert_same_batches(taken(made, 4, 3), whole[4:])
  again = batches.training_batches(config.replace(num_threads=1), dataset)
  assert again.fingerprint == made.fingerprint
  assert_same_batches(taken(again, 0, 7), whole)
  other = batches.training_batches(config.replace(seed=1), dataset)
  assert other.fingerprint != made.fingerprint


def test_patches_are_cut_with_a_key_of_the_batch(
  tmp_path, dataset, prepared_dir
):
  def cut(key, batch):
    first = int(jax.random.randint(key, (), 0, 1000))
    return batch._replace(labels=np.full_like(batch.labels, first))

  config = tiny_runs.config(tmp_path, prepared_dir)
  made = batches.training_batches(config, dataset, cut=cut)
  whole = taken(made, 0, 4)
  assert len({int(batch.labels[0, 0, 0]) for batch in whole}) == 4
  assert_same_batches(taken(made, 2, 2), whole[2:])


def test_the_names_of_a_batch_are_those_of_its_images(
  tmp_path, dataset, prepared_dir
):
  config = tiny_runs.config(
    tmp_path, prepared_dir, crop_size=None, scale_range=(1.0, 1.0), flip=False
  )
  made = batches.training_batches(config, dataset)
  by_name = {example.name: example for example in dataset.source}
  for number, batch in enumerate(taken(made, 0, 3)):
    names = made.names(number)
    for name, image in zip(names, batch.images, strict=True):
      expected = by_name[name].image
      height, width = expected.shape[:2]
      np.testing.assert_array_equal(image[:height, :width], expected)


def test_fewer_images_than_a_batch_are_refused(tmp_path, dataset, prepared_dir):
  config = tiny_runs.config(tmp_path / "mine", prepared_dir, batch_size=400)
  with pytest.raises(ValueError, match="mine needs 400 images per step, but"):
    batches.training_batches(config, dataset)


def test_validation_sees_every_image_once_and_again(tmp_path, prepared_dir):
  config = tiny_runs.config(tmp_path, prepared_dir)
  dataset = batches.load_split(config.data, "validation")
  made = batches.validation_batches(config, dataset)
  for _ in range(2):
    labels = [label for batch in made for label in np.asarray(batch.labels)]
    valid = sum((label != 255).sum() for label in labels)
    assert valid == sum((e.label != 255).sum() for e in dataset.source)


def test_the_images_that_are_shown_are_evenly_spread(tmp_path, prepared_dir):
  config = tiny_runs.config(tmp_path, prepared_dir)
  dataset = batches.load_split(config.data, "train")
  assert batches.shown(config.replace(num_pictures=3), dataset) == [2, 6, 10]
  shown = batches.shown(config.replace(num_pictures=99), dataset)
  assert shown == list(range(12))


def test_the_folder_of_a_data_set_may_stand_in_the_environment(
  tmp_path, monkeypatch
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  assert batches.data_dir_of("camvid", None) is None
  monkeypatch.setenv("CAMVID_DIR", str(tmp_path))
  assert batches.data_dir_of("camvid", None) == tmp_path
  assert batches.data_dir_of("camvid", tmp_path / "mine") == tmp_path / "mine"
  assert batches.data_dir_of("shapes", None) is None


def test_classes_are_known_without_the_data(dataset):
  table = batches.class_table(dataset)
  assert tuple(table["names"]) == dataset.class_names
  np.testing.assert_array_equal(table["palette"], dataset.palette)
