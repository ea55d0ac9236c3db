"""Signals that ask a run to end."""

import os
import signal
import threading
from typing import Any

from fcn_jax.runs import processes


class Interrupted(Exception):
  """A signal asked the run to end; all that is good is saved.

  Attributes:
    signal_number: of the signal.

  Args:
    signal_number: of the signal.
    step: after which the run ends.
    newest: the newest step that is saved, if it is not this one.
  """

  def __init__(
    self, signal_number: int, step: int, *, newest: int | None = None
  ):
    name = signal.Signals(signal_number).name
    if newest in (None, step):
      where = "which is saved; the same command continues from there."
    else:
      # Steps that are not finite are not saved.
      where = f"which is not finite; the same command continues from {newest}."
    super().__init__(f"stopped by {name} after step {step}, {where}")
    self.signal_number = signal_number


class StopSignals:
  """Turns SIGTERM and SIGINT (Ctrl-C) into a request to end after this step.

  A second SIGINT ends the program at once. With several processes, a signal to
  one ends all after the same step: `poll` says when.

  Attributes:
    received: number of the signal that came; None before.
  """

  def __init__(self):
    self.received: int | None = None
    self._own: int | None = None
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "StopSignals":
    # Python lets only the main thread handle signals.
    if threading.current_thread() is not threading.main_thread():
      return self
    handled = [signal.SIGTERM, signal.SIGINT]
    if processes.count() > 1:
      # JAX has its own handler, which tells all processes.
      handled.remove(signal.SIGTERM)
    for number in handled:
      self._before[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def poll(self) -> int | None:
    """Returns `received`. All processes call it, and equally often."""
    if self.received is not None:
      return self.received
    if processes.count() == 1:
      self.received = self._own
    elif processes.has_notice():
      own = [number for number in processes.gather(self._own) if number]
      self.received = max(own, default=signal.SIGTERM)
    return self.received

  def _on_signal(self, number, frame):
    del frame
    if self._own is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._own = number
    if processes.count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)
