"""The experiment script, from end to end on a tiny data set."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import command_line
import configs
import loss_sampling
import numpy as np
import pytest
from PIL import Image

import fcn_jax
from fcn_jax.runs import records

SCRIPT = pathlib.Path(loss_sampling.__file__)
TINY = (
  "demo",
  "--dataset=shapes/tiny",
  "--rates",
  "1.0",
  "0.5",
  "--patch-size",
  "32",
  "32",
  "--crop-size",
  "64",
  "64",
  "--base-batch=2",
  "--steps=5",
  "--warmup-steps=1",
  "--log-every=2",
  "--eval-batch=2",
  "--num-seeds=1",
)
ARMS = ("p=1", "p=0.5", "patches")


def options(workdir, prepared_dir, *more):
  return [
    *TINY,
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    *more,
  ]


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def run_script(arguments):
  """Runs the script as a user does; returns what it printed."""
  script = subprocess.run(
    [sys.executable, str(SCRIPT), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stderr
  return script.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """The work folder of a finished run, and what the script printed."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  return workdir, run_script(options(workdir, prepared_dir))


def test_run_writes_all_it_promises(finished):
  workdir, _ = finished
  assert {path.name for path in workdir.iterdir()} == {
    "config.json",
    *loss_sampling.CONTENTS,
  }
  for name in ("figure5.png", "predictions.png"):
    with Image.open(workdir / name) as picture:
      assert min(picture.size) > 200
      assert len(picture.convert("RGB").getcolors(10**6)) > 20


def test_printed_table_is_that_of_the_summary(finished):
  workdir, printed = finished
  table = (workdir / "table.md").read_text()
  assert table in printed
  summary = json.loads((workdir / "summary.json").read_text())
  assert tuple(summary["arms"]) == ARMS
  for name, arm in summary["arms"].items():
    mean_iu = arm["scores"][0]["mean_iu"]
    (row,) = [r for r in table.splitlines() if f"| {name} | 5 |" in r]
    assert f"| {mean_iu:.3f} |" in row


def test_arms_see_the_images_and_loss_terms_they_should(finished):
  workdir, _ = finished
  summary = json.loads((workdir / "summary.json").read_text())
  images = {name: arm["images"] for name, arm in summary["arms"].items()}
  # 5 steps of 2, of 2 / 0.5, and of 2 * 64 * 64 / (32 * 32) images.
  assert images == {"p=1": 10, "p=0.5": 20, "patches": 40}
  terms = [arm["loss_terms_per_step"] for arm in summary["arms"].values()]
  assert max(terms) <= 2 * 64 * 64
  assert min(terms) > 0.6 * max(terms)


def test_every_step_is_in_the_metrics_once(finished):
  workdir, _ = finished
  rows = records.read_json_lines(workdir / "metrics.jsonl")
  for arm in ARMS:
    mine = [row for row in rows if row["arm"] == arm]
    assert [row["step"] for row in mine] == [2, 4, 5]
    assert [row["num_steps"] for row in mine] == [2, 2, 1]
    assert all(np.isfinite(row["loss"]) for row in mine)


def test_every_evaluation_pixel_is_counted_once(finished):
  workdir, _ = finished
  totals = {
    int(np.sum(json.loads(file.read_text())["confusion"]))
    for file in (workdir / "arms").glob("*.json")
  }
  labels = [
    fcn_jax.data.datasets.shapes.example(split="validation", index=index)[1]
    for index in range(5)
  ]
  assert totals == {sum(int(np.sum(label != 255)) for label in labels)}


def test_resume_repeats_only_the_missing_arm_and_to_the_bit(
  finished, prepared_dir
):
  workdir, _ = finished
  file = workdir / "arms" / "p=0.5-seed0.json"
  other = workdir / "arms" / "p=1-seed0.json"
  before, changed = json.loads(file.read_text()), other.stat().st_mtime_ns
  file.unlink()
  run_script(options(workdir, prepared_dir, "--resume"))
  after = json.loads(file.read_text())
  assert after.pop("attempt") == 1 + before.pop("attempt")
  assert after == before
  assert other.stat().st_mtime_ns == changed
  rows = records.read_json_lines(workdir / "metrics.jsonl")
  losses = [
    [row["loss"] for row in rows if (row["arm"], row["attempt"]) == key]
    for key in (("p=0.5", 0), ("p=0.5", 1))
  ]
  assert losses[0] == losses[1]


