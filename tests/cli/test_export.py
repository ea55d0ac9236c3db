import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.cli import export
from tests.helpers import random_runs

pytestmark = pytest.mark.slow

NAMES = ("ground", "water", "tree")
PALETTE = np.array([[10, 20, 30], [0, 0, 250], [0, 200, 0]], np.uint8)
PICTURE = np.random.default_rng(3).integers(0, 256, (50, 70, 3)).astype("uint8")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """The work folder of a run whose network is random."""
  return random_runs.save(
    tmp_path_factory.mktemp("runs") / "run",
    PICTURE,
    names=NAMES,
    palette=PALETTE,
    resize=0.5,
    step=4,
  )


def run(workdir, out, *options):
  export.main(["--workdir", str(workdir), "--out", str(out), *options])


def test_the_file_predicts_as_the_run_s_network(workdir, tmp_path, capsys):
  out = tmp_path / "network.zip"
  run(workdir, out)
  network = fcn.runs.load(workdir, "best")
  exported = fcn.inference.load_exported(out)
  found = exported.predict(PICTURE[None])
  expected = fcn.inference.predict(
    network.model, network.variables, PICTURE[None]
  )
  np.testing.assert_array_equal(found, expected)
  assert len(np.unique(found)) > 1
  assert exported.class_names == NAMES
  np.testing.assert_array_equal(exported.palette, PALETTE)
  assert (exported.resize, exported.metadata["step"]) == (0.5, 4)
  printed = capsys.readouterr().out
  assert "3 classes, step 4" in printed
  assert "resized by 0.5" in printed
  assert "cuda" in printed


def test_a_file_that_is_there_stays(workdir, tmp_path, capsys):
  out = tmp_path / "network.zip"
  out.write_text("mine")
  with pytest.raises(SystemExit):
    run(workdir, out)
  assert "exists already" in capsys.readouterr().err
  assert out.read_text() == "mine"


@pytest.mark.parametrize("checkpoint", ["9", "worst"])
def test_a_checkpoint_that_is_not_there_is_explained(
  workdir, tmp_path, capsys, checkpoint
):
  with pytest.raises(SystemExit):
    run(workdir, tmp_path / "network.zip", "--checkpoint", checkpoint)
  assert "error: " in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_explained(tmp_path, capsys):
  with pytest.raises(SystemExit):
    run(tmp_path / "nothing", tmp_path / "network.zip")
  assert "error: " in capsys.readouterr().err
