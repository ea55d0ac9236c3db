"""What all studies share: the folder, the plan, and going on."""

import dataclasses
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments.common import study as study_lib
from fcn_jax import data
from fcn_jax import runs
from fcn_jax.data.datasets import shapes
from fcn_jax.runs import batches
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import signals
from fcn_jax.runs import training
from tests.helpers import studies

OWN = {"experiment": "made_up", "contents": ("table.md",)}
WHOLE = study_lib.Variant("whole images", {"batch_size": 4})
SAMPLED = study_lib.Variant("p=0.5", {"sampler": "bernoulli", "rate": 0.5})
PATCHES = study_lib.Variant(
  "patches",
  {"patches": "random", "patch_size": (32, 32), "patches_per_image": 2},
)


@pytest.fixture
def config(tmp_path, prepared_dir):
  return study_lib.Study.make(
    "x",
    workdir=tmp_path / "study",
    prepared_dir=prepared_dir,
    dataset="shapes/tiny",
    crop_size=(48, 48),
    head_width=16,
    normalization="none",
    dropout_rate=0.0,
    batch_size=2,
    num_devices=2,
    steps=4,
    warmup_steps=1,
    log_every=1,
    save_every=2,
    seed=5,
  )


def dataset_of(count):
  return data.Dataset(
    [None] * count, ("a",), np.zeros((1, 3), np.uint8), "made up"
  )


# Variants are runs.


def test_a_run_has_the_options_of_the_study_and_then_of_its_variant(config):
  run = study_lib.run_config(config, WHOLE, 1)
  assert run.run.workdir == config.run.workdir / "variants/whole_images-seed1"
  assert (run.run.seed, run.data.batch_size) == (6, 4)
  # All else is the study's.
  same = run.replace(workdir=config.run.workdir, seed=5, batch_size=2)
  for name in ("data", "network", "optimizer", "augmentation", "run"):
    assert getattr(same, name) == getattr(config, name)
  sampled = study_lib.run_config(config, SAMPLED, 0)
  assert (sampled.loss.sampler, sampled.loss.rate) == ("bernoulli", 0.5)


def test_overwrite_is_of_the_study_and_not_of_its_runs(config):
  run = study_lib.run_config(config.replace(overwrite=True), WHOLE, 0)
  assert not run.run.overwrite


def test_the_title_says_what_is_trained_on_what(config):
  title = config.replace(stride=16, backbone="vgg16").title
  assert title == "shapes/tiny, FCN-16s, vgg16"


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_seeds": 0}, "num_seeds is 0"),
    ({"crop_size": None}, "crop_size is None"),
    ({"second_labels": "geometric"}, "second_labels is geometric"),
    (
      {"auxiliary": True, "architecture": "fcn_resnet", "head_width": None},
      "auxiliary is True",
    ),
    ({"batch_size": 0}, "batch_size is 0"),
  ],
)
def test_options_out_of_range_are_errors(config, options, message):
  with pytest.raises(ValueError, match=message):
    config.replace(**options).check()


# Before anything is written.


def check(config, variants=(WHOLE,), count=12):
  study_lib.check(config, variants, dataset_of(count), **OWN)


def test_a_variant_must_suit_its_sampler_the_data_and_the_devices(config):
  check(config)
  bad_rate = study_lib.Variant("bad", {"sampler": "hardest", "rate": 2.0})
  with pytest.raises(ValueError, match=r"rate is 2\.0"):
    check(config, (WHOLE, bad_rate))
  with pytest.raises(ValueError, match="whole images needs 4 images a step"):
    check(config, (WHOLE,), count=3)
  with pytest.raises(ValueError, match="3 devices cannot share"):
    check(config.replace(num_devices=3))
  with pytest.raises(ValueError, match="num_devices is 99"):
    check(config.replace(num_devices=99))
  assert not config.run.workdir.exists()


def test_a_study_goes_on_with_the_same_options_only(config, untouched):
  study_lib.claim(config, **OWN)
  untouched(config.run.workdir)
  check(config)
  # These change nothing that is computed.
  check(config.replace(num_threads=1, log_every=3, data_dir=None))
  # Seeds are runs of their own: there may be more later.
  check(config.replace(num_seeds=3))
  for options, message in (
    ({"num_seeds": 1}, "has 2 seeds; seeds may grow, but 1 are fewer"),
    # A longer run is another one here, where all are compared.
    ({"steps": 8}, r"steps \(4 there, 8 now\)"),
    # Runs that have not begun would begin with it.
    ({"init": config.run.workdir}, r"init \(None there"),
    ({"seed": 1, "stride": 16}, r"seed .5 there, 1 now., stride .8 there"),
  ):
    with pytest.raises(ValueError, match=message):
      check(config.replace(**options))
  other = {"experiment": "another", "contents": ()}
  with pytest.raises(ValueError, match="not from a run of another"):
    study_lib.check(config, (), dataset_of(1), **other)
  untouched(config.run.workdir)


