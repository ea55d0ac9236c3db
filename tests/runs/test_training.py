"""A run from its options to its report, and how it goes on."""

import hashlib
import json
import shutil

import jax
import pytest
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from fcn_jax import data
from fcn_jax import runs
from fcn_jax.runs import checkpoints
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import training
from tests.helpers import manifests
from tests.helpers import tiny_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = tiny_runs.STEPS


# A run that is left alone.


def test_a_run_writes_all_it_promises(finished_run):
  names = {path.name for path in finished_run.iterdir()}
  assert names == {*folder.CONTENTS}
  assert sorted(tiny_runs.losses_of(finished_run)) == list(range(1, STEPS + 1))
  _, evaluations = folder.read_records(finished_run)
  assert [one["step"] for one in evaluations] == [3, STEPS]
  for name in ("curves.png", "predictions.png"):
    with Image.open(finished_run / name) as picture:
      assert min(picture.size) > 250
  summary = json.loads((finished_run / "summary.json").read_text())
  assert summary["last"]["step"] == STEPS
  assert summary["versions"]["jax"] == jax.__version__
  assert "| star |" in (finished_run / "table.md").read_text()
  [start] = records.read_json_lines(finished_run / "starts.jsonl")
  as_json = records.read_json(finished_run / "config.json")
  assert start["options"] | {"id": as_json["id"]} == as_json
  assert start["device"] == "4 x cpu"


def test_tensorboard_shows_the_records(finished_run, prepared_dir):
  board = event_accumulator.EventAccumulator(str(finished_run / "tensorboard"))
  board.Reload()
  losses = {e.step: e.value for e in board.Scalars("train/loss")}
  expected = tiny_runs.losses_of(finished_run)
  assert losses == pytest.approx(expected, rel=1e-6)
  scores = {e.step: e.value for e in board.Scalars("validation/mean_iu")}
  _, evaluations = folder.read_records(finished_run)
  expected = {one["step"]: one["mean_iu"] for one in evaluations}
  assert scores == pytest.approx(expected)
  images = board.Tags()["images"]
  assert "validation/confusion_matrix" in images
  source = data.load(
    "shapes/tiny", split="validation", prepared_dir=prepared_dir
  ).source
  # The one that is shown is in the middle of the five.
  assert {name for name in images if "picture" in name} == {
    "validation/picture_2"
  }
  height, width = source[2].label.shape
  # Image, truth and prediction side by side.
  picture = board.Images("validation/picture_2")[-1]
  assert (picture.width, picture.height) == (3 * width, height)


@pytest.mark.slow
def test_a_finished_run_that_is_started_again_only_reports(
  run_copy, prepared_dir
):
  before = tiny_runs.state_of(run_copy)
  table = runs.train(tiny_runs.config(run_copy, prepared_dir))
  assert "| star |" in table
  tiny_runs.assert_same_bits(tiny_runs.state_of(run_copy), before)
  assert sorted(tiny_runs.losses_of(run_copy)) == list(range(1, STEPS + 1))


# Going on.


@pytest.mark.slow
def test_a_damaged_step_is_repeated_from_the_one_before(
  run_copy, finished_run, prepared_dir
):
  newest = run_copy / "checkpoints" / f"{STEPS:08d}"
  file = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  with pytest.warns(UserWarning, match="set aside"):
    runs.train(tiny_runs.config(run_copy, prepared_dir))
  assert tiny_runs.losses_of(run_copy) == tiny_runs.losses_of(finished_run)
  tiny_runs.assert_same_bits(
    tiny_runs.state_of(run_copy), tiny_runs.state_of(finished_run)
  )
  assert (run_copy / "checkpoints" / f"damaged-{newest.name}").is_dir()


@pytest.mark.long
@pytest.mark.slow
def test_more_steps_on_another_number_of_devices(
  run_copy, finished_run, prepared_dir
):
  runs.train(tiny_runs.config(run_copy, prepared_dir, steps=8, num_devices=1))
  losses = tiny_runs.losses_of(run_copy)
  assert sorted(losses) == list(range(1, 9))
  assert tiny_runs.losses_of(finished_run).items() <= losses.items()
  assert int(tiny_runs.state_of(run_copy)["step"]) == 8
  assert folder.num_starts(run_copy) == 2


@pytest.mark.long
@pytest.mark.parametrize(
  "options",
  [
    {"patches": "balanced", "patches_per_image": 2},
    *(
      pytest.param(options, marks=pytest.mark.long)
      for options in (
        {"patches": "random", "patches_per_image": 2},
        {"patches": "grid", "patches_per_image": 2},
        {"patches": "random", "patches_per_image": 2, "crop_size": None},
      )
    ),
  ],
)
def test_a_run_on_patches_goes_on_to_the_bit(tmp_path, prepared_dir, options):
  config = tiny_runs.config(
    tmp_path / "run",
    prepared_dir,
    steps=2,
    save_every=1,
    validate_every=2,
    normalization="none",
    **options,
  ).replace(patch_size=(32, 32))
  runs.train(config)
  alone = tiny_runs.state_of(config.run.workdir)
  losses = tiny_runs.losses_of(config.run.workdir)
  # Two patches of each of four images.
  records_of_run, _ = folder.read_records(config.run.workdir)
  assert 0 < records_of_run[0]["num_sampled"] <= 8 * 32 * 32
  # As if it had been killed in the second step.
  shutil.rmtree(config.run.workdir / "checkpoints" / "00000002")
  runs.train(config)
  starts = records.read_json_lines(config.run.workdir / "starts.jsonl")
  assert [start["from_step"] for start in starts] == [0, 1]
  tiny_runs.assert_same_bits(tiny_runs.state_of(config.run.workdir), alone)
  assert tiny_runs.losses_of(config.run.workdir) == losses


