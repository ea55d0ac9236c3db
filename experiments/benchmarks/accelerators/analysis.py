"""What a compiled program says of itself: launches, bytes, cycles, collectives.

These are readings of XLA's optimized programs, not measurements. On a TPU, the
compiler estimates the cycles of each operation, but not of gathers, scatters
and sorts. On a GPU, the time is a bound: bytes in and out of each kernel, and
at least 3 microseconds a launch.
"""

import math
import re
from typing import NamedTuple

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "all-to-all",
  "collective-permute",
  "reduce-scatter",
)
_UNESTIMATED = ("gather", "scatter", "sort")
_KERNELS = (
  "fusion", "custom-call", "copy", "sort", "reduce", "transpose", "convolution",
  "dot", "scatter", "gather", "concatenate", "pad",
)  # fmt: skip
_SIZES = {
  "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2,
  "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
_GPU_BYTES_PER_SECOND = 3.35e12
_GPU_LAUNCH_SECONDS = 3e-6
_TPU_CYCLES_PER_SECOND = 1.5e9


class Reading(NamedTuple):
  """What is read of a program; loops count as often as they run.

  Attributes:
    seconds: estimated on a TPU, a bound on a GPU.
    launches: kernels.
    num_bytes: in and out of kernels.
    unestimated: operations that have no estimate on a TPU.
    collectives: number of operations of each kind that exchange data.
    collectives_in_loops: how many of these stand in a loop.
    exchanged: bytes that a device sends for each kind, if all devices take part
      in a ring: twice the array for an all-reduce, else the whole array.
    dynamic_loops: loops whose number of trips is not known: counted once.
  """

  seconds: float
  launches: int
  num_bytes: int
  unestimated: int
  collectives: dict[str, int]
  collectives_in_loops: int
  exchanged: dict[str, int]
  dynamic_loops: int


def read(text: str, *, platform: str) -> Reading:
  """Reads the text of a compiled program.

  Args:
    text: from `compiled.as_text()`.
    platform: "tpu" or "gpu".
  """
  return _Program(text, platform).read()


class _Program:
  def __init__(self, text, platform):
    self._platform = platform
    self._lines, self._entry = {}, None
    name = None
    for line in text.splitlines():
      header = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{\s*$", line)
      if header and not line.startswith(" "):
        name = header.group(2)
        self._lines[name] = []
        if header.group(1):
          self._entry = name
      elif line.startswith("}"):
        name = None
      elif name and " = " in line:
        self._lines[name].append(line.strip())

  def read(self) -> Reading:
    self._totals = dict.fromkeys(
      ("seconds", "launches", "num_bytes", "unestimated", "dynamic_loops"), 0
    )
    self._collectives = dict.fromkeys(COLLECTIVES, 0)
    self._exchanged = dict.fromkeys(COLLECTIVES, 0)
    self._in_loops = 0
    self._channels, self._walked = set(), set()
    self._walk(self._entry, 1, in_loop=False)
    self._count_in_fusions()
    found = {name: count for name, count in self._collectives.items() if count}
    return Reading(
      collectives=found,
      collectives_in_loops=self._in_loops,
      exchanged={name: self._exchanged[name] for name in found},
      **self._totals,
    )

  def _count_in_fusions(self):
    """Collectives that run beside other operations: a fusion for each part."""
    for name in self._lines.keys() - self._walked:
      for line in self._lines[name]:
        rest = line.removeprefix("ROOT ").split(" = ", 1)[1]
        found = re.match(r"(\(.*?\)|\S+) ([\w\-]+)\(", rest)
        channel = re.search(r"channel_id=(\d+)", line)
        if not found or not channel:
          continue
        shape, operation = found.groups()
        kind = operation.removesuffix("-start")
        if name.startswith("all-reduce-scatter"):
          kind = "reduce-scatter"
        if kind in COLLECTIVES and (kind, channel[1]) not in self._channels:
          self._count(kind, shape, line, 1, in_loop=False)

  def _walk(self, name, times, *, in_loop):
    shapes = {}
    self._walked.add(name)
    for line in self._lines[name]:
      result, rest = line.removeprefix("ROOT ").split(" = ", 1)
      found = re.match(r"(\(.*?\)|\S+) ([\w\-]+)\((.*?)\)", rest)
      if not found:
        continue
      shape, operation, arguments = found.groups()
      shapes[result.strip("%")] = shape
      if operation == "while":
        self._walk_loop(line, times)
      elif operation in ("call", "conditional"):
        for called in re.findall(
          r"(?:to_apply|computation)=%?([\w.\-]+)", rest
        ):
          self._walk(called, times, in_loop=in_loop)
      self._count(operation, shape, line, times, in_loop=in_loop)
      self._add_time(line, operation, shape, arguments, shapes, times)

  def _walk_loop(self, line, times):
    trips = re.search(r"known_trip_count\D*(\d+)", line)
    if trips:
      trips = int(trips.group(1))
    else:
      condition = re.search(r"condition=%?([\w.\-]+)", line).group(1)
      trips = self._trips_of(condition)
    if trips is None:
      self._totals["dynamic_loops"] += 1
      trips = 1
    body = re.search(r"body=%?([\w.\-]+)", line).group(1)
    self._walk(body, times * trips, in_loop=True)

  def _trips_of(self, condition):
    """The largest constant that a loop's condition compares with."""
    constants, waiting, seen = [], [condition], set()
    while waiting:
      name = waiting.pop()
      if name in seen:
        continue
      seen.add(name)
      for line in self._lines.get(name, ()):
        constants += re.findall(r"s32\[\]\S* constant\((\d+)\)", line)
        waiting += re.findall(r"calls=%?([\w.\-]+)", line)
    return max(map(int, constants), default=None)

  def _count(self, operation, shape, line, times, *, in_loop):
    kind = operation.removesuffix("-start")
    if kind in COLLECTIVES:
      self._collectives[kind] += 1
      self._in_loops += in_loop
      num_bytes = _num_bytes(shape)
      if kind != operation and kind != "all-reduce":
        # Pairs of what is sent and what is received.
        num_bytes //= 2
      self._exchanged[kind] += (
        times * num_bytes * (2 if kind == "all-reduce" else 1)
      )
      channel = re.search(r"channel_id=(\d+)", line)
      if channel:
        self._channels.add((kind, channel[1]))
    if operation in _UNESTIMATED:
      self._totals["unestimated"] += times

  def _add_time(self, line, operation, shape, arguments, shapes, times):
    seconds = 0.0
    if operation in _KERNELS:
      names = (
        one.strip().split(" ")[-1].strip("%") for one in arguments.split(",")
      )
      num_bytes = _num_bytes(shape)
      read = sum(_num_bytes(shapes.get(name, "")) for name in names)
      # A slice of a large array inside a kernel reads less.
      num_bytes = min(num_bytes + read, 20 * num_bytes + 10**6)
      self._totals["launches"] += times
      self._totals["num_bytes"] += times * num_bytes
      seconds = max(num_bytes / _GPU_BYTES_PER_SECOND, _GPU_LAUNCH_SECONDS)
    if self._platform == "tpu":
      cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
      seconds = 0.0
      if cycles and int(cycles.group(1)) < 2**62 and operation != "while":
        seconds = int(cycles.group(1)) / _TPU_CYCLES_PER_SECOND
    self._totals["seconds"] += times * seconds


def _num_bytes(shape):
  total = 0
  for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", shape):
    number = math.prod(int(side) for side in sides.split(",") if side)
    total += number * _SIZES.get(dtype, 0)
  return total
