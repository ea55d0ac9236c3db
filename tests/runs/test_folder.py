"""The work folder of a run: what may go on there, and what is refused."""

import json
import pathlib

import jax
import pytest

from fcn_jax import runs
from fcn_jax.cli import presets
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records
from tests.helpers import tiny_runs


def config_of(workdir, **options):
  return runs.Train(run=config_lib.Run(workdir)).replace(**options)


@pytest.fixture
def claimed(tmp_path):
  """Options whose folder has just been claimed."""
  config = config_of(tmp_path / "run", steps=60)
  folder.claim(config)
  return config


# The options on disk.


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_options_of_every_preset_are_read_back_as_they_were(tmp_path, name):
  _, preset = presets.PRESETS[name]
  config = preset.replace(workdir=tmp_path, data_dir=pathlib.Path("data"))
  folder.claim(config)
  assert folder.read_config(tmp_path) == config


def test_options_are_read_back_with_their_types(claimed):
  found = folder.read_config(claimed.run.workdir)
  assert found == claimed
  assert found.augmentation.crop_size == (96, 96)
  assert isinstance(found.run.workdir, pathlib.Path)


def test_options_stand_in_groups_but_for_those_of_a_start(claimed):
  as_json = records.read_json(claimed.run.workdir / "config.json")
  assert as_json["experiment"] == "train"
  groups = config_lib.groups_of(claimed).keys() - {"processes"}
  assert as_json.keys() - {"experiment", "epochs", "patience"} == groups
  assert as_json["optimizer"]["steps"] == 60
  assert "overwrite" not in as_json["run"]


def test_an_option_that_an_earlier_run_did_not_know_has_its_default(claimed):
  file = claimed.run.workdir / "config.json"
  as_json = records.read_json(file)
  del as_json["optimizer"]["clip_norm"], as_json["augmentation"]["num_sizes"]
  # A group.
  del as_json["patches"]
  file.write_text(json.dumps(as_json))
  assert folder.read_config(claimed.run.workdir) == claimed


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "config.json is damaged .*: repair it"),
    ("[]", "config.json is damaged .*it is no mapping"),
    ("{}", "is not from a run of train: give the work folder of one"),
    ("[" * 100_000, "config.json is damaged .*64 levels"),
    ('{"steps": 1' + 5000 * "0" + "}", "config.json is damaged"),
    ('{"experiment": "patchwise"}', "is not from a run of train"),
    ('{"steps": 1}', "is not from a run of train"),
  ],
)
def test_a_file_that_is_not_that_of_a_run_is_refused(tmp_path, text, message):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    folder.read_config(tmp_path)


def test_options_of_a_later_version_are_named(claimed):
  file = claimed.run.workdir / "config.json"
  as_json = records.read_json(file)
  as_json["loss"] |= {"zeal": 1, "art": 2}
  file.write_text(json.dumps(as_json))
  with pytest.raises(ValueError, match="does not know: art, zeal. Use"):
    folder.read_config(claimed.run.workdir)


@pytest.mark.parametrize(
  "damage",
  [
    lambda options: options["loss"].clear() or options.update(loss=3),
    lambda options: options.pop("run") and options.update(run=None),
    lambda options: options["run"].pop("workdir"),
  ],
)
def test_a_group_that_is_not_whole_is_damage(claimed, damage):
  file = claimed.run.workdir / "config.json"
  as_json = records.read_json(file)
  damage(as_json)
  file.write_text(json.dumps(as_json))
  with pytest.raises(ValueError, match="config.json is damaged"):
    folder.read_config(claimed.run.workdir)


def test_a_folder_of_the_earlier_flat_layout_gives_one_clear_sentence(tmp_path):
  # As version 0.1 wrote them.
  options = {
    "experiment": "train",
    "dataset": "shapes",
    "network": "fcn",
    "average_decay": None,
    "workdir": str(tmp_path),
    "steps": 300,
  }
  (tmp_path / "config.json").write_text(json.dumps(options))
  for read in (
    lambda: folder.read_config(tmp_path),
    lambda: folder.check(config_of(tmp_path)),
    lambda: folder.check(config_of(tmp_path, overwrite=True)),
    lambda: runs.load(tmp_path),
  ):
    with pytest.raises(ValueError, match="before 0.2, which had") as error:
      read()
    message = str(error.value)
    assert str(tmp_path) in message and "--workdir" in message
    assert message.count(". ") == 0 and "\n" not in message


