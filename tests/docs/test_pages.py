"""The examples and commands of README and docs are right.

Python examples of a page run one after the other, in one folder. A comment
`<!-- not tested: reason -->` before an example leaves it out.
"""

import doctest
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types

import pytest
import tyro

import fcn_jax as fcn
from fcn_jax.cli import convert
from fcn_jax.cli import main
from fcn_jax.cli import presets
from fcn_jax.cli import train_options

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLE = re.compile(
  r"(?P<comment><!-- [^>]* -->\n)?^```python\n(?P<code>.*?)^```$",
  re.DOTALL | re.MULTILINE,
)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IN_TABLE = re.compile(r"`(python -m experiments[^`]*)`")

# The modules with the options of benchmarks.
BENCHMARKS = {
  f"experiments.benchmarks.{name}": f"experiments.benchmarks.{module}"
  for name, module in {
    "against_commit": "against_commit",
    "augmentation": "augmentation",
    "frozen_step": "frozen_step",
    "input_pipeline": "input_pipeline.benchmark",
    "kill_and_resume": "kill_and_resume",
    "loss_head": "loss_head",
    "thin_lines": "thin_lines",
    "networks": "networks",
    "tiled_prediction": "tiled_prediction",
  }.items()
}
BENCHMARKS["experiments.gallery"] = "experiments.gallery"
BENCHMARKS["experiments.results_page"] = "experiments.results_page.page"
TRAIN_OVERHEAD = "experiments.benchmarks.train_overhead"


def examples(page):
  """The Python examples of a page that are to run."""
  found = EXAMPLE.finditer(page.read_text())
  return [match["code"] for match in found if not match["comment"]]


def run(code, folder):
  """Runs code in a process of its own."""
  script = subprocess.run(
    [sys.executable, "-c", code],
    cwd=folder,
    env={
      **os.environ,
      "TFDS_DATA_DIR": str(folder / "data"),
      "PYTHONPATH": str(ROOT),
      # One device, as most readers have it.
      "XLA_FLAGS": "",
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stdout + script.stderr
  return script.stdout


def as_program(code):
  """Code, or a session with prompts, as a program."""
  if ">>>" not in code:
    return code
  lines = []
  for example in doctest.DocTestParser().get_examples(code):
    source, want = example.source.strip(), example.want.strip()
    lines.append(f"assert repr({source}) == {want!r}" if want else source)
  return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
  "page",
  [
    pytest.param(
      page,
      # The quickstart trains for two minutes.
      marks=getattr(
        pytest.mark, "long" if page.stem == "quickstart" else "slow"
      ),
      id=page.stem,
    )
    for page in PAGES
    if examples(page)
  ],
)
def test_examples_run(page, tmp_path):
  run("\n".join(map(as_program, examples(page))), tmp_path)


def commands():
  """The commands of all pages, as they are printed."""
  for page in [ROOT / "README.md", *PAGES]:
    text = page.read_text()
    for block in SHELL.findall(text):
      yield from block.splitlines()
    yield from IN_TABLE.findall(text)


def parse(words):
  """Reads the options of a command; ends the program if one is unknown."""
  match words:
    case ["fcn-jax", "train", name, *arguments]:
      # A folder has the options of this preset.
      _, default = presets.PRESETS["folder" if name == "PICTURES" else name]
      train_options.parse(default, arguments)
    case ["fcn-jax", "convert", name, *arguments]:
      tyro.cli(getattr(convert, name.capitalize()), args=arguments)
    case ["fcn-jax", command, *arguments]:
      module, _ = main.COMMANDS[command]
      module = importlib.import_module(f"fcn_jax.cli.{module}")
      tyro.cli(module.Options, args=arguments)
    case ["python", "-m", name, *arguments] if name in BENCHMARKS:
      options = importlib.import_module(BENCHMARKS[name]).Options
      tyro.cli(options, args=arguments)
    case ["python", "-m", name, preset, *arguments] if name == TRAIN_OVERHEAD:
      parse_preset(presets.PRESETS, preset, arguments)
    case ["python", "-m", name, preset, *arguments]:
      study = importlib.import_module(f"{name}.study")
      parse_preset(study.PRESETS, preset, arguments)


def parse_preset(known, preset, arguments):
  _, default = known[preset]
  config = (tyro.conf.OmitArgPrefixes,)
  tyro.cli(type(default), default=default, args=arguments, config=config)


def is_checked(words):
  """Whether a command is one of ours with options."""
  name = words[2] if words[:2] == ["python", "-m"] else ""
  ours = words[0] == "fcn-jax" or name.startswith("experiments.")
  # Without PyTorch this benchmark ends when it is imported.
  return ours and "--help" not in words and not name.endswith(".train_step")


@pytest.mark.parametrize(
  "command",
  sorted({c for c in commands() if is_checked(shlex.split(c, comments=True))}),
)
def test_commands_have_these_options(command):
  parse(shlex.split(command, comments=True))


# Modules whose public names are those of their room.
IN_THEIR_ROOM = {
  "fcn_jax.models.fcn",
  "fcn_jax.models.fcn_resnet",
  "fcn_jax.models.late_fusion",
}


def public_modules(package):
  """Names of the modules that rooms list in `__all__`."""
  for name in getattr(package, "__all__", ()):
    member = getattr(package, name)
    if isinstance(member, types.ModuleType):
      yield member.__name__
      yield from public_modules(member)


def test_the_reference_has_every_public_module():
  pages = (ROOT / "docs" / "api").glob("*.md")
  text = "".join(page.read_text() for page in pages)
  documented = set(re.findall(r"automodule:: (\S+)", text))
  assert documented == {*public_modules(fcn)} - IN_THEIR_ROOM
