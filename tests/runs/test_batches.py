"""The data of a run."""

import jax
import numpy as np
import pytest

from fcn_jax import data
from fcn_jax import sharding as sharding_lib
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import placement
from tests.helpers import tiny_runs


@pytest.fixture(scope="module")
def dataset(prepared_dir):
  options = config_lib.Data(dataset="shapes/tiny", prepared_dir=prepared_dir)
  return batches.load_split(options, "train")


def taken(made, first, count):
  """Some batches from the first one on, cut into patches if there are any."""
  images = made.starting_at(first)
  iterator = made.patches_of(images, first_batch=first)
  result = [next(iterator) for _ in range(count)]
  images.close()
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


KINDS = {
  "random": {"patches_per_image": 3},
  "grid": {"patches_per_image": 3, "patch_stride": (16, 8)},
  "balanced": {"patches_per_image": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_patches_are_parts_of_their_images_and_depend_on_the_batch_number(
  tmp_path, dataset, prepared_dir, kind
):
  config = tiny_runs.config(tmp_path, prepared_dir, batch_size=2)
  config = config.replace(patches=kind, patch_size=(24, 32), **KINDS[kind])
  made = batches.training_batches(config, dataset)
  iterator = made.starting_at(0)
  images = [next(iterator) for _ in range(3)]
  iterator.close()
  cut = taken(made, 0, 3)
  for of_images, of_patches in zip(images, cut, strict=True):
    assert of_patches.images.shape == (6, 24, 32, 3)
    assert of_patches.labels.shape == (6, 24, 32)
    for number, patch in enumerate(np.asarray(of_patches.images)):
      image, label = (array[number // 3] for array in of_images[:2])
      windows = np.lib.stride_tricks.sliding_window_view(
        image, patch.shape, axis=(0, 1, 2)
      )[:, :, 0]
      places = np.argwhere((windows == patch).all(axis=(2, 3, 4)))
      labels = of_patches.labels[number]
      assert any(
        np.array_equal(label[row : row + 24, column : column + 32], labels)
        for row, column in places
      )
      if kind == "grid":
        # The last row and column are moved inwards.
        rows, columns = {0, 16, 32, 40}, {0, 8, 16, 24, 32}
        assert any(r in rows and c in columns for r, c in places)
  # The same images with another number have other patches.
  other = made.patches_of(iter(images), first_batch=1)
  assert np.any(next(other).images != cut[0].images)
  assert_same_batches(taken(made, 1, 2), cut[1:])


def test_all_patches_of_the_grid_come_row_by_row(
  tmp_path, dataset, prepared_dir
):
  config = tiny_runs.config(tmp_path, prepared_dir, batch_size=1)
  config = config.replace(patches="grid", patch_size=(32, 30))
  made = batches.training_batches(config, dataset)
  iterator = made.starting_at(0)
  image = next(iterator).images[0]
  iterator.close()
  (cut,) = taken(made, 0, 1)
  # Every third of the size, and at the far border.
  corners = [(r, c) for r in (0, 10, 20, 30, 32) for c in (0, 10, 20, 30, 34)]
  expected = [image[r : r + 32, c : c + 30] for r, c in corners]
  np.testing.assert_array_equal(cut.images, expected)


def test_patches_of_whole_pictures_say_what_they_fill(
  tmp_path, dataset, prepared_dir
):
  config = tiny_runs.config(
    tmp_path, prepared_dir, crop_size=None, batch_size=2
  )
  config = config.replace(
    patches="random", patch_size=(48, 48), patches_per_image=2
  )
  (cut,) = taken(batches.training_batches(config, dataset), 0, 1)
  assert cut.images.shape == (4, 48, 48, 3)
  np.testing.assert_array_equal(cut.valid_sizes, [(48, 48)] * 4)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"patch_size": (400, 48)}, "400x48 pixels does not fit into an image of"),
    (
      {"patches": "grid", "patches_per_image": 999},
      "patches_per_image is 999, but the grid has",
    ),
  ],
)
def test_patches_that_whole_pictures_do_not_have_are_refused(
  tmp_path, dataset, prepared_dir, options, message
):
  config = tiny_runs.config(tmp_path, prepared_dir, crop_size=None)
  options = {"patches": "random", "patches_per_image": 2} | options
  config = config.replace(**({"patch_size": (48, 48)} | options))
  config.check()
  with pytest.raises(ValueError, match=message):
    batches.training_batches(config, dataset)


@pytest.mark.slow
def test_patches_are_cut_on_the_devices_that_share_the_images(
  tmp_path, dataset, prepared_dir
):
  config = tiny_runs.config(tmp_path, prepared_dir).replace(
    patches="balanced", patch_size=(24, 32), patches_per_image=3
  )
  made = batches.training_batches(config, dataset)
  images = made.starting_at(0)
  sharding = sharding_lib.of_images(placement.make_mesh(config))
  on_devices = data.to_device(images, num_classes=6, sharding=sharding)
  cut = next(made.patches_of(on_devices, first_batch=0, sharding=sharding))
  images.close()
  assert len(cut.images.sharding.device_set) == 4
  assert cut.images.sharding.is_equivalent_to(sharding, 4)
  # Labels are bytes there.
  assert cut.labels.dtype == np.uint8
  assert_same_batches([cut], taken(made, 0, 1))


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


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 3), (0.7, 3), (0.1, 1)])
def test_epochs_are_passes_over_the_training_split(
  tmp_path, dataset, prepared_dir, epochs, steps
):
  assert len(dataset.source) == 12
  config = tiny_runs.config(tmp_path, prepared_dir, epochs=epochs)
  assert batches.with_steps(config).optimizer.steps == steps
  assert batches.with_steps(config).epochs == epochs
