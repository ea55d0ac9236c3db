"""The program fcn-jax, and its choice of the command."""

import subprocess
import sys

import pytest

import fcn_jax
from fcn_jax.cli import check_data
from fcn_jax.cli import compilation_cache
from fcn_jax.cli import main

COMMANDS = (
  "check-data",
  "train",
  "evaluate",
  "predict",
  "report",
  "export",
  "convert",
  "clean",
)


@pytest.fixture(autouse=True)
def cache_is_enabled(monkeypatch):
  """Whether the cache was enabled; the tests have their own."""
  calls = []
  monkeypatch.setattr(compilation_cache, "enable", lambda: calls.append(1))
  return calls


def ended(capsys, *arguments):
  """Exit status, and what was printed to both streams."""
  with pytest.raises(SystemExit) as stop:
    main.main(arguments)
  return stop.value.code, *capsys.readouterr()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(capsys, flag):
  code, out, err = ended(capsys, flag)
  assert (code, err) == (0, "")
  assert out.startswith("usage: fcn-jax COMMAND")
  for command in COMMANDS:
    assert f"\n  {command} " in out
  assert main.COMMANDS.keys() == {*COMMANDS}


def test_without_a_command_the_usage_is_printed_as_an_error(capsys):
  code, out, _ = ended(capsys)
  assert code == 2
  assert "usage: fcn-jax COMMAND" in out


def test_the_version_is_that_of_the_package(capsys):
  main.main(["--version"])
  assert capsys.readouterr().out == f"fcn-jax {fcn_jax.__version__}\n"


def test_an_unknown_command_is_named_with_those_that_there_are(capsys):
  code, _, _ = ended(capsys, "trian")
  # Python prints it and exits with 1.
  assert code.startswith("error: there is no command 'trian'.")
  assert all(command in code for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(capsys, command):
  code, out, _ = ended(capsys, command, "--help")
  assert code == 0
  assert f"usage: fcn-jax {command}" in out


def test_a_command_gets_the_arguments_after_it(monkeypatch, cache_is_enabled):
  given = []
  monkeypatch.setattr(check_data, "main", given.append)
  main.main(["check-data", "shapes", "--workdir", "x"])
  assert given == [["shapes", "--workdir", "x"]]
  assert cache_is_enabled


def test_arguments_are_those_of_the_process_if_none_are_given(monkeypatch):
  given = []
  monkeypatch.setattr(check_data, "main", given.append)
  monkeypatch.setattr(sys, "argv", ["fcn-jax", "check-data", "shapes"])
  main.main()
  assert given == [["shapes"]]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("arguments", "code", "message"),
  [
    (["--help"], 0, "usage: fcn-jax COMMAND"),
    (["--version"], 0, f"fcn-jax {fcn_jax.__version__}"),
    ([], 2, "usage: fcn-jax COMMAND"),
    (["trian"], 1, "error: there is no command 'trian'"),
    (["check-data", "shapes/tiny", "--num-pictures=0"], 1, "num_pictures is 0"),
  ],
)
def test_the_package_is_the_program(tmp_path, arguments, code, message):
  result = subprocess.run(
    [sys.executable, "-m", "fcn_jax", *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == code, result.stderr
  assert message in result.stdout + result.stderr
  assert "Traceback" not in result.stderr
