"""The package as a whole: its rooms, its public names, its conventions."""

import ast
import configparser
import functools
import graphlib
import importlib.metadata
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys
import types

import pytest

import fcn_jax

ROOT = pathlib.Path(__file__).parents[1]
MODULES = {
  info.name: pkgutil.resolve_name(info.name)
  for info in pkgutil.walk_packages(fcn_jax.__path__, "fcn_jax.")
  if info.name != "fcn_jax.__main__"
}
ROOMS = {
  name: module
  for name, module in {"fcn_jax": fcn_jax, **MODULES}.items()
  if hasattr(module, "__path__")
}


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
  for module in MODULES.values()
  for name, member in public_members(module)
]


# As a package.


def test_the_version_is_that_of_the_installed_package():
  assert fcn_jax.__version__ == importlib.metadata.version("fcn_jax")


def distribution_name(requirement):
  """Its normalized name."""
  name = re.match(r"[\w.-]+", requirement)[0]
  return re.sub(r"[-_.]+", "-", name).lower()


def distributions_imported():
  """Distributions of others that the package's modules import."""
  known = importlib.metadata.packages_distributions()
  names = set()
  for path in (ROOT / "fcn_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        names |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        names.add(node.module)
      elif isinstance(node, ast.Call) and node.args:
        name = getattr(node.args[0], "value", None)
        if getattr(node.func, "attr", "") == "import_module" and name:
          names.add(name)
  others = {name.split(".")[0] for name in names}
  others -= {*sys.stdlib_module_names, "fcn_jax"}
  return {distribution_name(known.get(one, [one])[0]) for one in others}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
  # setup.cfg says why: others import these without declaring them.
  by_others = {"array-record", "flatbuffers", "importlib-resources"}
  config = configparser.ConfigParser()
  config.read(ROOT / "setup.cfg")

  def declared(section, option):
    lines = config[section][option].splitlines()
    return {
      distribution_name(line)
      for line in lines
      if line and not line.startswith("#")
    }

  needed = declared("options", "install_requires")
  extras = {
    name
    for extra in ("keras", "onnx", "segments", "duplicates")
    for name in declared("options.extras_require", extra)
  }
  assert by_others <= needed
  assert distributions_imported() == (needed - by_others) | extras


@pytest.mark.slow
def test_nothing_imports_tensorflow():
  code = "\n".join(
    [
      "import sys",
      "import fcn_jax, fcn_jax.cli.main",
      "from fcn_jax.cli import check_data, convert, evaluate, export",
      "from fcn_jax.cli import predict, train",
      "assert 'tensorflow' not in sys.modules",
    ]
  )
  subprocess.run([sys.executable, "-c", code], check=True)


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


# Rooms, and which may import which.

# From below to above: a room imports only what stands in lower rows.
ROWS = (
  ("reprs", "strict_json", "writing"),
  ("holding", "types"),
  (
    "checks",
    "geometry",
    "interpolation",
    "label_bits",
    "label_boundaries",
    "label_bytes",
    "sharding",
    "platforms",
    "valid_region",
  ),
  ("blocks", "metrics", "optimizers", "patches", "upsampling", "visualize"),
  ("sampling",),
  ("data", "losses", "models"),
  ("inference", "pretrained", "train"),
  ("runs",),
  # The package itself, `import fcn_jax`.
  ("",),
  ("cli",),
  ("__main__",),
)
HEIGHTS = {room: height for height, row in enumerate(ROWS) for room in row}


@functools.cache
def files():
  """All files of the package, by the names of their modules."""
  folder = pathlib.Path(fcn_jax.__file__).parent
  result = {}
  for path in folder.rglob("*.py"):
    parts = path.relative_to(folder.parent).with_suffix("").parts
    if parts[-1] == "__init__":
      parts = parts[:-1]
    result[".".join(parts)] = path
  return result


@functools.cache
def imports():
  """Modules of the package by the module that imports them, wherever it does.

  `from fcn_jax import data` imports fcn_jax.data, and `from fcn_jax.data import
  load` imports fcn_jax.data.
  """
  paths = files()
  result = {name: set() for name in paths}
  for name, path in paths.items():
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        result[name] |= {one.name for one in node.names} & paths.keys()
      elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"{name} has a relative import"
        for one in node.names:
          full = f"{node.module}.{one.name}"
          result[name] |= {
            full if full in paths else node.module
          } & paths.keys()
  return result


def room_of(module):
  """The first room of a module: "data" of fcn_jax.data.files.decoding."""
  return (module.split(".") + [""])[1]


def test_every_room_has_its_place():
  assert {room_of(module) for module in files()} == HEIGHTS.keys()


def test_no_import_runs_upwards():
  upwards = [
    f"{module} imports {imported}"
    for module, those in imports().items()
    for imported in those
    if room_of(module) != room_of(imported)
    and HEIGHTS[room_of(imported)] >= HEIGHTS[room_of(module)]
  ]
  assert upwards == []


def test_no_import_runs_in_a_circle():
  # Raises an error that names the circle.
  graphlib.TopologicalSorter(imports()).prepare()


def test_no_room_inside_a_room_imports_in_a_circle():
  """Such as data.files, data.pipeline and back."""

  def place(module):
    parts = module.split(".")
    inner = ".".join(parts[:3])
    return inner if inner in ROOMS and len(parts) >= 3 else module

  graph = {}
  for module, those in imports().items():
    graph.setdefault(place(module), set()).update(
      place(one) for one in those if place(one) != place(module)
    )
  graphlib.TopologicalSorter(graph).prepare()


def test_only_the_program_imports_the_command_line():
  importers = {
    module
    for module, those in imports().items()
    if any(room_of(one) == "cli" for one in those)
  }
  assert {m for m in importers if room_of(m) != "cli"} == {"fcn_jax.__main__"}


def test_runs_import_modules_and_not_the_package():
  below = [m for m in files() if HEIGHTS[room_of(m)] < HEIGHTS[""]]
  assert not [m for m in below if "fcn_jax" in imports()[m]]


# What a room says is public.


@pytest.mark.parametrize("name", ROOMS)
def test_what_a_room_lists_is_there_and_nothing_else_is_public(name):
  room = ROOMS[name]
  if room_of(name) == "cli":
    # A program: nothing to import.
    assert not hasattr(room, "__all__")
    return
  listed = room.__all__
  assert list(listed) == sorted({*listed}, key=listed.index), "listed twice"
  missing = [one for one in listed if not hasattr(room, one)]
  assert missing == []
  # What the room's __init__ imports or defines itself.
  tree = ast.parse(pathlib.Path(room.__file__).read_text(encoding="utf-8"))
  own = set()
  for node in tree.body:
    if isinstance(node, ast.ImportFrom):
      own |= {one.asname or one.name for one in node.names}
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      own.add(node.name)
  public = {one for one in own if not one.startswith("_")}
  internal = {
    one
    for one in public - {*listed}
    if not (
      isinstance(getattr(room, one), types.ModuleType)
      and getattr(room, one).__name__.startswith("fcn_jax")
    )
  }
  assert internal == set()


# Conventions.


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_every_module_says_what_it_is_for(module):
  assert inspect.getdoc(module)


@pytest.mark.parametrize("member", MEMBERS)
def test_everything_public_says_what_it_does(member):
  assert member.__doc__
  if inspect.isclass(member):
    # Not what dataclasses and named tuples write by themselves.
    assert not member.__doc__.startswith(f"{member.__name__}(")


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_signatures_are_readable(module):
  """`help` shows names of types, not what Chex and optax make of them."""
  functions = [member for _, member in public_members(module)]
  for member in list(functions):
    if inspect.isclass(member):
      functions += [
        method
        for name, method in vars(member).items()
        if inspect.isfunction(method) and not name.startswith("_")
      ]
  unreadable = [
    member.__qualname__
    for member in functions
    if not (inspect.isclass(member) and issubclass(member, Exception))
    and "ForwardRef" in str(inspect.signature(member))
  ]
  assert unreadable == []


def is_below_runs(member):
  return HEIGHTS[room_of(member.__module__)] < HEIGHTS["runs"]


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
  if inspect.isclass(member) or not is_below_runs(member):
    return  # Runs and commands have their options in dataclasses.
  for name in ("rate", "num_classes", "momentum", "weight_decay", "edge"):
    if name in parameters:
      if member.__name__ in ("check", "check_rate", "normalizer"):
        continue
      assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
