"""`weights.load`: what fits, what is refused, and what is said of it."""

import os

import jax
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.pretrained import transplanting
from tests.helpers import narrow
from tests.helpers import torch_files

pytestmark = pytest.mark.slow

TORCHVISION = fcn.models.input_normalization.TORCHVISION


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
  narrow.backbones(monkeypatch)


def vgg(num_classes=21, stride=8, backbone="vgg16", **options):
  return fcn.models.FCN(
    num_classes, backbone=backbone, stride=stride, padding="caffe", **options
  )


def caffemodel(path, model, **options):
  variables = narrow.random_variables(model)
  narrow.write_caffemodel(path, model, variables, **options)
  return variables


def state_dict(path, model, *, legacy=False):
  variables = narrow.random_variables(model)
  arrays = fcn.pretrained.torchvision_names.state_dict(model, variables)
  torch_files.save(path, arrays, legacy=legacy)
  return variables


def one_paragraph(error):
  text = str(error.value)
  assert "\n" not in text and len(text) < 900, text
  return text


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("v1", [False, True])
def test_a_caffemodel_is_loaded_whole(tmp_path, v1):
  expected = caffemodel(tmp_path / "net.caffemodel", vgg(), v1=v1)
  found, report = fcn.pretrained.load(tmp_path / "net.caffemodel", vgg())
  assert_equal(found, expected)
  assert len(report.copied) == len(jax.tree.leaves(expected))
  assert report == transplanting.Report(copied=report.copied)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_is_loaded_whole(tmp_path, legacy):
  model = fcn.models.FCNResNet(21, auxiliary=True)
  expected = state_dict(tmp_path / "net.pth", model, legacy=legacy)
  found, report = fcn.pretrained.load(str(tmp_path / "net.pth"), model)
  assert_equal(found, expected)
  counters = sum("var" in name for name in report.copied)
  assert len(report.fixed) == counters and not report.unused


def test_loaded_arrays_do_not_change_with_the_file(tmp_path):
  path = tmp_path / "net.caffemodel"
  expected = caffemodel(path, vgg())
  found, _ = fcn.pretrained.load(path, vgg())
  with path.open("r+b") as file:
    file.write(os.urandom(path.stat().st_size))
  assert_equal(found, expected)


def test_files_are_known_by_their_content_not_their_name(tmp_path):
  caffemodel(tmp_path / "net.pth", vgg())
  assert fcn.pretrained.load(tmp_path / "net.pth", vgg())[1].copied
  model = vgg(inputs=TORCHVISION)
  state_dict(tmp_path / "net.caffemodel", model)
  assert fcn.pretrained.load(tmp_path / "net.caffemodel", model)[1].copied


def test_a_classifier_begins_an_fcn_only_if_that_is_asked_for(tmp_path):
  """Its dense layers are the convolutions fc6 and fc7; its classes are left."""
  path = tmp_path / "classifier.caffemodel"
  classifier = vgg(100, stride=32)
  expected = caffemodel(path, classifier, dense=("fc6", "fc7", "score_fr"))
  model = vgg(21, stride=8)
  with pytest.raises(ValueError, match="score_pool4/kernel.*partial") as error:
    fcn.pretrained.load(path, model)
  one_paragraph(error)
  found, report = fcn.pretrained.load(path, model, partial=True)
  for name in ("conv1_1", "conv5_3", "fc6", "fc7"):
    assert_equal(found["params"][name], expected["params"][name])
  assert report.converted == ("params/fc6/kernel", "params/fc7/kernel")
  assert set(report.reshaped) == {
    "params/score_fr/kernel",
    "params/score_fr/bias",
  }
  assert not any(map(np.any, jax.tree.leaves(found["params"]["score_fr"])))
  named = [name for group in report[:5] for name in group]
  assert sorted(named) == sorted(name for name, _ in transplanting.named(found))


def test_more_classes_keep_the_old_ones_first(tmp_path):
  path = tmp_path / "net.caffemodel"
  expected = caffemodel(path, vgg(21))
  with pytest.raises(ValueError, match="with fewer classes .* there") as error:
    fcn.pretrained.load(path, vgg(33))
  one_paragraph(error)
  found, report = fcn.pretrained.load(path, vgg(33), partial=True)
  assert len(report.extended) == 6
  for name in ("score_fr", "score_pool4", "score_pool3"):
    for kind in ("kernel", "bias"):
      array = np.asarray(found["params"][name][kind])
      old = expected["params"][name][kind]
      np.testing.assert_array_equal(array[..., :21], old)
      assert not array[..., 21:].any()
  with pytest.raises(ValueError, match="number of classes there: .*score_fr"):
    fcn.pretrained.load(path, vgg(3))


