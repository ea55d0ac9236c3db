"""fcn-jax evaluate, on a random network and generated pictures."""

import csv
import dataclasses
import shutil
import sys

import numpy as np
import pytest
import scipy.ndimage
import skimage.segmentation
import sklearn.metrics
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import evaluate
from fcn_jax.cli import evaluate_report
from fcn_jax.cli import evaluate_scoring
from fcn_jax.cli import evaluate_summary
from fcn_jax.runs import records
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
def all_scores(workdir):
  """The results with all scores, also of segments."""
  out = workdir / "all"
  arguments = ["--scores=all", "--segments=disk", "--band-widths", "1", "3"]
  thresholds = ["--segment-thresholds", "0.167", "0.1672"]
  evaluate.main(
    [f"--workdir={workdir}", f"--out={out}", *arguments, *thresholds]
  )
  return out


@pytest.fixture(scope="module")
def probabilities(workdir, dataset):
  """Those of the network at the native size, another way."""
  network = fcn.runs.load(workdir, "best")
  return [
    fcn.inference.probabilities(
      network.model, network.variables, example.image, scales=(0.5,)
    )
    for example in dataset.source
  ]


@pytest.fixture(scope="module")
def predictions(probabilities):
  return [one.argmax(axis=-1) for one in probabilities]


def summary_of(folder):
  return records.read_json(folder / "summary.json")


def test_the_results_are_all_there(folder, all_scores):
  files = {*evaluate_report.FILES}
  assert {path.name for path in all_scores.iterdir()} == files
  files.remove("reliability.png")
  assert {path.name for path in folder.iterdir()} == files
  for name in files | {"reliability.png"}:
    if name.endswith(".png"):
      with Image.open(all_scores / name) as picture:
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


def test_more_scores_change_none_of_the_others(folder, all_scores):
  plain, more = summary_of(folder), summary_of(all_scores)
  assert plain.pop("scores") == "papers" and more.pop("scores") == "all"
  assert {name: more[name] for name in plain} == plain
  assert "ROC AUC" not in (folder / "table.md").read_text()


@pytest.mark.long
def test_two_devices_give_the_files_of_one(workdir, folder, tmp_path):
  evaluate.main(
    [
      f"--workdir={workdir}",
      f"--out={tmp_path / 'two'}",
      "--num-devices=2",
      "--band-widths",
      "1",
      "3",
    ]
  )
  for name in ("per_image.csv", "table.md", "worst.png"):
    found = (tmp_path / "two" / name).read_bytes()
    assert found == (folder / name).read_bytes()


def test_dice_is_that_of_scikit_learn(folder, dataset, predictions):
  truth = np.concatenate([example.label.ravel() for example in dataset.source])
  found = np.concatenate([one.ravel() for one in predictions])
  valid = truth != VOID
  expected = sklearn.metrics.f1_score(
    truth[valid], found[valid], labels=range(6), average=None
  )
  summary = summary_of(folder)
  np.testing.assert_allclose([*summary["class_dice"].values()], expected)
  assert summary["mean_dice"] == pytest.approx(expected.mean())


def test_all_scores_are_those_of_all_pixels_and_images(
  all_scores, dataset, probabilities, predictions
):
  summary = summary_of(all_scores)
  labels = [example.label for example in dataset.source]
  truth = np.concatenate([label.ravel() for label in labels])
  found = np.concatenate([one.reshape(-1, 6) for one in probabilities])
  truth, found = truth[truth != VOID], found[truth != VOID]
  roc_auc, precision = (
    [score(truth == one, found[:, one]) for one in range(6)]
    for score in (
      sklearn.metrics.roc_auc_score,
      sklearn.metrics.average_precision_score,
    )
  )
  np.testing.assert_allclose(
    [*summary["class_roc_auc"].values()],
    roc_auc,
    atol=summary["largest_roc_auc_error"],
  )
  # All probabilities of a random network are close, so bins hold many.
  assert summary["mean_roc_auc"] == pytest.approx(np.mean(roc_auc), abs=0.03)
  np.testing.assert_allclose(
    [*summary["class_average_precision"].values()], precision, atol=0.02
  )
  confidence, is_right = found.max(axis=-1), found.argmax(axis=-1) == truth
  bins = np.ceil(15 * confidence).astype(int)
  gaps = [
    abs(np.sum(is_right[bins == one] - confidence[bins == one]))
    for one in range(1, 16)
  ]
  assert summary["expected_calibration_error"] == pytest.approx(
    sum(gaps) / len(truth), rel=1e-4
  )
  of_images = np.array(
    [
      fcn.metrics.boundary_f1(label, one, num_classes=6)
      for label, one in zip(labels, predictions, strict=True)
    ]
  )
  np.testing.assert_allclose(
    [*summary["class_boundary_f1"].values()], np.nanmean(of_images, axis=0)
  )
  assert summary["mean_boundary_f1"] == pytest.approx(
    np.nanmean(of_images, axis=1).mean()
  )


