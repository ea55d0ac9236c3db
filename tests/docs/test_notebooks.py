"""The notebooks run, and are stored as they ran."""

import ast
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import fcn_jax as fcn

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "notebooks"
NAMES = ("loss_sampling", "your_folder")
# Commands of IPython: a line, and those that a backslash adds to it.
COMMAND = re.compile(r"^( *)[!%](?:.*\\\n)*.*$", re.MULTILINE)
LARGEST = 1_000_000  # bytes
ON_THIS_MACHINE = re.compile(r"/(tmp|home|root|work|usr|content)/")


def code_cells(name):
  """The code cells of a notebook, with their sources as one string."""
  notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
  for cell in notebook["cells"]:
    if cell["cell_type"] == "code":
      yield {**cell, "source": "".join(cell["source"])}


def dotted(node):
  """The parts of a name such as `fcn.data.load`; nothing for other nodes."""
  if isinstance(node, ast.Attribute):
    before = dotted(node.value)
    return before and [*before, node.attr]
  return [node.id] if isinstance(node, ast.Name) else []


def found(parts):
  member = fcn
  for part in parts[1:]:
    member = getattr(member, part)
  return member


def test_all_notebooks_are_tested():
  assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_those_of_one_whole_run(name):
  cells = list(code_cells(name))
  outputs = [output for cell in cells for output in cell["outputs"]]
  kinds = {kind for output in outputs for kind in output.get("data", {})}
  assert [cell["execution_count"] for cell in cells] == [
    number for number, _ in enumerate(cells, 1)
  ]
  assert "image/png" in kinds
  for output in outputs:
    assert output["output_type"] != "error"
    assert output.get("name") != "stderr"
    texts = [output.get("text", ""), *output.get("data", {}).values()]
    assert not [t for t in texts if ON_THIS_MACHINE.search("".join(t))]
  assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_names_and_options_of_the_package_exist(name):
  count = 0
  for cell in code_cells(name):
    tree = ast.parse(COMMAND.sub(r"\1pass", cell["source"]))
    for node in ast.walk(tree):
      if (parts := dotted(node))[:1] == ["fcn"]:
        found(parts)
        count += 1
      if isinstance(node, ast.Call) and dotted(node.func)[:1] == ["fcn"]:
        function = found(dotted(node.func))
        options = {option.arg: option for option in node.keywords}
        if None not in options:
          inspect.signature(function).bind(*node.args, **options)
  assert count > 20


@pytest.mark.parametrize("name", NAMES)
def test_every_line_fits_on_a_screen(name):
  lines = [line for c in code_cells(name) for line in c["source"].split("\n")]
  assert max(map(len, lines)) <= 80


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_runs(name, tmp_path):
  command = ["-m", "experiments.notebooks.execute", name, "--out", tmp_path]
  done = subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
    # One device, as most readers have it.
    env={**os.environ, "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert (tmp_path / f"{name}.ipynb").is_file()
