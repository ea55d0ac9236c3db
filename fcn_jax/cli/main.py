"""The program `fcn-jax`: chooses the command and runs it."""

import importlib
import sys
from collections.abc import Sequence

# Command: its module, and what it does.
COMMANDS = {
  "check-data": ("check_data", "check every file of a data set"),
  "train": ("train", "train a network, or resume a run"),
  "evaluate": ("evaluate", "score the network of a run on a split"),
  "predict": ("predict", "segment pictures of any size"),
  "report": ("report", "write one HTML page about a run"),
  "export": ("export", "write a network to a file that runs by itself"),
  "convert": ("convert", "import published weights, or export to PyTorch"),
  "clean": ("clean", "remove prepared copies of folders that have changed"),
}


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs a command.

  Args:
    arguments: of the command line; those of the process if None.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  if not arguments or arguments[0] in ("-h", "--help"):
    print(usage())
    sys.exit(0 if arguments else 2)
  if arguments[0] == "--version":
    print(f"fcn-jax {importlib.import_module('fcn_jax').__version__}")
    return
  command, *rest = arguments
  if command not in COMMANDS:
    sys.exit(f"error: there is no command {command!r}.\n\n{usage()}")
  importlib.import_module("fcn_jax.cli.compilation_cache").enable()
  module, _ = COMMANDS[command]
  try:
    importlib.import_module(f"fcn_jax.cli.{module}").main(rest)
  except KeyboardInterrupt:
    importlib.import_module("fcn_jax.cli.errors").interrupted("interrupted.")


def usage() -> str:
  """The commands, one on each line."""
  width = max(map(len, COMMANDS))
  lines = [f"  {name:{width}}  {does}" for name, (_, does) in COMMANDS.items()]
  return "\n".join(
    ["usage: fcn-jax COMMAND ...   (COMMAND --help explains its options)", ""]
    + lines
  )
