"""The comparison of ways to balance classes, on a tiny data set."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.class_balance import report
from experiments.class_balance import study
from experiments.common import study as study_lib
from fcn_jax import data
from fcn_jax import types
from fcn_jax.data.datasets import shapes
from fcn_jax.runs import batches
from fcn_jax.runs import build
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from tests.helpers import studies

NAMES = (
  "plain",
  "p=0.25",
  "class weights",
  "balanced pixels",
  "hard pixels",
  "uncertain pixels",
  "focal",
  "with Dice",
  "with Tversky",
  "with Lovasz",
  "forced crops",
  "balanced patches",
)
# Compiling all is most of the time of a study: two are trained, and the
# others look as if they had been trained before.
TRAINED = ("balanced pixels", "balanced patches")
STEPS = 3


def options(workdir, prepared_dir, *more):
  return [
    "shapes",
    "--dataset=shapes/tiny",
    *("--crop-size", "48", "64"),
    *("--patch-size", "24", "32"),
    "--batch-size=2",
    "--num-devices=2",
    "--head-width=16",
    # A quarter to a half of the time to compile.
    *("--normalization=none", "--dropout-rate=0", "--optimizer=sgd"),
    f"--steps={STEPS}",
    "--num-seeds=1",
    "--warmup-steps=1",
    "--log-every=2",
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


def interrupted(workdir, prepared_dir, without):
  """Makes a study in which some variants are missing.

  Returns:
    The confusion matrices of the others.
  """
  config = studies.parse(study, options(workdir, prepared_dir))
  study_lib.claim(config, experiment=study.NAME, contents=report.FILES)
  return studies.end_runs(config, study.plan(config), without=without)


@pytest.fixture(scope="module")
def reported(tmp_path_factory, prepared_dir):
  """A study of which only the report was missing, and what its runs found."""
  workdir = tmp_path_factory.mktemp("made_up") / "tiny"
  confusions = interrupted(workdir, prepared_dir, ())
  before = studies.snapshot(workdir / "variants")
  study.main(options(workdir, prepared_dir))
  # What has ended is not trained again, nor touched.
  assert studies.snapshot(workdir / "variants") == before
  return workdir, confusions


def read_summary(workdir):
  return json.loads((workdir / "summary.json").read_text())


def read_rows(workdir):
  return studies.table_rows((workdir / "table.md").read_text())


# The plan.


@pytest.mark.long
def test_variants_keep_the_pixels_that_their_names_say(prepared_dir):
  config = studies.parse(study, options("run", prepared_dir))
  dataset = batches.load_split(config.data, "train")
  planned = {one.name: one for one in study.plan(config)}
  assert tuple(planned) == NAMES
  rng = np.random.default_rng(0)
  # A fifth of the pixels is of class 1, and none of class 2.
  labels = (rng.random((2, 48, 64)) < 0.2).astype(np.int32)
  labels[:, :4] = types.IGNORE_LABEL
  labels = jnp.asarray(labels)
  num_valid, count = 2 * 44 * 64, 24 * 32

  def weights_of(name, **options):
    run_config = study_lib.run_config(config, planned[name], 0)
    sampler = build.sampler(run_config, dataset)
    draw = jax.jit(sampler.draw)
    return np.asarray(draw(jax.random.key(0), labels, **options))

  assert np.array_equal(weights_of("plain"), np.asarray(labels != 255))
  share = weights_of("p=0.25").sum() / num_valid
  assert abs(share - 0.25) < 0.03
  weights = build.class_weights(data.class_frequencies(dataset))
  assert np.allclose(weights_of("class weights")[labels == 1], weights[1])
  balanced = weights_of("balanced pixels")
  for label in (0, 1):
    assert abs(balanced[np.asarray(labels == label)].sum() - count) < 120
  hard = weights_of("hard pixels", pixel_losses=labels.astype(jnp.float32))
  assert np.array_equal(hard.sum(axis=(1, 2)), [count, count])

  images = jnp.zeros((*labels.shape, 3), jnp.uint8)
  run_config = study_lib.run_config(config, planned["balanced patches"], 0)
  cut = build.cut(run_config.patches, dataset.num_classes)
  patches = cut(jax.random.key(0), types.Batch(images, labels))
  assert patches.labels.shape == (2, 24, 32)
  # All of their pixels are in the loss.
  assert np.array_equal(
    weights_of("balanced patches"), np.asarray(labels != 255)
  )


def test_weights_are_by_median_frequency_and_of_mean_1():
  frequencies = data.Frequencies(
    np.array([0.7, 0.2, 0.1]), np.array([0.7, 0.3, 0.4])
  )
  weights = build.class_weights(frequencies)
  present = frequencies.shares_where_present
  assert np.allclose(weights * present, weights[0] * present[0])
  assert np.isclose(np.sum(weights * frequencies.shares), 1)


@pytest.mark.parametrize("preset", sorted(study.PRESETS))
def test_presets_are_without_contradictions(preset):
  _, config = study.PRESETS[preset]
  config.check()
  variants = study.plan(config)
  assert tuple(variant.name for variant in variants) == NAMES
  for variant in variants:
    study_lib.run_config(config, variant, 0).check()


# Options.


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--batch-size", "0"), "batch_size is 0"),
    (("--batch-size", "14"), "data set has 12"),
    (("--patches-per-image", "0"), "patches_per_image is 0"),
    (("--patches-per-image", "4"), "nothing to choose"),
    (("--patch-size", "49", "16"), "smaller patch"),
    (("--num-seeds", "0"), "num_seeds is 0"),
    (("--num-devices", "3"), "3 devices cannot share"),
    (("--warmup-steps", "3"), "warmup_steps is 3"),
    (("--dataset", "camvid"), "CAMVID_DIR"),
  ],
)
def test_bad_options_are_explained_and_nothing_is_written(
  tmp_path, prepared_dir, refused, monkeypatch, more, message
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  arguments = options(tmp_path / "run", prepared_dir, *more)
  assert message in refused(study.main, arguments)
  assert list(tmp_path.iterdir()) == []


def test_other_options_are_refused_with_their_names(
  reported, prepared_dir, refused, untouched
):
  workdir, _ = reported
  untouched(workdir)
  arguments = options(workdir, prepared_dir, "--patches-per-image=2")
  error = refused(study.main, arguments)
  assert "patches_per_image (1 there, 2 now)" in error
  untouched(workdir)


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    study.main(["shapes", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for name in config_lib.flat(study.PRESETS["shapes"][1]):
    assert f"--{name.replace('_', '-')}" in text


# The report.


def test_the_report_is_a_table_a_summary_and_a_figure(reported):
  workdir, _ = reported
  assert {path.name for path in workdir.iterdir()} == {
    folder.CONFIG_FILE,
    study_lib.VARIANTS,
    *report.FILES,
  }
  assert (workdir / "class_balance.png").stat().st_size < 200_000
  with Image.open(workdir / "class_balance.png") as picture:
    assert min(picture.size) > 200
    assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_classes_are_in_order_of_their_share_of_the_training_split(reported):
  counts = np.zeros(6, np.int64)
  for index in range(12):
    label = shapes.example(split="train", index=index)[1]
    counts += np.bincount(label[label != 255], minlength=6)
  names = np.array(shapes.CLASS_NAMES)[np.argsort(counts)].tolist()
  assert names[0] == "star" and names[-1] == "background"

  classes = read_summary(reported[0])["classes"]
  assert list(classes) == names
  shares = [values["share"] for values in classes.values()]
  assert np.allclose(shares, np.sort(counts) / counts.sum())
  # In the loss of an average training pixel, weights change nothing.
  weights = [values["weight"] for values in classes.values()]
  assert np.isclose(np.dot(shares, weights), 1)

  rows = read_rows(reported[0])
  assert list(rows)[2:8] == names
  assert rows["star"][0] == f"{100 * shares[0]:.2f}%"


def test_table_and_summary_agree_with_the_confusion_matrices(reported):
  workdir, confusions = reported
  summary, rows = read_summary(workdir), read_rows(workdir)
  assert tuple(summary["variants"]) == NAMES
  assert rows["IU of"][1:] == list(NAMES)
  of_names = enumerate(summary["variants"].items(), start=1)
  for column, (name, variant) in of_names:
    (confusion,), (scores,) = confusions[name], variant["scores"]
    accuracy = np.trace(confusion) / confusion.sum()
    assert np.isclose(scores["pixel_accuracy"], accuracy)
    class_iu = scores["class_iu"]
    star = confusion[5].sum() + confusion[:, 5].sum() - confusion[5, 5]
    assert np.isclose(class_iu["star"], confusion[5, 5] / star)
    assert np.isclose(np.mean(list(class_iu.values())), scores["mean_iu"])
    shown = [float(rows[class_name][column]) for class_name in class_iu]
    assert np.allclose(shown, list(class_iu.values()), atol=5.1e-4)
    assert np.isclose(np.mean(shown), float(rows["mean IU"][column]), atol=1e-3)
    assert float(rows["seconds"][column]) > 0
  assert summary["variants"]["plain"]["loss_pixels_per_step"] == 18 / STEPS


# Trained, as users do it.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """A study that went on, what was printed, and its folder of before."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  interrupted(workdir, prepared_dir, TRAINED)
  before = studies.snapshot(workdir / "variants")
  return workdir, studies.run(study, options(workdir, prepared_dir)), before


@pytest.mark.long
def test_the_same_command_trains_what_is_missing_and_keeps_the_others(finished):
  workdir, done, before = finished
  after = studies.snapshot(workdir / "variants")
  names = {name: f"{name.replace(' ', '_')}-seed0" for name in NAMES}
  runs = {path.name for path in (workdir / "variants").iterdir()}
  assert runs == set(names.values())
  assert before == {path: after[path] for path in before}
  for name, run in names.items():
    was_trained = f"{run}: step {STEPS}, mean IU" in done.stderr
    assert was_trained == (name in TRAINED)
  assert (workdir / "table.md").read_text() in done.stdout


@pytest.mark.long
def test_trained_variants_have_the_pixels_they_should(finished):
  summary = read_summary(finished[0])
  for name in TRAINED:
    pixels = summary["variants"][name]["loss_pixels_per_step"]
    # Some pixels are void, and a rare class has less than its part.
    assert 0.4 * 2 * 24 * 32 < pixels < 1.1 * 2 * 24 * 32
