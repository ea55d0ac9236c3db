"""The comparison of ways to balance classes, on a tiny data set."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import arms
import class_balance
import class_counts
import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fcn_jax

NAMES = (
  "plain",
  "p=0.25",
  "class weights",
  "balanced pixels",
  "hard pixels",
  "balanced patches",
)
# To compile all six is most of the time of a run: two are trained, and of the
# others there are results as if they had been trained before.
TRAINED = ("balanced pixels", "balanced patches")
STEPS = 3
FREQUENCIES = class_counts.Frequencies(
  np.array([0.7, 0.2, 0.1]), np.array([0.7, 0.3, 0.4])
)


def options(workdir, prepared_dir, *more):
  return [
    "shapes",
    "--dataset=shapes/tiny",
    "--crop-size",
    "48",
    "64",
    "--patch-size",
    "24",
    "32",
    "--images-per-step=2",
    f"--steps={STEPS}",
    "--num-seeds=1",
    "--warmup-steps=1",
    "--log-every=2",
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


def make_config(workdir):
  """What `options` say."""
  return class_balance.ClassBalance(
    workdir=workdir,
    dataset="shapes/tiny",
    crop_size=(48, 64),
    patch_size=(24, 32),
    images_per_step=2,
    steps=STEPS,
    num_seeds=1,
    warmup_steps=1,
    log_every=2,
  )


def interrupted_run(workdir):
  """Makes a run in which the arms of `TRAINED` are missing."""
  config = make_config(workdir)
  command_line.claim_workdir(
    config, class_balance.EXPERIMENT, class_balance.CONTENTS
  )
  (workdir / "arms").mkdir()
  rng = np.random.default_rng(0)
  for name in set(NAMES) - set(TRAINED):
    confusion = rng.integers(1, 100, (6, 6)).tolist()
    rows = [
      {"step": 2, "seconds": 1.5, "loss": 1.0, "num_sampled": 7},
      {"step": STEPS, "seconds": 2.5, "loss": 1.0, "num_sampled": 5},
    ]
    arms.result_file(config.workdir, name, 0).write_text(
      json.dumps({"rows": rows, "confusion": confusion})
    )


def run(arguments):
  """Runs the script as a user does; returns what it printed."""
  flags = os.environ.get("XLA_FLAGS", "")
  # Programs that run for three steps are not worth optimising.
  flags += " --xla_backend_optimization_level=0"
  script = subprocess.run(
    [sys.executable, class_balance.__file__, *arguments],
    env={**os.environ, "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stderr
  return script.stdout


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def modification_times(workdir):
  return {
    file.name: file.stat().st_mtime_ns for file in (workdir / "arms").iterdir()
  }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """A finished run's folder, what was printed, and the arms of before."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  interrupted_run(workdir)
  before = modification_times(workdir)
  return workdir, run(options(workdir, prepared_dir, "--resume")), before


def read_summary(workdir):
  return json.loads((workdir / "summary.json").read_text())


def table_rows(workdir):
  """Cells of each row of the table, by the row's name."""
  lines = (workdir / "table.md").read_text().splitlines()
  cells = [line.strip("| ").split(" | ") for line in lines if line[:1] == "|"]
  return {row[0]: row[1:] for row in cells}


def test_run_writes_all_it_promises(finished):
  workdir, printed, _ = finished
  assert {path.name for path in workdir.iterdir()} == {
    "config.json",
    *class_balance.CONTENTS,
  }
  assert (workdir / "table.md").read_text() in printed
  assert (workdir / "class_balance.png").stat().st_size < 200_000
  with Image.open(workdir / "class_balance.png") as picture:
    assert min(picture.size) > 200
    assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_resuming_trains_the_missing_arms_and_keeps_the_others(finished):
  workdir, printed, before = finished
  after = modification_times(workdir)
  assert set(after) == {f"{name}-seed0.json" for name in NAMES}
  assert before == {name: after[name] for name in before}
  for name in NAMES:
    assert (f"{name}, seed 0: mean IU" in printed) == (name in TRAINED)


def test_classes_are_in_order_of_their_share_of_the_training_split(finished):
  counts = np.zeros(6, np.int64)
  for index in range(12):
    label = fcn_jax.data.datasets.shapes.example(split="train", index=index)[1]
    counts += np.bincount(label[label != 255], minlength=6)
  names = np.array(fcn_jax.data.datasets.shapes.CLASS_NAMES)[
    np.argsort(counts)
  ].tolist()
  assert names[0] == "star" and names[-1] == "background"

  classes = read_summary(finished[0])["classes"]
  assert list(classes) == names
  shares = [values["share"] for values in classes.values()]
  assert np.allclose(shares, np.sort(counts) / counts.sum())
  # In the loss of an average training pixel, weights change nothing.
  weights = [values["weight"] for values in classes.values()]
  assert np.isclose(np.dot(shares, weights), 1)

  rows = table_rows(finished[0])
  assert list(rows)[2:8] == names
  assert rows["star"][0] == f"{100 * shares[0]:.2f}%"


