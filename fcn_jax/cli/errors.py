"""Errors that people see: one paragraph, not a traceback."""

import contextlib
import sys
from collections.abc import Iterator

from fcn_jax.runs import config as config_lib
from fcn_jax.runs import loop
from fcn_jax.runs import signals


@contextlib.contextmanager
def explained() -> Iterator[None]:
  """Ends the program with the message of a user's error.

  Wrap only what looks at the user's input in it: anywhere else, such an error
  is a bug, whose traceback is wanted.
  """
  try:
    yield
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1) from error
  except KeyboardInterrupt:
    sys.exit("interrupted.")


@contextlib.contextmanager
def ends_of_runs(config: config_lib.Groups) -> Iterator[None]:
  """Ends the program with what a user must know of a run that did not end."""
  workdir, warning = config.run.workdir, ""
  if config.run.overwrite:
    warning = " Leave --overwrite out then: it would delete the run."
  try:
    yield
  except signals.Interrupted as reason:
    print(f"{workdir}: {reason}{warning}", file=sys.stderr)
    # As shells report it.
    sys.exit(128 + reason.signal_number)
  except loop.NonFiniteError as error:
    sys.exit(f"error: {workdir}: {error}")
  except OSError as error:
    sys.exit(
      f"error: {workdir}: {error} Once that is mended, the same command goes "
      f"on from the newest checkpoint.{warning}"
    )
  except KeyboardInterrupt:
    # Before the first step, or at the second Ctrl-C.
    sys.exit("interrupted; the same command goes on from what is saved.")
