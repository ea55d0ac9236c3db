"""fcn-jax train: what a user sees of a run."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import evaluate
from fcn_jax.cli import predict
from fcn_jax.cli import presets
from fcn_jax.cli import train
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records
from tests.helpers import tiny_runs

# Whole runs of the command; `tests/runs` trains within the process.
pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures("standard_promotion"),
]

STEPS = tiny_runs.STEPS


# From pictures to predictions.


@pytest.mark.slow
def test_a_run_is_trained_scored_and_predicted_with(
  tmp_path, finished_run, prepared_dir, capsys
):
  workdir = tmp_path / "run"
  train.main(tiny_runs.command(workdir, prepared_dir))
  printed = capsys.readouterr().out
  assert "| star |" in printed
  assert f"fcn-jax evaluate --workdir {workdir}" in printed
  assert "look at table.md, curves.png, predictions.png" in printed
  assert f"fcn-jax predict PICTURES --workdir {workdir} --out OUT" in printed
  # The same run as that of the library's function.
  tiny_runs.assert_same_bits(
    tiny_runs.state_of(workdir), tiny_runs.state_of(finished_run)
  )
  assert tiny_runs.losses_of(workdir) == tiny_runs.losses_of(finished_run)
  trained = fcn.runs.load(workdir)
  evaluate.main([f"--workdir={workdir}"])
  assert "| star |" in capsys.readouterr().out
  [results] = workdir.glob("evaluation-*")
  assert results.name == f"evaluation-validation-step{trained.step}"
  source = fcn.data.load(
    "shapes/tiny", split="validation", prepared_dir=prepared_dir
  ).source
  Image.fromarray(source[0].image).save(tmp_path / "one.png")
  out = tmp_path / "out"
  predict.main(
    [f"{tmp_path / 'one.png'}", f"--workdir={workdir}", f"--out={out}"]
  )
  written = np.asarray(Image.open(out / "classes" / "one.png"))
  expected = fcn.inference.predict(
    trained.model, trained.variables, source[0].image[None]
  )
  assert np.mean(written != expected[0]) < 1e-3


# The options.


def help_of(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    train.main([*arguments, "--help"])
  assert ended.value.code == 0
  return capsys.readouterr().out


def test_help_shows_a_panel_for_each_group_and_every_option(capsys):
  shown = help_of(capsys, "shapes")
  config = presets.PRESETS["shapes"][1]
  for name in ("essential", *config_lib.groups_of(config)):
    # With boxes around them where the terminal has such characters.
    assert re.search(rf"^[─╭ ]*{name} options\b", shown, flags=re.M), name
  for group in config_lib.groups_of(config).values():
    for option in config_lib.names(group):
      # Without the name of its group.
      pattern = rf"^[│ ]*--{option.replace('_', '-')}[ ,]"
      assert re.search(pattern, shown, flags=re.M), option
  assert "Images per step, over all devices." in shown
  assert "(default: 300)" in shown


def test_help_lists_every_preset(capsys):
  shown = help_of(capsys)
  for name, (description, _) in presets.PRESETS.items():
    assert name in shown
    assert description.split()[0] in shown


def test_options_of_the_command_line_are_those_of_the_run(
  run_copy, prepared_dir, capsys
):
  train.main(tiny_runs.command(run_copy, prepared_dir))
  assert "| star |" in capsys.readouterr().out
  assert folder.num_starts(run_copy) == 2


# Runs that end early.


@pytest.mark.slow
def test_a_signal_is_said_and_is_the_exit_status(
  tmp_path, prepared_dir, capsys
):
  workdir = tmp_path / "stopped"

  def stop():
    file = workdir / folder.METRICS_FILE
    while len(records.read_json_lines(file)) < 2:
      time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=stop)
  thread.start()
  with pytest.raises(SystemExit) as ended:
    train.main(tiny_runs.command(workdir, prepared_dir))
  thread.join()
  assert ended.value.code == 128 + signal.SIGTERM
  assert "is saved; the same command continues" in capsys.readouterr().err


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_command_with_the_remedies(
  tmp_path, prepared_dir
):
  arguments = tiny_runs.command(
    tmp_path / "run", prepared_dir, "--learning-rate=1e30"
  )
  with pytest.raises(SystemExit) as ended:
    train.main(arguments)
  message = ended.value.code
  assert message.startswith(f"error: {tmp_path / 'run'}: step ")
  assert "--max-skipped" in message and "--clip-norm" in message


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--learning-rate=1"], r"other options: learning_rate \(0.003 there, 1.0"),
    (["--steps=4", "--warmup-steps=1"], "has 6 steps; steps may grow"),
    (["--seed=1"], "--overwrite to delete"),
    (["--num-devices=3"], "3 devices cannot share a batch of 4"),
    (["--num-devices=9"], "num_devices is 9, but there are 4"),
    (["--rate=0"], "rate is 0.0; it must be in 0..1, above 0"),
    (["--ema-decay=1"], "ema_decay is 1.0; it must be"),
    (
      ["--crop-size=None", "--sampler=hardest"],
      "hardest keeps a number of pixels",
    ),
    (["--overwrite", "--hue=0.9"], "hue"),
    (
      ["--overwrite", "--crop-size=None", "--min-labelled=0.5"],
      "min_labelled",
    ),
  ],
)
def test_what_is_refused_is_said_in_one_line_and_changes_nothing(
  run_copy, prepared_dir, capsys, more, message
):
  before = tiny_runs.files_in(run_copy)
  with pytest.raises(SystemExit) as ended:
    train.main(tiny_runs.command(run_copy, prepared_dir, *more))
  assert ended.value.code == 1
  error = capsys.readouterr().err
  assert error.startswith("error: ")
  assert error.count("\n") == 1
  assert re.search(message, error), error
  assert tiny_runs.files_in(run_copy) == before


@pytest.mark.parametrize(
  ("more", "message"),
  [
    ("--init=/nowhere", "the run to begin with, /nowhere, cannot be"),
    ("--validation-split=test", "no split 'test'"),
    ("--batch-size=12344", "12344 images per step, but the data set has"),
    ("--dataset=folder", "folder"),
  ],
)
def test_what_cannot_begin_leaves_nothing(
  tmp_path, prepared_dir, capsys, more, message
):
  workdir = tmp_path / "run"
  with pytest.raises(SystemExit) as ended:
    train.main(tiny_runs.command(workdir, prepared_dir, more))
  assert ended.value.code == 1
  assert message in capsys.readouterr().err
  assert not workdir.exists()


def test_folders_of_others_are_not_touched(tmp_path, prepared_dir, capsys):
  workdir = tmp_path / "other"
  workdir.mkdir()
  (workdir / "thesis.tex").write_text("x")
  with pytest.raises(SystemExit):
    train.main(tiny_runs.command(workdir, prepared_dir, "--overwrite"))
  assert "thesis.tex" in capsys.readouterr().err
  assert [path.name for path in workdir.iterdir()] == ["thesis.tex"]


# In processes of their own.


@pytest.mark.long
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
  result = subprocess.run(
    [
      sys.executable,
      "-m",
      "experiments.benchmarks.kill_and_resume",
      f"--workdir={tmp_path / 'kills'}",
      "--kills=1",
      "--steps=12",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "losses of all 12 steps identical: True" in result.stdout
  assert "arrays of the last checkpoint that differ: 0" in result.stdout


@pytest.mark.long
def test_a_full_disk_ends_the_run_in_one_paragraph(tmp_path, prepared_dir):
  # The data are prepared; the checkpoint alone is larger than 300 kB.
  fcn.data.load("shapes/tiny", split="train", prepared_dir=prepared_dir)
  result = subprocess.run(
    [
      "bash",
      "-c",
      'ulimit -f 300 && exec "$@"',
      "limited",
      sys.executable,
      "-m",
      "fcn_jax",
      "train",
      *tiny_runs.command(tmp_path / "run", prepared_dir),
    ],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
  )
  assert result.returncode == 1
  # No traceback of ours; TensorStore's threads may print that they were not
  # waited for.
  assert "/fcn_jax/" not in result.stderr
  error = result.stderr[result.stderr.index("error: ") :]
  assert "Step 2 could not be saved" in error
  assert "the same command continues" in error
  assert not list((tmp_path / "run" / "checkpoints").glob("0*"))
