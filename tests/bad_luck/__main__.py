"""Lets each command meet a full disk, signals and a read-only disk.

    python -m tests.bad_luck
    python -m tests.bad_luck --command train predict --luck KILL

The outputs of the command lie on a small disk of its own, which needs the right
to mount a tmpfs. After the bad luck, the same command must complete, and what
it has written must equal what an undisturbed one writes, without left-overs.
What a command that fails prints must be a paragraph, without a traceback.

The columns of the table: how often the command was stopped, of how many tries
(a signal can come too late); FAULT and what is wrong, otherwise. `control` is
an undisturbed command that is compared with another.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import tqdm

from tests.bad_luck import commands

MEGABYTE = 1 << 20
# Shares of the room that is needed, and of the time of writing.
SHARES = (0.3, 0.6, 0.9)


class Undisturbed(NamedTuple):
  """What a command does that is left alone.

  Attributes:
    contents: of what it writes.
    room: bytes on the disk that it needs at a time, beyond those before.
    writing: seconds from the first to the last change of the disk.
  """

  contents: dict
  room: int
  writing: float


class Disk:
  """A small disk."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder

  def __enter__(self) -> "Disk":
    self.folder.mkdir()
    self._mount("-t", "tmpfs", "-o", f"size={64 * MEGABYTE}", "tmpfs")
    return self

  def __exit__(self, *_) -> None:
    subprocess.run(["umount", self.folder], check=True)
    self.folder.rmdir()

  def remount(self, options: str) -> None:
    """Changes its size, or whether it can be written."""
    self._mount("-o", f"remount,{options}")

  def used(self) -> int:
    """Bytes in use."""
    status = os.statvfs(self.folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize

  def state(self) -> tuple[int, int]:
    """Changes when something is written: bytes and files in use."""
    status = os.statvfs(self.folder)
    return status.f_bfree, status.f_ffree

  def _mount(self, *options: str) -> None:
    subprocess.run(["mount", *options, self.folder], check=True)


class Luck:
  """A command on its disk, and what may happen to it."""

  def __init__(self, name: str, inputs: pathlib.Path, disk: Disk):
    self._command = commands.COMMANDS[name]
    self._inputs, self._disk = inputs, disk
    self._command.prepare(disk.folder, inputs)

  def start(self, log) -> subprocess.Popen:
    argv = self._command.argv(self._disk.folder, self._inputs)
    return subprocess.Popen(
      argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )

  def undisturbed(self) -> Undisturbed:
    """Runs the command, and watches what it writes."""
    before, state = self._disk.used(), self._disk.state()
    first = last = None
    room = 0
    with tempfile.TemporaryFile() as log:
      process = self.start(log)
      while process.poll() is None:
        time.sleep(0.002)
        if self._disk.state() != state:
          last = time.monotonic()
          first = first or last
          state = self._disk.state()
          room = max(room, self._disk.used() - before)
      if process.returncode:
        sys.exit(f"the undisturbed command failed:\n{_text(log)}")
    room = max(room, self._disk.used() - before)
    return Undisturbed(
      commands.contents(self._disk.folder), room, (last or 0) - (first or 0)
    )

  def run(self) -> tuple[int, str]:
    """Runs the command; its status and what it printed."""
    with tempfile.TemporaryFile() as log:
      process = self.start(log)
      return process.wait(), _text(log)

  def meet(self, luck: str, share: float, known: Undisturbed):
    """Runs the command with bad luck; its status and what it printed."""
    if luck == "control":
      return 0, ""
    if luck == "read-only":
      self._disk.remount("ro")
      ended = self.run()
      self._disk.remount("rw")
      return ended
    if luck == "disk full":
      size = self._disk.used() + int(share * known.room)
      self._disk.remount(f"size={size >> 10}k")
      ended = self.run()
      self._disk.remount(f"size={64 * MEGABYTE}")
      return ended
    with tempfile.TemporaryFile() as log:
      state = self._disk.state()
      process = self.start(log)
      while process.poll() is None and self._disk.state() == state:
        time.sleep(0.002)
      time.sleep(share * known.writing)
      process.send_signal(signal.Signals[f"SIG{luck}"])
      return process.wait(), _text(log)


def _text(log) -> str:
  log.seek(0)
  return log.read().decode(errors="replace")


LUCKS = ("control", "disk full", "TERM", "KILL", "read-only")


def fault(
  name: str, luck: str, share: float, known: Undisturbed, inputs, place
) -> tuple[bool, str]:
  """Whether the command was stopped, and what was wrong, or nothing."""
  with Disk(place) as disk:
    case = Luck(name, inputs, disk)
    status, said = case.meet(luck, share, known)
    if "Traceback" in said or "Exception ignored" in said:
      return True, f"a traceback:\n{said}"
    if status > 0 and luck != "TERM" and "error" not in said:
      return True, f"no error is named (status {status}):\n{said}"
    if commands.are_finished(disk.folder, known.contents):
      return status != 0, ""
    again, more = case.run()
    if again:
      return True, f"the same command failed:\n{said}\n-- then\n{more}"
    found = commands.contents(disk.folder)
    wrong = [
      f"{file}: {found.get(file, 'missing')} for {known.contents.get(file)}"
      for file in sorted(found.keys() | known.contents.keys())
      if file not in found
      or file not in known.contents
      or found[file] != known.contents[file]
    ]
    about = "\n".join(one[:2000] for one in wrong)
    return status != 0, about and f"{about}\n{said}\n-- then\n{more}"


def make_inputs(inputs: pathlib.Path) -> None:
  """Makes what the commands work on."""
  inputs.mkdir()
  commands.make_inputs(
    inputs,
    lambda argv: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL),
  )


def row(name, lucks, shares, inputs, place, log) -> list[str]:
  """The cells of a command."""
  with Disk(place) as disk:
    known = Luck(name, inputs, disk).undisturbed()
  cells = []
  for luck in lucks:
    tries = (0.0,) if luck in ("control", "read-only") else shares
    stopped, wrong = 0, []
    for share in tqdm.tqdm(tries, desc=f"{name}, {luck}", disable=None):
      was_stopped, about = fault(name, luck, share, known, inputs, place)
      stopped += was_stopped
      if about:
        wrong.append(f"at {share}: {about}")
    if wrong:
      log.write(f"# {name}, {luck}\n" + "\n".join(wrong) + "\n\n")
      log.flush()
    cells.append(
      f"{stopped} of {len(tries)}" + (f", {len(wrong)} FAULTS" if wrong else "")
    )
  return cells


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--command", nargs="+", choices=commands.COMMANDS,
    default=list(commands.COMMANDS),
  )  # fmt: skip
  parser.add_argument("--luck", nargs="+", choices=LUCKS, default=LUCKS)
  parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
  options = parser.parse_args()
  root = pathlib.Path(tempfile.mkdtemp(prefix="bad_luck-"))
  inputs, place = root / "inputs", root / "disk"
  make_inputs(inputs)
  print(f"| command | {' | '.join(options.luck)} |")
  print("| --- |" + " --- |" * len(options.luck), flush=True)
  faults = root / "faults.txt"
  with faults.open("w") as log:
    for name in options.command:
      cells = row(name, options.luck, options.shares, inputs, place, log)
      print(f"| {name} | {' | '.join(cells)} |", flush=True)
  if faults.stat().st_size:
    sys.exit(f"faults: {faults}")
  shutil.rmtree(root)


if __name__ == "__main__":
  main()
