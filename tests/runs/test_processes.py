"""How a process learns of others, without starting any."""

import subprocess
import sys

import jax
import pytest

from fcn_jax.runs import processes
from fcn_jax.runs import watch

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-4]",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
  "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"coordinator": "a:1"}, "give all three or none"),
    ({"process_index": 0}, "give all three or none"),
    (
      {"coordinator": "a", "num_processes": 2, "process_index": 0},
      "coordinator is 'a'; it must be HOST:PORT",
    ),
    (
      {"coordinator": "a:1", "num_processes": 2, "process_index": 2},
      r"process_index is 2; with 2 processes it must be in 0\.\.1",
    ),
    (
      {
        "distributed": "off",
        "coordinator": "a:1",
        "num_processes": 2,
        "process_index": 1,
      },
      "distributed is off, but there is a coordinator",
    ),
    ({"startup_timeout": 0}, "startup_timeout is 0"),
  ],
)
def test_options_that_do_not_agree_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    processes.start(processes.Processes(**options))


@pytest.mark.parametrize("distributed", ["auto", "off"])
def test_a_process_without_others_starts_alone(distributed):
  processes.start(processes.Processes(distributed))
  assert not jax.distributed.is_initialized()
  assert (processes.index(), processes.count()) == (0, 1)
  assert processes.is_first()
  assert processes.gather({"a": 1}) == [{"a": 1}]
  with processes.in_turn(), watch.end_together():
    pass


def test_one_of_one_is_alone():
  processes.start(processes.Processes("auto", "127.0.0.1:1", 1, 0))
  assert not jax.distributed.is_initialized()


def test_one_of_several_of_slurm_does_not_work_alone(monkeypatch):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match="one of 4 processes that slurm has"):
    processes.start(processes.Processes("off"))
  monkeypatch.setenv("SLURM_NTASKS", "1")
  processes.start(processes.Processes("off"))
  processes.start(processes.Processes("auto"))
  assert not jax.distributed.is_initialized()


def test_a_launcher_that_jax_does_not_know_is_told_of(monkeypatch):
  monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
  with pytest.raises(ValueError, match="--process-index .OMPI_COMM_WORLD_RANK"):
    processes.start(processes.Processes())
  monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
  processes.start(processes.Processes())


@pytest.mark.parametrize(
  ("size", "number", "message"),
  [
    (
      6,
      None,
      "4 devices .* a batch of 6 images: .* of 4 or 8, or --num-devices 3",
    ),
    (
      3,
      None,
      "4 devices cannot share a batch of 3 images: .* of 4, or --num-devices 3",
    ),
    (
      4,
      3,
      "3 devices .* a batch of 4 images: .* of 3 or 6, or --num-devices 2",
    ),
    (4, 9, "num_devices is 9, but there are 4 devices"),
  ],
)
def test_devices_that_cannot_share_a_batch_are_an_error(size, number, message):
  with pytest.raises(ValueError, match=message):
    processes.devices_for(size, number)


def test_devices_lie_side_by_side():
  assert processes.devices_for(8) == jax.devices()
  assert processes.devices_for(3, 3) == jax.devices()[:3]


def test_an_alarm_ends_the_program_with_its_message():
  code = """
import time
from fcn_jax.runs import watch
with watch.alarm(0.1, lambda: "nobody came."):
  time.sleep(60)
"""
  ended = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert (ended.returncode, ended.stderr) == (1, "error: nobody came.\n")


def test_an_alarm_that_is_in_time_does_nothing():
  with watch.alarm(60, lambda: "late"):
    pass
