"""Runs of a tiny network by two processes of two devices each, over loopback.

    python -m tests.helpers.process_runs JSON

is one of the processes: it trains the runs of the JSON, one after the other,
calls its commands, and saves a sharded state if there is a folder for it.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import data
from fcn_jax.cli import errors
from fcn_jax.cli import main as cli
from fcn_jax.runs import checkpoints
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


def meeting(port: int, index: int) -> list[str]:
  """Options of the command line with which processes meet."""
  return [
    f"--coordinator=127.0.0.1:{port}",
    "--num-processes=2",
    f"--process-index={index}",
  ]


def end_of(
  commands: Sequence[Sequence[str]],
  *,
  folders: Sequence[pathlib.Path] | None = None,
  timeout: float = 600,
) -> list[Ended]:
  """Starts a process for each command, and waits until all have ended.

  Args:
    commands: arguments of Python.
    folders: where each starts; the clone if None.
    timeout: seconds after which a process is aborted.
  """
  flags = [
    flag
    for flag in os.environ["XLA_FLAGS"].split()
    if "device_count" not in flag
  ]
  flags.append("--xla_force_host_platform_device_count=2")
  environment = os.environ | {
    "XLA_FLAGS": " ".join(flags),
    "PYTHONPATH": str(_ROOT),
  }
  begin = time.monotonic()
  running = [
    subprocess.Popen(
      [sys.executable, "-X", "faulthandler", *command],
      cwd=folders[index] if folders else _ROOT,
      env=environment,
      # Not files, which may not grow where the disk is full.
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index, command in enumerate(commands)
  ]
  with concurrent.futures.ThreadPoolExecutor(len(running)) as threads:
    outputs = [threads.submit(one.communicate) for one in running]
    ends: dict[int, tuple[int, float]] = {}
    while len(ends) < len(running):
      time.sleep(0.05)
      seconds = time.monotonic() - begin
      for index, one in enumerate(running):
        if index not in ends and outputs[index].done():
          ends[index] = one.returncode, seconds
        elif index not in ends and seconds > timeout:
          # Shows where it hangs.
          one.send_signal(signal.SIGABRT)
  return [
    Ended(*ends[index], *outputs[index].result())
    for index in range(len(running))
  ]


def call(
  *runs: Mapping[str, Any],
  commands: Sequence[Sequence[str]] = (),
  sharded: pathlib.Path | None = None,
) -> list[Ended]:
  """Trains and calls commands in two processes, and waits for their ends.

  Args:
    *runs: each with `workdir`, `prepared_dir` and other options; `events` are
      [process, step, what]: KILL and TERM send that signal to the process,
      SLEEP lets it sleep for 5 seconds, FULL lets it write no larger files.
    commands: of `fcn-jax`.
    sharded: folder for checkpoints of `sharded_state`.
  """
  task = {"runs": runs, "commands": commands, "sharded": sharded}
  port = free_port()
  return end_of(
    [
      [
        "-m",
        "tests.helpers.process_runs",
        json.dumps(
          {"index": index, "port": port, **task},
          default=str,
        ),
      ]
      for index in range(2)
    ]
  )


def said(ended: Ended, what: str) -> list[Any]:
  """What a process has printed of a kind."""
  # Gloo writes to the same stream, sometimes into the same line.
  decoder = json.JSONDecoder()
  starts = re.finditer(rf"{what} (?=[\[{{\"\d])", ended.out)
  return [decoder.raw_decode(ended.out, one.end())[0] for one in starts]


def sharded_state() -> dict[str, np.ndarray]:
  """Arrays that are sharded by rows, and one that is not."""
  rows = np.arange(24, dtype=np.float32).reshape(8, 3)
  return {"params": rows, "opt_state": -rows, "step": np.int32(1)}


def _save(folder: pathlib.Path) -> None:
  """Saves a state of which each device has a quarter, and restores it.

  Also tries what several processes must not do.
  """
  mesh = jax.sharding.Mesh(processes.devices(), ("data",))
  state = {}
  for name, array in sharded_state().items():
    spec = jax.sharding.PartitionSpec(*["data"][: array.ndim])
    state[name] = jax.make_array_from_callback(
      array.shape,
      jax.sharding.NamedSharding(mesh, spec),
      lambda part, array=array: array[part],
    )
  with checkpoints.Checkpoints(folder) as saved:
    saved.save(1, state, metadata={})
    saved.wait()
    restored = saved.restore_latest(state)
    tiny_runs.assert_same_bits(restored.state, sharded_state())
    # Only process 1 has these rows.
    state["params"] = state["params"].at[7].set(jnp.inf)
    with pytest.raises(ValueError, match="params is not finite at step 2"):
      saved.save(2, state, metadata={})
  with pytest.raises(ValueError, match="give the sharding of a batch"):
    data.to_device([])
  with pytest.raises(ValueError, match="num_devices is 2, but it is for one"):
    processes.devices_for(4, 2)
  found = processes.concatenated(np.arange(2.0 - processes.index()))
  assert found.tolist() == [0.0, 1.0, 0.0]


def _do(what: str) -> None:
  print(f"event {json.dumps([what, time.time()])}", flush=True)
  if what == "SLEEP":
    time.sleep(5)
  elif what == "FULL":
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
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
    address = f"127.0.0.1:{task['port']}"
    processes.start(processes.Processes("auto", address, 2, task["index"]))
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
  if task.get("sharded"):
    _save(pathlib.Path(task["sharded"]))
  for arguments in task.get("commands", ()):
    cli.main(arguments)


if __name__ == "__main__":
  main(sys.argv[1])
