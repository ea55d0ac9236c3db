"""Work on many files at a time, with a progress bar."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm.auto


def in_parallel(
  function: Callable[[Any], Any],
  items: Sequence[Any],
  *,
  num_threads: int | None = None,
  title: str,
) -> Iterator[Any]:
  """Calls a function for each item, in threads.

  A progress bar appears if the work takes longer than half a second.

  Args:
    function: of one item.
    items: its arguments.
    num_threads: how many threads; None for the number of cores.
    title: of the bar.

  Yields:
    The results, in the order of the items.
  """
  num_threads = num_threads or os.cpu_count() or 1
  # Making a million futures at once would take a while.
  chunk = 16 * num_threads
  progress = tqdm.auto.tqdm(
    total=len(items), desc=title, unit="file", disable=None, delay=0.5
  )
  with progress, concurrent.futures.ThreadPoolExecutor(num_threads) as executor:
    for start in range(0, len(items), chunk):
      for result in executor.map(function, items[start : start + chunk]):
        progress.update()
        yield result
