"""Several processes that train together, over loopback."""

import json
import shutil
import signal
import time

import jax
import pytest
from PIL import Image

from fcn_jax import data
from fcn_jax.cli import main
from fcn_jax.runs import checkpoints
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import training
from tests.helpers import process_runs
from tests.helpers import tiny_networks
from tests.helpers import tiny_runs

pytestmark = [
  pytest.mark.long,
  pytest.mark.usefixtures("standard_promotion"),
]


class Stop(Exception):
  pass


def stop(state):
  raise Stop


@pytest.fixture(scope="module", autouse=True)
def tiny_backbone():
  with pytest.MonkeyPatch.context() as patch:
    tiny_networks.add_tiny(patch)
    yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def together(root):
  """The folder of a run of two processes, and how they ended.

  They find no data set. Process 1 is late at a save.
  """
  run = {
    "workdir": root / "together",
    "prepared_dir": root / "prepared",
    "events": [[1, 4, "SLEEP"]],
  }
  ends = process_runs.call(run, sharded=root / "sharded")
  assert [one.code for one in ends] == [0, 0], ends
  return root / "together", ends


@pytest.fixture(scope="module")
def alone(root, together):
  """The folder of the same run by one process with four devices."""
  config = process_runs.config(root / "alone", root / "prepared")
  with jax.numpy_dtype_promotion("standard"):
    training.train(config)
  return config.run.workdir


@pytest.fixture(scope="module")
def killed(root, together):
  """The folder of a run of which process 1 was killed, and the ends."""
  run = {
    "workdir": root / "killed",
    "prepared_dir": root / "prepared",
    "events": [[1, 5, "KILL"]],
  }
  return root / "killed", process_runs.call(run)


@pytest.fixture(scope="module")
def stopped(root, together):
  """The folder of a run of which process 1 was told to stop, and the ends."""
  run = {
    "workdir": root / "stopped",
    "prepared_dir": root / "prepared",
    "events": [[1, 3, "TERM"]],
  }
  return root / "stopped", process_runs.call(run)


@pytest.fixture(scope="module")
def resumed(root, killed, stopped):
  """The folders of those two and of a third run, continued by two processes.

  The third one was stopped, too, and went on for a while in one process.
  """
  workdirs = {name: root / name for name in ("killed", "stopped", "moved")}
  shutil.copytree(stopped[0], workdirs["moved"])
  config = process_runs.config(workdirs["moved"], root / "prepared")
  with jax.numpy_dtype_promotion("standard"), pytest.raises(Stop):
    training.run(training.prepare(config, at_steps={6: stop}))
  ends = process_runs.call(
    *(
      {"workdir": workdir, "prepared_dir": root / "prepared"}
      for workdir in workdirs.values()
    )
  )
  assert [one.code for one in ends] == [0, 0], ends
  return workdirs


# A run that is left alone.


def test_two_processes_train_as_one(together, alone):
  found, expected = (
    folder.read_records(workdir)[0] for workdir in (together[0], alone)
  )
  assert [one["step"] for one in found] == list(range(1, 9))
  counts = [one["num_sampled"] for one in expected]
  assert [one["num_sampled"] for one in found] == counts
  assert len({*counts}) > 1
  assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-6)
  losses = [one["loss"] for one in expected]
  assert [one["loss"] for one in found] == pytest.approx(losses, rel=1e-3)
  first, second = (process_runs.said(end, "digest") for end in together[1])
  assert first == second != []


def test_an_image_counts_once_in_the_scores_of_several_processes(
  together, alone
):
  (found,), (expected,) = (
    folder.read_records(workdir)[1] for workdir in (together[0], alone)
  )
  assert found["mean_iu"] == pytest.approx(expected["mean_iu"], abs=0.01)
  assert found["pixel_accuracy"] == pytest.approx(
    expected["pixel_accuracy"], abs=0.01
  )


def test_one_process_speaks_for_all(together):
  workdir, ends = together
  names = {path.name for path in workdir.iterdir()}
  assert names == {*folder.CONTENTS}
  kinds = [
    one["kind"] for one in records.read_json_lines(workdir / "metrics.jsonl")
  ]
  assert kinds == ["start", *["train"] * 8, "evaluation"]
  assert len(list((workdir / "tensorboard").iterdir())) == 1
  [start] = records.read_json_lines(workdir / "starts.jsonl")
  assert (start["num_processes"], start["num_devices"]) == (2, 4)
  assert start["device"] == "4 x cpu"
  assert len(start["hosts"]) == 1
  assert "initial parameters" in ends[0].err
  assert "mean IU" in ends[0].err
  # Gloo says which ranks are connected.
  for quiet in (ends[1].err, ends[1].out):
    assert "together" not in quiet


def test_a_late_process_is_waited_for(together):
  late = [what for what, _ in process_runs.said(together[1][1], "event")]
  assert late == ["SLEEP"]
  steps = {path.name for path in (together[0] / "checkpoints").glob("0*")}
  assert "00000008" in steps


