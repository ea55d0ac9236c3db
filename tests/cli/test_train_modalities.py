"""train.py and evaluate.py on depth, HHA and labels of two kinds."""

import dataclasses
import json
import shutil

import evaluate
import export
import jax
import numpy as np
import predict
import pytest
import recipe
import run_folder
import scipy.io
import train
import train_presets
import trained
from PIL import Image

import fcn_jax as fcn
from fcn_jax.data.datasets import nyudv2
from fcn_jax.data.datasets import sift_flow
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
  """Scores a run twice, by train.py's loop and by evaluate.py."""
  evaluate.main([f"--workdir={workdir}", *options])
  [folder] = workdir.glob("evaluation-*")
  summary = json.loads((folder / "summary.json").read_text())
  assert np.sum(summary["confusion"]) == num_pixels
  rows = fcn.runs.records.read_json_lines(workdir / run_folder.METRICS_FILE)
  [row] = [row for row in rows if row["kind"] == "evaluation"]
  assert summary["mean_iu"] == pytest.approx(row["mean_iu"])
  shutil.rmtree(folder)


def _num_labelled(data_dir, dataset, split):
  source = fcn.data.load(
    dataset, split=split, prepared_dir=data_dir.parent / "prepared"
  ).source
  return sum((e.label != fcn.types.IGNORE_LABEL).sum() for e in source)


def test_both_heads_are_trained_and_the_main_one_is_scored(
  two_headed, siftflow
):
  network = trained.load(two_headed, "best")
  assert network.model.heads == {"semantic": 33, "geometric": 3}
  assert network.class_names == sift_flow.CLASS_NAMES
  for head, count in network.model.heads.items():
    kernel = network.variables["params"][f"score_fr_{head}"]["kernel"]
    assert kernel.shape[-1] == count
    assert np.abs(kernel).max() > 0  # They begin at zero.
  labelled = _num_labelled(siftflow, "sift_flow", "test")
  _assert_scored(two_headed, ["--split=test"], labelled)


def test_the_next_stride_begins_with_both_heads(two_headed):
  _, preset = train_presets.PRESETS["siftflow_fcn16s"]
  config = dataclasses.replace(
    preset,
    backbone="vgg_small",
    padding="same",
    head_width=8,
    init=two_headed,
  )
  model = recipe.make_model(config, 33)
  state, _ = train.initial_state(config, model, recipe.make_optimizer(config))
  donor = trained.load(two_headed, "best").variables["params"]
  for head in ("semantic", "geometric"):
    np.testing.assert_array_equal(
      state.params[f"score_fr_{head}"]["kernel"],
      donor[f"score_fr_{head}"]["kernel"],
    )
    assert not np.any(state.params[f"score_pool4_{head}"]["kernel"])


def test_early_fusion_begins_with_a_net_for_colours_and_goes_on(
  tmp_path, nyud, color_run
):
  workdir = tmp_path / "early"
  crops = ("--crop-size", "32", "32", "--scale-range", "0.7", "1.3", "--flip")
  command = _command(
    "nyud_fcn32s_color_d", workdir, nyud, f"--init={color_run}", *crops
  )
  train.main(command)
  network = trained.load(workdir, "latest")
  kernel = network.variables["params"]["conv1_1"]["kernel"]
  old = trained.load(color_run, "best").variables["params"]["conv1_1"]["kernel"]
  # Two steps at a rate of 1e-10 change little.
  np.testing.assert_allclose(kernel[:, :, :3], old, rtol=0.01, atol=1e-3)
  np.testing.assert_allclose(
    kernel[:, :, 3], old.mean(axis=2), rtol=0.01, atol=1e-3
  )
  train.main([*command, "--steps=3"])
  assert trained.load(workdir, "latest").step == 3


def test_late_fusion_begins_with_two_runs_and_is_scored(
  late_fusion, nyud, color_run, hha_run
):
  network = trained.load(late_fusion, "best")
  for name, run in (("color", color_run), ("hha", hha_run)):
    jax.tree.map(
      lambda new, old: np.testing.assert_allclose(
        new, old, rtol=0.01, atol=1e-3
      ),
      network.variables["params"][name],
      trained.load(run, "best").variables["params"],
    )
  labelled = _num_labelled(nyud, "nyudv2", "validation")
  _assert_scored(late_fusion, [], labelled)


def test_networks_that_see_more_than_colours_are_refused_by_name(
  late_fusion, tmp_path, capsys
):
  Image.new("RGB", SIZE).save(tmp_path / "a.png")
  out = tmp_path / "out"
  with pytest.raises(SystemExit):
    predict.main(
      [str(tmp_path / "a.png"), f"--workdir={late_fusion}", f"--out={out}"]
    )
  assert "sees color_hha, and this script reads" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    export.main([f"--workdir={late_fusion}", f"--out={out}.zip"])
  assert "sees color_hha, and this script reads" in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.parametrize(
  ("preset", "changes", "message"),
  [
    ("nyud_fcn32s_color_d", {"inputs": None}, "inputs is None.*4 channels"),
    ("nyud_fcn32s_color", {"inputs": "nyud_color_depth"}, "for 3 channels"),
    ("nyud_fcn32s_color_hha", {"inputs": "nyud_hha"}, "left out with"),
    ("nyud_fcn32s_color_hha", {"init_hha": None}, "init_hha is None"),
    ("nyud_fcn32s_color_hha", {"init": None}, "init_hha is runs"),
    ("nyud_fcn32s_hha", {"hue": 0.1}, "hue change colours only"),
    ("nyud_fcn32s_color_d", {"blur_probability": 0.1}, "change colours only"),
    (
      "siftflow_fcn32s",
      {"sampler": "class_weighted"},
      "second_labels is geometric",
    ),
    (
      "nyud_fcn32s_color_hha",
      {"second_labels": "geometric"},
      "second_labels is geometric",
    ),
  ],
)
def test_options_that_do_not_go_together_are_refused(preset, changes, message):
  _, config = train_presets.PRESETS[preset]
  recipe.check_options(config)
  with pytest.raises(ValueError, match=message):
    recipe.check_options(dataclasses.replace(config, **changes))


def test_data_without_the_modality_are_refused(tmp_path, capsys):
  command = _command("nyud_fcn32s_hha", tmp_path / "run", tmp_path)
  with pytest.raises(SystemExit):
    train.main([*command, "--dataset=camvid", "--init=None"])
  assert "camvid has no feature hha" in capsys.readouterr().err


def test_presets_are_the_networks_and_recipes_that_were_released():
  names = [
    *("nyud_fcn32s_color", "nyud_fcn32s_hha"),
    *("nyud_fcn32s_color_d", "nyud_fcn32s_color_hha"),
    *("siftflow_fcn32s", "siftflow_fcn16s", "siftflow_fcn8s"),
  ]
  for name in names:
    _, config = train_presets.PRESETS[name]
    released = fcn.models.released.NETWORKS[name.replace("_", "-")]
    num_classes = 33 if config.dataset == "sift_flow" else 40
    assert recipe.make_model(config, num_classes) == released.network()
    assert config.learning_rate == released.learning_rate
    assert config.momentum == released.momentum
    assert config.normalize == released.normalize
    assert config.batch_size == released.batch
    inits = [path for path in (config.init, config.init_hha) if path]
    starts = [path.name.split("_imagenet")[0] for path in inits]
    assert [start.replace("_", "-") for start in starts] == [
      *released.starts_from
    ]
