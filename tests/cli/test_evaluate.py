"""fcn-jax evaluate, on a random network and generated pictures."""

import csv
import json
import shutil

import numpy as np
import pytest
import scipy.ndimage
import sklearn.metrics
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import evaluate
from fcn_jax.cli import evaluate_report
from tests.helpers import random_runs

pytestmark = pytest.mark.slow

VOID = fcn.types.IGNORE_LABEL


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def dataset(prepared_dir):
  return fcn.data.load(
    "shapes/tiny", split="validation", prepared_dir=prepared_dir
  )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, dataset, prepared_dir):
  return random_runs.save(
    tmp_path_factory.mktemp("runs") / "run",
    dataset.source[0].image,
    names=dataset.class_names,
    palette=dataset.palette,
    dataset="shapes/tiny",
    prepared_dir=prepared_dir,
    resize=0.5,
    step=7,
  )


@pytest.fixture(scope="module")
def folder(workdir):
  """The results of a plain evaluation."""
  evaluate.main([f"--workdir={workdir}", "--band-widths", "1", "3"])
  return workdir / "evaluation-validation-step7"


@pytest.fixture(scope="module")
def predictions(workdir, dataset):
  """What the network predicts at the native size, another way."""
  network = fcn.runs.load(workdir, "best")
  found = []
  for example in dataset.source:
    probabilities = fcn.inference.probabilities(
      network.model, network.variables, example.image, scales=(0.5,)
    )
    found.append(probabilities.argmax(axis=-1))
  return found


def summary_of(folder):
  return json.loads((folder / "summary.json").read_text())


def test_the_results_are_all_there(folder):
  assert {path.name for path in folder.iterdir()} == {*evaluate_report.FILES}
  for name in ("worst.png", "best.png", "boundary_bands.png"):
    with Image.open(folder / name) as picture:
      assert len(np.unique(np.asarray(picture.convert("L")))) > 20
  table = (folder / "table.md").read_text()
  assert "| star |" in table
  assert "5 images of the split validation at their native size" in table


def test_scores_are_those_of_scikit_learn_on_native_labels(
  folder, dataset, predictions
):
  labels = [example.label for example in dataset.source]
  truth = np.concatenate([label.ravel() for label in labels])
  found = np.concatenate([one.ravel() for one in predictions])
  valid = truth != VOID
  summary = summary_of(folder)
  expected = sklearn.metrics.confusion_matrix(
    truth[valid], found[valid], labels=range(6)
  )
  np.testing.assert_array_equal(summary["confusion"], expected)
  expected_iu = sklearn.metrics.jaccard_score(
    truth[valid],
    found[valid],
    labels=np.unique([truth[valid], found[valid]]),
    average="macro",
  )
  assert summary["mean_iu"] == pytest.approx(expected_iu)
  assert len(np.unique(found)) > 2


def test_a_band_is_what_is_near_another_label(folder, dataset, predictions):
  for band in summary_of(folder)["bands"]:
    size = 2 * band["half_width"] + 1
    right = total = 0
    for example, found in zip(dataset.source, predictions, strict=True):
      label = example.label
      largest = scipy.ndimage.maximum_filter(label, size, mode="nearest")
      smallest = scipy.ndimage.minimum_filter(label, size, mode="nearest")
      near = (largest != smallest) & (label != VOID)
      total += near.sum()
      right += (found == label)[near].sum()
    assert band["pixel_accuracy"] == pytest.approx(right / total)
  assert [b["half_width"] for b in summary_of(folder)["bands"]] == [1, 3]


def test_images_are_named_with_their_own_scores(folder, dataset, predictions):
  with (folder / "per_image.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [row["name"] for row in rows] == [e.name for e in dataset.source]
  for row, example, found in zip(
    rows, dataset.source, predictions, strict=True
  ):
    valid = example.label != VOID
    expected = np.mean((found == example.label)[valid])
    assert float(row["pixel_accuracy"]) == pytest.approx(expected)


def test_averages_stand_in_a_folder_of_their_own(workdir, folder):
  evaluate.main(
    [
      f"--workdir={workdir}",
      "--scales",
      "1.0",
      "1.5",
      "--flip",
      "--band-widths",
      "2",
      "--checkpoint=7",
    ]
  )
  averaged = workdir / "evaluation-validation-step7-1-1.5-flip"
  assert summary_of(averaged)["confusion"] != summary_of(folder)["confusion"]
  assert "times the scales 1 1.5, and mirrored" in (
    (averaged / "table.md").read_text()
  )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "already holds summary.json"),
    (["--split=test"], "no split 'test'"),
    (["--checkpoint=3"], "no step 3"),
    (["--checkpoint=newest"], "checkpoint is 'newest'; it must be best"),
    (["--scales", "0"], r"scales is (0.0,); it must be"),
    (["--band-widths", "0"], "band_widths is (0,); it must be at least 1"),
  ],
)
def test_what_cannot_be_scored_is_refused(
  workdir, folder, capsys, arguments, message
):
  before = sorted(workdir.iterdir())
  with pytest.raises(SystemExit) as ended:
    evaluate.main([f"--workdir={workdir}", *arguments])
  assert ended.value.code == 1
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1
  assert sorted(workdir.iterdir()) == before


def test_results_are_replaced_when_asked(workdir, folder):
  out = workdir / "mine"
  shutil.copytree(folder, out)
  (out / "summary.json").write_text("old")
  (out / "notes.txt").write_text("mine")
  arguments = [f"--workdir={workdir}", f"--out={out}", "--overwrite"]
  evaluate.main([*arguments, "--band-widths", "1"])
  assert summary_of(out)["step"] == 7
  assert (out / "notes.txt").read_text() == "mine"


def test_data_of_other_classes_are_refused(
  tmp_path, dataset, prepared_dir, capsys
):
  names = ("ground", *dataset.class_names[1:])
  random_runs.save(
    tmp_path / "run",
    dataset.source[0].image,
    names=names,
    palette=dataset.palette,
    dataset="shapes/tiny",
    prepared_dir=prepared_dir,
  )
  with pytest.raises(SystemExit):
    evaluate.main([f"--workdir={tmp_path / 'run'}"])
  assert "was trained on ground, disk" in capsys.readouterr().err
  assert not list((tmp_path / "run").glob("evaluation*"))