def test_segments_are_scored_at_each_threshold_and_the_best_is_named(
  all_scores, dataset, probabilities
):
  expected = []
  for example, found in zip(dataset.source, probabilities, strict=True):
    is_disk = example.label == 1
    if is_disk.any():
      expected.append([])
      for threshold in (0.167, 0.1672):
        inside = found[..., 1] > threshold
        predicted, _ = scipy.ndimage.label(inside)
        predicted = skimage.segmentation.watershed(
          ~inside, predicted, watershed_line=True
        )[is_disk]
        # On a line, each pixel is a segment.
        is_line = predicted == 0
        predicted[is_line] = -np.arange(1, is_line.sum() + 1)
        true, _ = scipy.ndimage.label(is_disk)
        expected[-1].append(
          sklearn.metrics.normalized_mutual_info_score(true[is_disk], predicted)
        )
  segments = summary_of(all_scores)["segments"]
  means = np.mean(expected, axis=0)
  np.testing.assert_allclose(segments["information"], means)
  assert segments["class"] == "disk"
  assert segments["thresholds"] == [0.167, 0.1672]
  for score in ("rand", "information"):
    values = segments[score]
    assert segments[f"best_{score}"] == max(values)
    best = [0.167, 0.1672][int(np.argmax(values))]
    assert segments[f"best_{score}_threshold"] == best
  assert 0.01 < min(segments["information"]) < max(segments["rand"]) < 0.99
  assert "| threshold of disk |" in (all_scores / "table.md").read_text()


def test_a_split_that_is_all_void_has_no_scores():
  label = np.full((6, 7), VOID)
  probabilities = np.full((6, 7, 2), 0.5, np.float32)
  nothing = np.zeros((1, 2, 2), np.int64)
  findings = evaluate_scoring.Findings(
    names=("void",),
    confusions=nothing,
    bands=nothing,
    boundary_f1=fcn.metrics.boundary_f1(
      label, np.zeros((6, 7), int), num_classes=2
    )[None],
    ranking=fcn.metrics.ranking_counts(label, probabilities),
    calibration=fcn.metrics.calibration_counts(label, probabilities),
    segments=np.full((1, 1, 2), np.nan),
  )
  summary = evaluate_summary.make(
    findings, ("a", "b"), widths=[1], segments="b", thresholds=[0.5]
  )
  for name in (
    "mean_dice",
    "mean_boundary_f1",
    "mean_roc_auc",
    "mean_average_precision",
    "expected_calibration_error",
  ):
    assert np.isnan(summary[name])
  assert np.isnan(summary["segments"]["best_rand"])


@pytest.mark.long
def test_averages_stand_in_a_folder_of_their_own(workdir, folder, dataset):
  evaluate.main(
    [
      f"--workdir={workdir}",
      "--scales",
      "1.0",
      "1.5",
      "--flip",
      "--quarter-turns",
      "--band-widths",
      "2",
      "--checkpoint=7",
    ]
  )
  averaged = workdir / "evaluation-validation-step7-1-1.5-flip-turns"
  network = fcn.runs.load(workdir, 7)
  expected = 0
  for example in dataset.source:
    found = fcn.inference.probabilities(
      network.model,
      network.variables,
      example.image,
      # The network was trained on pictures of half their size.
      scales=(0.5, 0.75),
      flip=True,
      quarter_turns=True,
    )
    valid = example.label != VOID
    expected += sklearn.metrics.confusion_matrix(
      example.label[valid], found.argmax(axis=-1)[valid], labels=range(6)
    )
  confusion = summary_of(averaged)["confusion"]
  np.testing.assert_array_equal(confusion, expected)
  assert confusion != summary_of(folder)["confusion"]
  assert "times the scales 1 1.5, and mirrored, and turned" in (
    (averaged / "table.md").read_text()
  )