def test_table_and_summary_agree_with_the_confusion_matrices(finished):
  workdir, *_ = finished
  summary, rows = read_summary(workdir), table_rows(workdir)
  assert tuple(summary["arms"]) == NAMES
  assert rows["IU of"][1:] == list(NAMES)
  for column, (name, arm) in enumerate(summary["arms"].items(), start=1):
    file = workdir / "arms" / f"{name}-seed0.json"
    confusion = np.array(json.loads(file.read_text())["confusion"])
    (scores,) = arm["scores"]
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
  assert summary["arms"]["plain"]["loss_pixels_per_step"] == 12 / STEPS


def test_trained_arms_have_the_pixels_they_should(finished):
  summary = read_summary(finished[0])
  for name in TRAINED:
    pixels = summary["arms"][name]["loss_pixels_per_step"]
    # Some pixels are void, and a rare class has less than its part.
    assert 0.4 * 2 * 24 * 32 < pixels < 1.1 * 2 * 24 * 32


def test_arms_keep_the_pixels_that_their_names_say():
  config = make_config(pathlib.Path("run"))
  planned = {
    arm.name: arm for arm in class_balance.plan_arms(config, FREQUENCIES)
  }
  assert tuple(planned) == NAMES
  rng = np.random.default_rng(0)
  # A fifth of the pixels is of class 1, and none of class 2.
  labels = (rng.random((2, 48, 64)) < 0.2).astype(np.int32)
  labels[:, :4] = fcn_jax.types.IGNORE_LABEL
  labels = jnp.asarray(labels)
  num_valid, count = 2 * 44 * 64, 24 * 32

  def weights_of(name, **options):
    return np.asarray(
      planned[name].sampler(jax.random.key(0), labels, **options)
    )

  assert np.array_equal(weights_of("plain"), np.asarray(labels != 255))
  share = weights_of("p=0.25").sum() / num_valid
  assert abs(share - 0.25) < 0.03
  weights = class_counts.class_weights(FREQUENCIES)
  assert np.allclose(weights_of("class weights")[labels == 1], weights[1])
  balanced = weights_of("balanced pixels")
  for label in (0, 1):
    assert abs(balanced[np.asarray(labels == label)].sum() - count) < 120
  hard = weights_of("hard pixels", pixel_losses=labels.astype(jnp.float32))
  assert np.array_equal(hard.sum(axis=(1, 2)), [count, count])

  images = jnp.zeros((*labels.shape, 3), jnp.uint8)
  cut = planned["balanced patches"].cut(
    jax.random.key(0), fcn_jax.types.Batch(images, labels)
  )
  assert cut.labels.shape == (2, 24, 32)


def test_weights_are_by_median_frequency_and_of_mean_1():
  weights = class_counts.class_weights(FREQUENCIES)
  present = FREQUENCIES.shares_where_present
  assert np.allclose(weights * present, weights[0] * present[0])
  assert np.isclose(np.sum(weights * FREQUENCIES.shares), 1)


def make_dataset(*labels):
  examples = [
    fcn_jax.data.Example(None, np.array([label]), "") for label in labels
  ]
  return fcn_jax.data.Dataset(
    examples, ("a", "b"), np.zeros((2, 3), np.uint8), "made up"
  )


def test_classes_are_counted_over_all_and_where_they_are():
  dataset = make_dataset([0, 0, 0, 255], [0, 1, 1, 1, 1])
  frequencies = class_counts.count_classes(dataset)
  assert np.allclose(frequencies.shares, [4 / 8, 4 / 8])
  assert np.allclose(frequencies.shares_where_present, [4 / 8, 4 / 5])


def test_a_class_without_pixels_is_an_error():
  with pytest.raises(ValueError, match="class b has no pixel"):
    class_counts.count_classes(make_dataset([0, 0, 255]))


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--images-per-step", "0"), "images_per_step is 0"),
    (("--images-per-step", "13"), "data set has 12"),
    (("--patches-per-image", "0"), "patches_per_image is 0"),
    (("--patches-per-image", "4"), "nothing to choose"),
    (("--patch-size", "49", "16"), "smaller patch"),
    (("--num-seeds", "0"), "num_seeds is 0"),
    (("--warmup-steps", "3"), "warmup_steps is 3"),
    (("--resume",), "no run to resume"),
    (("--dataset", "camvid"), "CAMVID_DIR"),
  ],
)
def test_bad_options_are_explained_and_nothing_is_written(
  tmp_path, prepared_dir, capsys, monkeypatch, more, message
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  with pytest.raises(SystemExit) as stopped:
    class_balance.main(options(tmp_path / "run", prepared_dir, *more))
  assert stopped.value.code == 1
  error = capsys.readouterr().err
  assert message in error and "Traceback" not in error
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", sorted(class_balance.PRESETS))
def test_presets_are_without_contradictions(preset):
  _, config = class_balance.PRESETS[preset]
  class_balance.check_options(config)
  names = [arm.name for arm in class_balance.plan_arms(config, FREQUENCIES)]
  assert tuple(names) == NAMES


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    class_balance.main(["shapes", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for field in dataclasses.fields(class_balance.ClassBalance):
    assert f"--{field.name.replace('_', '-')}" in text
