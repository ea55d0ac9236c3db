"""Trains, predicts and scores for long, and watches what the programs hold.

    python -m tests.endurance

trains a tiny network for 5,000 steps with workers, predicts 3,000 pictures and
scores 1,000, each as a program of its own. While it works, its memory, its
descriptors and its threads must not grow. Then each is started again and
interrupted in the middle, and train while its workers start: it must end with
status 130, and leave no process, no shared memory and no warning. All else ends
this program with status 1.
"""

import argparse
import functools
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fcn_jax.runs import folder
from fcn_jax.runs import records
from tests.endurance import watching
from tests.helpers import planted

# Small pictures of a few sizes, as each size is compiled.
_SIZES = ((32, 32), (32, 48), (48, 32))
# What nobody should see.
_WARNINGS = re.compile(r"Traceback|Warning|resource_tracker|Exception ignored")


class Job(NamedTuple):
  """A command to watch.

  Attributes:
    title: for the table.
    arguments: makes the arguments, from the folder for the results.
    last: pattern of a file in that folder that shows that the work is done.
    halfway: whether half of the work is done, from that folder; None where
      nothing shows it.
  """

  title: str
  arguments: Callable[[pathlib.Path], list[str]]
  last: str
  halfway: Callable[[pathlib.Path], bool] | None = None


def make_pictures(
  root: pathlib.Path,
  count: int,
  rng: np.random.Generator,
  *,
  masks: bool = True,
) -> None:
  """Writes pictures of noise, and masks with a bright square in each."""
  for kind in ("images", "masks")[: 1 + masks]:
    (root / kind).mkdir(parents=True)
  for number in range(count):
    size = _SIZES[number % len(_SIZES)]
    mask = np.zeros(size, np.uint8)
    row, column = rng.integers(size[0] - 16), rng.integers(size[1] - 16)
    mask[row : row + 16, column : column + 16] = 255
    picture = rng.integers(0, 100, (*size, 3), np.uint8)
    picture[mask > 0] += 100
    planted.save(root / "images" / f"{number:05d}.png", picture)
    if masks:
      planted.save(root / "masks" / f"{number:05d}.png", mask)


def jobs_in(root: pathlib.Path, options: argparse.Namespace) -> list[Job]:
  """Makes the pictures, and says what to do with them."""
  rng = np.random.default_rng(0)
  make_pictures(root / "data" / "train", 24, rng)
  make_pictures(root / "data" / "validation", 4, rng)
  make_pictures(root / "data" / "test", options.images, rng)
  make_pictures(root / "shots", options.pictures, rng, masks=False)
  run = root / "train"
  return [
    Job(
      f"train, {options.steps:,} steps with {options.workers} workers",
      lambda out: [
        "train",
        "folder",
        f"--data-dir={root / 'data'}",
        f"--prepared-dir={root / 'prepared'}",
        f"--workdir={out}",
        "--backbone=vgg_small",
        f"--steps={options.steps}",
        f"--num-workers={options.workers}",
        "--batch-size=2",
        *("--crop-size", "32", "32"),
        "--warmup-steps=1",
        f"--save-every={max(20, options.steps // 50)}",
        f"--validate-every={max(20, options.steps // 25)}",
        "--num-pictures=1",
      ],
      "summary.json",
      lambda out: _last_step(out) > options.steps // 2,
    ),
    Job(
      f"predict, {options.pictures:,} pictures",
      lambda out: [
        "predict",
        str(root / "shots" / "images"),
        f"--workdir={run}",
        f"--out={out}",
      ],
      f"overlays/{options.pictures - 1:05d}.jpg",
      lambda out: (out / f"overlays/{options.pictures // 2:05d}.jpg").exists(),
    ),
    Job(
      f"evaluate, {options.images:,} images",
      lambda out: [
        "evaluate",
        f"--workdir={run}",
        "--split=test",
        f"--out={out}",
      ],
      # Where it draws its figures.
      ".partial-*",
    ),
  ]


def of_program(job: Job, out: pathlib.Path) -> list[str]:
  """The command line of a job."""
  program = [sys.executable, "-m", "tests.endurance.command"]
  return [*program, *job.arguments(out)]