@pytest.mark.long
def test_scores_of_blended_tiles_stand_in_a_folder_of_their_own(
  workdir, folder
):
  evaluate.main(
    [
      f"--workdir={workdir}",
      "--blending=gaussian",
      "--tile-size=64",
      "--band-widths",
      "2",
      "--checkpoint=7",
    ]
  )
  blended = workdir / "evaluation-validation-step7-gaussian-64"
  assert summary_of(blended)["confusion"] != summary_of(folder)["confusion"]
  assert "the scales 1; their tiles are blended. Bands" in (
    (blended / "table.md").read_text()
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
    (
      ["--segments=cell", "--overwrite"],
      "segments is 'cell'; it must be one of the classes",
    ),
    (["--segment-thresholds", "0.3"], "it must be left out, as there is no"),
    (
      ["--segments=star", "--segment-thresholds", "0.5", "1"],
      "segment_thresholds is (0.5, 1.0); it must be numbers from 0",
    ),
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


def test_without_scikit_image_nothing_is_scored(
  workdir, folder, capsys, monkeypatch
):
  # As if it were not installed.
  monkeypatch.setitem(sys.modules, "skimage", None)
  out = workdir / "nowhere"
  with pytest.raises(SystemExit):
    evaluate.main([f"--workdir={workdir}", "--segments=star", f"--out={out}"])
  error = capsys.readouterr().err
  assert "pip install scikit-image" in error and error.count("\n") == 1
  assert not out.exists()


def test_results_are_replaced_when_asked(workdir, all_scores):
  out = workdir / "mine"
  shutil.copytree(all_scores, out)
  (out / "summary.json").write_text("old")
  (out / "notes.txt").write_text("mine")
  arguments = [f"--workdir={workdir}", f"--out={out}", "--overwrite"]
  evaluate.main([*arguments, "--band-widths", "1"])
  assert summary_of(out)["step"] == 7
  assert (out / "notes.txt").read_text() == "mine"
  # Not left from the evaluation before.
  assert not (out / "reliability.png").exists()


def test_a_site_without_a_class_and_with_a_test_split_only_is_scored(
  tmp_path, capsys
):
  mask = np.zeros((48, 64), np.uint8)
  mask[9:30, 9:30] = 1
  picture = np.dstack([mask * 200 + 20] * 3)
  for kind, array in (("images", picture), ("masks", mask)):
    (tmp_path / "site" / "test" / kind).mkdir(parents=True)
    Image.fromarray(array).save(tmp_path / "site" / "test" / kind / "a.png")
  names = ("ground", "one", "two")
  encoding = {
    "names": names,
    "palette": [[0, 0, 0], [9, 0, 0], [0, 9, 0]],
    "values": [[0, 0], [1, 1], [2, 2], [255, 255]],
    "colors": [],
    "scaled": [],
    "by_value": True,
  }
  workdir = random_runs.save(
    tmp_path / "run",
    picture,
    names=names,
    palette=np.array(encoding["palette"]),
    masks=encoding,
    dataset="folder",
    data_dir=tmp_path / "elsewhere",
    prepared_dir=tmp_path / "data",
  )
  out = tmp_path / "out"
  evaluate.main(
    [
      f"--workdir={workdir}",
      f"--data-dir={tmp_path / 'site'}",
      "--split=test",
      f"--out={out}",
    ]
  )
  assert "| two |" in capsys.readouterr().out
  matrix = np.array(summary_of(out)["confusion"])
  np.testing.assert_array_equal(
    matrix.sum(axis=1), np.bincount(mask.ravel(), minlength=3)
  )


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


def test_data_that_have_changed_since_training_are_warned_of(workdir, capsys):
  network = fcn.runs.load(workdir, "best")
  options = evaluate.Options(workdir)
  dataset = evaluate.load_split(options, network)
  same = dataclasses.replace(network, fingerprint=dataset.fingerprint)
  evaluate.load_split(options, same)
  assert "warning" not in capsys.readouterr().err
  other = dataclasses.replace(network, fingerprint="other")
  evaluate.load_split(options, other)
  assert "the data have changed since" in capsys.readouterr().err
