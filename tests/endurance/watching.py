"""What a program and its workers hold, over time, from /proc."""

import os
import pathlib
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_PROC = pathlib.Path("/proc")
_SHARED = pathlib.Path("/dev/shm")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Until processes that have been told to end are gone.
_GRACE = 10.0


class Sample(NamedTuple):
  """What all processes of a session hold at a moment.

  Attributes:
    processes: how many there are.
    memory: resident bytes, where shared pages count in each process.
    descriptors: of open files.
    threads: in all processes.
  """

  processes: int
  memory: int
  descriptors: int
  threads: int


class Steady(NamedTuple):
  """What a program holds after warming up, and at its end."""

  start: Sample
  end: Sample


class Ended(NamedTuple):
  """How a program has ended.

  Attributes:
    status: of its end.
    seconds: until then.
    samples: while it worked.
    errors: what it wrote to stderr.
    left: what it has left, in words; empty if nothing.
  """

  status: int
  seconds: float
  samples: Sequence[Sample]
  errors: str
  left: Sequence[str]


def members(session: int) -> Iterator[pathlib.Path]:
  """Folders in /proc of the processes of a session that have not ended."""
  for process in _PROC.glob("[0-9]*"):
    try:
      fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # It has just ended.
      continue
    if int(fields[3]) == session and fields[0] not in "ZX":
      yield process


def sample(session: int) -> Sample:
  """What a session holds now."""
  total = Sample(0, 0, 0, 0)
  for process in members(session):
    try:
      one = Sample(
        1,
        int((process / "statm").read_text().split()[1]) * _PAGE,
        len(os.listdir(process / "fd")),
        len(os.listdir(process / "task")),
      )
    except OSError:
      continue
    total = Sample(*map(sum, zip(total, one, strict=True)))
  return total


def steady(samples: Sequence[Sample]) -> Steady:
  """The sixth of the time after the first half, and the last sixth.

  Of memory the median; of descriptors and threads the first quartile, which
  what is held for a moment does not change.
  """
  sixth = max(1, len(samples) // 6)
  return Steady(
    *(
      Sample(
        max(one.processes for one in part),
        int(statistics.median(one.memory for one in part)),
        _first_quartile([one.descriptors for one in part]),
        _first_quartile([one.threads for one in part]),
      )
      for part in (samples[3 * sixth :][:sixth], samples[-sixth:])
    )
  )


def _first_quartile(values: list[int]) -> int:
  return sorted(values)[len(values) // 4]


def grown(found: Steady, *, most_bytes: float) -> list[str]:
  """What has grown, in words; empty if nothing has."""
  start, end = found
  wrong = []
  if end.memory - start.memory > most_bytes:
    growth = (end.memory - start.memory) / 1e6
    wrong.append(f"the memory grew by {growth:.0f} MB")
  for name in ("descriptors", "threads"):
    before, after = getattr(start, name), getattr(end, name)
    if after > before:
      wrong.append(f"there were {before} {name}, then {after}")
  return wrong


def run(
  command: Sequence[str],
  log: pathlib.Path,
  *,
  is_over: Callable[[], bool] = lambda: False,
  interrupt_when: Callable[[float, Sample], bool] | None = None,
  every: float = 0.5,
) -> Ended:
  """Runs a program in a session of its own to its end.

  Args:
    command: the program and its arguments.
    log: file for what it writes to stderr.
    is_over: whether the work is done that is to be watched. What programs do
      once at their end takes more memory.
    interrupt_when: (seconds, sample) -> whether to interrupt it, with all of
      its processes, as Ctrl-C in a terminal does.
    every: seconds between samples.
  """
  shared_before = set(os.listdir(_SHARED))
  begin = time.monotonic()
  samples, over = [], False
  with log.open("wb") as errors:
    process = subprocess.Popen(
      # Shells let programs in the background ignore Ctrl-C.
      ["env", "--default-signal=INT", *command],
      stdout=errors,
      stderr=errors,
      start_new_session=True,
    )
    try:
      while process.poll() is None:
        now = sample(process.pid)
        over = over or is_over()
        if not over:
          samples.append(now)
        if interrupt_when and interrupt_when(time.monotonic() - begin, now):
          os.killpg(process.pid, signal.SIGINT)
          interrupt_when = None
        time.sleep(every)
      seconds = time.monotonic() - begin
      left = _left(process.pid, shared_before)
    finally:
      for one in members(process.pid):
        os.kill(int(one.name), signal.SIGKILL)
      process.wait()
  text = log.read_text(errors="replace")
  return Ended(process.returncode, seconds, samples, text, left)


def _left(session: int, shared_before: set[str]) -> list[str]:
  """Processes and shared memory that are still there, in words."""
  shared = {*os.listdir(_SHARED)} - shared_before
  end = time.monotonic() + _GRACE
  while time.monotonic() < end:
    alive = list(members(session))
    # Other programs make and remove some meanwhile.
    shared &= {*os.listdir(_SHARED)} - _in_use()
    if not alive and not shared:
      return []
    time.sleep(0.1)
  left = []
  for one in alive:
    try:
      name = (one / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
      continue
    left.append(f"the process {one.name} ({name[:200].strip()})")
  return left + [f"the shared memory {name}" for name in sorted(shared)]


def _in_use() -> set[str]:
  """Names of the shared memory that some process has open or mapped."""
  names = set()
  for process in _PROC.glob("[0-9]*"):
    try:
      links = [os.readlink(one) for one in (process / "fd").iterdir()]
      maps = (process / "maps").read_text()
    except OSError:
      continue
    mapped = [line.split(maxsplit=5)[-1] for line in maps.splitlines()]
    names |= {
      path.removeprefix(f"{_SHARED}/")
      for path in (*links, *mapped)
      if path.startswith(f"{_SHARED}/")
    }
  return names
