"""Runs of a tiny network by two processes of two devices each, over loopback.

    python -m tests.helpers.process_runs JSON

is one of the processes: it trains the runs of the JSON, one after the other.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import pytest

from fcn_jax.cli import errors
from fcn_jax.runs import processes
from fcn_jax.runs import training
from fcn_jax.runs import watch
from tests.helpers import tiny_networks
from tests.helpers import tiny_runs

_ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = {
  "backbone": "tiny",
  "steps": 8,
  "sampler": "bernoulli",
  "rate": 0.25,
  "ema_decay": None,
  "validate_every": 8,
}


class Ended(NamedTuple):
  """How a process has ended: status, after how many seconds, what it said."""

  code: int
  seconds: float
  out: str
  err: str


def config(workdir: pathlib.Path, prepared_dir: pathlib.Path, **options: Any):
  """Options of the runs, with changes."""
  return tiny_runs.config(workdir, prepared_dir, **(OPTIONS | options))


def free_port() -> int:
  """A port on which nobody listens."""
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def meeting(port: int, index: int, count: int = 2) -> list[str]:
  """Options of the command line with which processes meet."""
  return [
    f"--coordinator=127.0.0.1:{port}",
    f"--num-processes={count}",
    f"--process-index={index}",
  ]


def end_of(
  commands: Sequence[Sequence[str]],
  *,
  num_devices: int = 2,
  folders: Sequence[pathlib.Path] | None = None,
  timeout: float = 600,
) -> list[Ended]:
  """Starts a process for each command, and waits until all have ended.

  Args:
    commands: arguments of Python.
    num_devices: of each process.
    folders: where each starts; the clone if None.
    timeout: seconds after which a process is aborted.
  """
  flags = [
    flag
    for flag in os.environ["XLA_FLAGS"].split()
    if "device_count" not in flag
  ]
  flags.append(f"--xla_force_host_platform_device_count={num_devices}")
  environment = os.environ | {
    "XLA_FLAGS": " ".join(flags),
    "PYTHONPATH": str(_ROOT),
  }
  begin = time.monotonic()
  with contextlib.ExitStack() as stack:
    # Not pipes, which nobody empties here.
    outputs = [
      [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
      for _ in commands
    ]
    running = [
      subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *command],
        cwd=folders[index] if folders else _ROOT,
        env=environment,
        stdout=outputs[index][0],
        stderr=outputs[index][1],
      )
      for index, command in enumerate(commands)
    ]
    ends: dict[int, tuple[int, float]] = {}
    while len(ends) < len(running):
      time.sleep(0.05)
      seconds = time.monotonic() - begin
      for index, one in enumerate(running):
        if index not in ends and one.poll() is not None:
          ends[index] = one.returncode, seconds
        elif index not in ends and seconds > timeout:
          # Shows where it hangs.
          one.send_signal(signal.SIGABRT)
    for pair in outputs:
      for file in pair:
        file.seek(0)
    return [
      Ended(*ends[index], *(file.read() for file in outputs[index]))
      for index in range(len(running))
    ]


def train(
  *runs: Mapping[str, Any], count: int = 2, num_devices: int = 2
) -> list[Ended]:
  """Trains in some processes, and waits for their ends.

  Args:
    *runs: each with `workdir`, `prepared_dir` and other options; `events` are
      [process, step, what]: KILL and TERM send that signal to the process,
      SLEEP lets it sleep for 5 seconds, FULL lets it write no larger files.
    count: number of processes.
    num_devices: of each.
  """
  port = free_port()
  return end_of(
    [
      [
        "-m",
        "tests.helpers.process_runs",
        json.dumps(
          {"index": index, "count": count, "port": port, "runs": runs},
          default=str,
        ),
      ]
      for index in range(count)
    ],
    num_devices=num_devices,
  )


def said(ended: Ended, what: str) -> list[Any]:
  """What a process has printed of a kind."""
  lines = [line.split(" ", 1) for line in ended.out.splitlines()]
  return [json.loads(text) for kind, text in lines if kind == what]


def _do(what: str) -> None:
  print(f"event {json.dumps([what, time.time()])}", flush=True)
  if what == "SLEEP":
    time.sleep(5)
  elif what == "FULL":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
  else:
    os.kill(os.getpid(), getattr(signal, f"SIG{what}"))


def _digest(state: Any) -> None:
  """Prints a checksum of what this process has of the state."""
  digest = hashlib.sha256()
  for array in jax.tree.leaves(jax.device_get(state)):
    digest.update(array.tobytes())
  print(f"digest {json.dumps(digest.hexdigest())}", flush=True)


def _at_steps(index, run, steps):
  def act(step):
    def call(state):
      if step == steps:
        _digest(state)
      for process, at, what in run.get("events", ()):
        if (process, at) == (index, step):
          _do(what)

    return call

  # All processes save at these steps.
  events = {at for _, at, _ in run.get("events", ())}
  return {step: act(step) for step in (steps, *events)}


@watch.end_together()
def main(arguments: str) -> None:
  """Trains the runs in this process."""
  task = json.loads(arguments)
  tiny_networks.add_tiny(pytest.MonkeyPatch())
  with errors.explained():
    found = processes.Processes()
    if task["count"] > 1:
      address = f"127.0.0.1:{task['port']}"
      found = processes.Processes("auto", address, task["count"], task["index"])
    processes.start(found)
  for run in task["runs"]:
    workdir = pathlib.Path(run["workdir"])
    options = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in run.items()
      if name not in ("workdir", "prepared_dir", "events")
    }
    one = config(workdir, pathlib.Path(run["prepared_dir"]), **options)
    at_steps = _at_steps(task["index"], run, one.optimizer.steps)
    with errors.explained():
      prepared = training.prepare(one, at_steps=at_steps)
    with errors.ends_of_runs(one):
      training.run(prepared)


if __name__ == "__main__":
  main(sys.argv[1])