def test_a_folder_without_a_run_is_said_to_have_none(tmp_path):
  with pytest.raises(ValueError, match="holds no run .config.json is not the"):
    folder.read_config(tmp_path / "nothing")


# Going on.


def test_only_a_folder_that_holds_the_run_goes_on(tmp_path):
  config = config_of(tmp_path / "run", steps=60)
  assert not folder.check(config)
  assert not config.run.workdir.exists()
  folder.claim(config)
  assert folder.check(config)
  assert not folder.check(config.replace(overwrite=True))


@pytest.mark.parametrize(
  "options",
  [
    {"steps": 90},
    {"data_dir": pathlib.Path("moved")},
    {"num_threads": 5, "num_workers": 1, "num_devices": 1},
    {"log_every": 1, "validate_every": 1, "save_every": 1},
    {"validation_batch": 1, "num_pictures": 1, "max_skipped": 3},
    # Only the beginning depends on it.
    {"init": pathlib.Path("elsewhere")},
  ],
)
def test_what_changes_no_number_may_change(claimed, options):
  assert folder.check(claimed.replace(**options))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"learning_rate": 1.0, "seed": 1},
      r"other options: (?=.*learning_rate \(0.003 there, 1.0 n).*seed \(0",
    ),
    ({"seed": 1}, "--overwrite to delete"),
    ({"seed": 1}, "--init [^ ]* --workdir NEW to begin another run"),
    ({"freeze": ("backbone",)}, "freeze"),
    ({"flip": False}, r"flip \(True there, False now\)"),
    ({"sampler": "hardest", "rate": 0.5}, "rate .1.0 there, 0.5 now"),
    ({"steps": 40}, "has 60 steps; steps may grow, but 40 are fewer"),
  ],
)
def test_other_options_do_not_go_on(claimed, options, message):
  before = tiny_runs.files_in(claimed.run.workdir)
  with pytest.raises(ValueError, match=message):
    folder.check(claimed.replace(**options))
  assert tiny_runs.files_in(claimed.run.workdir) == before


def test_a_run_of_a_study_may_not_grow(tmp_path):
  config = config_of(tmp_path, steps=60)
  options = {"experiment": "a_study", "contents": ("config.json",)}
  folder.claim(config, **options)
  assert folder.check(config, **options)
  with pytest.raises(ValueError, match=r"other options: steps \(60 there, 61"):
    folder.check(config.replace(steps=61), **options)
  with pytest.raises(ValueError, match="not from a run of train"):
    folder.check(config)


# Folders of others.


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("thesis.tex", "x", "holds thesis.tex, which is not part of such a run"),
    ("config.json", "{", "config.json is damaged"),
    ("config.json", '{"experiment": 1}', "not from a run of train"),
  ],
)
def test_folders_of_others_are_not_touched(
  tmp_path, name, text, message, overwrite
):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=message):
    folder.check(config_of(tmp_path, overwrite=overwrite))
  assert tiny_runs.files_in(tmp_path) == {tmp_path / name: text.encode()}


def test_a_file_is_no_work_folder(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match="is a file; give a folder as --workdir"):
    folder.check(config_of(tmp_path / "file"))


def test_what_is_left_of_a_run_is_no_new_one(claimed, tmp_path):
  workdir = claimed.run.workdir
  (workdir / "checkpoints").mkdir()
  (workdir / "config.json").rename(tmp_path / "config.json")
  with pytest.raises(ValueError, match="of a run, but not its config.json"):
    folder.check(claimed)
  # But it may be deleted.
  assert not folder.check(claimed.replace(overwrite=True))
  begun = tmp_path / "begun"
  begun.mkdir()
  (begun / "config.json.partial").touch()
  assert not folder.check(claimed.replace(workdir=begun))


