"""Settings of all tests: strict promotion, and several devices on one CPU."""

import importlib.metadata
import os

# These are read when JAX is imported, also by the scripts that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=4",
    # Tests compile in two thirds of the time, and run as fast. At level 0 they
    # would run so slowly that they take longer.
    "--xla_backend_optimization_level=1",
    # Another third. Later versions do not know this flag.
    "--xla_cpu_use_fusion_emitters=false"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else "",
  ]
).strip()

# A program is compiled once for all tests, processes, runs and clones, as
# compiling is most of their time. A program of other code has another key.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
    "fcn_jax",
    "tests",
  ),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import shutil
import subprocess

import jax
import pytest

from fcn_jax import runs
from tests.helpers import tiny_runs

# A shape or type that is widened in silence is a mistake until proven wanted.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def standard_promotion():
  """JAX's default, which users have: optax averages across types."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(params=["cpu", "accelerator"])
def each_platform(request, monkeypatch):
  """Runs a test with the form for a CPU and with that for other devices."""
  if request.param == "accelerator":
    monkeypatch.setattr(
      jax.lax,
      "platform_dependent",
      lambda *arrays, default, **others: default(*arrays),
    )


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory):
  """Where the generated data set is prepared, once for all tests."""
  return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, prepared_dir):
  """The work folder of a run that was left alone. Do not change it."""
  workdir = tmp_path_factory.mktemp("runs") / "alone"
  with jax.numpy_dtype_promotion("standard"):
    runs.train(tiny_runs.config(workdir, prepared_dir))
  return workdir


@pytest.fixture
def run_copy(finished_run, tmp_path):
  """A copy of that run, to change."""
  return shutil.copytree(finished_run, tmp_path / "copy")


@pytest.fixture
def small_disk(tmp_path):
  """A real disk of 3 MB, where one may be mounted."""
  folder = tmp_path / "disk"
  folder.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder]
  if (
    not shutil.which("mount") or subprocess.run(command, check=False).returncode
  ):
    pytest.skip("a disk may not be mounted here")
  yield folder
  subprocess.run(["umount", folder], check=True)