def test_a_depth_channel_begins_as_the_mean_of_the_colours(tmp_path):
  path = tmp_path / "net.caffemodel"
  expected = caffemodel(path, vgg(40, stride=32))
  model = vgg(
    40, stride=32, inputs=fcn.models.input_normalization.NYUD_COLOR_DEPTH
  )
  found, report = fcn.pretrained.load(path, model, partial=True)
  kernel = np.asarray(found["params"]["conv1_1"]["kernel"])
  colours = expected["params"]["conv1_1"]["kernel"]
  np.testing.assert_array_equal(kernel[:, :, :3], colours)
  np.testing.assert_allclose(kernel[:, :, 3], colours.mean(axis=2), rtol=1e-5)
  assert report.extended == ("params/conv1_1/kernel",)


def test_a_finer_net_begins_with_a_coarser_one(tmp_path):
  path = tmp_path / "fcn32s.caffemodel"
  caffemodel(path, vgg(21, stride=32))
  _, report = fcn.pretrained.load(path, vgg(21, stride=16), partial=True)
  assert report.kept == (
    "params/score_pool4/bias",
    "params/score_pool4/kernel",
  )
  assert not (report.reshaped or report.unused)


def test_another_architecture_is_refused(tmp_path):
  deeper = tmp_path / "vgg19.caffemodel"
  caffemodel(deeper, vgg(backbone="vgg19"))
  with pytest.raises(ValueError, match="left over in the file: conv3_4/0"):
    fcn.pretrained.load(deeper, vgg())
  other = tmp_path / "alexnet.caffemodel"
  caffemodel(other, vgg(backbone="caffenet", stride=32))
  for model in (vgg(), vgg(inputs=TORCHVISION)):
    with pytest.raises(ValueError) as error:
      fcn.pretrained.load(other, model)
    one_paragraph(error)
  torch = tmp_path / "vgg19.pth"
  state_dict(torch, vgg(backbone="vgg19", inputs=TORCHVISION))
  with pytest.raises(ValueError, match="torchvision's vgg19") as error:
    fcn.pretrained.load(torch, vgg(inputs=TORCHVISION))
  one_paragraph(error)


def test_pixels_of_other_weights_are_refused(tmp_path):
  caffemodel(tmp_path / "net.caffemodel", vgg())
  with pytest.raises(ValueError, match=r"input_normalization\.CAFFE"):
    fcn.pretrained.load(tmp_path / "net.caffemodel", vgg(inputs=TORCHVISION))
  state_dict(tmp_path / "net.pth", vgg(inputs=TORCHVISION))
  with pytest.raises(ValueError, match=r"input_normalization\.TORCHVISION"):
    fcn.pretrained.load(tmp_path / "net.pth", vgg())


def test_an_auxiliary_head_is_named_if_the_network_has_none(tmp_path):
  path = tmp_path / "net.pth"
  state_dict(path, fcn.models.FCNResNet(21, auxiliary=True))
  model = fcn.models.FCNResNet(21)
  with pytest.raises(ValueError, match="left over .* aux_classifier.0.weight"):
    fcn.pretrained.load(path, model)
  _, report = fcn.pretrained.load(path, model, partial=True)
  assert all(name.startswith("aux_classifier.") for name in report.unused)


@pytest.mark.parametrize("kind", ["caffemodel", "pth", "legacy"])
def test_a_truncated_file_is_refused_in_one_paragraph(tmp_path, kind):
  path = tmp_path / "net"
  if kind == "caffemodel":
    model = vgg()
    caffemodel(path, model)
  else:
    model = vgg(inputs=TORCHVISION)
    state_dict(path, model, legacy=kind == "legacy")
  content = path.read_bytes()
  for share in (0.0, 0.01, 0.5, 0.99):
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError) as error:
      fcn.pretrained.load(path, model)
    assert str(path) in one_paragraph(error)


class Evil:
  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_did_not_run(tmp_path, legacy):
  path, marker = tmp_path / "net.pth", tmp_path / "ran"
  content = {"features.0.weight": np.ones(3, np.float32), "x": Evil(marker)}
  torch_files.save(path, content, legacy=legacy)
  with pytest.raises(ValueError, match="system") as error:
    fcn.pretrained.load(path, vgg(inputs=TORCHVISION))
  one_paragraph(error)
  assert not marker.exists()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 3)])
def test_arrays_of_other_ranks_are_named(tmp_path, shape):
  path, model = tmp_path / "net.pth", vgg(inputs=TORCHVISION)
  arrays = fcn.pretrained.torchvision_names.state_dict(
    model, narrow.random_variables(model)
  )
  for name in ("features.0.weight", "features.0.bias"):
    arrays[name] = np.zeros(shape, np.float32)
  torch_files.save(path, arrays)
  with pytest.raises(ValueError, match="conv1_1/kernel.*conv1_1/bias") as error:
    fcn.pretrained.load(path, model)
  one_paragraph(error)


def test_a_file_that_is_not_there_is_refused(tmp_path):
  with pytest.raises(ValueError, match="nothing.pth") as error:
    fcn.pretrained.load(tmp_path / "nothing.pth", vgg(inputs=TORCHVISION))
  one_paragraph(error)
