import json
import os

import numpy as np
import pytest
from PIL import Image

from fcn_jax import writing
from fcn_jax.cli import check_data
from fcn_jax.cli import check_data_report as report
from tests.helpers import planted


def _run(*arguments):
  check_data.main([str(argument) for argument in arguments])


def _read(workdir):
  return json.loads((workdir / report.REPORT_FILE).read_text())


@pytest.fixture
def cells(tmp_path):
  return planted.make_folder(tmp_path / "cells", count=12)


def test_the_figures_are_those_of_the_files(cells, tmp_path, capsys):
  workdir = tmp_path / "report"
  _run("folder", "--data-dir", cells, "--workdir", workdir)
  summary = _read(workdir)
  assert summary["good_examples"] == 12 and summary["bad_files"] == 0
  assert summary["class_names"] == ["background", "foreground"]
  examples = sum(s["examples"] for s in summary["splits"].values())
  assert examples == 12

  pictures = [np.array(Image.open(p)) for p in (cells / "images").iterdir()]
  masks = [np.array(Image.open(p)) for p in (cells / "masks").iterdir()]
  share = np.mean([mask == 255 for mask in masks])
  found = np.average(
    [s["class_pixel_share"][1] for s in summary["splits"].values()],
    weights=[s["examples"] for s in summary["splits"].values()],
  )
  assert found == pytest.approx(share)
  mean = np.average(
    [s["pixel_mean_rgb"][0] for s in summary["splits"].values()],
    weights=[s["examples"] for s in summary["splits"].values()],
  )
  assert mean == pytest.approx(np.mean(pictures))
  out = capsys.readouterr().out
  assert "| train |" in out and "12 good examples, 0 bad files." in out
  with Image.open(workdir / report.FIGURE_FILE) as figure:
    assert figure.width > 500


def test_moments_and_weights_are_numpys_and_the_papers(tmp_path):
  root = tmp_path / "two"
  (root / "train" / "images").mkdir(parents=True)
  (root / "train" / "masks").mkdir()
  generator = np.random.default_rng(0)
  pictures = generator.integers(256, size=(3, 8, 8, 3), dtype=np.uint8)
  # Class 1 is in two of three images, and class 2 in one.
  masks = np.zeros((3, 8, 8), np.uint8)
  masks[0, :2] = 1
  masks[1, :4] = 1
  masks[1, 4:5] = 2
  masks[2, 7] = 255
  for number in range(3):
    for kind, array in (("images", pictures), ("masks", masks)):
      planted.save(root / "train" / kind / f"{number}.png", array[number])
  (root / "validation").mkdir()
  for kind in ("images", "masks"):
    (root / "validation" / kind).mkdir()
    planted.save(
      root / "validation" / kind / "v.png",
      (pictures if kind == "images" else masks)[1],
    )
  workdir = tmp_path / "report"
  _run("folder", "--data-dir", root, "--workdir", workdir)
  train = _read(workdir)["splits"]["train"]
  np.testing.assert_allclose(
    train["pixel_mean_rgb"], pictures.mean(axis=(0, 1, 2))
  )
  np.testing.assert_allclose(
    train["pixel_deviation_rgb"], pictures.std(axis=(0, 1, 2))
  )
  # Pixels of the class over the labelled pixels of images with the class.
  frequencies = np.array([128 / 184, 48 / 128, 8 / 64])
  np.testing.assert_allclose(
    train["median_frequency_weights"],
    np.median(frequencies) / frequencies,
    rtol=1e-6,
  )
  assert train["class_examples"] == [3, 2, 1]
  assert train["void_share"] == pytest.approx(8 / 192)


@pytest.mark.slow
def test_bad_files_are_listed_and_the_exit_status_is_1(cells, tmp_path, capsys):
  faults = planted.plant(cells, planted.bomb())
  workdir = tmp_path / "report"
  with pytest.raises(SystemExit) as stop:
    _run("folder", "--data-dir", cells, "--workdir", workdir)
  assert stop.value.code == 1
  summary = _read(workdir)
  listed = {
    os.path.relpath(fault["file"], cells) for fault in summary["faults"]
  }
  assert listed == faults.keys()
  assert summary["good_examples"] == 12
  out = capsys.readouterr().out
  assert all(name in out for name in faults)
  assert (workdir / report.FIGURE_FILE).exists()


def test_a_table_of_colours_is_written_to_complete_and_over_no_file(
  cells, tmp_path, capsys
):
  for path in (cells / "masks").iterdir():
    mask = np.array(Image.open(path)) // 255
    planted.save(path, np.array([[0, 0, 0], [9, 99, 0]], np.uint8)[mask])
  workdir = tmp_path / "report"
  for name in ("classes_template.json", "classes_template-2.json"):
    with pytest.raises(SystemExit):
      _run("folder", "--data-dir", cells, "--workdir", workdir)
    error = capsys.readouterr().err
    assert "2 colours ([0, 0, 0] " in error and str(workdir / name) in error
    assert error.count("\n") == 1
  assert len(list(workdir.iterdir())) == 2
  # It is a table as it stands.
  (workdir / name).rename(cells / "classes.json")
  _run("folder", "--data-dir", cells, "--workdir", workdir)
  summary = _read(workdir)
  assert summary["class_names"] == ["color #000000", "color #096300"]
  assert summary["good_examples"] == 12