@pytest.mark.parametrize(
  ("option", "expected"), [("default", "high"), ("highest", "highest")]
)
def test_products_have_the_precision_that_is_asked_for(
  tmp_path, prepared_dir, option, expected
):
  seen = []

  class Seen(Exception):
    pass

  def look(state):
    seen.append(jax.config.jax_default_matmul_precision)
    raise Seen

  config = tiny_runs.config(
    tmp_path / "run", prepared_dir, matmul_precision=option
  )
  prepared = training.prepare(config, at_steps={0: look})
  # As JAX_DEFAULT_MATMUL_PRECISION would set it.
  with jax.default_matmul_precision("high"), pytest.raises(Seen):
    training.run(prepared)
  assert seen == [expected]


# What is refused.


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"learning_rate": 1.0}, r"other options: learning_rate \(0.003 there, 1."),
    ({"steps": 4}, "has 6 steps; steps may grow"),
    ({"seed": 1}, "--overwrite to delete"),
    (
      {"patches": "random", "patch_size": (32, 32), "patches_per_image": 1},
      r"other options: patches \(none there, random now\)",
    ),
    ({"num_devices": 3}, "3 devices cannot share a batch of 4"),
    ({"num_devices": 9}, "num_devices is 9, but there are 4"),
    ({"rate": 0.0}, "rate is 0.0; it must be in 0..1"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be"),
    (
      {"crop_size": None, "sampler": "hardest"},
      "hardest keeps a number of pixels",
    ),
    # Before the run is deleted.
    ({"hue": 0.9, "overwrite": True}, "hue"),
    (
      {"crop_size": None, "min_labelled": 0.5, "overwrite": True},
      "min_labelled chooses crops",
    ),
    ({"validation_split": "test", "overwrite": True}, "no split 'test'"),
    ({"batch_size": 400, "overwrite": True}, "400 images per step, but the"),
  ],
)
def test_what_cannot_go_on_is_refused_and_changes_nothing(
  run_copy, prepared_dir, options, message
):
  before = tiny_runs.files_in(run_copy)
  with pytest.raises(ValueError, match=message):
    training.prepare(tiny_runs.config(run_copy, prepared_dir, **options))
  assert tiny_runs.files_in(run_copy) == before


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"init": "/nowhere"}, "the run to begin with, /nowhere, cannot be used"),
    ({"validation_split": "test"}, "no split 'test'"),
    ({"batch_size": 12344}, "12344 images per step, but the data set has"),
    (
      {"patches": "random", "patch_size": (65, 8), "patches_per_image": 1},
      "65x8 pixels does not fit into an image of 64x64",
    ),
    ({"dataset": "folder"}, "folder"),
  ],
)
def test_what_cannot_begin_leaves_nothing(
  tmp_path, prepared_dir, options, message
):
  workdir = tmp_path / "run"
  with pytest.raises(ValueError, match=message):
    training.prepare(tiny_runs.config(workdir, prepared_dir, **options))
  assert not workdir.exists()


@pytest.mark.parametrize(
  ("part", "name", "value", "message"),
  [
    ("data", "train", "other", "the data are not those that the run"),
    (
      "classes",
      "names",
      ["value 0", "value 254"],
      r"\['value 0', 'value 254'\] there, .*star.* now.*classes\.json",
    ),
    ("classes", "masks", {"values": []}, "what the values of masks mean"),
  ],
)
def test_other_data_are_refused(
  run_copy, prepared_dir, part, name, value, message
):
  shutil.rmtree(run_copy / "checkpoints" / f"{STEPS:08d}")
  # The step before, as one of other data would be.
  manifest = run_copy / "checkpoints" / f"{STEPS - 2:08d}" / "manifest.json"
  content = json.loads(manifest.read_text())
  content["metadata"][part][name] = value
  manifest.write_text(json.dumps(content))
  digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
  manifest.with_name("manifest.sha256").write_text(f"{digest}  manifest.json\n")
  with pytest.raises(ValueError, match=message):
    training.prepare(tiny_runs.config(run_copy, prepared_dir))


def test_a_run_that_does_not_say_what_masks_mean_goes_on(
  run_copy, prepared_dir
):
  # As those of version 0.2.
  def without_masks(manifest):
    del manifest["metadata"]["classes"]["masks"]

  for step in run_copy.glob("checkpoints/0*"):
    # The score is that of the manifest as it was.
    (step / "score.json").unlink(missing_ok=True)
    manifests.rewrite(step, without_masks)
  prepared = training.prepare(tiny_runs.config(run_copy, prepared_dir))
  assert int(prepared.state.step) == STEPS


def test_a_folder_in_which_another_program_trains_is_refused(
  run_copy, prepared_dir, monkeypatch
):
  def locked(*_, **__):
    raise ValueError("Another program is writing")

  monkeypatch.setattr(checkpoints, "Checkpoints", locked)
  config = tiny_runs.config(run_copy, prepared_dir, overwrite=True)
  with pytest.raises(ValueError, match="Another program is writing"):
    training.prepare(config)
  assert {path.name for path in run_copy.iterdir()} == {*folder.CONTENTS}


def test_a_disk_without_room_for_the_checkpoints_is_found_before(
  tmp_path, prepared_dir, monkeypatch
):
  monkeypatch.setattr(training.environment, "free_bytes", lambda _: 2000)
  with pytest.raises(ValueError, match="make room, or give another --workdir"):
    training.prepare(tiny_runs.config(tmp_path / "run", prepared_dir))
  assert not (tmp_path / "run").exists()
