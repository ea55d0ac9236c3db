"""What a run shows while it trains."""

import io

import pytest

from fcn_jax.runs import progress

RECORD = {"loss": 1.23456, "images_per_second": 40.0}


class Terminal(io.StringIO):
  def isatty(self):
    return True


def show(last=30, first=0):
  """A run of which ten steps are shown."""
  with progress.Display("cats", first=first, last=last) as display:
    display.compiling()
    display.compiled()
    for _ in range(10):
      display.stepped()
    display.recorded(first + 10, RECORD, seconds_a_step=0.5)
    display.validated(first + 10, 0.4321, is_best=True)
    display.recorded(first + 10, RECORD, seconds_a_step=0.5)


def test_without_a_terminal_each_record_is_a_line(capsys):
  show()
  out, err = capsys.readouterr()
  assert out == ""
  assert err.splitlines() == [
    "cats: compiling the step (a minute on a CPU, once) ...",
    "cats: compiled in 0 s.",
    "cats: step 10 of 30, loss 1.235, 40.0 images/s, 0:00:10 left",
    "cats: step 10, mean IU 43.2 %, the best so far",
    "cats: step 10 of 30, loss 1.235, 40.0 images/s, 0:00:10 left",
  ]


@pytest.mark.parametrize("first", [0, 20])
def test_on_a_terminal_a_bar_counts_steps_and_shows_the_last_score(
  monkeypatch, first
):
  terminal = Terminal()
  monkeypatch.setattr("sys.stderr", terminal)
  show(last=40, first=first)
  *_, last = terminal.getvalue().strip().split("\r")
  assert f"| {first + 10}/40 [" in last
  assert "loss=1.235, images_per_s=40.0, mean_iu=43.2" in last
  assert "left" not in terminal.getvalue()
