"""Opening the model of a run."""

import json
import shutil

import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import trained_model
from tests.helpers import manifests
from tests.helpers import random_runs
from tests.helpers import tiny_runs

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures("standard_promotion"),
]

NAMES = ("ground", "water", "tree")
PALETTE = np.array([[10, 20, 30], [0, 0, 250], [0, 200, 0]], np.uint8)
PICTURE = np.random.default_rng(3).integers(0, 256, (50, 70, 3)).astype("uint8")


@pytest.fixture(scope="module")
def random_run(tmp_path_factory):
  """The work folder of a run whose network is random."""
  return random_runs.save(
    tmp_path_factory.mktemp("runs") / "random",
    PICTURE,
    names=NAMES,
    palette=PALETTE,
    stride=16,
    step=4,
  )


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_run_is_reopened_by_its_folder(random_run, kind):
  trained = fcn.runs.load(kind(random_run))
  assert isinstance(trained, fcn.runs.TrainedModel)
  assert trained.class_names == NAMES
  np.testing.assert_array_equal(trained.palette, PALETTE)
  assert trained.palette.dtype == np.uint8
  assert (trained.step, trained.mean_iu) == (4, 0.5)
  assert trained.config == folder.read_config(random_run)
  assert trained.model.stride == 16
  assert not trained.is_classifier
  classes = fcn.inference.predict(
    trained.model, trained.variables, PICTURE[None]
  )
  assert classes.shape == (1, 50, 70)
  assert len(np.unique(classes)) > 1


@pytest.mark.long
def test_the_best_checkpoint_has_the_score_of_its_averaged_parameters(
  finished_run, prepared_dir
):
  trained = fcn.runs.load(finished_run, "best")
  _, evaluations = folder.read_records(finished_run)
  scores = {one["step"]: one["mean_iu"] for one in evaluations}
  best = max(scores, key=lambda step: (scores[step], step))
  assert trained.step == best
  state = tiny_runs.state_of(finished_run, best)
  ema = fcn.optimizers.ema_of(state["opt_state"])
  tiny_runs.assert_same_bits(trained.variables["params"], ema)
  source = fcn.data.load(
    "shapes/tiny", split="validation", prepared_dir=prepared_dir
  ).source
  confusion = np.zeros((6, 6), np.int64)
  for example in source:
    predicted = fcn.inference.predict(
      trained.model, trained.variables, example.image[None]
    )[0]
    valid = example.label != fcn.types.IGNORE_LABEL
    np.add.at(
      confusion, (example.label[valid], np.asarray(predicted)[valid]), 1
    )
  expected = fcn.metrics.scores(confusion).mean_iu
  assert trained.mean_iu == pytest.approx(expected)
  assert trained.mean_iu == scores[best]


def test_any_checkpoint_can_be_opened(finished_run):
  latest = fcn.runs.load(finished_run, "latest")
  assert latest.step == tiny_runs.STEPS
  by_number = fcn.runs.load(finished_run, tiny_runs.STEPS)
  tiny_runs.assert_same_bits(by_number.variables, latest.variables)
  earlier = fcn.runs.load(finished_run, tiny_runs.STEPS - 2)
  assert earlier.step == tiny_runs.STEPS - 2
  assert earlier.mean_iu is None


@pytest.mark.parametrize(
  ("which", "message"), [(9, "no step 9"), ("best", "holds no run")]
)
def test_what_is_not_there_is_said(random_run, tmp_path, which, message):
  workdir = random_run if which == 9 else tmp_path / "nothing"
  with pytest.raises(ValueError, match=message):
    fcn.runs.load(workdir, which)


def test_opening_a_run_changes_nothing_in_it(random_run):
  before = tiny_runs.files_in(random_run)
  fcn.runs.load(random_run)
  assert tiny_runs.files_in(random_run) == before


@pytest.mark.parametrize(
  ("text", "which"), [("best", "best"), ("latest", "latest"), ("12", 12)]
)
def test_a_checkpoint_is_named_by_a_word_or_a_number(text, which):
  assert trained_model.parse_which(text) == which
  with pytest.raises(ValueError, match="checkpoint is 'newest'; it must be"):
    trained_model.parse_which("newest")


# Checkpoints of another run, and odd ones.


def restart(run_copy, prepared_dir):
  return fcn.runs.train(tiny_runs.config(run_copy, prepared_dir))


