"""Signals that ask a run to end."""

import signal
import threading
from typing import Any


class Interrupted(Exception):
  """A signal asked the run to end; everything is saved.

  Attributes:
    signal_number: of the signal.
  """

  def __init__(self, signal_number: int, step: int):
    name = signal.Signals(signal_number).name
    super().__init__(
      f"stopped by {name} after step {step}, which is saved; the same command "
      "continues from there."
    )
    self.signal_number = signal_number


class StopSignals:
  """Turns SIGTERM and SIGINT (Ctrl-C) into a request to end after this step.

  A second SIGINT ends the program at once.

  Attributes:
    received: number of the signal that came; None before.
  """

  def __init__(self):
    self.received: int | None = None
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "StopSignals":
    # Python lets only the main thread handle signals.
    if threading.current_thread() is not threading.main_thread():
      return self
    for number in (signal.SIGTERM, signal.SIGINT):
      self._before[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _on_signal(self, number, frame):
    del frame
    if self.received is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = number
