"""Programs that use modules of the package, without the seconds for JAX."""

import pathlib
import subprocess
import sys
import textwrap

import fcn_jax

# Its modules can be imported, and its __init__ is not run.
_PRELUDE = f"""
import sys, types
package = types.ModuleType("fcn_jax")
package.__path__ = [{str(pathlib.Path(fcn_jax.__file__).parent)!r}]
sys.modules["fcn_jax"] = package
"""


def start(code: str, *arguments) -> subprocess.Popen:
  """Starts a program, with pipes for what it reads and prints."""
  return subprocess.Popen(
    [sys.executable, "-c", _PRELUDE + textwrap.dedent(code), *arguments],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
