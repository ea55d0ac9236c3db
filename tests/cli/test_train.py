"""train.py, from end to end on a tiny data set."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recipe
import run_folder
import train
import train_loop
import train_presets
import trained
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

import fcn_jax as fcn

SCRIPT = pathlib.Path(train.__file__)
STEPS = 6


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  # optax accumulates and averages across types; users have JAX's default.
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


def command(workdir, prepared_dir, *more):
  return [
    "shapes",
    "--dataset=shapes/tiny",
    f"--workdir={workdir}",
    f"--prepared-dir={prepared_dir}",
    f"--steps={STEPS}",
    "--batch-size=4",
    "--crop-size",
    "64",
    "64",
    "--head-width=16",
    "--warmup-steps=1",
    "--log-every=1",
    "--save-every=2",
    "--validate-every=3",
    "--validation-batch=4",
    "--ema-decay=0.9",
    *more,
  ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prepared_dir):
  """The work folder of a run that was left alone."""
  workdir = tmp_path_factory.mktemp("runs") / "alone"
  train.main(command(workdir, prepared_dir))
  return workdir


@pytest.fixture
def copy(finished, tmp_path):
  """A copy of it, to change."""
  return shutil.copytree(finished, tmp_path / "copy")


def rows_of(workdir, kind):
  rows = fcn.runs.records.read_json_lines(workdir / run_folder.METRICS_FILE)
  return [r for r in run_folder.effective_rows(rows) if r["kind"] == kind]


def losses_of(workdir):
  return {row["step"]: row["loss"] for row in rows_of(workdir, "train")}


def state_of(workdir, which="latest"):
  config = run_folder.read_config(workdir)
  model = recipe.make_model(config, 6)
  template = trained.state_template(model, recipe.make_optimizer(config))
  return fcn.runs.checkpoints.read(
    workdir / "checkpoints", which, template
  ).state


def assert_same_bits(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def listing(folder):
  return {
    path: path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != ".lock"
  }


# A run that is left alone.


def test_a_run_writes_all_it_promises(finished):
  assert {path.name for path in finished.iterdir()} == {*run_folder.CONTENTS}
  assert sorted(losses_of(finished)) == list(range(1, STEPS + 1))
  assert [r["step"] for r in rows_of(finished, "evaluation")] == [3, STEPS]
  with Image.open(finished / "curves.png") as picture:
    assert min(picture.size) > 400
  summary = json.loads((finished / "summary.json").read_text())
  assert summary["last"]["step"] == STEPS
  assert summary["versions"]["jax"] == jax.__version__
  assert "| star |" in (finished / "table.md").read_text()
  [start] = fcn.runs.records.read_json_lines(finished / "starts.jsonl")
  assert start["options"] == json.loads((finished / "config.json").read_text())
  assert start["device"] == "4 x cpu"


def test_options_are_read_back_as_they_were(finished, prepared_dir):
  config = run_folder.read_config(finished)
  assert config.crop_size == (64, 64)
  assert config.workdir == finished
  assert config.prepared_dir == prepared_dir
  for _, preset in train_presets.PRESETS.values():
    (finished / "presets").mkdir(exist_ok=True)
    fcn.runs.records.write_json(
      finished / "presets" / "config.json", run_folder.as_json(preset)
    )
    assert run_folder.read_config(finished / "presets") == preset
  shutil.rmtree(finished / "presets")


def test_tensorboard_shows_the_rows(finished, prepared_dir):
  board = event_accumulator.EventAccumulator(str(finished / "tensorboard"))
  board.Reload()
  losses = {e.step: e.value for e in board.Scalars("train/loss")}
  assert losses == pytest.approx(losses_of(finished), rel=1e-6)
  scores = {e.step: e.value for e in board.Scalars("validation/mean_iu")}
  rows = rows_of(finished, "evaluation")
  assert scores == pytest.approx({r["step"]: r["mean_iu"] for r in rows})
  images = board.Tags()["images"]
  assert "validation/confusion_matrix" in images
  source = fcn.data.load(
    "shapes/tiny", split="validation", prepared_dir=prepared_dir
  ).source
  height, width = source[0].label.shape
  # Image, truth and prediction side by side.
  picture = board.Images("validation/picture_0")[-1]
  assert (picture.width, picture.height) == (3 * width, height)


def test_the_best_checkpoint_has_the_score_of_its_averaged_parameters(
  finished, prepared_dir
):
  network = trained.load(finished, "best")
  rows = {row["step"]: row for row in rows_of(finished, "evaluation")}
  best = max(rows, key=lambda step: (rows[step]["mean_iu"], step))
  assert network.step == best
  average = fcn.optimizers.ema_of(state_of(finished, best)["opt_state"])
  assert_same_bits(network.variables["params"], average)
  source = fcn.data.load(
    "shapes/tiny", split="validation", prepared_dir=prepared_dir
  ).source
  confusion = np.zeros((6, 6), np.int64)
  for example in source:
    predicted = fcn.inference.predict(
      network.model, network.variables, example.image[None]
    )[0]
    valid = example.label != fcn.types.IGNORE_LABEL
    np.add.at(
      confusion, (example.label[valid], np.asarray(predicted)[valid]), 1
    )
  expected = fcn.metrics.scores(confusion).mean_iu
  assert network.mean_iu == pytest.approx(expected)
  assert network.mean_iu == rows[best]["mean_iu"]


def test_the_averaged_parameters_are_what_is_validated():
  params, average = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
  optimizer = fcn.optimizers.with_ema(optax.sgd(0.1), decay=0.9)
  opt_state = optimizer.init(params)._replace(average=average)
  state = fcn.train.TrainState(jnp.zeros((), jnp.int32), params, {}, opt_state)
  assert_same_bits(train_loop.predicting_state(state).params, average)
  without = state._replace(opt_state=optax.sgd(0.1).init(params))
  assert_same_bits(train_loop.predicting_state(without).params, params)


def test_a_finished_run_that_is_started_again_only_reports(
  copy, prepared_dir, capsys
):
  before = state_of(copy)
  train.main(command(copy, prepared_dir))
  assert "| star |" in capsys.readouterr().out
  assert_same_bits(state_of(copy), before)
  assert sorted(losses_of(copy)) == list(range(1, STEPS + 1))


# Runs that are cut off.


@pytest.mark.parametrize(
  ("number", "log_every"), [(signal.SIGTERM, 1), (signal.SIGINT, STEPS)]
)
def test_a_signal_saves_and_going_on_changes_no_bit(
  tmp_path, finished, prepared_dir, capsys, number, log_every
):
  workdir = tmp_path / "stopped"
  arguments = command(workdir, prepared_dir, f"--log-every={log_every}")

  def stop():
    file = workdir / run_folder.METRICS_FILE
    while len(fcn.runs.records.read_json_lines(file)) < 2:
      time.sleep(0.001)
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=stop)
  thread.start()
  with pytest.raises(SystemExit) as ended:
    train.main(arguments)
  thread.join()
  assert ended.value.code == 128 + number
  assert "is saved; the same command goes on" in capsys.readouterr().err
  saved = max(int(p.name) for p in (workdir / "checkpoints").glob("0*"))
  assert saved < STEPS
  train.main(arguments)
  assert_same_bits(state_of(workdir), state_of(finished))
  if log_every == 1:
    assert losses_of(workdir) == losses_of(finished)
    return
  # The steps before the signal are in the row after it.
  [row] = rows_of(workdir, "train")
  alone = rows_of(finished, "train")
  assert row["num_steps"] == STEPS
  assert row["num_sampled"] == sum(one["num_sampled"] for one in alone)
  loss_sum = sum(one["loss"] * one["num_sampled"] for one in alone)
  assert row["loss"] == pytest.approx(loss_sum / row["num_sampled"])


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
  script = SCRIPT.parent / "benchmarks" / "kill_and_resume.py"
  result = subprocess.run(
    [
      sys.executable,
      script,
      f"--workdir={tmp_path / 'kills'}",
      "--kills=2",
      "--steps=20",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "losses of all 20 steps identical: True" in result.stdout
  assert "arrays of the last checkpoint that differ: 0" in result.stdout


def test_a_damaged_step_is_repeated_from_the_one_before(
  copy, finished, prepared_dir
):
  newest = copy / "checkpoints" / f"{STEPS:08d}"
  file = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  with pytest.warns(UserWarning, match="set aside"):
    train.main(command(copy, prepared_dir))
  assert losses_of(copy) == losses_of(finished)
  assert_same_bits(state_of(copy), state_of(finished))
  assert (copy / "checkpoints" / f"damaged-{newest.name}").is_dir()


def test_rows_of_repeated_steps_count_once():
  def row(step, loss):
    return {"kind": "train", "step": step, "loss": loss}

  rows = [
    {"kind": "start", "step": 0},
    *(row(step, 1) for step in (1, 2, 3)),
    {"kind": "start", "step": 2},
    *(row(step, 2) for step in (3, 4)),
  ]
  kept = run_folder.effective_rows(rows)
  assert [(r["step"], r["loss"]) for r in kept] == [
    (1, 1),
    (2, 1),
    (3, 2),
    (4, 2),
  ]


# Going on by intent.


def test_more_steps_on_another_number_of_devices(copy, finished, prepared_dir):
  more = ("--steps=8", "--num-devices=1")
  train.main(command(copy, prepared_dir, *more))
  losses = losses_of(copy)
  assert sorted(losses) == list(range(1, 9))
  assert losses_of(finished).items() <= losses.items()
  assert int(state_of(copy)["step"]) == 8
  assert run_folder.num_starts(copy) == 2


def test_another_net_begins_with_a_trained_ones_parameters(finished):
  donor = trained.load(finished, "best")
  config = dataclasses.replace(
    run_folder.read_config(finished), stride=16, init=finished
  )
  model = recipe.make_model(config, 4)
  state, said = train.initial_state(
    config, model, recipe.make_optimizer(config)
  )
  # The head is for other classes, and the finest skip is not there.
  for name in ("conv1_1", "fc7", "conv5_2_norm"):
    assert_same_bits(state.params[name], donor.variables["params"][name])
  assert_same_bits(
    state.model_state["batch_stats"], donor.variables["batch_stats"]
  )
  assert not np.any(state.params["score_fr"]["kernel"])
  assert "left over in the source (2): params/score_pool3/bias" in said
  assert "of another shape in the source (4): params/score_fr/bias" in said
  assert_same_bits(fcn.optimizers.ema_of(state.opt_state), state.params)


# What is refused.


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--learning-rate=1"], r"other options: learning_rate \(0.003 there, 1.0"),
    (["--steps=4", "--warmup-steps=1"], "of 6 steps; steps may grow"),
    (["--seed=1"], "--overwrite to delete"),
    (["--num-devices=3"], "3 devices cannot share a batch of 4"),
    (["--num-devices=9"], "num_devices is 9, but there are 4"),
    (["--rate=0.5"], "rate is 0.5; it must be 1 with the sampler whole_image"),
    (["--ema-decay=1"], "ema_decay is 1.0; it must be"),
    (
      ["--crop-size=None", "--sampler=hardest"],
      "hardest keeps a number of pixels",
    ),
  ],
)
def test_what_cannot_go_on_is_refused_and_changes_nothing(
  copy, prepared_dir, capsys, more, message
):
  before = listing(copy)
  with pytest.raises(SystemExit) as ended:
    train.main(command(copy, prepared_dir, *more))
  assert ended.value.code == 1
  error = capsys.readouterr().err
  assert error.startswith("error: ")
  assert error.count("\n") == 1
  assert re.search(message, error), error
  assert listing(copy) == before


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda folder: (folder / "thesis.tex").write_text("x"), "thesis.tex"),
    (
      lambda folder: (folder / "config.json").write_text("{"),
      "config.json is damaged",
    ),
    (
      lambda folder: (folder / "config.json").write_text('{"experiment": 1}'),
      "not from a run of train.py",
    ),
  ],
)
def test_folders_of_others_are_not_touched(
  tmp_path, prepared_dir, capsys, change, message
):
  workdir = tmp_path / "other"
  workdir.mkdir()
  change(workdir)
  before = listing(workdir)
  with pytest.raises(SystemExit):
    train.main(command(workdir, prepared_dir, "--overwrite"))
  assert message in capsys.readouterr().err
  assert listing(workdir) == before


@pytest.mark.parametrize(
  ("more", "message"),
  [
    ("--init=/nowhere", "the run to start from, /nowhere, cannot be"),
    ("--validation-split=test", "no split 'test'"),
    ("--batch-size=12345", "12345 images a step, but the data set has"),
    ("--dataset=folder", "folder"),
  ],
)
def test_what_cannot_begin_leaves_nothing(
  tmp_path, prepared_dir, capsys, more, message
):
  workdir = tmp_path / "run"
  with pytest.raises(SystemExit) as ended:
    train.main(command(workdir, prepared_dir, more))
  assert ended.value.code == 1
  assert message in capsys.readouterr().err
  assert not workdir.exists()


def test_other_data_are_refused(copy, prepared_dir, capsys):
  folder = copy / "checkpoints" / f"{STEPS:08d}"
  shutil.rmtree(folder)
  # The step before, as one of other data would be.
  manifest = copy / "checkpoints" / f"{STEPS - 2:08d}" / "manifest.json"
  content = json.loads(manifest.read_text())
  content["metadata"]["data"]["train"] = "other"
  manifest.write_text(json.dumps(content))
  digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
  manifest.with_name("manifest.sha256").write_text(f"{digest}  manifest.json\n")
  with pytest.raises(SystemExit):
    train.main(command(copy, prepared_dir))
  assert "the data are not those that the run" in capsys.readouterr().err


# Guards.


def test_a_loss_that_is_not_finite_stops_the_run_with_the_images_names(
  tmp_path, prepared_dir
):
  arguments = command(
    tmp_path / "run", prepared_dir, "--learning-rate=1e30", "--save-every=1"
  )
  with pytest.raises(SystemExit) as ended:
    train.main(arguments)
  message = ended.value.code
  steps = sorted(p.name for p in (tmp_path / "run/checkpoints").glob("0*"))
  assert f"The last good checkpoint is step {int(steps[-1])}." in message
  number = int(message.split("step ")[1].split(":")[0])
  assert int(steps[-1]) < number
  dataset = fcn.data.load(
    "shapes/tiny", split="train", prepared_dir=prepared_dir
  )
  indices = fcn.data.pipeline.indices_of_batch(
    len(dataset.source), batch_size=4, seed=0, number=number - 1
  )
  names = ", ".join(dataset.source[index].name for index in indices)
  assert f"on the images {names}." in message


def test_steps_that_are_not_finite_can_be_left_out_so_many_in_a_row(
  tmp_path, prepared_dir
):
  arguments = command(
    tmp_path / "run",
    prepared_dir,
    "--learning-rate=1e30",
    "--max-skipped=2",
    "--validate-every=6",
  )
  with pytest.raises(SystemExit) as ended:
    train.main(arguments)
  assert "the loss is nan" in str(ended.value.code)
  skipped = [row["num_skipped"] for row in rows_of(tmp_path / "run", "train")]
  assert sum(skipped) == 2


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
      SCRIPT,
      *command(tmp_path / "run", prepared_dir),
    ],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
  )
  assert result.returncode == 1
  # TensorStore's threads may print that they were not waited for.
  assert "train.py" not in result.stderr.replace("error: ", "")
  error = result.stderr[result.stderr.index("error: ") :]
  assert "Step 2 could not be saved" in error
  assert "the same command goes on" in error
  assert not list((tmp_path / "run" / "checkpoints").glob("0*"))


# The parts of a run.


def test_every_preset_is_in_order():
  for _, preset in train_presets.PRESETS.values():
    recipe.check_options(preset)
    model = recipe.make_model(preset, 21)
    optimizer = recipe.make_optimizer(preset)
    template = trained.state_template(model, optimizer)
    assert fcn.runs.checkpoints.num_bytes(template["params"]) > 1e5
    assert recipe.learning_rate(preset)(preset.warmup_steps) == pytest.approx(
      preset.learning_rate
    )


def test_every_sampler_can_be_chosen_and_leaves_out_void(prepared_dir):
  dataset = fcn.data.load(
    "shapes/tiny", split="train", prepared_dir=prepared_dir
  )
  labels = np.stack([dataset.source[i].label[:64, :64] for i in range(4)])
  labels[:, :8] = fcn.types.IGNORE_LABEL
  base = train_presets.PRESETS["shapes"][1]
  for name in get_args(train_presets.Sampler):
    rate = 1.0 if name in recipe._WITHOUT_RATE else 0.25
    config = dataclasses.replace(
      base, sampler=name, rate=rate, batch_size=4, crop_size=(64, 64)
    )
    recipe.check_options(config)
    sampler = recipe.make_sampler(config, dataset)
    options = {}
    if fcn.train.asks_for_losses(sampler):
      options["pixel_losses"] = jnp.ones(labels.shape, jnp.float32)
    weights = np.asarray(
      sampler(jax.random.key(0), jnp.asarray(labels), **options)
    )
    assert weights.shape == labels.shape
    assert not weights[:, :8].any()
    kept = np.count_nonzero(weights[:, 8:]) / weights[:, 8:].size
    if rate < 1:
      assert 0.02 < kept < 0.5, name


def test_accumulated_gradients_make_one_update_of_their_clipped_mean():
  config = dataclasses.replace(
    train_presets.PRESETS["shapes"][1],
    optimizer="sgd",
    momentum=0.0,
    weight_decay=0.0,
    schedule="constant",
    warmup_steps=0,
    learning_rate=0.5,
    clip_norm=1.0,
    accumulate=2,
    ema_decay=0.0,
  )
  optimizer = recipe.make_optimizer(config)
  params = {"kernel": jnp.zeros((1, 2))}
  state = optimizer.init(params)
  for gradient in ([[6.0, 0.0]], [[0.0, 8.0]]):
    updates, state = optimizer.update(
      {"kernel": jnp.array(gradient)}, state, params
    )
    params = optax.apply_updates(params, updates)
  # The mean is (3, 4), of norm 5.
  np.testing.assert_allclose(params["kernel"], [[-0.3, -0.4]], rtol=1e-6)
  average = fcn.optimizers.ema_of(state)
  np.testing.assert_allclose(average["kernel"], params["kernel"], rtol=1e-6)


def test_the_counts_of_a_run_survive_a_checkpoint_to_the_bit():
  progress = train_loop.Progress(
    window=train_loop.Window(num_steps=3, loss_sum=0.1 + 0.2), seconds=1 / 3
  )
  as_json = json.loads(json.dumps(dataclasses.asdict(progress)))
  assert train_loop.Progress.from_json(as_json) == progress


@pytest.mark.parametrize(
  "more", [["--hue=0.9"], ["--crop-size=None", "--min-labelled=0.5"]]
)
def test_options_of_the_pipeline_are_checked_before_a_run_is_deleted(
  copy, prepared_dir, capsys, more
):
  before = listing(copy)
  with pytest.raises(SystemExit) as ended:
    train.main(command(copy, prepared_dir, "--overwrite", *more))
  assert ended.value.code == 1
  assert capsys.readouterr().err.startswith("error: ")
  assert listing(copy) == before


def test_what_is_left_of_a_run_is_no_new_one(copy, tmp_path, prepared_dir):
  config = dataclasses.replace(run_folder.read_config(copy), workdir=copy)
  (copy / "config.json").rename(tmp_path / "config.json")
  with pytest.raises(ValueError, match="of a run, but not its config.json"):
    run_folder.check(config)
  begun = tmp_path / "begun"
  begun.mkdir()
  (begun / "config.json.partial").touch()
  assert not run_folder.check(dataclasses.replace(config, workdir=begun))
