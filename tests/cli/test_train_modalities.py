"""fcn-jax train and evaluate on depth, HHA and labels of two kinds."""

import json
import shutil

import jax
import numpy as np
import pytest
import scipy.io
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import evaluate
from fcn_jax.cli import export
from fcn_jax.cli import predict
from fcn_jax.cli import presets
from fcn_jax.cli import train
from fcn_jax.data.datasets import nyudv2
from fcn_jax.data.datasets import sift_flow
from fcn_jax.runs import build
from fcn_jax.runs import folder as folder_lib
from fcn_jax.runs import initial_state
from tests.helpers import random_runs

SIZE = (40, 56)
INNER = "spatial_envelope_256x256_static_8outdoorcategories"


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  # optax accumulates across types; users have JAX's default.
  with jax.numpy_dtype_promotion("standard"):
    yield


def _integers(generator, low, high, *channels, dtype=np.uint8):
  return generator.integers(low, high, (*SIZE, *channels)).astype(dtype)


@pytest.fixture(scope="module")
def nyud(tmp_path_factory):
  """NYUDv2 in small."""
  root = tmp_path_factory.mktemp("nyud")
  generator = np.random.default_rng(0)
  for folder in ("data/images", "data/depth", "data/hha", "segmentation"):
    (root / folder).mkdir(parents=True)
  splits = {"train": ["5001", "5003"], "val": ["5002"], "test": ["6449"]}
  for split, names in splits.items():
    (root / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
    for name in names:
      arrays = {
        "images": _integers(generator, 0, 256, 3),
        "depth": _integers(generator, 0, 9000, dtype=np.uint16),
        "hha": _integers(generator, 0, 256, 3),
      }
      for folder, array in arrays.items():
        path = root / "data" / folder / f"img_{name}.png"
        Image.fromarray(array).save(path)
      ids = _integers(generator, 0, 41)
      scipy.io.savemat(
        root / f"segmentation/img_{name}.mat", {"segmentation": ids}
      )
  return root


@pytest.fixture(scope="module")
def siftflow(tmp_path_factory):
  """SIFT Flow in small."""
  root = tmp_path_factory.mktemp("siftflow")
  generator = np.random.default_rng(0)
  folders = {
    name: root / name / INNER
    for name in ("Images", "SemanticLabels", "GeoLabels")
  }
  for folder in folders.values():
    folder.mkdir(parents=True)
  for name in ("coast_1", "coast_2", "forest_3"):
    picture = Image.fromarray(_integers(generator, 0, 256, 3))
    picture.save(folders["Images"] / f"{name}.jpg")
    for kind, low, high in (("SemanticLabels", 0, 34), ("GeoLabels", -1, 4)):
      ids = _integers(generator, low, high, dtype=np.float64)
      scipy.io.savemat(folders[kind] / f"{name}.mat", {"S": ids})
  (root / "TestSet1.txt").write_text(f"{INNER}\\coast_1.jpg\n")
  return root


def _command(preset, workdir, data_dir, *more):
  """Two steps of a preset, with a small backbone."""
  return [
    preset,
    f"--workdir={workdir}",
    f"--data-dir={data_dir}",
    f"--prepared-dir={data_dir.parent / 'prepared'}",
    "--backbone=vgg_small",
    "--padding=same",
    "--head-width=8",
    "--steps=2",
    "--log-every=1",
    "--validate-every=2",
    "--num-pictures=1",
    "--num-threads=1",
    *more,
  ]


def _random_run(workdir, nyud, modalities, inputs):
  return random_runs.save(
    workdir,
    np.zeros((*SIZE, 3), np.uint8),
    names=nyudv2.CLASS_NAMES,
    palette=np.array(nyudv2.PALETTE, np.uint8),
    dataset="nyudv2",
    data_dir=nyud,
    modalities=modalities,
    inputs=inputs,
    stride=32,
    normalization="none",
  )


@pytest.fixture(scope="module")
def color_run(tmp_path_factory, nyud):
  workdir = tmp_path_factory.mktemp("runs") / "color"
  return _random_run(workdir, nyud, "color", "nyud_color")


@pytest.fixture(scope="module")
def hha_run(tmp_path_factory, nyud):
  workdir = tmp_path_factory.mktemp("runs") / "hha"
  return _random_run(workdir, nyud, "hha", "nyud_hha")


@pytest.fixture(scope="module")
def two_headed(tmp_path_factory, siftflow):
  workdir = tmp_path_factory.mktemp("runs") / "siftflow"
  train.main(_command("siftflow_fcn32s", workdir, siftflow, "--init=None"))
  return workdir


@pytest.fixture(scope="module")
def late_fusion(tmp_path_factory, nyud, color_run, hha_run):
  workdir = tmp_path_factory.mktemp("runs") / "late"
  inits = (f"--init={color_run}", f"--init-hha={hha_run}")
  train.main(_command("nyud_fcn32s_color_hha", workdir, nyud, *inits))
  return workdir


def _assert_scored(workdir, options, num_pixels):
  """Scores a run twice: as its loop did, and by fcn-jax evaluate."""
  evaluate.main([f"--workdir={workdir}", *options])
  [folder] = workdir.glob("evaluation-*")
  summary = json.loads((folder / "summary.json").read_text())
  assert np.sum(summary["confusion"]) == num_pixels
  _, [record] = folder_lib.read_records(workdir)
  assert summary["mean_iu"] == pytest.approx(record["mean_iu"])
  shutil.rmtree(folder)


def _num_labelled(data_dir, dataset, split):
  source = fcn.data.load(
    dataset, split=split, prepared_dir=data_dir.parent / "prepared"
  ).source
  return sum((e.label != fcn.types.IGNORE_LABEL).sum() for e in source)


@pytest.mark.long
def test_both_heads_are_trained_and_the_main_one_is_scored(
  two_headed, siftflow
):
  network = fcn.runs.load(two_headed, "best")
  assert network.model.heads == {"semantic": 33, "geometric": 3}
  assert network.class_names == sift_flow.CLASS_NAMES
  for head, count in network.model.heads.items():
    kernel = network.variables["params"][f"score_fr_{head}"]["kernel"]
    assert kernel.shape[-1] == count
    assert np.abs(kernel).max() > 0  # They begin at zero.
  labelled = _num_labelled(siftflow, "sift_flow", "test")
  _assert_scored(two_headed, ["--split=test"], labelled)


@pytest.mark.long
def test_the_next_stride_begins_with_both_heads(two_headed):
  _, preset = presets.PRESETS["siftflow_fcn16s"]
  config = preset.replace(
    backbone="vgg_small",
    padding="same",
    head_width=8,
    init=two_headed,
  )
  model = build.model(config, 33)
  optimizer = build.optimizer(config.optimizer)
  state, _ = initial_state.make(config, model, optimizer)
  donor = fcn.runs.load(two_headed, "best").variables["params"]
  for head in ("semantic", "geometric"):
    np.testing.assert_array_equal(
      state.params[f"score_fr_{head}"]["kernel"],
      donor[f"score_fr_{head}"]["kernel"],
    )
    assert not np.any(state.params[f"score_pool4_{head}"]["kernel"])


@pytest.mark.long
def test_early_fusion_begins_with_a_net_for_colours_and_goes_on(
  tmp_path, nyud, color_run
):
  workdir = tmp_path / "early"
  crops = ("--crop-size", "32", "32", "--scale-range", "0.7", "1.3", "--flip")
  command = _command(
    "nyud_fcn32s_color_d", workdir, nyud, f"--init={color_run}", *crops
  )
  train.main(command)
  network = fcn.runs.load(workdir, "latest")
  kernel = network.variables["params"]["conv1_1"]["kernel"]
  old = fcn.runs.load(color_run).variables["params"]["conv1_1"]["kernel"]
  # Two steps at a rate of 1e-10 change little.
  np.testing.assert_allclose(kernel[:, :, :3], old, rtol=0.01, atol=1e-3)
  np.testing.assert_allclose(
    kernel[:, :, 3], old.mean(axis=2), rtol=0.01, atol=1e-3
  )
  train.main([*command, "--steps=3"])
  assert fcn.runs.load(workdir, "latest").step == 3


@pytest.mark.long
def test_late_fusion_begins_with_two_runs_and_is_scored(
  late_fusion, nyud, color_run, hha_run
):
  network = fcn.runs.load(late_fusion, "best")
  for name, run in (("color", color_run), ("hha", hha_run)):
    jax.tree.map(
      lambda new, old: np.testing.assert_allclose(
        new, old, rtol=0.01, atol=1e-3
      ),
      network.variables["params"][name],
      fcn.runs.load(run, "best").variables["params"],
    )
  labelled = _num_labelled(nyud, "nyudv2", "validation")
  _assert_scored(late_fusion, [], labelled)


@pytest.mark.long
def test_networks_that_see_more_than_colours_are_refused_by_name(
  late_fusion, tmp_path, capsys
):
  Image.new("RGB", SIZE).save(tmp_path / "a.png")
  out = tmp_path / "out"
  with pytest.raises(SystemExit):
    predict.main(
      [str(tmp_path / "a.png"), f"--workdir={late_fusion}", f"--out={out}"]
    )
  assert "sees color_hha, but this command reads" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    export.main([f"--workdir={late_fusion}", f"--out={out}.zip"])
  assert "sees color_hha, but this command reads" in capsys.readouterr().err
  assert not out.exists()


def test_data_without_the_modality_are_refused(tmp_path, capsys):
  command = _command("nyud_fcn32s_hha", tmp_path / "run", tmp_path)
  command += ["--dataset=camvid", "--init=None", "--num-devices=1"]
  with pytest.raises(SystemExit):
    train.main(command)
  assert "camvid has no feature hha" in capsys.readouterr().err