@pytest.mark.parametrize(
  ("more", "message"),
  [
    ((), "--resume"),
    (("--resume", "--steps=6"), "steps (5 there, 6 now)"),
    (("--resume", "--overwrite"), "contradict"),
  ],
)
def test_a_finished_run_is_not_touched(
  finished, prepared_dir, capsys, more, message
):
  workdir, _ = finished
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
  with pytest.raises(SystemExit) as stopped:
    loss_sampling.main(options(workdir, prepared_dir, *more))
  assert stopped.value.code == 1
  error = capsys.readouterr().err
  assert message in error and "Traceback" not in error
  assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--rates", "0"), "above 0"),
    (("--rates", "1.5"), "at most 1"),
    (("--rates", "0.3"), "whole number"),
    (("--rates", "1", "1"), "all different"),
    (("--patch-size", "65", "64"), "smaller patch"),
    (("--patches-per-image", "3"), "not a multiple"),
    (("--scale-range", "2", "1"), "scale_range is (2.0, 1.0)"),
    (("--dropout-rate", "1"), "dropout_rate is 1.0"),
    (("--steps", "0"), "steps is 0"),
    (("--warmup-steps", "5"), "warmup_steps is 5"),
    (("--base-batch", "16"), "data set has 12"),
    (("--dataset", "camvid"), "CAMVID_DIR"),
    (("--dataset", "camvid", "--data-dir", "nowhere"), "nowhere"),
  ],
)
def test_bad_options_are_explained_and_nothing_is_written(
  tmp_path, prepared_dir, capsys, monkeypatch, more, message
):
  monkeypatch.delenv("CAMVID_DIR", raising=False)
  workdir = tmp_path / "run"
  with pytest.raises(SystemExit) as stopped:
    loss_sampling.main(options(workdir, prepared_dir, *more))
  assert stopped.value.code == 1
  error = capsys.readouterr().err
  assert message in error and "Traceback" not in error
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "arguments", [["no_such_preset"], ["demo", "--no-such-option=1"], []]
)
def test_unknown_presets_and_options_are_refused(arguments, capsys):
  with pytest.raises(SystemExit) as stopped:
    loss_sampling.main(arguments)
  assert stopped.value.code == 2
  captured = capsys.readouterr()
  assert "Traceback" not in captured.err + captured.out


def test_files_of_others_in_the_work_folder_are_left_alone(
  tmp_path, prepared_dir, capsys
):
  note = tmp_path / "thesis.txt"
  note.write_text("all I have")
  for more in ((), ("--overwrite",), ("--resume",)):
    with pytest.raises(SystemExit):
      loss_sampling.main(options(tmp_path, prepared_dir, *more))
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
  assert note.read_text() == "all I have"


def test_overwrite_deletes_the_run_and_nothing_else(tmp_path):
  config = configs.LossSampling(workdir=tmp_path / "run")

  def claim(config):
    command_line.check_workdir(config, "loss_sampling")
    contents = ("arms", "table.md")
    command_line.claim_workdir(config, "loss_sampling", contents)

  claim(config)
  (config.workdir / "arms").mkdir()
  (config.workdir / "arms" / "x.json").touch()
  (config.workdir / "table.md").touch()
  (config.workdir / "note.txt").touch()
  claim(dataclasses.replace(config, overwrite=True))
  assert sorted(os.listdir(config.workdir)) == ["config.json", "note.txt"]


def test_overwrite_with_a_bad_option_deletes_nothing(
  finished, prepared_dir, capsys
):
  workdir, _ = finished
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
  for more in (
    ("--scale-range", "2", "1"),
    ("--warmup-steps", "-1"),
    ("--base-batch", "16"),
    ("--evaluation-split", "test"),
  ):
    with pytest.raises(SystemExit) as stopped:
      loss_sampling.main(options(workdir, prepared_dir, "--overwrite", *more))
    assert stopped.value.code == 1
  assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


@pytest.mark.parametrize("content", ["{}", '{"experiment": "other"}', "[1"])
def test_a_foreign_configuration_is_not_taken_for_a_run(
  tmp_path, prepared_dir, capsys, content
):
  (tmp_path / "config.json").write_text(content)
  (tmp_path / "summary.json").write_text("mine")
  for more in ((), ("--overwrite",), ("--resume",)):
    with pytest.raises(SystemExit) as stopped:
      loss_sampling.main(options(tmp_path, prepared_dir, *more))
    assert stopped.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err
  assert (tmp_path / "summary.json").read_text() == "mine"
  assert (tmp_path / "config.json").read_text() == content


def test_help_explains_every_option(capsys):
  with pytest.raises(SystemExit) as stopped:
    loss_sampling.main(["demo", "--help"])
  assert stopped.value.code == 0
  text = capsys.readouterr().out
  for option in ("--rates", "--patch-size", "--resume", "--data-dir"):
    assert option in text