def row(title: str, found: watching.Ended, steady: watching.Steady) -> str:
  """A line of the table."""
  start, end = steady
  megabytes = [one.memory / 1e6 for one in steady]
  cells = [
    title,
    f"{found.seconds:.0f} s",
    str(end.processes),
    *(f"{one:.0f}" for one in megabytes),
    f"{megabytes[1] - megabytes[0]:+.0f}",
    f"{start.descriptors}, {end.descriptors}",
    f"{start.threads}, {end.threads}",
  ]
  return f"| {' | '.join(cells)} |"


def head() -> str:
  """The first two lines of the table."""
  titles = (
    "command", "time", "processes", "MB", "MB at the end", "growth",
    "descriptors", "threads",
  )  # fmt: skip
  return f"| {' | '.join(titles)} |\n| --- |{' ---: |' * (len(titles) - 1)}"


def endure(
  job: Job, root: pathlib.Path, most_bytes: float | None
) -> tuple[watching.Ended, list[str]]:
  """Runs a job to its end; prints its row, and returns it and its faults."""
  out = root / job.arguments(root)[0]
  found = watching.run(
    of_program(job, out),
    out.with_suffix(".log"),
    is_over=lambda: any(out.glob(job.last)),
  )
  faults = [f"it left {one}" for one in found.left]
  if found.status:
    return found, [f"it ended with {found.status}: {found.errors[-3000:]}"]
  if match := _WARNINGS.search(found.errors):
    faults.append(f"it said {match[0]}: {found.errors[-3000:]}")
  steady = watching.steady(found.samples)
  print(row(job.title, found, steady), flush=True)
  if most_bytes is not None:
    faults += watching.grown(steady, most_bytes=most_bytes)
  return found, faults


def _last_step(workdir: pathlib.Path) -> int:
  """The last step of a run that is recorded."""
  found = records.read_json_lines(workdir / folder.METRICS_FILE)
  return found[-1]["step"] if found else 0


def moments(
  job: Job, seconds: float
) -> dict[str, Callable[[pathlib.Path, float, watching.Sample], bool]]:
  """When to interrupt a job that takes so many seconds, by name."""
  when = {"in the middle": lambda out, time, now: time > seconds / 2}
  if job.halfway is not None:
    when = {"in the middle": lambda out, time, now: job.halfway(out)}
  if job.arguments(pathlib.Path())[0] == "train":
    # They must not end before their parent.
    when["while workers start"] = lambda out, time, now: now.processes > 2
  return when


def interrupt(
  job: Job,
  out: pathlib.Path,
  when: Callable[[pathlib.Path, float, watching.Sample], bool],
) -> list[str]:
  """Interrupts a job at a moment; returns what is wrong then."""
  found = watching.run(
    of_program(job, out),
    out.with_suffix(".log"),
    interrupt_when=functools.partial(when, out),
  )
  faults = [f"interrupted, it left {one}" for one in found.left]
  if found.status != 130:
    faults.append(f"interrupted, it ended with {found.status}")
  if match := _WARNINGS.search(found.errors):
    faults.append(f"interrupted, it said {match[0]}")
  return [f"{one}: {found.errors[-3000:]}" for one in faults]


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--steps", type=int, default=5000)
  parser.add_argument("--workers", type=int, default=2)
  parser.add_argument("--pictures", type=int, default=3000)
  parser.add_argument("--images", type=int, default=1000)
  parser.add_argument(
    "--most-growth", type=float, default=30, help="in MB (default: 30)"
  )
  parser.add_argument(
    "--warming-up",
    action="store_true",
    help="do not compare, as such a short run is not steady yet",
  )
  options = parser.parse_args(arguments)
  most_bytes = None if options.warming_up else 1e6 * options.most_growth
  faults = []
  with tempfile.TemporaryDirectory() as scratch:
    root = pathlib.Path(scratch)
    jobs = jobs_in(root, options)
    print(head(), flush=True)
    seconds = {}
    for job in jobs:
      found, wrong = endure(job, root, most_bytes)
      seconds[job.title] = found.seconds
      faults += [f"{job.title}: {one}" for one in wrong]
      if found.status:
        break
    else:
      for number, job in enumerate(jobs):
        for name, when in moments(job, seconds[job.title]).items():
          out = root / f"interrupted_{number}_{name.replace(' ', '_')}"
          wrong = interrupt(job, out, when)
          faults += [f"{job.title}: {one}" for one in wrong]
          print(f"{job.title}, interrupted {name}: {len(wrong)} faults")
  for one in faults:
    print(one, file=sys.stderr)
  sys.exit(1 if faults else 0)


if __name__ == "__main__":
  main()
