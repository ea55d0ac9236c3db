import importlib.metadata
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import fcn_jax

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [
  pkgutil.resolve_name(info.name)
  for info in pkgutil.walk_packages(fcn_jax.__path__, "fcn_jax.")
]


def public_members(module):
  """Public functions and classes that a module defines itself."""
  return [
    (name, member)
    for name, member in vars(module).items()
    if not name.startswith("_")
    and callable(member)
    and getattr(member, "__module__", None) == module.__name__
  ]


MEMBERS = [
  pytest.param(member, id=f"{module.__name__}.{name}")
  for module in MODULES
  for name, member in public_members(module)
]


def test_nothing_imports_tensorflow():
  code = "\n".join(
    [
      "import sys",
      "import fcn_jax, fcn_jax.data, fcn_jax.visualize, fcn_jax.runs",
      "assert 'tensorflow' not in sys.modules",
    ]
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_the_installed_package_has_a_version():
  assert importlib.metadata.version("fcn_jax")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_module_says_what_it_is_for(module):
  assert inspect.getdoc(module)


@pytest.mark.parametrize("member", MEMBERS)
def test_everything_public_says_what_it_does(member):
  assert member.__doc__
  if inspect.isclass(member):
    # Not what dataclasses and named tuples write by themselves.
    assert not member.__doc__.startswith(f"{member.__name__}(")


@pytest.mark.parametrize("member", MEMBERS)
def test_names_of_arguments_follow_the_conventions(member):
  if inspect.isclass(member) and issubclass(member, Exception):
    return  # Python does not tell what these take.
  parameters = inspect.signature(member).parameters
  if not inspect.isclass(member):
    # Random keys come first; switches are given by name, without a default.
    if "key" in parameters:
      names = list(parameters)
      assert "key" in (names[0], names[-1]) or "batch" in names
    if "train" in parameters:
      train = parameters["train"]
      assert train.kind is train.KEYWORD_ONLY
      assert train.default is train.empty
  assert "rng" not in parameters
  for name in ("rate", "num_classes", "momentum", "weight_decay", "edge"):
    if name in parameters and not inspect.isclass(member):
      if member.__name__ in ("check_rate", "normalizer"):
        continue
      assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_no_file_reaches_outside_the_repository():
  outside = "../" + "shared"
  listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if listed.returncode:
    pytest.skip("not a git checkout")
  found = [
    name
    for name in listed.stdout.splitlines()
    if (ROOT / name).is_file()
    and outside.encode() in (ROOT / name).read_bytes()
  ]
  assert found == [".ci/run"] or found == []