def test_the_work_folder_is_a_folder(config):
  config.run.workdir.touch()
  with pytest.raises(ValueError, match="is a file"):
    check(config)


def test_what_is_left_of_a_study_is_not_taken_for_none(config):
  (config.run.workdir / "variants").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"but not its config\.json"):
    check(config)
  check(config.replace(overwrite=True))


def test_overwrite_deletes_the_study_and_nothing_else(config):
  workdir = config.run.workdir
  study_lib.claim(config, **OWN)
  studies.end_runs(config, [WHOLE])
  (workdir / "table.md").touch()
  (workdir / "note.txt").touch()
  study_lib.claim(config, **OWN)
  assert len(os.listdir(workdir)) == 4
  overwriting = config.replace(overwrite=True)
  check(overwriting)
  study_lib.claim(overwriting, **OWN)
  assert sorted(os.listdir(workdir)) == ["config.json", "note.txt"]
  # Whether to delete a study is not a trait of it.
  check(config)


# Training.


def test_only_runs_that_have_not_ended_are_trained(config, monkeypatch):
  variants = [WHOLE, SAMPLED]
  studies.end_runs(config, variants)
  lost = config.run.workdir / "variants/p=0.5-seed1"
  (lost / "curves.png").unlink()
  trained = []
  monkeypatch.setattr(training, "prepare", lambda run: run.run.workdir)
  monkeypatch.setattr(training, "run", trained.append)
  study_lib.train(config, variants)
  assert trained == [lost]


def test_a_signal_ends_the_study_and_says_how_to_go_on(
  config, monkeypatch, capsys
):
  monkeypatch.setattr(training, "prepare", lambda run: run)

  def interrupt(_):
    raise signals.Interrupted(signal.SIGTERM, 3)

  monkeypatch.setattr(training, "run", interrupt)
  with pytest.raises(SystemExit) as stopped:
    study_lib.train(config.replace(overwrite=True), [WHOLE])
  assert stopped.value.code == 128 + signal.SIGTERM
  said = capsys.readouterr().err
  assert "after step 3" in said and "the same command continues" in said
  assert "Leave --overwrite out" in said


def test_batches_of_patches_depend_on_their_number_and_the_seed_only(config):
  dataset = batches.load_split(config.data, "train")

  def first(count, start, seed=5):
    run = study_lib.run_config(config.replace(seed=seed), PATCHES, 0)
    endless = batches.training_batches(run, dataset)
    images = endless.starting_at(start)
    iterator = endless.patches_of(images, first_batch=start)
    found = [next(iterator) for _ in range(count)]
    images.close()
    return found

  all_four, last_two = first(4, 0), first(2, 2)
  for one, other in zip(all_four[2:], last_two, strict=True):
    assert one.labels.shape == (4, 32, 32)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
  (other_seed,) = first(1, 2, seed=6)
  assert np.any(other_seed.images != last_two[0].images)


@pytest.mark.long
def test_a_variant_of_patches_goes_on_to_the_bit(config):
  config = dataclasses.replace(config, num_seeds=1)
  variants = [PATCHES]
  # The optimizer's schedule mixes integers with floats.
  with jax.numpy_dtype_promotion("standard"):
    study_lib.train(config, variants)
    run = study_lib.run_config(config, PATCHES, 0).run.workdir
    alone = runs.load(run, "latest")
    losses = [record["loss"] for record in folder.read_records(run)[0]]
    # As if it had been killed after step 3.
    (newest,) = (
      path for path in (run / "checkpoints").iterdir() if "4" in path.name
    )
    shutil.rmtree(newest)
    for name in ("summary.json", "table.md", "curves.png"):
      (run / name).unlink()
    study_lib.train(config, variants)
  starts = records.read_json_lines(run / "starts.jsonl")
  assert [start["from_step"] for start in starts] == [0, 2]
  gone_on = runs.load(run, "latest")
  assert gone_on.step == alone.step == 4
  jax.tree.map(
    np.testing.assert_array_equal, gone_on.variables, alone.variables
  )
  again = folder.read_records(run)[0]
  assert [record["loss"] for record in again] == losses
  assert [record["step"] for record in again] == [1, 2, 3, 4]
  assert gone_on.class_names == tuple(shapes.CLASS_NAMES)
