"""The devices of a process side by side, each with a piece of its own.

Each device runs the program that one device alone would run, so results are
those of one device, to the bit.
"""

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from fcn_jax import types


def copies(
  variables: types.Variables, devices: Sequence[jax.Device] | None
) -> list[types.Variables]:
  """Variables on each of some devices; on the default device if None."""
  if devices is None:
    return [jax.device_put(variables)]
  return [jax.device_put(variables, device) for device in devices]


def in_order(
  function: Callable[[Any, Any], Any],
  replicas: Sequence[Any],
  items: Iterable[Any],
) -> Iterator[tuple[Any, Any]]:
  """Applies a function to items, with each replica in a thread of its own.

  Args:
    function: from a replica and an item to a result.
    replicas: such as variables on different devices.
    items: to share out; a few are taken ahead of the results.

  Yields:
    The items with their results, in order.
  """
  if len(replicas) == 1:
    for item in items:
      yield item, function(replicas[0], item)
    return
  with contextlib.ExitStack() as stack:
    threads = [
      stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
      for _ in replicas
    ]
    waiting = collections.deque()
    # First in, first out: when results are no longer wanted, work that has not
    # begun is not waited for.
    stack.callback(lambda: [future.cancel() for _, future in waiting])
    for number, item in enumerate(items):
      which = number % len(replicas)
      future = threads[which].submit(function, replicas[which], item)
      waiting.append((item, future))
      if len(waiting) > len(replicas):
        item, future = waiting.popleft()
        yield item, future.result()
    while waiting:
      item, future = waiting.popleft()
      yield item, future.result()
