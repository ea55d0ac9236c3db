"""Where a run took place: versions, devices, cores and commit."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any

import jax

_PACKAGES = ("fcn_jax", "jax", "jaxlib", "flax", "optax", "numpy", "grain")


def describe() -> dict[str, Any]:
  """Versions, devices and commit, for records and reports."""
  devices = jax.devices()
  return {
    "python": platform.python_version(),
    "versions": versions(),
    "platform": platform.platform(),
    "device": f"{len(devices)} x {devices[0].device_kind}",
    "cores": num_cores(),
    "commit": commit(),
  }


def versions() -> dict[str, str]:
  """Versions of this package and of those that it computes with."""
  return {name: importlib.metadata.version(name) for name in _PACKAGES}


def num_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # Not on macOS.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def free_bytes(folder: pathlib.Path) -> int:
  """Room on the disk where a folder is, or is going to be."""
  folder = folder.absolute()
  while not folder.exists():
    folder = folder.parent
  return shutil.disk_usage(folder).free


@functools.cache
def commit() -> str | None:
  """Commit of the code, with "+changes" if it was changed; None if unknown.

  As a process loads its code once, this is the commit at the first call: a run
  of hours names the one that it began with, whatever happens to the files.
  """
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    return subprocess.run(
      ["git", *arguments],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  try:
    # Fails in an environment that lies in the repository of somebody else.
    git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)
    head = git("rev-parse", "HEAD")
    return head + ("+changes" if git("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.CalledProcessError):
    # There is no git, or the package is installed.
    return None
