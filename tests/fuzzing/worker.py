"""Reads changed files, one after another, and says what came out of each.

For each case, a line with its number before, and a line with the outcome after:
the parent sees which case ended this process, or goes on forever.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time
import traceback

import numpy as np

from tests.fuzzing import kinds
from tests.fuzzing import mutations

MOST_SECONDS = 5
MOST_BYTES = 1 << 30
# Of addresses, above those in use: arrays that are never written to count too.
_MOST_ADDRESSES = 6 << 30
# Share of the cases in which checksums are made right.
_REPAIRED = 0.7
# Share of those in which a value of JSON is changed, and the rest is kept.
_OTHER_VALUES = 0.7


def case(
  kind: kinds.Kind, seeds: list[kinds.Seed], number: int, seed: int
) -> tuple[kinds.Seed, bytes, bool]:
  """A changed file, and whether its checksums were made right."""
  rng = np.random.default_rng([seed, number])
  one = seeds[int(rng.integers(len(seeds)))]
  if kind.is_json and rng.random() < _OTHER_VALUES:
    return one, mutations.with_other_value(one.content, rng), False
  others = [seeds[int(rng.integers(len(seeds)))].content]
  content = mutations.mutated(one.content, rng, others=others, text=kind.text)
  repaired = one.repair is not None and rng.random() < _REPAIRED
  return one, one.repair(content) if repaired else content, repaired


def outcome(
  kind: kinds.Kind, path: pathlib.Path, truth: str | None
) -> tuple[str, str]:
  """What reading a file comes to, in a word, and more about it."""
  before, start = _resident(), time.process_time()
  try:
    found = kinds.digest(kind.read(path))
    name, about = "read", ""
    if truth is not None:
      name = "equal" if found == truth else "silent"
  except ValueError as error:
    name, about = "refused", str(error)
    if not about or "\n" in about.strip() or len(about) > 3000:
      name = "no paragraph"
  except (Exception, SystemExit) as error:
    name = type(error).__name__
    about = traceback.format_exc()
  if time.process_time() - start > MOST_SECONDS:
    name = "hang"
  if _peak() - before > MOST_BYTES:
    name = "memory"
  return name, about


def _status(name: str) -> int:
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(name):
      return int(line.split()[1]) * 1024
  raise ValueError(f"there is no {name} in /proc/self/status")


def _resident() -> int:
  # Forgets the peak.
  pathlib.Path("/proc/self/clear_refs").write_text("5")
  return _status("VmRSS")


def _peak() -> int:
  return _status("VmHWM")


def main(name: str, seed: int, start: int, end: int) -> None:
  """Reads the cases from `start` to `end`."""
  kind = kinds.KINDS[name]
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    seeds = kind.seeds(root)
    truths = {}
    # Reading anything but the files themselves, such as a step, needs them all.
    for one in seeds:
      (root / one.name).write_bytes(one.content)
    for one in seeds:
      path = root / one.name
      truths[one.name] = kinds.digest(kind.read(path))
    addresses = _status("VmSize") + _MOST_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    for number in range(start, end):
      print(number, flush=True)
      one, content, repaired = case(kind, seeds, number, seed)
      path = root / one.name
      path.write_bytes(content)
      is_checked = one.is_checked and not repaired
      found = outcome(kind, path, truths[one.name] if is_checked else None)
      print(json.dumps([number, one.name, *found]), flush=True)
      path.write_bytes(one.content)


if __name__ == "__main__":
  main(sys.argv[1], *map(int, sys.argv[2:]))
