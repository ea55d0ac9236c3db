"""The processes of a run: how they start, agree and wait for each other.

All of it goes through the coordination service of `jax.distributed`, and
nothing through the devices: no step waits for it. With one process all
functions do nothing. See `watch` for how processes end.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax._src import clusters
from jax._src import distributed
from jax.experimental import multihost_utils

from fcn_jax import sharding as sharding_lib
from fcn_jax.runs import environment
from fcn_jax.runs import watch

# The service has no "forever". Whoever waits is ended by `watch` if another
# process fails.
_WEEK_MS = 7 * 24 * 3600 * 1000
# JAX aborts all processes if one is silent for so long. It beats every 20 s, so
# this comes 20 to 40 s after a death, and `watch` before it.
_HEARTBEAT_SECONDS = 40
# Attributes of files on NFS are this old at most, by default.
_SHARED_SECONDS = 10.0
# Launchers that tell a process how many there are, but JAX not where.
_LAUNCHERS = {
  "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
  "PMI_SIZE": "PMI_RANK",
}

_rounds: dict[str, Iterator[int]] = {}
_notices = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Processes:
  """How several processes that share the work find each other."""

  distributed: Literal["auto", "off"] = "auto"
  """auto: with the other processes, if a TPU pod, Slurm or Open MPI has started
  several, or the next three options say so. off: alone."""
  coordinator: str | None = None
  """HOST:PORT at which the first process awaits the others."""
  num_processes: int | None = None
  """Number of processes."""
  process_index: int | None = None
  """Index of this process, from 0."""
  startup_timeout: int = 300
  """Seconds to wait for all processes to come."""

  def check(self) -> None:
    """Raises a `ValueError` for options out of range or that do not agree."""
    if self.startup_timeout < 1:
      raise ValueError(
        f"startup_timeout is {self.startup_timeout}; it must be at least 1."
      )
    given = (self.coordinator, self.num_processes, self.process_index)
    if given == (None,) * 3:
      return
    if None in given:
      raise ValueError(
        "coordinator, num_processes and process_index go together: give all "
        "three or none."
      )
    if self.distributed == "off":
      raise ValueError(
        "distributed is off, but there is a coordinator: leave one of them out."
      )
    host, _, port = self.coordinator.rpartition(":")
    if not host or not port.isdecimal():
      raise ValueError(
        f"coordinator is {self.coordinator!r}; it must be HOST:PORT."
      )
    if not 0 <= self.process_index < self.num_processes:
      raise ValueError(
        f"process_index is {self.process_index}; with {self.num_processes} "
        f"processes it must be in 0..{self.num_processes - 1}."
      )


NAMES = tuple(field.name for field in dataclasses.fields(Processes))


def start(options: Processes, *, saves: bool = True) -> None:
  """Meets the other processes, if there are any. Call it before using JAX.

  Ends the program with a message if the others do not come.

  Args:
    options: how to meet.
    saves: whether the program polls `has_notice`. Otherwise a SIGTERM ends this
      process at once, and then the others.

  Raises:
    ValueError: if the options are wrong, there are several processes that would
      not know of each other, or they differ in versions.
  """
  options.check()
  if jax.distributed.is_initialized():
    return
  arguments = _found(options)
  if arguments is None:
    return
  given = arguments.get("coordinator_address")
  with watch.alarm(options.startup_timeout, lambda: _nobody(options, given)):
    try:
      jax.distributed.initialize(
        **arguments,
        # The alarm comes first: JAX would abort with a trace of its own.
        initialization_timeout=options.startup_timeout + 60,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
    except (RuntimeError, ValueError) as error:
      raise ValueError(
        f"the processes could not meet at {given or 'their coordinator'} "
        f"({error}): give a free port of the host of process 0."
      ) from error
  if not saves:
    # In place of JAX's handler, which lets the program go on.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  watch.begin(_client(), index=index(), count=count())
  check_same("versions", {"processes": count(), **environment.versions()})


def _found(options: Processes) -> dict[str, Any] | None:
  """Arguments of `jax.distributed.initialize`; None for a single process."""
  if options.coordinator is not None:
    if options.num_processes == 1:
      return None
    return {
      "coordinator_address": options.coordinator,
      "num_processes": options.num_processes,
      "process_id": options.process_index,
      "cluster_detection_method": "deactivate",
    }
  known = clusters.ClusterEnv._cluster_types
  cluster = next(
    (
      one
      for one in known
      if not one.opt_in_only_method and one.is_env_present()
    ),
    None,
  )
  num_processes = cluster.get_process_count() if cluster else 1
  if num_processes > 1 and options.distributed == "off":
    raise ValueError(
      f"this is one of {num_processes} processes that {cluster.name} has "
      "started, and with distributed off all would write to the same folder: "
      "leave it out, or start one process."
    )
  if num_processes > 1:
    return {"cluster_detection_method": cluster.name or None}
  for size, rank in _LAUNCHERS.items():
    if cluster is None and int(os.environ.get(size) or 1) > 1:
      raise ValueError(
        f"{size} is {os.environ[size]}, so there are several processes, but "
        "JAX does not know where: give each --coordinator HOST:PORT "
        f"--num-processes ${size} --process-index ${rank}, or start one."
      )
  return None


def _nobody(options: Processes, coordinator: str | None) -> str:
  """Why the processes have not met."""
  lead = f"after {options.startup_timeout} s (--startup-timeout) "
  if coordinator is None:
    return (
      f"{lead}not all processes have come. Look at the others' messages, and "
      "start all with the same command; for one process, --distributed off."
    )
  if options.process_index == 0:
    return (
      f"{lead}not all {options.num_processes} processes have come to "
      f"{coordinator}. Look at the others' messages, and start each with "
      "another --process-index and the same --coordinator."
    )
  host, _, port = coordinator.rpartition(":")
  try:
    socket.create_connection((host.strip("[]"), int(port)), 3).close()
  except OSError as error:
    return (
      f"{lead}process 0 does not answer at {coordinator} ({error}). Give the "
      "host of process 0, which must be running, and a free port as "
      "--coordinator."
    )
  return (
    f"{lead}process 0 answers at {coordinator}, but not all "
    f"{options.num_processes} processes have come. Look at the others' "
    "messages, and start each with another --process-index."
  )


def index() -> int:
  """Index of this process, from 0."""
  return distributed.global_state.process_id


def count() -> int:
  """Number of processes."""
  return distributed.global_state.num_processes


def is_first() -> bool:
  """Whether this process speaks and writes for all."""
  return index() == 0


def gather(value: Any = None, *, channel: str = "main") -> list[Any]:
  """What each process gives, by their indices. Waits for all.

  All processes make the same calls, in the same order.

  Args:
    value: anything that JSON holds; in all up to some MB.
    channel: calls from another thread need one of their own.
  """
  if count() == 1:
    return [value]
  number = next(_rounds.setdefault(channel, itertools.count()))
  folder = f"fcn_jax/{channel}/{number}"
  client = _client()
  client.key_value_set(f"{folder}/{index():06d}", json.dumps(value))
  client.wait_at_barrier(f"{folder}/all", _WEEK_MS)
  values = sorted(client.key_value_dir_get(f"{folder}/"))
  if number and is_first():
    # All have read those before: they have come here.
    client.key_value_delete(f"fcn_jax/{channel}/{number - 1}/")
  return [json.loads(text) for _, text in values]


def check_same(what: str, values: dict[str, Any]) -> None:
  """Raises a `ValueError` on all processes if their values are not the same.

  Args:
    what: they are, in the plural.
    values: by name, as JSON.
  """
  first, *others = gather(values)
  for number, other in enumerate(others, start=1):
    differing = [
      f"{name} ({first.get(name)} and {other.get(name)})"
      for name in first | other
      if first.get(name) != other.get(name)
    ]
    if differing:
      raise ValueError(
        f"processes 0 and {number} have other {what}: {', '.join(differing)}. "
        "Start all processes with the same command in the same environment."
      )


def own_share(items: Sequence[Any]) -> Sequence[Any]:
  """The items of which this process takes care: neighbours, about as many."""
  first, stop = (len(items) * i // count() for i in (index(), index() + 1))
  return items[first:stop]


def concatenated(array: np.ndarray) -> np.ndarray:
  """The arrays of all processes one after the other, [N, ...]."""
  if count() == 1:
    return array
  lengths = gather(len(array))
  # As bytes, as JAX has no integers or floats of 64 bits.
  row_bytes = array.itemsize * math.prod(array.shape[1:])
  rows = np.zeros((max(lengths), row_bytes), np.uint8)
  rows[: len(array)] = np.frombuffer(array.tobytes(), np.uint8).reshape(
    -1, row_bytes
  )
  found = multihost_utils.process_allgather(rows)
  parts = [one[:length] for one, length in zip(found, lengths, strict=True)]
  joined = np.concatenate(parts).tobytes()
  return np.frombuffer(joined, array.dtype).reshape(-1, *array.shape[1:])


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
  """Lets process 0 do something, then one process of each host, then the rest.

  Whatever is prepared in a folder is so prepared once, be it shared or not.
  """
  hosts = gather(socket.gethostname())
  is_first_of_host = hosts.index(hosts[index()]) == index()
  turn = 0 if is_first() else 1 if is_first_of_host else 2
  for number in range(3):
    if number == turn:
      yield
    gather()


def check_shared(file: pathlib.Path) -> None:
  """Raises a `ValueError` on all if they do not see what process 0 has written.

  Args:
    file: that process 0 has just written.
  """
  if count() == 1:
    return
  expected = gather(_facts(file))[0]
  deadline = time.monotonic() + _SHARED_SECONDS
  while _facts(file) != expected and time.monotonic() < deadline:
    time.sleep(0.2)
  for number, facts in enumerate(gather(_facts(file))):
    if facts != expected:
      raise ValueError(
        f"process {number} does not see {file} as process 0 has just written "
        "it: give a folder that is shared by the hosts of all processes."
      )


def _facts(file: pathlib.Path) -> list[int] | None:
  try:
    found = file.stat()
  except OSError:
    return None
  return [found.st_size, found.st_mtime_ns]


def has_notice() -> bool:
  """Whether all processes shall stop now, since one was told to (SIGTERM).

  The same for all at their n-th call. JAX passes the notice on in the
  background, so a call costs nothing.
  """
  return multihost_utils.reached_preemption_sync_point(next(_notices))


def compiling_together(function: Callable[..., Any]) -> Callable[..., Any]:
  """Lets all processes compile a jitted function before one of them calls it.

  A process may need much longer, and Gloo, which connects CPUs, gives up after
  30 seconds.
  """
  if count() == 1:
    return function
  compiled: dict[Any, Callable[..., Any]] = {}

  def call(*arguments: Any) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    if key not in compiled:
      compiled[key] = function.lower(*arguments).compile()
      gather()
    return compiled[key](*arguments)

  return call


def devices() -> list[jax.Device]:
  """The devices of all processes, those of each side by side."""
  return sorted(jax.devices(), key=lambda one: (one.process_index, one.id))


def devices_for(
  size: int,
  number: int | None = None,
  *,
  row_shards: int = 1,
  option: str = "batch_size",
) -> list[jax.Device]:
  """The devices that share a batch.

  Args:
    size: images in a batch.
    number: of devices that are wanted; None for all.
    row_shards: how many devices share the rows of an image.
    option: name of the size, for messages.

  Raises:
    ValueError: if they are not there, or cannot share a batch evenly.
  """
  found = devices()
  if number is not None and count() > 1:
    raise ValueError(
      f"num_devices is {number}, but it is for one process: several use all "
      f"their {len(found)} devices."
    )
  wanted = len(found) if number is None else number
  if wanted > len(found):
    raise ValueError(
      f"num_devices is {wanted}, but there are {len(found)} devices."
    )
  sharding_lib.check_row_shards(wanted, row_shards)
  groups = wanted // row_shards
  if size % groups:
    below, above = size - size % groups, size - size % groups + groups
    nearest = f"{below} or {above}" if below else f"{above}"
    largest = max(n for n in range(1, groups) if size % n == 0)
    fewer = "" if count() > 1 else f", or --num-devices {largest * row_shards}"
    sharing = "devices" if row_shards == 1 else "groups of devices"
    raise ValueError(
      f"{groups} {sharing} cannot share a batch of {size} images: give a "
      f"{option} of {nearest}{fewer}."
    )
  return found[:wanted]


def describe(sharding: jax.sharding.Sharding) -> dict[str, Any]:
  """The processes and devices in use, for records. All processes call it."""
  return {
    "num_processes": count(),
    "num_devices": sharding.num_devices,
    "hosts": sorted({*gather(socket.gethostname())}),
  }


def _client() -> Any:
  return distributed.global_state.client
