"""The command line of `fcn-jax train`: a preset or a folder, and options.

The options are those of `runs.config`. The essential ones stand first in
--help, the others follow in their groups.
"""

import ast
import dataclasses
import functools
import inspect
import pathlib
import sys
import textwrap
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from fcn_jax import reprs
from fcn_jax.cli import presets
from fcn_jax.runs import config as config_lib

# The preset that a folder of pictures has.
_FOLDER = "folder"

ESSENTIAL = (
  "workdir",
  "data_dir",
  "batch_size",
  "crop_size",
  "backbone",
  "init",
  "freeze",
  "learning_rate",
  "sampler",
  "rate",
  "resize",
  "overwrite",
)
# One of these says how long to train.
_LENGTHS = ("steps", "epochs")
# What stands first in --help.
_FIRST = (*ESSENTIAL, *_LENGTHS, "patience")

_LENGTH = tyro.conf.create_mutex_group(required=False, title="length")


def read(arguments: Sequence[str], *, usage: str) -> config_lib.Train:
  """Reads a command line; ends the program if it is wrong or asks for help.

  Args:
    arguments: a preset, or a folder of pictures; then options.
    usage: text above the options in the help.
  """
  if not arguments or arguments[0] in ("-h", "--help"):
    print("usage: fcn-jax train PRESET|PICTURES [OPTIONS]\n")
    print(f"{usage.strip()}\n\n{list_of_presets()}")
    sys.exit(0 if arguments else 2)
  name, *options = arguments
  about, default = _preset(name)
  config = parse(
    default,
    options,
    prog=f"fcn-jax train {name}",
    description=f"{about}\n\n{usage.strip()}",
  )
  steps, warmup = config.optimizer.steps, config.optimizer.warmup_steps
  if warmup == default.optimizer.warmup_steps and 0 < steps <= warmup:
    # A first try of a few steps.
    config = config.replace(warmup_steps=steps // 2)
  return config


def list_of_presets() -> str:
  """The presets, and what each does."""
  width = max(map(len, presets.PRESETS))
  return "\n".join(
    [
      "presets (fcn-jax train PRESET --help shows the options):",
      *(
        f"  {name:{width}}  {about}"
        for name, (about, _) in presets.PRESETS.items()
      ),
    ]
  )


def _preset(name: str) -> tuple[str, config_lib.Train]:
  """What a preset or a folder of pictures trains, and its options."""
  path = pathlib.Path(name)
  if name in presets.PRESETS:
    if path.is_dir():
      print(
        f"note: {name} is a preset. For the pictures in the folder {name}, "
        f"write ./{name}",
        file=sys.stderr,
      )
    return presets.PRESETS[name]
  if not path.is_dir():
    is_option = name.startswith("-")
    sys.exit(
      f"error: {reprs.shown(name)} is "
      + ("an option" if is_option else "neither a preset nor a folder")
      + ": first name a preset or a folder of pictures, as in fcn-jax train "
      f"PICTURES --steps 500.\n\n{list_of_presets()}"
    )
  about, default = presets.PRESETS[_FOLDER]
  workdir = pathlib.Path("runs", path.resolve().name)
  return about, default.replace(data_dir=path, workdir=workdir)


def parse(
  default: config_lib.Train,
  arguments: Sequence[str],
  *,
  prog: str | None = None,
  description: str | None = None,
) -> config_lib.Train:
  """Changes the options of a preset by those of a command line.

  Args:
    default: the preset.
    arguments: the options only.
    prog: name of the program, in the help.
    description: text above the options in the help.
  """
  given = tyro.cli(
    _command_line(type(default)),
    default=_arranged(default),
    prog=prog,
    description=description,
    args=arguments,
    config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
  )
  options = {}
  for group in config_lib.groups_of(given).values():
    options |= {name: getattr(group, name) for name in config_lib.names(group)}
  return default.replace(**options)


def _arranged(default: config_lib.Train) -> Any:
  """The options of a preset in the groups of the command line."""
  kind, options = _command_line(type(default)), config_lib.flat(default)
  return kind(
    **{
      field.name: field.type(
        **{name: options[name] for name in config_lib.names(field.type)}
      )
      for field in dataclasses.fields(kind)
    }
  )


@functools.cache
def _command_line(kind: type) -> type:
  """A class of the same options, in other groups, for `tyro`."""
  hints = typing.get_type_hints(kind)
  groups = {
    field.name: hints[field.name]
    for field in dataclasses.fields(kind)
    if dataclasses.is_dataclass(hints[field.name])
  }
  annotated = {}
  for options in (*groups.values(), kind):
    annotated |= _annotated(options)
  arranged = {"essential": _FIRST}
  for name, options in groups.items():
    rest = [f.name for f in dataclasses.fields(options)]
    arranged[name] = [option for option in rest if option not in _FIRST]
  return dataclasses.make_dataclass(
    "CommandLine",
    [
      (
        group,
        dataclasses.make_dataclass(
          group.capitalize(),
          [(name, annotated[name]) for name in names],
          frozen=True,
          namespace={"__doc__": _title(group, groups)},
        ),
      )
      for group, names in arranged.items()
    ],
    frozen=True,
    namespace={"__doc__": kind.__doc__},
  )


def _title(group: str, groups: dict[str, type]) -> str:
  if group in groups:
    return inspect.getdoc(groups[group]).splitlines()[0]
  return "What most runs need."


def _annotated(kind: type) -> dict[str, Any]:
  """The options of a class with their texts, by name."""
  hints, texts = typing.get_type_hints(kind), _texts(kind)
  result = {}
  for name in config_lib.names(kind):
    hint = hints[name]
    if dataclasses.is_dataclass(hint):
      continue
    parts = [tyro.conf.arg(help=texts[name])]
    if hint == tuple[int, int] | None:
      parts.append(_SIDES)
    if name in _LENGTHS:
      parts.append(_LENGTH)
    result[name] = Annotated[hint, *parts]
  return result


def _texts(kind: type) -> dict[str, str]:
  """The docstrings below the fields of a class, each in one line."""
  (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
  return {
    field.target.id: " ".join(text.value.value.split())
    for field, text in zip(node.body, node.body[1:], strict=False)
    if isinstance(field, ast.AnnAssign)
    and isinstance(text, ast.Expr)
    and isinstance(text.value, ast.Constant)
  }


def _sides(words: list[str]) -> tuple[int, int] | None:
  """Height and width, from one number or two."""
  if words == ["None"]:
    return None
  if len(words) not in (1, 2):
    raise ValueError("give one number, or height and width")
  sides = [int(word) for word in words]
  return sides[0], sides[-1]


_SIDES = tyro.constructors.PrimitiveConstructorSpec(
  nargs=(1, 2),
  metavar="SIDE|HEIGHT WIDTH|None",
  instance_from_str=_sides,
  is_instance=lambda value: value is None or isinstance(value, tuple),
  str_from_instance=lambda value: (
    ["None"] if value is None else [str(side) for side in value]
  ),
)
