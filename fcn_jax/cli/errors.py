"""Errors that people see: one paragraph, not a traceback."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from fcn_jax import reprs
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import loop
from fcn_jax.runs import signals
from fcn_jax.runs import step_folders


@contextlib.contextmanager
def explained(
  kinds: type[Exception] | tuple[type[Exception], ...] = (ValueError, OSError),
) -> Iterator[None]:
  """Ends the program with the message of a user's error.

  Use it only around code that checks the user's input: anywhere else, such an
  error is a bug, and the traceback helps. Around code that writes, use it for
  `OSError` alone.

  Args:
    kinds: of errors.
  """
  try:
    yield
  except kinds as error:
    print(f"error: {reprs.printable(error)}", file=sys.stderr)
    raise SystemExit(1) from error


def interrupted(message: str) -> NoReturn:
  """Ends the program that Ctrl-C has stopped, with the status for that."""
  print(message, file=sys.stderr)
  sys.exit(128 + signal.SIGINT)


@contextlib.contextmanager
def ends_of_runs(config: config_lib.Groups) -> Iterator[None]:
  """Ends the program with a message about a run that stopped early."""
  workdir, warning = reprs.path(config.run.workdir), ""
  if config.run.overwrite:
    warning = " Leave --overwrite out then: it would delete the run."
  try:
    yield
  except signals.Interrupted as reason:
    print(f"{workdir}: {reason}{warning}", file=sys.stderr)
    # The status that shells report for a signal.
    sys.exit(128 + reason.signal_number)
  except loop.NonFiniteError as error:
    sys.exit(f"error: {workdir}: {reprs.printable(error)}")
  except step_folders.DamagedError as error:
    sys.exit(
      f"error: {reprs.printable(error)} The same command sets that step aside "
      f"and continues from the one before.{warning}"
    )
  except OSError as error:
    sys.exit(
      f"error: {workdir}: {reprs.printable(error)} Once that is repaired, the "
      f"same command continues from the newest checkpoint.{warning}"
    )
  except KeyboardInterrupt:
    # Before the first step, or at the second Ctrl-C.
    interrupted(
      f"interrupted; the same command continues from what is saved.{warning}"
    )
