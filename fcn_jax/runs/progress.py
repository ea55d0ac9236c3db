"""What people see while a run trains: a bar, or lines where there is no screen.

On a terminal and in notebooks a bar counts the steps; elsewhere, as in the log
of a batch job, each record is a line. Both go to standard error.
"""

import datetime
import sys
import time
from typing import Any, Self

import jax
import tqdm.auto

from fcn_jax import reprs


class Display:
  """Shows how far a run is; a context manager.

  Of several processes, only the first one shows anything.

  Args:
    name: of the run.
    first: steps that were taken before.
    last: number of the last step.
  """

  def __init__(self, name: str, *, first: int, last: int):
    self._name, self._last = reprs.shown(name), last
    self._shown: dict[str, str] = {}
    self._begin = time.perf_counter()
    self._is_silent = jax.process_index() > 0
    self._bar = tqdm.auto.tqdm(
      desc=self._name,
      total=last,
      initial=first,
      unit="step",
      disable=True if self._is_silent else None,
      dynamic_ncols=True,
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.close()

  def write(self, text: str) -> None:
    """Shows a line."""
    if not self._is_silent:
      self._bar.write(f"{self._name}: {text}", file=sys.stderr)

  def compiling(self) -> None:
    """Says that the first step is compiled."""
    self._begin = time.perf_counter()
    self.write("compiling the step (a minute on a CPU, once) ...")

  def compiled(self) -> None:
    """Says how long that took."""
    self.write(f"compiled in {time.perf_counter() - self._begin:.0f} s.")
    self.resumed()

  def resumed(self) -> None:
    """Leaves the time since the last step out of the time left."""
    if not self._bar.disable:
      self._bar.unpause()

  def stepped(self) -> None:
    """Counts a step."""
    self._bar.update()

  def recorded(
    self, number: int, values: dict[str, Any], *, seconds_a_step: float
  ) -> None:
    """Shows the numbers of a record.

    Args:
      number: of the step.
      values: with "loss" and "images_per_second".
      seconds_a_step: the mean of the latest steps.
    """
    loss = f"{values['loss']:.3f}"
    speed = f"{values['images_per_second']:.1f}"
    self._show(loss=loss, images_per_s=speed)
    if self._bar.disable:
      seconds = round((self._last - number) * seconds_a_step)
      left = datetime.timedelta(seconds=seconds)
      self.write(
        f"step {number} of {self._last}, loss {loss}, {speed} images/s, "
        f"{left} left"
      )

  def validated(self, number: int, mean_iu: float, *, is_best: bool) -> None:
    """Shows a score of the validation split."""
    self._show(mean_iu=f"{100 * mean_iu:.1f}")
    best = ", the best so far" if is_best else ""
    self.write(f"step {number}, mean IU {100 * mean_iu:.1f} %{best}")

  def _show(self, **values: str) -> None:
    """Changes the text after the bar."""
    self._shown |= values
    if not self._bar.disable:
      self._bar.set_postfix(self._shown)