def test_void_and_classes_that_only_validation_has_are_remarked_on(
  tmp_path, capsys
):
  root = tmp_path / "splits"
  for split, value in (("train", 1), ("validation", 2)):
    for kind in ("images", "masks"):
      (root / split / kind).mkdir(parents=True)
    mask = np.zeros((20, 20), np.uint8)
    mask[:5], mask[5:12] = value, 255
    for kind in ("images", "masks"):
      planted.save(root / split / kind / "a.png", mask)
  _run("folder", "--data-dir", root, "--workdir", tmp_path / "report")
  notes = "\n".join(_read(tmp_path / "report")["notes"])
  assert "255 in masks is void" in notes
  assert "void is 35.0% of the pixels" in notes
  assert "void is the commonest value but 0" in notes
  assert "class class 2 is in validation, but not in train" in notes


def test_masks_that_cannot_be_read_are_not_sent_back_to_this_command(
  cells, tmp_path, capsys
):
  for path in (cells / "masks").iterdir():
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
  with pytest.raises(SystemExit):
    _run("folder", "--data-dir", cells, "--workdir", tmp_path / "report")
  error = capsys.readouterr().err
  assert "cell_00.jpg is a mask in the lossy format JPEG" in error
  assert "check-data" not in error


def test_a_prepared_data_set_is_read_as_it_is(tmp_path, capsys):
  workdir = tmp_path / "report"
  prepared = tmp_path / "data"
  _run("shapes/tiny", "--prepared-dir", prepared, "--workdir", workdir)
  splits = _read(workdir)["splits"]
  assert {n: s["examples"] for n, s in splits.items()} == {
    "train": 12,
    "validation": 5,
  }
  assert "star" in capsys.readouterr().out


def test_a_report_is_replaced_only_if_asked(cells, tmp_path, capsys):
  workdir = tmp_path / "report"
  workdir.mkdir()
  (workdir / report.REPORT_FILE).write_text("mine")
  with pytest.raises(SystemExit):
    _run("folder", "--data-dir", cells, "--workdir", workdir)
  assert "--overwrite" in capsys.readouterr().err
  assert (workdir / report.REPORT_FILE).read_text() == "mine"
  _run("folder", "--data-dir", cells, "--workdir", workdir, "--overwrite")
  assert _read(workdir)["good_examples"] == 12


def test_a_report_that_was_not_finished_is_made_again(cells, tmp_path):
  workdir = tmp_path / "report"
  workdir.mkdir()
  # What is left if a program is killed between the two files.
  (workdir / report.FIGURE_FILE).write_text("new")
  (workdir / writing.LOCK).touch()
  _run("folder", "--data-dir", cells, "--workdir", workdir)
  assert _read(workdir)["good_examples"] == 12
  assert not (workdir / writing.LOCK).exists()


def test_without_a_workdir_each_check_has_a_folder_of_its_own(
  cells, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  _run("folder", "--data-dir", cells)
  (cells / "images" / "cell_03.png").write_bytes(b"")
  with pytest.raises(SystemExit):
    _run("folder", "--data-dir", cells)
  runs = tmp_path / "runs" / "check_data"
  found = {path.name: _read(path)["bad_files"] for path in runs.iterdir()}
  assert found == {"folder_cells": 0, "folder_cells-2": 1}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["fodler"], "no data set 'fodler'"),
    (["folder"], "give the folder with your pictures"),
    (["folder", "--data-dir", "nowhere"], "nowhere"),
    (["shapes", "--data-dir", "nowhere"], "shapes is not made of files"),
    (["voc2012x", "--data-dir", "."], "voc2012x is not made of files"),
    (["shapes/tiny", "--num-pictures", "0"], "num_pictures is 0"),
  ],
)
def test_wrong_input_gives_one_paragraph_and_writes_nothing(
  tmp_path, capsys, arguments, message
):
  workdir = tmp_path / "report"
  with pytest.raises(SystemExit) as stop:
    _run(*arguments, "--prepared-dir", tmp_path / "d", "--workdir", workdir)
  assert stop.value.code == 1
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1
  assert not workdir.exists() and not (tmp_path / "d").exists()


def test_a_folder_takes_the_place_of_a_data_set(cells, tmp_path, capsys):
  _run(cells, "--workdir", tmp_path / "report")
  assert _read(tmp_path / "report")["good_examples"] == 12
  assert capsys.readouterr().out.startswith(f"# folder {cells}\n")
  with pytest.raises(SystemExit):
    _run(cells, "--data-dir", tmp_path, "--workdir", tmp_path / "other")
  assert "give one of them" in capsys.readouterr().err
  assert not (tmp_path / "other").exists()
