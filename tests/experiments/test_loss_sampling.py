"""The patch-sampling experiment, on a tiny data set."""

import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.common import study as study_lib
from experiments.loss_sampling import report
from experiments.loss_sampling import study
from fcn_jax import runs
from fcn_jax import train
from fcn_jax.data.datasets import shapes
from fcn_jax.runs import batches
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import validation
from tests.helpers import studies

TINY = (
  "demo",
  "--dataset=shapes/tiny",
  *("--rates", "1.0", "0.5"),
  *("--patch-size", "32", "32"),
  *("--crop-size", "64", "64"),
  "--batch-size=2",
  "--num-devices=2",
  "--head-width=16",
  # A quarter to a half of the time to compile.
  *("--normalization=none", "--dropout-rate=0", "--optimizer=sgd"),
  "--steps=5",
  "--warmup-steps=1",
  "--log-every=2",
  "--validation-batch=2",
  "--num-seeds=1",
)
VARIANTS = ("p=1", "p=0.5", "patches")


def options(workdir, prepared_dir, *more):
  return [
    *TINY,
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory, prepared_dir):
  """The folder of a study whose runs look as if they had ended."""
  workdir = tmp_path_factory.mktemp("made_up") / "tiny"
  config = studies.parse(study, options(workdir, prepared_dir))
  study_lib.claim(config, experiment=study.NAME, contents=report.FILES)
  studies.end_runs(config, study.plan(config))
  return workdir


# The plan.


def test_variants_see_as_many_pixels_of_more_images():
  config = study.LossSampling.make(
    "x", batch_size=2, crop_size=(64, 64), patch_size=(32, 32)
  )
  planned = {one.name: one for one in study.plan(config)}
  assert tuple(planned) == ("p=1", "p=0.5", "p=0.25", "patches")
  sizes = {name: one.options["batch_size"] for name, one in planned.items()}
  assert sizes == {"p=1": 2, "p=0.5": 4, "p=0.25": 8, "patches": 8}
  patches = planned.pop("patches").options
  assert (patches["patches"], patches["sampler"]) == ("random", "whole_image")
  for one, rate in zip(planned.values(), (1.0, 0.5, 0.25), strict=True):
    assert "patches" not in one.options
    assert (one.options["sampler"], one.options["rate"]) == ("bernoulli", rate)


@pytest.mark.parametrize(
  ("keeps", "sampler", "unit"),
  [
    ("blocks", "bernoulli", "block"),
    ("pixels", "bernoulli", "pixel"),
    ("places", "places", "block"),
  ],
)
def test_variants_keep_what_they_are_told(keeps, sampler, unit):
  config = study.LossSampling.make("x", keeps=(keeps,), patch_size=None)
  planned = study.plan(config)
  assert [one.name for one in planned] == ["p=1", "p=0.5", "p=0.25"]
  for variant in planned:
    loss = study_lib.run_config(config, variant, 0).loss
    assert (loss.sampler, loss.unit) == (sampler, unit)


def test_several_things_to_keep_are_compared_below_rate_1():
  config = study.LossSampling.make(
    "x", keeps=("blocks", "places"), rates=(1.0, 0.25), patch_size=None
  )
  assert [(one.name, one.options["sampler"]) for one in study.plan(config)] == [
    ("p=1", "bernoulli"),
    ("blocks, p=0.25", "bernoulli"),
    ("places, p=0.25", "places"),
  ]
  with pytest.raises(ValueError, match="different ones of blocks, pixels"):
    study.plan(config.replace(keeps=()))


def test_with_the_same_images_rates_below_1_have_fewer_pixels_in_the_loss():
  config = study.LossSampling.make(
    "x", batch_size=2, rates=(1.0, 0.3), same_images=True, patch_size=None
  )
  planned = [one.options for one in study.plan(config)]
  assert [one["batch_size"] for one in planned] == [2, 2]
  assert [one["rate"] for one in planned] == [1.0, 0.3]
  with pytest.raises(ValueError, match="not a whole number"):
    study.plan(config.replace(same_images=False))