def test_claiming_deletes_a_run_only_if_asked_and_nothing_else(claimed):
  workdir = claimed.run.workdir
  (workdir / "checkpoints" / "00000003").mkdir(parents=True)
  (workdir / "metrics.jsonl").touch()
  (workdir / "notes.txt").write_text("Mine.")
  # One is of `fcn-jax evaluate`, the other is not.
  for name, file in (("evaluation-a", "summary.json"), ("evaluation-b", "x")):
    (workdir / name).mkdir()
    (workdir / name / file).touch()
  folder.claim(claimed)
  assert (workdir / "checkpoints" / "00000003").is_dir()
  folder.claim(claimed.replace(overwrite=True))
  names = {path.name for path in workdir.iterdir()}
  assert names == {"config.json", "notes.txt", "evaluation-b"}


# Starts and records.


def test_every_start_is_written_down(claimed):
  workdir = claimed.run.workdir
  assert folder.num_starts(workdir) == 0
  folder.append_start(claimed, number=0, from_step=0, devices={})
  longer = claimed.replace(steps=90)
  folder.append_start(longer, number=1, from_step=60, devices={"hosts": ["a"]})
  assert folder.num_starts(workdir) == 2
  first, second = records.read_json_lines(workdir / "starts.jsonl")
  assert first["options"] == records.read_json(workdir / "config.json")
  assert second["options"]["optimizer"]["steps"] == 90
  assert (first["from_step"], second["from_step"]) == (0, 60)
  assert second["hosts"] == ["a"]
  assert first["versions"]["jax"] == jax.__version__
  assert first["device"] == f"{len(jax.devices())} x cpu"


def test_records_are_read_as_if_the_run_had_never_been_cut_off(claimed):
  workdir = claimed.run.workdir
  file = workdir / folder.METRICS_FILE
  for kind, step, start in (
    ("start", 0, 0),
    ("train", 1, 0),
    ("evaluation", 2, 0),
    ("train", 2, 0),
    ("start", 1, 1),
    ("train", 2, 1),
    ("evaluation", 2, 1),
  ):
    record = {"kind": kind, "step": step, "start": start}
    records.append_json_line(file, record)
  training, evaluations = folder.read_records(workdir)
  assert [(r["step"], r["start"]) for r in training] == [(1, 0), (2, 1)]
  assert [(r["step"], r["start"]) for r in evaluations] == [(2, 1)]


@pytest.mark.long
def test_every_file_that_a_run_makes_is_one_of_the_contents(finished_run):
  names = {path.name for path in finished_run.iterdir()}
  assert names == {*folder.CONTENTS}


@pytest.mark.parametrize(
  "group, name, value",
  [
    ("run", "log_every", "many"),
    ("run", "log_every", 1.5),
    ("run", "log_every", True),
    ("run", "workdir", 3),
    ("network", "backbone", "vgg99"),
    ("network", "backbone", ["vgg16"]),
    ("augmentation", "crop_size", [96]),
    ("augmentation", "crop_size", [96, "a"]),
    ("augmentation", "crop_size", {"a": 1}),
  ],
)
def test_an_option_of_another_type_is_damage(claimed, group, name, value):
  file = claimed.run.workdir / "config.json"
  as_json = json.loads(file.read_text())
  assert name in as_json[group]
  as_json[group][name] = value
  # As somebody who edits the file is told to.
  del as_json["sha256"]
  file.write_text(json.dumps(as_json))
  with pytest.raises(ValueError, match="is damaged .*: repair it") as raised:
    folder.read_config(claimed.run.workdir)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["0.5", [], {"a": 1}, True])
def test_a_score_that_is_no_number_is_damage(claimed, value):
  file = claimed.run.workdir / folder.METRICS_FILE
  record = {"kind": "evaluation", "step": 3, "mean_iu": value}
  file.write_text(json.dumps(record) + "\n")
  with pytest.raises(ValueError, match="evaluation of step 3 has .*as mean_iu"):
    folder.read_scores(claimed.run.workdir)
