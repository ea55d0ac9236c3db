"""Ends all processes of a run when one fails, with the reason.

A thread of each process waits for a reason at the coordination service, where
it also says that its process lives. Process 0 gives the reason for a process
that has gone silent. If process 0 itself dies, JAX ends the others.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fcn_jax import reprs

_END = "fcn_jax/end"
_LIVES = "fcn_jax/lives"
# The end of a program that has not failed.
_GOOD = "good"
# Between two signs of life.
_BEAT_SECONDS = 2.0
_SILENT_SECONDS = 10.0
# A process that fails along with the others may end by itself.
_GRACE_SECONDS = 3.0
# Process 0 has the service, and leaves last: the others may take their time to
# fail by themselves.
_LEAVE_SECONDS = _GRACE_SECONDS + 3.0

_watch: "_Watch | None" = None


def begin(client: Any, *, index: int, count: int) -> None:
  """Watches over all processes from now on.

  Args:
    client: of the coordination service.
    index: of this process.
    count: of processes.
  """
  global _watch
  _watch = _Watch(client, index, count)


@contextlib.contextmanager
def end_together() -> Iterator[None]:
  """Around a program: if it fails in one process, all processes end.

  Each prints one paragraph with the reason. Also serves as a decorator.
  """
  global _watch
  try:
    yield
  except BaseException as error:
    failed = not isinstance(error, SystemExit) or error.code not in (None, 0)
    if _watch is None or not failed:
      raise
    _watch.fail(error)
  if _watch is not None:
    _watch.finish()
    _watch = None


@contextlib.contextmanager
def alarm(seconds: float, message: Callable[[], str]) -> Iterator[None]:
  """Ends the program with a message if the block takes too long."""

  def ring() -> None:
    _say(f"error: {message()}")
    os._exit(1)

  timer = threading.Timer(seconds, ring)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


class _Watch:
  """Of one process over itself and the others."""

  def __init__(self, client: Any, index: int, count: int):
    self._client = client
    self._index = index
    self._count = count
    self._is_ending = threading.Event()
    self._has_reason = threading.Event()
    self._reason = ""
    # By process: its last sign of life, and when it was seen.
    self._seen: dict[str, tuple[str, float]] = {}
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def finish(self) -> None:
    """Waits until all have come here."""
    self._client.wait_at_barrier("fcn_jax/finished", 7 * 24 * 3600 * 1000)
    if self._index == 0:
      self._post(_GOOD)
    self._thread.join()

  def fail(self, error: BaseException) -> None:
    """Says why, also to the others, and ends the program."""
    self._is_ending.set()
    code, reason = 1, f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
      cause = error.__cause__ or error.__context__
      code = error.code if isinstance(error.code, int) else 1
      reason = error.code if isinstance(error.code, str) else str(cause)
      if isinstance(error.code, str):
        _say(error.code)
    # A collective fails when another process has died. That one, or process 0,
    # knows the reason.
    elif _is_of_runtime(error) and self._has_reason.wait(
      _SILENT_SECONDS + 2 * _BEAT_SECONDS
    ):
      _say(f"error: {self._reason}")
    else:
      _say("".join(traceback.format_exception(error)))
    reason = reason.removeprefix("error: ")
    self._post(f"process {self._index} has ended: {reason}")
    self._leave(code)

  def _run(self) -> None:
    for beat in itertools.count():
      try:
        self._client.key_value_set(
          f"{_LIVES}/{self._index}", str(beat), allow_overwrite=True
        )
        if self._index == 0:
          self._find_silent()
        self._reason = self._client.blocking_key_value_get(
          _END, int(1000 * _BEAT_SECONDS)
        )
        break
      except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
          self._reason = (
            f"process 0, which the others meet at, does not answer ({error})"
          )
          break
    if self._reason == _GOOD:
      return
    self._has_reason.set()
    if self._is_ending.wait(_GRACE_SECONDS):
      return
    _say(f"error: {self._reason}")
    self._leave(1)

  def _find_silent(self) -> None:
    """Posts the reason if a process has given no sign of life for long."""
    now = time.monotonic()
    beats = dict(self._client.key_value_dir_get(_LIVES))
    for number in range(self._count):
      name = f"{_LIVES}/{number}"
      beat = beats.get(name, "")
      before, since = self._seen.get(name, (None, now))
      if beat != before:
        self._seen[name] = beat, now
      elif now - since > _SILENT_SECONDS:
        self._post(
          f"process {number} has not answered for {now - since:.0f} s. It was "
          "killed (perhaps as it needed too much memory), or its host is down: "
          "look at its last messages."
        )

  def _post(self, reason: str) -> None:
    # Another may have been first, or process 0 may be gone.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._client.key_value_set(_END, reason)

  def _leave(self, code: int) -> None:
    with contextlib.suppress(OSError):
      sys.stdout.flush()
      sys.stderr.flush()
    # Those who have died do not come.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._client.wait_at_barrier("fcn_jax/left", int(1000 * _LEAVE_SECONDS))
    if self._index == 0:
      time.sleep(0.5)
    # Not sys.exit: JAX would wait for the others.
    os._exit(code)


def _is_of_runtime(error: BaseException) -> bool:
  """Whether JAX's runtime has raised an error, or one that caused it."""
  while error is not None:
    if isinstance(error, jax.errors.JaxRuntimeError):
      return True
    error = error.__cause__ or error.__context__
  return False


def _say(text: str) -> None:
  # A disk that is full may also be that of the log. The others have the reason.
  with contextlib.suppress(OSError):
    print(reprs.printable(text), file=sys.stderr, flush=True)
