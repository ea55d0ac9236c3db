"""Changes small files at random, and reads them in processes with limits.

    python -m tests.fuzzing --kind picture --mutations 2000 --seed 0 --out finds

Reading must return something or raise a ValueError of one paragraph, within 5
seconds of computing and 1 GB; and where the file has a checksum, what is read
must be what was written. All else is a find: its file and what happened are
written to the folder, and the program ends with status 1.
"""

import argparse
import collections
import json
import os
import pathlib
import selectors
import subprocess
import sys
import tempfile

from tests.fuzzing import kinds
from tests.fuzzing import worker

GOOD = ("read", "equal", "refused")
_TICKS = os.sysconf("SC_CLK_TCK")


def _seconds(process: subprocess.Popen) -> float:
  """Of computing, up to now."""
  text = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
  fields = text.rpartition(")")[2].split()
  return (int(fields[11]) + int(fields[12])) / _TICKS


def run(name: str, mutations: int, seed: int) -> list[tuple]:
  """The number, the file, the outcome and more of each case."""
  found, start = [], 0
  while start < mutations:
    with tempfile.TemporaryFile() as errors:
      command = [sys.executable, "-m", "tests.fuzzing.worker", name]
      process = subprocess.Popen(
        [*command, *map(str, (seed, start, mutations))],
        stdout=subprocess.PIPE,
        stderr=errors,
      )
      reading, ending = _follow(process, found)
      errors.seek(0)
      about = errors.read()[-3000:].decode(errors="replace")
    if reading is None and not found[start:]:
      sys.exit(f"{name}: the worker did not begin:\n{about}")
    if reading is not None:
      found.append((reading, "", ending, about))
    start = len(found)
  return found


def _follow(process, found) -> tuple[int | None, str]:
  """Collects outcomes to the end; which case had begun, and how it ended."""
  reading, since, buffer = None, 0.0, b""
  os.set_blocking(process.stdout.fileno(), False)
  with selectors.DefaultSelector() as selector:
    selector.register(process.stdout, selectors.EVENT_READ)
    while True:
      if selector.select(timeout=1):
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
          break
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
          value = json.loads(line)
          if isinstance(value, int):
            reading, since = value, _seconds(process)
          else:
            reading = None
            found.append(tuple(value))
      elif (
        reading is not None
        and _seconds(process) - since > 2 * worker.MOST_SECONDS
      ):
        process.kill()
        process.wait()
        return reading, "hang"
  return reading, f"death ({process.wait()})"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kind", choices=kinds.KINDS, action="append")
  parser.add_argument("--mutations", type=int, default=2000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", type=pathlib.Path, help="folder for the finds")
  options = parser.parse_args()
  os.nice(15)
  columns = ("cases", "read", "equal", "refused", "finds")
  print(f"| kind | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
  status = 0
  for name in options.kind or kinds.KINDS:
    cases = run(name, options.mutations, options.seed)
    counts = collections.Counter(outcome for _, _, outcome, _ in cases)
    finds = [one for one in cases if one[2] not in GOOD]
    numbers = (len(cases), *(counts[n] for n in GOOD), len(finds))
    print(f"| {name} | {' | '.join(map(str, numbers))} |", flush=True)
    for number, file, outcome, about in finds:
      status = 1
      print(f"  case {number} ({file}): {outcome}", file=sys.stderr)
      if options.out is not None:
        _write(options.out, name, number, options.seed, outcome, about)
  sys.exit(status)


def _write(out, name, number, seed, outcome, about) -> None:
  """The file of a find, made again, and what happened."""
  out.mkdir(parents=True, exist_ok=True)
  kind = kinds.KINDS[name]
  with tempfile.TemporaryDirectory() as folder:
    seeds = kind.seeds(pathlib.Path(folder))
  one, content, _ = worker.case(kind, seeds, number, seed)
  start = out / f"{name}_{seed}_{number}"
  start.with_suffix(".bin").write_bytes(content)
  start.with_suffix(".txt").write_text(f"{one.name}: {outcome}\n{about}")


if __name__ == "__main__":
  main()
