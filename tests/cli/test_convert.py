"""fcn-jax convert: files in, work folders out, and back."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import fcn_jax as fcn
from fcn_jax.cli import convert as convert_command
from fcn_jax.cli import predict
from fcn_jax.runs import build
from fcn_jax.runs import initial_state
from tests.helpers import narrow
from tests.helpers import torch_files

PIXELS = fcn.models.input_normalization


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
  narrow.backbones(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  # As users have it; optax accumulates across types.
  with jax.numpy_dtype_promotion("standard"):
    yield


def released_file(tmp_path, name):
  model = fcn.models.released.make(name)
  variables = narrow.random_variables(model)
  narrow.write_caffemodel(tmp_path / "net.caffemodel", model, variables)
  return tmp_path / "net.caffemodel", variables


def torchvision_file(tmp_path, model):
  variables = narrow.random_variables(model)
  arrays = fcn.pretrained.torchvision_names.state_dict(model, variables)
  torch_files.save(tmp_path / "net.pth", arrays)
  return tmp_path / "net.pth", variables


def convert(*arguments):
  convert_command.main(["import", *map(str, arguments)])


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def error_of(capsys, *arguments):
  with pytest.raises(SystemExit) as stop:
    convert_command.main([*map(str, arguments)])
  assert stop.value.code == 1
  error = capsys.readouterr().err.strip()
  assert error.startswith("error: ") and "\n" not in error
  return error


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  ["voc-fcn-alexnet", "pascalcontext-fcn16s"],
)
def test_a_released_net_is_found_out_and_becomes_a_run(tmp_path, capsys, name):
  file, variables = released_file(tmp_path, name)
  convert(file, "--workdir", tmp_path / "run")
  printed = capsys.readouterr().out
  assert name in printed and "copied" in printed
  network = fcn.runs.load(tmp_path / "run", "best")
  assert network.model == fcn.models.released.make(name)
  assert_equal(network.variables, variables)
  assert network.class_names[0] == "background"
  assert len(network.class_names) == network.model.num_classes
  assert printed.startswith((tmp_path / "run" / "weights.txt").read_text())


@pytest.mark.long
def test_each_head_of_a_released_net_can_be_taken(tmp_path, capsys):
  file, variables = released_file(tmp_path, "siftflow-fcn16s")
  for head, num_classes in (("semantic", 33), ("geometric", 3)):
    convert(file, "--workdir", tmp_path / head, "--head", head)
    assert head in capsys.readouterr().out
    network = fcn.runs.load(tmp_path / head, "best")
    assert network.model.num_classes == num_classes
    for layer in ("score_fr", "score_pool4"):
      assert_equal(
        network.variables["params"][layer],
        variables["params"][f"{layer}_{head}"],
      )


@pytest.mark.long
@pytest.mark.slow
def test_torchvisions_fcn_is_predicted_with(tmp_path, capsys):
  model = fcn.models.FCNResNet(21, auxiliary=True)
  file, variables = torchvision_file(tmp_path, model)
  convert(file, "--workdir", tmp_path / "run")
  assert "fcn-jax predict" in capsys.readouterr().out
  network = fcn.runs.load(tmp_path / "run", "best")
  assert network.model == model
  assert_equal(network.variables, variables)
  image = np.random.default_rng(0).integers(0, 256, (65, 97, 3), np.uint8)
  Image.fromarray(image).save(tmp_path / "picture.png")
  predict.main(
    [
      str(tmp_path / "picture.png"),
      f"--workdir={tmp_path / 'run'}",
      f"--out={tmp_path / 'out'}",
    ]
  )
  (written,) = (tmp_path / "out" / "classes").iterdir()
  expected = fcn.inference.predict(model, variables, image[None])
  # Interpolated in another order: few pixels lie between two classes.
  assert np.mean(np.asarray(Image.open(written)) != expected[0]) < 0.01


@pytest.mark.slow
def test_a_classifier_begins_training(tmp_path, capsys):
  model = fcn.models.FCN(
    200, backbone="vgg11", stride=32, inputs=PIXELS.TORCHVISION
  )
  file, variables = torchvision_file(tmp_path, model)
  convert(file, "--workdir", tmp_path / "begin")
  assert "--init" in capsys.readouterr().out
  config = fcn.runs.Train(run=fcn.runs.config.Run(tmp_path / "run")).replace(
    backbone="vgg11",
    normalization="none",
    inputs="torchvision",
    init=tmp_path / "begin",
  )

  def begin(config):
    return initial_state.make(
      config, build.model(config, 6), build.optimizer(config.optimizer)
    )

  state, said = begin(config)
  assert "score_fr" in said
  for layer in ("conv1_1", "conv3_1", "conv5_2"):
    assert_equal(state.params[layer], variables["params"][layer])
  with pytest.raises(ValueError, match="inputs"):
    begin(config.replace(inputs="caffe"))


@pytest.mark.slow
def test_a_trained_network_goes_back_to_torchvision(tmp_path, capsys):
  model = fcn.models.FCNResNet(21, auxiliary=True)
  file, _ = torchvision_file(tmp_path, model)
  convert(file, "--workdir", tmp_path / "run")
  out = tmp_path / "back.safetensors"
  arguments = ["export", f"--workdir={tmp_path / 'run'}", f"--out={out}"]
  convert_command.main(arguments)
  assert "RGB in 0..1" in capsys.readouterr().out
  expected = fcn.pretrained.read_state_dict(file)
  assert_equal(safetensors.numpy.load_file(out), dict(expected))
  before = out.read_bytes()
  assert "exists already" in error_of(capsys, *arguments)
  assert out.read_bytes() == before


@pytest.mark.long
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(
  tmp_path, capsys
):
  file, _ = released_file(tmp_path, "voc-fcn32s")
  run = tmp_path / "run"

  def refused(*arguments):
    error = error_of(capsys, "import", *arguments)
    assert not run.exists()
    return error

  assert "no.pth" in refused(tmp_path / "no.pth", "--workdir", run)
  assert "voc-fcn32s" in refused(file, "--workdir", run, "--network", "fcn32")
  assert "score_pool4" in refused(
    file, "--workdir", run, "--network", "voc-fcn16s"
  )
  assert "21 there, 7 here" in refused(
    file, "--workdir", run, "--network", "voc-fcn32s", "--num-classes", 7
  )
  assert "leave it out" in refused(file, "--workdir", run, "--head", "semantic")
  hha, _ = released_file(tmp_path, "nyud-fcn32s-hha")
  assert "nyud-fcn32s-color, nyud-fcn32s-hha" in refused(hha, "--workdir", run)
  late, _ = released_file(tmp_path, "nyud-fcn32s-color-hha")
  assert "Load it in Python" in refused(late, "--workdir", run)


def classifier_file(tmp_path, backbone):
  model = fcn.models.FCN(10, backbone=backbone, stride=32, padding="caffe")
  file = tmp_path / f"{backbone}.caffemodel"
  narrow.write_caffemodel(
    file,
    model,
    narrow.random_variables(model),
    dense=("fc6", "fc7", "score_fr"),
    v1=True,
    legacy_shape=True,
  )
  # The classes have a layer of another name there.
  file.write_bytes(file.read_bytes().replace(b"score_fr", b"fc8_1000"))
  return file


@pytest.mark.long
def test_a_classifier_is_not_taken_for_one_of_fewer_layers(tmp_path, capsys):
  file = classifier_file(tmp_path, "vgg19")
  convert(file, "--workdir", tmp_path / "run")
  assert "caffe-vgg19" in capsys.readouterr().out.splitlines()[0]
  model = fcn.runs.load(tmp_path / "run", "best").model
  assert model.backbone == "vgg19"


@pytest.mark.slow
def test_a_classifier_has_all_of_the_backbone(tmp_path, capsys):
  file, run = classifier_file(tmp_path, "caffenet"), tmp_path / "run"
  arguments = ["import", file, "--workdir", run, "--network", "caffe-vgg16"]
  error = error_of(capsys, *arguments)
  assert "params/conv1_1/bias" in error and "--partial" in error
  assert not run.exists()


def test_a_truncated_file_is_said_to_be_truncated(tmp_path, capsys):
  file = classifier_file(tmp_path, "vgg16")
  file.write_bytes(file.read_bytes()[:-100])
  error = error_of(capsys, "import", file, "--workdir", tmp_path / "run")
  assert "truncated" in error


@pytest.mark.slow
@pytest.mark.parametrize(
  "fault",
  [
    OSError(28, "no space"),
    pytest.param(KeyboardInterrupt(), marks=pytest.mark.long),
  ],
)
def test_a_folder_that_could_not_be_filled_is_not_left(
  tmp_path, monkeypatch, fault
):
  file, _ = torchvision_file(tmp_path, fcn.models.FCNResNet(21))

  def save(*unused, **options):
    raise fault

  with monkeypatch.context() as patch:
    patch.setattr(fcn.runs.checkpoints.Checkpoints, "save", save)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
      convert(file, "--workdir", tmp_path / "run")
  assert not (tmp_path / "run").exists()
  # Whether there is an auxiliary head is found out for a named network, too.
  convert(file, "--workdir", tmp_path / "run", "--network", "fcn_resnet50")


def test_a_folder_in_use_is_not_touched(tmp_path, capsys):
  file, _ = released_file(tmp_path, "voc-fcn32s")
  workdir = tmp_path / "mine"
  workdir.mkdir()
  (workdir / "thesis.txt").write_text("all of it")
  error = error_of(capsys, "import", file, "--workdir", workdir)
  assert "not empty" in error
  assert [path.name for path in workdir.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_an_import_that_was_not_finished_is_made_again(tmp_path, capsys):
  file, variables = torchvision_file(tmp_path, fcn.models.FCNResNet(21))
  # As on a disk of its own.
  workdir = tmp_path / "run"
  workdir.symlink_to(tmp_path / "disk")
  (tmp_path / "disk" / "checkpoints" / "00000000").mkdir(parents=True)
  assert "not empty" in error_of(capsys, "import", file, "--workdir", workdir)
  # A program that is killed leaves its lock.
  (tmp_path / "disk" / ".lock").touch()
  (tmp_path / "disk" / "metrics.jsonl").touch()
  assert "not empty" in error_of(capsys, "import", file, "--workdir", workdir)
  (tmp_path / "disk" / "metrics.jsonl").unlink()
  convert(file, "--workdir", workdir)
  assert_equal(fcn.runs.load(workdir, "latest").variables, variables)
  names = {path.name for path in (tmp_path / "disk").iterdir()}
  assert names == {"config.json", "checkpoints", "weights.txt"}


@pytest.mark.slow
def test_other_classes_are_found_out(tmp_path):
  model = fcn.models.FCNResNet(7)
  file, variables = torchvision_file(tmp_path, model)
  convert(file, "--workdir", tmp_path / "run")
  network = fcn.runs.load(tmp_path / "run", "latest")
  assert network.class_names == tuple(f"class {i}" for i in range(7))
  assert_equal(network.variables, variables)


@pytest.mark.slow
def test_a_network_that_torchvision_has_not_is_exported_by_its_own_names(
  tmp_path, capsys
):
  file, variables = released_file(tmp_path, "voc-fcn-alexnet")
  convert(file, "--workdir", tmp_path / "run")
  out = tmp_path / "back.safetensors"
  convert_command.main(
    ["export", f"--workdir={tmp_path / 'run'}", f"--out={out}"]
  )
  assert "names of this package" in capsys.readouterr().out
  arrays = safetensors.numpy.load_file(out)
  assert len(arrays) == len(jax.tree.leaves(variables))
  np.testing.assert_array_equal(
    arrays["conv2.weight"].transpose(2, 3, 1, 0),
    variables["params"]["conv2"]["kernel"],
  )