def test_a_checkpoint_of_another_run_is_refused(run_copy, prepared_dir):
  config = records.read_json(run_copy / "config.json")
  assert len(config["id"]) == 16
  config["id"] = "0" * 16
  records.write_json(run_copy / "config.json", config)
  message = "000006 is not of the run in .*id in its manifest.*config.json"
  with pytest.raises(ValueError, match=message):
    fcn.runs.load(run_copy, "latest")
  before = tiny_runs.files_in(run_copy)
  with pytest.raises(ValueError, match=message):
    restart(run_copy, prepared_dir)
  assert tiny_runs.files_in(run_copy) == before


def test_options_of_a_checkpoint_are_those_of_its_run(run_copy):
  config = records.read_json(run_copy / "config.json")
  config["augmentation"]["crop_size"] = [32, 64]
  config["run"]["save_every"] = 99
  records.write_json(run_copy / "config.json", config)
  message = (
    r"other options than .*config.json says: crop_size \(\(64, 64\) in the "
    r"checkpoint, \(32, 64\) in config.json\)\. Bring"
  )
  with pytest.raises(ValueError, match=message):
    fcn.runs.load(run_copy, "latest")


@pytest.mark.long
def test_a_run_that_goes_on_keeps_its_id(run_copy, prepared_dir):
  before = folder.read_id(run_copy)
  longer = tiny_runs.config(run_copy, prepared_dir, steps=tiny_runs.STEPS + 1)
  fcn.runs.train(longer)
  assert folder.read_id(run_copy) == before
  assert fcn.runs.load(run_copy, "latest").step == tiny_runs.STEPS + 1
  again = longer.replace(overwrite=True, steps=2)
  fcn.runs.train(again)
  assert folder.read_id(run_copy) != before


@pytest.mark.long
def test_a_run_of_a_version_without_ids_is_read_and_goes_on(
  run_copy, prepared_dir
):
  config = records.read_json(run_copy / "config.json")
  del config["id"]
  (run_copy / "config.json").write_text(json.dumps(config))
  for step in (run_copy / "checkpoints").glob("0*"):
    (step / "score.json").unlink(missing_ok=True)

    def change(manifest):
      del manifest["format"], manifest["metadata"]["run"]

    manifests.rewrite(step, change)
  assert fcn.runs.load(run_copy).step == tiny_runs.STEPS
  fcn.runs.train(
    tiny_runs.config(run_copy, prepared_dir, steps=tiny_runs.STEPS + 1)
  )
  assert len(folder.read_id(run_copy)) == 16
  assert fcn.runs.load(run_copy, "latest").step == tiny_runs.STEPS + 1
  assert fcn.runs.load(run_copy, tiny_runs.STEPS).step == tiny_runs.STEPS


@pytest.mark.parametrize(
  "change",
  [
    lambda metadata: metadata.clear(),
    lambda metadata: metadata.update(classes=[]),
    lambda metadata: metadata.update(weights=[]),
    lambda metadata: metadata["classes"].update(names=3),
    lambda metadata: metadata["classes"].update(names=[]),
    lambda metadata: metadata["classes"].update(names=[1, 2, 3]),
    lambda metadata: metadata["classes"].update(names="abc"[:2]),
    lambda metadata: metadata["classes"].update(palette=[[1, 2, 3]]),
    lambda metadata: metadata["classes"].update(palette=[["1", "2", "3"]] * 3),
    lambda metadata: metadata["classes"].update(palette=[[1, 2, 10**30]] * 3),
    lambda metadata: metadata["classes"].update(palette=[[1, 2, 256]] * 3),
    lambda metadata: metadata["classes"].update(masks=[]),
  ],
)
def test_a_checkpoint_with_odd_classes_is_one_sentence(
  random_run, tmp_path, change
):
  copy = shutil.copytree(random_run, tmp_path / "copy")
  step = copy / "checkpoints" / "00000004"
  (step / "score.json").unlink()
  manifests.rewrite(step, lambda manifest: change(manifest["metadata"]))
  message = "Step 4 in .*checkpoints does not say the names and colours"
  with pytest.raises(ValueError, match=message):
    fcn.runs.load(copy, "latest")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ([], "is not a group of options"),
    ({"run": 3}, "is not a group of options"),
    ({}, "missing .* argument"),
    ({"zeal": 1}, "options that this version does not know: zeal"),
  ],
)
def test_a_checkpoint_with_odd_options_is_one_sentence(
  random_run, tmp_path, options, message
):
  copy = shutil.copytree(random_run, tmp_path / "copy")
  step = copy / "checkpoints" / "00000004"
  (step / "score.json").unlink()
  manifests.rewrite(
    step, lambda manifest: manifest["metadata"].update(options=options)
  )
  with pytest.raises(ValueError, match=f"00000004 .*{message}"):
    fcn.runs.load(copy, "latest")