def test_without_a_patch_size_there_is_no_variant_of_patches():
  config = study.LossSampling.make("x", patch_size=None)
  assert [v.name for v in study.plan(config)] == ["p=1", "p=0.5", "p=0.25"]
  with pytest.raises(ValueError, match="nothing to train"):
    study.plan(config.replace(rates=()))


@pytest.mark.parametrize("preset", sorted(study.PRESETS))
def test_presets_are_without_contradictions(preset):
  _, config = study.PRESETS[preset]
  config.check()
  for variant in study.plan(config):
    study_lib.run_config(config, variant, 0).check()


# Options and the work folder.


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--rates", "0"), "above 0"),
    (("--rates", "1.5"), "at most 1"),
    (("--rates", "0.3"), "whole number"),
    (("--rates", "1", "1"), "all different"),
    (("--keeps", "places", "places"), "different ones"),
    (("--patch-size", "65", "64"), "smaller patch"),
    (("--patches-per-image", "0"), "patches_per_image is 0"),
    (("--patches-per-image", "3"), "not a multiple"),
    (("--scale-range", "2", "1"), "not (2.0, 1.0)"),
    (("--dropout-rate", "1"), "dropout_rate is 1.0"),
    (("--num-pictures", "0"), "num_pictures is 0"),
    (("--num-seeds", "0"), "num_seeds is 0"),
    (("--steps", "0"), "steps is 0"),
    (("--warmup-steps", "5"), "warmup_steps is 5"),
    (("--batch-size", "16"), "data set has 12"),
    (("--dataset", "camvid"), "CAMVID_DIR"),
    (("--dataset", "camvid", "--data-dir", "nowhere"), "nowhere"),
  ],
)
def test_bad_options_are_explained_and_nothing_is_written(
  tmp_path, prepared_dir, refused, monkeypatch, more, message
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  arguments = options(tmp_path / "run", prepared_dir, *more)
  assert message in refused(study.main, arguments)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "arguments", [["no_such_preset"], ["demo", "--no-such-option=1"], []]
)
def test_unknown_presets_and_options_are_refused(arguments, capsys):
  with pytest.raises(SystemExit) as stopped:
    study.main(arguments)
  assert stopped.value.code == 2
  captured = capsys.readouterr()
  assert "Traceback" not in captured.err + captured.out


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    study.main(["demo", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for name in config_lib.flat(study.PRESETS["demo"][1]):
    assert f"--{name.replace('_', '-')}" in text


def test_other_options_are_refused_with_their_names(
  made_up, prepared_dir, refused, untouched
):
  untouched(made_up)
  for more, changed in (
    (["--steps=6"], "steps (5 there, 6 now)"),
    (["--learning-rate=0.5"], "learning_rate (0.003 there, 0.5 now)"),
    (
      ["--seed=2", "--keeps", "pixels"],
      "seed (0 there, 2 now), keeps (('blocks',) there, ('pixels',) now",
    ),
  ):
    error = refused(study.main, options(made_up, prepared_dir, *more))
    assert str(made_up) in error
    for one in changed.split(", "):
      assert one in error
    assert "--overwrite" in error and "--workdir" in error
  untouched(made_up)


@pytest.mark.long
def test_the_same_command_leaves_variants_that_have_ended_as_they_are(
  made_up, prepared_dir, monkeypatch, untouched, capsys
):
  # There is no network to predict with.
  monkeypatch.setattr(
    report, "_columns", lambda _config, _variants, data: _pictures(data)
  )
  untouched(made_up / "variants")
  study.main(options(made_up, prepared_dir))
  untouched(made_up / "variants")
  assert (made_up / "table.md").read_text() in capsys.readouterr().out


def test_overwrite_with_a_bad_option_deletes_nothing(
  made_up, prepared_dir, refused, untouched
):
  untouched(made_up)
  for more in (
    ("--scale-range", "2", "1"),
    ("--warmup-steps", "-1"),
    ("--batch-size", "16"),
    ("--num-devices", "3"),
    ("--validation-split", "test"),
  ):
    refused(study.main, options(made_up, prepared_dir, "--overwrite", *more))
  untouched(made_up)


def test_files_of_others_in_the_work_folder_are_left_alone(
  tmp_path, prepared_dir, refused
):
  note = tmp_path / "thesis.txt"
  note.write_text("all I have")
  for more in ((), ("--overwrite",)):
    error = refused(study.main, options(tmp_path, prepared_dir, *more))
    assert "thesis.txt" in error
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
  assert note.read_text() == "all I have"


@pytest.mark.parametrize("content", ["{}", '{"experiment": "other"}', "[1"])
def test_a_foreign_configuration_is_not_taken_for_a_study(
  tmp_path, prepared_dir, refused, content
):
  (tmp_path / "config.json").write_text(content)
  (tmp_path / "summary.json").write_text("mine")
  for more in ((), ("--overwrite",)):
    error = refused(study.main, options(tmp_path, prepared_dir, *more))
    assert str(tmp_path) in error
  assert (tmp_path / "summary.json").read_text() == "mine"
  assert (tmp_path / "config.json").read_text() == content


def test_a_study_of_the_earlier_version_is_named_as_such(
  tmp_path, prepared_dir, refused
):
  before = {"experiment": "loss_sampling", "rates": [1.0], "base_batch": 4}
  (tmp_path / "config.json").write_text(json.dumps(before))
  error = refused(study.main, options(tmp_path, prepared_dir))
  assert "before 0.2" in error


# The report, of runs that were made up.


@pytest.fixture(scope="module")
def reported(tmp_path_factory, prepared_dir):
  """Summary and table of made-up runs, and their confusion matrices."""
  workdir = tmp_path_factory.mktemp("reported") / "tiny"
  arguments = options(workdir, prepared_dir, "--num-seeds=2")
  config = studies.parse(study, arguments)
  variants = study.plan(config)
  confusions = studies.end_runs(config, variants)
  evaluation = batches.load_split(config.data, "validation")
  with pytest.MonkeyPatch.context() as patch:
    # There is no network to predict with.
    patch.setattr(report, "_columns", lambda *_: _pictures(evaluation))
    table = report.write(config, variants, evaluation)
  summary = json.loads((workdir / "summary.json").read_text())
  return workdir, table, summary, confusions


def _pictures(evaluation):
  """Columns of a figure."""
  examples = [evaluation.source[index] for index in range(2)]
  return {
    "image": [example.image for example in examples],
    "truth": [example.label for example in examples],
  }


def test_the_report_agrees_with_the_records_of_the_runs(reported):
  workdir, table, summary, confusions = reported
  assert (workdir / "table.md").read_text() == table
  assert tuple(summary["variants"]) == VARIANTS
  first, classes = table.split("| IU of |")
  rows = studies.table_rows(first)
  of_classes = studies.table_rows("| IU of |" + classes)
  assert of_classes["IU of"] == list(shapes.CLASS_NAMES)
  for name, variant in summary["variants"].items():
    size = {"p=1": 2, "p=0.5": 4, "patches": 8}[name]
    assert (variant["iterations"], variant["images"]) == (5, 5 * size)
    assert variant["loss_pixels_per_step"] == (8 + 12) / 5
    assert variant["seconds"] == [2.5, 2.5]
    assert variant["final_loss"] == [1.0, 1.0]
    accuracies = [np.trace(c) / c.sum() for c in confusions[name]]
    found = [one["pixel_accuracy"] for one in variant["scores"]]
    assert np.allclose(found, accuracies)
    ious = [one["mean_iu"] for one in variant["scores"]]
    assert rows[name] == [
      "5",
      str(5 * size),
      "4",
      "2.5 (2.5-2.5)",
      f"{np.mean(ious):.3f} ({min(ious):.3f}-{max(ious):.3f})",
      f"{np.mean(found):.3f} ({min(found):.3f}-{max(found):.3f})",
    ]
    star = np.mean([one["class_iu"]["star"] for one in variant["scores"]])
    assert of_classes[name][-1] == f"{star:.2f}"


def test_the_commonest_class_everywhere_is_scored_beside_them(reported):
  _, table, summary, _ = reported
  labels = [
    shapes.example(split="validation", index=index)[1] for index in range(5)
  ]
  counts = sum(
    np.bincount(label[label != 255], minlength=6) for label in labels
  )
  constant = summary["constant_prediction"]
  assert constant["class"] == "background"
  share = counts[0] / counts.sum()
  assert np.isclose(constant["scores"]["pixel_accuracy"], share)
  rows = studies.table_rows(table.split("| IU of |")[0])
  assert rows["all background"][-1] == f"{share:.3f}"
  assert summary["evaluation_images"] == 5


# Trained, as users do it.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """The folder of a study that was trained, and what the command printed."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  return workdir, studies.run(study, options(workdir, prepared_dir)).stdout


@pytest.mark.long
def test_a_study_writes_all_it_promises(finished):
  workdir, printed = finished
  assert {path.name for path in workdir.iterdir()} == {
    folder.CONFIG_FILE,
    study_lib.VARIANTS,
    *report.FILES,
  }
  assert {path.name for path in (workdir / "variants").iterdir()} == {
    f"{name}-seed0" for name in VARIANTS
  }
  for run in (workdir / "variants").iterdir():
    assert {path.name for path in run.iterdir()} == {*folder.CONTENTS}
  assert (workdir / "table.md").read_text() in printed
  for name in ("figure5.png", "predictions.png"):
    with Image.open(workdir / name) as picture:
      assert min(picture.size) > 200
      assert len(picture.convert("RGB").getcolors(10**6)) > 20


@pytest.mark.long
def test_variants_see_the_images_and_loss_terms_they_should(finished):
  workdir, _ = finished
  summary = json.loads((workdir / "summary.json").read_text())
  variants = summary["variants"]
  images = {name: variant["images"] for name, variant in variants.items()}
  # 5 steps of 2, of 2 / 0.5, and of 2 * 64 * 64 / (32 * 32) images.
  assert images == {"p=1": 10, "p=0.5": 20, "patches": 40}
  terms = [variant["loss_pixels_per_step"] for variant in variants.values()]
  assert max(terms) <= 2 * 64 * 64
  assert min(terms) > 0.6 * max(terms)


@pytest.mark.long
def test_every_step_is_in_the_records_once(finished):
  workdir, _ = finished
  for name in VARIANTS:
    training, evaluations = folder.read_records(
      workdir / "variants" / f"{name}-seed0"
    )
    assert [record["step"] for record in training] == [2, 4, 5]
    assert [record["num_steps"] for record in training] == [2, 2, 1]
    assert all(math.isfinite(record["loss"]) for record in training)
    assert [record["step"] for record in evaluations] == [5]


@pytest.mark.long
def test_every_evaluation_pixel_is_counted_once(finished):
  workdir, _ = finished
  run = workdir / "variants" / "p=1-seed0"
  trained = runs.load(run, "latest")
  model_state = dict(trained.variables)
  state = train.TrainState(0, model_state.pop("params"), model_state, ())
  evaluation = batches.load_split(trained.config.data, "validation")
  confusion = validation.evaluate(
    trained.model, state, batches.validation_batches(trained.config, evaluation)
  )
  labels = [
    shapes.example(split="validation", index=index)[1] for index in range(5)
  ]
  assert confusion.sum() == sum(int(np.sum(label != 255)) for label in labels)
  accuracy = np.trace(confusion) / confusion.sum()
  assert np.isclose(
    folder.read_records(run)[1][-1]["pixel_accuracy"], accuracy, atol=1e-3
  )


@pytest.mark.long
def test_the_same_command_trains_only_the_missing_variant_and_to_the_bit(
  finished, prepared_dir, tmp_path, untouched
):
  workdir = tmp_path / "tiny"
  shutil.copytree(finished[0], workdir)
  variants = workdir / "variants"
  before = folder.read_records(variants / "p=0.5-seed0")
  shutil.rmtree(variants / "p=0.5-seed0")
  (workdir / "table.md").unlink()
  others = [variants / "p=1-seed0", variants / "patches-seed0"]
  for run in others:
    untouched(run)
  done = studies.run(study, options(workdir, prepared_dir))
  for run in others:
    untouched(run)
  after = folder.read_records(variants / "p=0.5-seed0")
  for one, other in zip(before, after, strict=True):
    assert [_without_times(r) for r in one] == [
      _without_times(r) for r in other
    ]
  assert (workdir / "table.md").read_text() in done.stdout


def _without_times(record):
  times = ("seconds", "images_per_second")
  return {name: x for name, x in record.items() if name not in times}