def test_two_processes_score_and_predict_as_one(root, together, capsys):
  workdir = together[0]
  pictures = root / "pictures"
  pictures.mkdir()
  source = data.load(
    "shapes/tiny", split="validation", prepared_dir=root / "prepared"
  ).source
  for number in range(3):
    picture = Image.fromarray(source[number].image)
    picture.save(pictures / f"{number}.png")

  def commands(name):
    options = [f"--workdir={workdir}", f"--out={root / name}"]
    return [
      ["evaluate", *options, "--scores=all"],
      ["predict", str(pictures), *options],
    ]

  for one in commands("by one"):
    main.main(one)
  expected = capsys.readouterr().out
  ends = process_runs.call(commands=commands("by two"))
  assert [one.code for one in ends] == [0, 0], ends
  # Gloo says which ranks are connected.
  first, second = (
    [line for line in one.out.splitlines() if not line.startswith("[Gloo]")]
    for one in ends
  )
  assert second == []
  assert "\n".join(first).replace("by two", "by one") == expected.strip()
  for kind in ("per_image.csv", "summary.json", "classes/*.png"):
    found, same = (
      [path.read_bytes() for path in sorted((root / name).glob(kind))]
      for name in ("by two", "by one")
    )
    assert found == same != []


def test_each_process_saves_its_part_of_a_sharded_state(root, together):
  state = process_runs.sharded_state()
  restored = checkpoints.read(root / "sharded", "latest", state)
  tiny_runs.assert_same_bits(restored.state, state)
  step = root / "sharded" / "00000001"
  arrays = json.loads((step / "manifest.json").read_text())["arrays"]
  parts = arrays["params"]["params"]["parts"]
  rows = sorted(part["part"][0] for part in parts)
  assert rows == [[0, 2], [2, 4], [4, 6], [6, 8]]
  assert "sha256" in arrays["step"]["step"]
  assert (step / "params" / "ocdbt.process_1").is_dir()


# Runs that end early.


def test_a_process_that_is_killed_ends_the_other_with_the_reason(killed):
  (survivor, victim) = killed[1]
  assert victim.code == -signal.SIGKILL
  assert survivor.code == 1, survivor
  assert survivor.seconds - victim.seconds < 30
  assert "error: process 1 has not answered" in survivor.err
  assert "Traceback" not in survivor.err


def test_a_signal_to_one_process_stops_all_after_the_same_step(stopped):
  workdir, ends = stopped
  assert [one.code for one in ends] == [143, 143], ends
  said = [one.err[one.err.index("stopped by SIGTERM") :] for one in ends]
  assert said[0] == said[1]
  newest = max((workdir / "checkpoints").glob("0*")).name
  assert f"after step {int(newest)}, which is saved" in said[0]
  assert 3 <= int(newest) < 8


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_the_same_command_goes_on_to_the_bit(together, resumed, name):
  tiny_runs.assert_same_bits(
    tiny_runs.state_of(resumed[name]), tiny_runs.state_of(together[0])
  )
  assert tiny_runs.losses_of(resumed[name]) == tiny_runs.losses_of(together[0])


def test_a_run_moves_to_one_process_and_back(together, resumed):
  starts = records.read_json_lines(resumed["moved"] / "starts.jsonl")
  assert [one["num_processes"] for one in starts] == [2, 1, 2]
  assert starts[-1]["from_step"] == 6
  assert tiny_runs.losses_of(resumed["moved"]) == pytest.approx(
    tiny_runs.losses_of(together[0]), rel=1e-4
  )


def test_a_full_disk_of_one_process_ends_all_with_the_message(root, together):
  run = {
    "workdir": root / "full",
    "prepared_dir": root / "prepared",
    "events": [[0, 3, "FULL"]],
  }
  ends = process_runs.call(run)
  assert [one.code for one in ends] == [1, 1], ends
  ((_, since),) = process_runs.said(ends[0], "event")
  assert time.time() - since < 30
  for one in ends:
    assert "File too large" in one.err
    assert "the same command continues from the newest checkpoint" in one.err
  assert "error: process 0 has ended: " in ends[1].err


# What is refused.


@pytest.fixture(scope="module")
def refused(root, together):
  """How programs end that cannot work together, by the reason."""
  two_folders = [root / "one", root / "two"]
  for one in two_folders:
    one.mkdir()

  def command(port, index, *more, workdir):
    return [
      "-m",
      "fcn_jax",
      "train",
      *tiny_runs.command(workdir, root / "prepared", *more),
      *process_runs.meeting(port, index),
    ]

  ports = [process_runs.free_port() for _ in range(4)]
  nothing = root / "nothing"
  commands = {
    "nobody": command(ports[0], 1, "--startup-timeout=2", workdir=nothing),
    "alone": command(ports[1], 0, "--startup-timeout=2", workdir=nothing),
    "options 0": command(ports[2], 0, workdir=nothing),
    "options 1": command(ports[2], 1, "--momentum=0.5", workdir=nothing),
    "shared 0": command(ports[3], 0, workdir="run"),
    "shared 1": command(ports[3], 1, workdir="run"),
  }
  folders = [root] * 4 + two_folders
  ends = process_runs.end_of(list(commands.values()), folders=folders)
  assert not nothing.exists()
  return dict(zip(commands, ends, strict=True))


@pytest.mark.parametrize(
  ("who", "message"),
  [
    ("nobody", "process 0 does not answer at 127.0.0.1"),
    ("alone", "not all 2 processes have come"),
    (
      "options 0",
      "processes 0 and 1 have other options: momentum (0.9 and 0.5",
    ),
    (
      "options 1",
      "processes 0 and 1 have other options: momentum (0.9 and 0.5",
    ),
    ("shared 0", "process 1 does not see run/config.json"),
    ("shared 1", "process 1 does not see run/config.json"),
  ],
)
def test_what_cannot_work_together_ends_in_one_paragraph(refused, who, message):
  ended = refused[who]
  assert ended.code == 1, ended
  lines = ended.err.strip().splitlines()
  assert len(lines) == 1, ended.err
  assert lines[0].startswith("error: ")
  assert message in lines[0]
