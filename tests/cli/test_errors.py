"""Errors that end a command, in a paragraph."""

import errno

import pytest

from fcn_jax.cli import errors
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import step_folders


@pytest.mark.parametrize(
  "error, message",
  [
    (step_folders.DamagedError("steps/3 is damaged: a bit."), "sets that step"),
    (OSError(28, "No space left"), "continues from the newest checkpoint"),
  ],
)
def test_what_ends_a_run_is_a_paragraph_with_the_remedy(
  tmp_path, error, message
):
  config = config_lib.Train(run=config_lib.Run(tmp_path))
  with pytest.raises(SystemExit) as ended, errors.ends_of_runs(config):
    raise error
  assert str(error) in ended.value.code and message in ended.value.code
  assert "\n" not in ended.value.code


def test_what_files_are_called_steers_no_terminal(tmp_path, capsys):
  odd = "a\x1b[31m\udcff\x9b"
  with pytest.raises(SystemExit), errors.explained():
    raise ValueError(f"{odd} is bad")
  assert capsys.readouterr().err == "error: a\\x1b[31m\\udcff\\x9b is bad\n"
  config = config_lib.Train(run=config_lib.Run(tmp_path / odd))
  for error in (OSError(errno.ENOSPC, odd), step_folders.DamagedError(odd)):
    with pytest.raises(SystemExit) as ended, errors.ends_of_runs(config):
      raise error
    assert r"a\x1b[31m\udcff\x9b" in ended.value.code
    assert ended.value.code.isprintable()


def test_interrupted_commands_end_with_the_status_of_the_signal(
  tmp_path, capsys
):
  config = config_lib.Train(run=config_lib.Run(tmp_path))
  with pytest.raises(SystemExit) as ended, errors.ends_of_runs(config):
    raise KeyboardInterrupt
  assert ended.value.code == 130
  assert "continues from what is saved" in capsys.readouterr().err
