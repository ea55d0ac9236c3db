"""fcn-jax train: from the words of a command line to the options of a run."""

import pathlib

import pytest

from fcn_jax.cli import presets
from fcn_jax.cli import train_options
from fcn_jax.runs import config as config_lib

PRESETS = {name: config for name, (_, config) in presets.PRESETS.items()}


def read(*arguments):
  return train_options.read(arguments, usage="")


def ended(capsys, *arguments):
  """Exit status, and what was printed to both streams, in one line each."""
  with pytest.raises(SystemExit) as stop:
    read(*arguments)
  shown = [" ".join(text.split()) for text in capsys.readouterr()]
  return stop.value.code, *shown


@pytest.mark.parametrize("name", ["shapes", "camvid", "nyud_fcn32s_color_hha"])
def test_a_preset_without_options_is_the_preset(name):
  assert read(name) == PRESETS[name]


def test_options_of_all_groups_are_changed():
  found = read(
    *("shapes", "--batch-size=2", "--backbone", "vgg16", "--flip"),
    *("--patches", "random", "--patch-size", "32", "--seed", "5"),
  )
  assert found == PRESETS["shapes"].replace(
    batch_size=2,
    backbone="vgg16",
    flip=True,
    patches="random",
    patch_size=(32, 32),
    seed=5,
  )


def test_a_folder_of_pictures_has_a_run_of_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("my cats").mkdir()
  found = read("my cats", "--steps", "300")
  assert found == PRESETS["folder"].replace(
    data_dir=pathlib.Path("my cats"),
    workdir=pathlib.Path("runs/my cats"),
    steps=300,
  )
  # "." has no name of its own.
  assert read(".").run.workdir == pathlib.Path("runs", tmp_path.name)
  assert read("my cats", "--workdir=x").run.workdir == pathlib.Path("x")


def test_a_folder_with_the_name_of_a_preset_needs_a_path(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("shapes").mkdir()
  assert read("shapes") == PRESETS["shapes"]
  assert "write ./shapes" in capsys.readouterr().err
  assert read("./shapes").data.dataset == "folder"


@pytest.mark.parametrize(
  ("word", "message"),
  [
    ("/nowhere", "/nowhere is neither a preset nor a folder"),
    ("--steps=3", "--steps=3 is an option"),
  ],
)
def test_what_is_neither_preset_nor_folder_is_said_with_the_presets(
  capsys, word, message
):
  code, _, _ = ended(capsys, word)
  assert code.startswith(f"error: {message}")
  assert all(name in code for name in PRESETS)


@pytest.mark.parametrize(
  ("words", "size"),
  [
    (["128"], (128, 128)),
    (["128", "96"], (128, 96)),
    (["None"], None),
  ],
)
def test_one_number_is_a_square_crop(words, size):
  found = read("shapes", "--crop-size", *words, "--seed=1")
  assert found.augmentation.crop_size == size
  assert found.run.seed == 1


@pytest.mark.parametrize("words", [["1", "2", "3"], ["wide"], []])
def test_other_sizes_of_crops_are_refused(capsys, words):
  code, _, error = ended(capsys, "shapes", "--crop-size", *words)
  assert code == 2
  assert "crop-size" in error or "3" in error


def test_a_try_of_a_few_steps_has_a_shorter_warm_up():
  assert read("shapes", "--steps", "20").optimizer.warmup_steps == 10
  given = read("shapes", "--steps", "400").optimizer
  assert given.warmup_steps == read("shapes").optimizer.warmup_steps > 10


def test_steps_and_epochs_exclude_each_other(capsys):
  assert read("shapes", "--epochs=2.5").epochs == 2.5
  code, _, error = ended(capsys, "shapes", "--steps=3", "--epochs=2")
  assert code == 2
  assert "--steps" in error and "--epochs" in error


def test_the_help_shows_what_most_runs_need_before_all_else(capsys):
  code, shown, _ = ended(capsys, "shapes", "--help")
  assert code == 0
  essential = (*train_options.ESSENTIAL, "steps", "epochs", "patience")
  every = config_lib.flat(PRESETS["shapes"])
  places = {name: shown.index(f" --{name.replace('_', '-')}") for name in every}
  last = max(places[name] for name in essential)
  assert all(places[name] > last for name in every if name not in essential)
