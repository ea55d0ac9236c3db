"""fcn-jax convert import: files as strangers have them, and our own exports."""

import jax
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.cli import convert as convert_command
from fcn_jax.cli import published
from fcn_jax.cli import state_dict_file
from fcn_jax.models import input_normalization
from fcn_jax.pretrained import first_kernels
from fcn_jax.pretrained import papers_names
from fcn_jax.pretrained import torchvision_names
from tests.helpers import caffe_files
from tests.helpers import caffe_prototxt
from tests.helpers import narrow
from tests.helpers import torch_files

pytestmark = pytest.mark.slow

CAFFE = input_normalization.CAFFE
TORCHVISION = input_normalization.TORCHVISION


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
  narrow.backbones(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  with jax.numpy_dtype_promotion("standard"):
    yield


def imported(tmp_path, arrays, *arguments):
  """The run that is made of arrays, and what is said."""
  path, workdir = tmp_path / "net.pth", tmp_path / "run"
  torch_files.save(path, arrays)
  said = convert(path, workdir, *arguments)
  return fcn.runs.load(workdir, "best"), said


def convert(path, workdir, *arguments):
  options = convert_command.tyro.cli(
    convert_command.Import,
    args=[str(path), "--workdir", str(workdir), *map(str, arguments)],
  )
  return convert_command.import_weights(options)


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def papers_fcn(num_classes=21, **options):
  """An FCN-8s with the papers' names, and its arrays as pytorch-fcn's."""
  model = fcn.models.FCN(
    num_classes, stride=8, padding="caffe", inputs=CAFFE, **options
  )
  variables = narrow.random_variables(model)
  arrays = papers_names.state_dict(variables)
  arrays["conv1_1.weight"] = np.ascontiguousarray(
    arrays["conv1_1.weight"][:, ::-1]
  )
  for name, size in (("upscore2", 4), ("upscore8", 16), ("upscore_pool4", 4)):
    arrays[f"{name}.weight"] = caffe_prototxt.bilinear(num_classes, size)
  return model, variables, arrays


def test_the_papers_networks_are_read_in_a_state_dict(tmp_path):
  model, variables, arrays = papers_fcn()
  network, said = imported(tmp_path, arrays)
  assert said.startswith("net.pth: voc-fcn8s\n")
  assert "pixels: caffe, by its names; its values do not tell" in said
  assert "upscore8.weight" in said and "voc-fcn8s-atonce" in said
  assert network.model == model
  assert_equal(network.variables, variables)
  network.check_is_trained()


def test_trained_upsampling_is_refused_in_a_state_dict(tmp_path):
  _, _, arrays = papers_fcn()
  arrays["upscore8.weight"][0, 0, 5, 5] += 0.1
  with pytest.raises(ValueError, match="'upscore8' is not bilinear"):
    imported(tmp_path, arrays)


def test_the_papers_networks_of_other_classes_keep_their_names(tmp_path):
  _, variables, arrays = papers_fcn(3)
  names = ("road", "car", "sky")
  network, said = imported(tmp_path, arrays, "--classes", *names)
  assert network.class_names == names
  assert network.config.data.dataset == "folder"
  assert_equal(network.variables, variables)
  assert "FCN-8s on vgg16" in said


def test_torchvisions_names_with_caffes_weights(tmp_path):
  """The first kernels say so; or else --inputs."""
  model = fcn.models.FCN(10, stride=32, inputs=CAFFE)
  variables = narrow.random_variables(model)
  arrays = torchvision_names.state_dict(model, variables)
  bgr = arrays["features.0.weight"][:, ::-1].copy()
  arrays["features.0.weight"] = bgr
  network, said = imported(tmp_path, arrays, "--inputs", "caffe")
  assert network.config.network.inputs == "caffe"
  kernel = network.variables["params"]["conv1_1"]["kernel"]
  assert_equal(kernel, variables["params"]["conv1_1"]["kernel"])
  assert "pixels: caffe, as you say, BGR in the file" in said
  with pytest.raises(ValueError, match="TORCHVISION"):
    fcn.pretrained.load(tmp_path / "net.pth", model, partial=True)


def test_first_kernels_of_caffes_vgg16_decide(tmp_path, monkeypatch):
  model = fcn.models.FCN(10, stride=32, inputs=TORCHVISION)
  variables = narrow.random_variables(model)
  arrays = torchvision_names.state_dict(model, variables)
  difference = arrays["features.0.weight"]
  difference = (difference[:, 0] - difference[:, 2]).sum((1, 2))
  monkeypatch.setattr(first_kernels, "_BLUE_MINUS_RED", 10 * difference)
  network, said = imported(tmp_path, arrays)
  assert "VGG16 for Caffe, for BGR in 0..255" in said
  assert network.config.network.inputs == "caffe"
  kernel = variables["params"]["conv1_1"]["kernel"][:, :, ::-1]
  assert_equal(network.variables["params"]["conv1_1"]["kernel"], kernel)
  with pytest.raises(ValueError, match="0..255, less the mean"):
    fcn.pretrained.load(tmp_path / "net.pth", model, partial=True)


@pytest.mark.long
def test_batch_statistics_of_pixels_in_bytes_ask_for_inputs(tmp_path):
  model = fcn.models.FCNResNet(5)
  arrays = torchvision_names.state_dict(model, narrow.random_variables(model))
  arrays["backbone.bn1.running_var"] *= 3000
  with pytest.raises(ValueError, match="0..255.*--inputs caffe"):
    imported(tmp_path, arrays)
  network, _ = imported(tmp_path, arrays, "--inputs", "caffe")
  assert network.model.inputs == CAFFE


def resnet(num_classes, auxiliary=None):
  model = fcn.models.FCNResNet(num_classes, auxiliary=True)
  variables = narrow.random_variables(model)
  arrays = torchvision_names.state_dict(model, variables)
  if auxiliary:
    for kind in ("weight", "bias"):
      name = f"aux_classifier.4.{kind}"
      arrays[name] = arrays[name][:1].repeat(auxiliary, 0)
  return variables, arrays


def test_one_score_becomes_two_classes(tmp_path):
  """The softmax of the two is the sigmoid of the one."""
  _, arrays = resnet(1)
  network, said = imported(tmp_path, arrays, "--classes", "ground", "building")
  assert network.class_names == ("ground", "building")
  assert "one score in the source" in said
  kernel = network.variables["params"]["score_classifier"]["kernel"]
  assert not kernel[..., 0].any()
  np.testing.assert_array_equal(
    kernel[0, 0, :, 1], arrays["classifier.4.weight"][0, :, 0, 0]
  )
  network.check_is_trained()


def test_an_auxiliary_head_of_other_classes_is_left_out(tmp_path):
  variables, arrays = resnet(3, auxiliary=7)
  network, said = imported(tmp_path, arrays)
  assert "left out: the auxiliary head" in said
  assert not network.model.auxiliary
  assert len(network.class_names) == 3
  assert network.config.data.dataset == "folder"
  assert_equal(
    network.variables["params"]["score_classifier"],
    variables["params"]["score_classifier"],
  )
  network.check_is_trained()


def test_a_network_with_new_arrays_begins_training_and_does_not_predict(
  tmp_path,
):
  _, arrays = resnet(3)
  arguments = ["--num-classes", 5, "--partial"]
  network, said = imported(tmp_path, arrays, *arguments)
  assert "--init" in said and "cannot predict" in said
  with pytest.raises(ValueError, match="score_classifier/bias.*--init"):
    network.check_is_trained()


@pytest.mark.long
def test_a_file_without_a_head_is_a_backbone_also_when_exported(tmp_path):
  _, arrays = resnet(3)
  backbone = {n: a for n, a in arrays.items() if n.startswith("backbone.")}
  network, said = imported(tmp_path, {"net": backbone})
  assert "--init" in said
  with pytest.raises(ValueError, match="classifier, to begin training"):
    network.check_is_trained()
  out = tmp_path / "out.safetensors"
  state_dict_file.write(out, network)
  assert "--init" in convert(out, tmp_path / "again")
  with pytest.raises(ValueError, match="classifier, to begin training"):
    fcn.runs.load(tmp_path / "again", "best").check_is_trained()


def test_names_of_another_network_are_shown_beside_expected_ones(tmp_path):
  _, arrays = resnet(3)
  del arrays["backbone.conv1.weight"]
  with pytest.raises(
    ValueError,
    match="names such as backbone.*resnet50 has backbone.conv1.weight, too",
  ):
    imported(tmp_path, arrays)


EXPORTED = {
  "FCN-8s on ResNet-50": {"backbone": "resnet50", "stride": 8},
  "the small network": {"backbone": "vgg_small", "inputs": "from_scratch"},
  "a VGG that torchvision has without normalization, for Caffe's pixels": {
    "backbone": "vgg11",
    "normalization": "batch",
    "inputs": "caffe",
    "padding": "caffe",
    "stride": 16,
  },
}


@pytest.mark.parametrize("kind", EXPORTED)
def test_our_own_exports_are_read_again_exactly(tmp_path, kind):
  names = ("ground", "tree", "house")
  workdir = tmp_path / "run"
  workdir.mkdir()
  config = fcn.runs.Train(run=fcn.runs.config.Run(workdir))
  config = config.replace(dataset="camvid", **EXPORTED[kind])
  model = fcn.runs.build.model(config, len(names))
  variables = narrow.random_variables(model)
  table = published.class_table(None, len(names), names)
  convert_command._save(config, variables, {"classes": table}, "random")
  out = tmp_path / "out.safetensors"
  convert_command.export_weights(
    convert_command.Export(workdir=workdir, out=out)
  )
  said = convert(out, tmp_path / "again")
  assert "fcn-jax predict" in said
  again = fcn.runs.load(tmp_path / "again", "best")
  assert again.model == model
  assert_equal(again.variables, variables)
  assert again.class_names == names
  assert again.config.data.dataset == "camvid"
  with pytest.raises(ValueError, match="says itself .* leave out --inputs"):
    convert(out, tmp_path / "other", "--inputs", "caffe")
  # In Python, for a network that the user makes.
  found, _ = fcn.pretrained.load(out, model)
  assert_equal(found, variables)


def test_a_foreign_caffemodel_is_refused_without_matching_it(
  tmp_path, monkeypatch
):
  path = tmp_path / "net.caffemodel"
  layers = {
    f"res{i}": ("Convolution", [np.ones((4, 4, 3, 3), np.float32)])
    for i in range(60)
  }
  caffe_files.write(path, layers)

  def compare(*unused):
    raise AssertionError("this takes a second a network")

  monkeypatch.setattr(fcn.pretrained, "compare", compare)
  with pytest.raises(ValueError, match="res0, res1.*conv1_1, conv1_2"):
    convert(path, tmp_path / "run")
