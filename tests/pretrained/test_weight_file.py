"""Files as trainers save them: the network in them is found, or they say why.

Written without torch; tests/parity/test_weight_files.py has files of torch's.
"""

import argparse
import json
import re

import numpy as np
import pytest
import safetensors.numpy

from fcn_jax import models
from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained import weight_file
from tests.helpers import narrow
from tests.helpers import torch_files

FCN = models.FCNResNet(5, backbone="resnet50", auxiliary=True)


@pytest.fixture(scope="module")
def arrays():
  with pytest.MonkeyPatch.context() as monkeypatch:
    narrow.backbones(monkeypatch)
    return torchvision_names.state_dict(FCN, narrow.random_variables(FCN))


def before(prefix, arrays):
  return {prefix + name: array for name, array in arrays.items()}


def averaged(arrays):
  return {name: np.asarray(2 * array) for name, array in arrays.items()}


OPTIMIZER = {"state": {0: {"momentum_buffer": np.ones(3, np.float32)}}}
# What is saved, and what is said about it.
CHECKPOINTS = {
  "alone": (lambda sd: sd, []),
  "torchvision's reference": (
    lambda sd: {
      "model": sd,
      "optimizer": OPTIMIZER,
      "epoch": 3,
      "args": argparse.Namespace(lr=0.1),
    },
    ["state dict: model"],
  ),
  "pytorch-fcn's trainer": (
    lambda sd: {
      "optim_state_dict": OPTIMIZER,
      "model_state_dict": sd,
      "best_mean_iu": np.float64(0.63),
    },
    ["state dict: model_state_dict"],
  ),
  "any key": (lambda sd: {"generator": sd}, ["state dict: generator"]),
  "two levels": (lambda sd: {"a": {"b": sd}}, ["state dict: a.b"]),
  "numbers among the arrays": (
    lambda sd: {**sd, "epoch": 3, "name": "fcn", "best": np.float32(1)},
    ["beside the network: epoch, name, best"],
  ),
  "DataParallel": (
    lambda sd: before("module.", sd),
    ["prefix removed from 337 names: module."],
  ),
  "Lightning with a weighted loss": (
    lambda sd: {
      "state_dict": {
        **before("net.model.", sd),
        "criterion.weight": np.ones(5, np.float32),
      }
    },
    [
      "state dict: state_dict",
      "prefix removed from 337 names: net.model.",
      "beside the network: criterion.weight",
    ],
  ),
  "another state dict of a loss": (
    lambda sd: {"model": sd, "loss": {"weight": np.ones(5, np.float32)}},
    ["state dict: model"],
  ),
}


def read(path, **options):
  return weight_file.read(path, weight_file.published_tables(), **options)


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_the_network_of_a_checkpoint_is_found(tmp_path, arrays, kind):
  make, said = CHECKPOINTS[kind]
  torch_files.save(tmp_path / "net.pth", make(arrays))
  file = read(tmp_path / "net.pth")
  assert_equal(file.arrays, arrays)
  assert file.naming == "torchvision"
  num = str(len(arrays))
  assert [*file.said] == [one.replace("337", num) for one in said]


def test_one_of_several_networks_is_chosen_by_its_key(tmp_path, arrays):
  path = tmp_path / "net.pth"
  average = {"n_averaged": np.array(7), **before("module.", averaged(arrays))}
  torch_files.save(path, {"model": arrays, "model_ema": average})
  with pytest.raises(ValueError, match="dicts: model_ema, model.*--key model_"):
    read(path)
  assert_equal(read(path, key="model").arrays, arrays)
  assert_equal(read(path, key="model_ema").arrays, averaged(arrays))
  with pytest.raises(ValueError, match="no state dict under the key 'net'"):
    read(path, key="net")


def test_one_of_several_prefixes_is_chosen_by_its_key(tmp_path, arrays):
  path = tmp_path / "net.pth"
  both = before("student.", arrays) | before("teacher.", averaged(arrays))
  torch_files.save(path, {"state_dict": both})
  with pytest.raises(ValueError, match=r"state_dict.student, state_dict.teach"):
    read(path)
  file = read(path, key="state_dict.teacher")
  assert_equal(file.arrays, averaged(arrays))


def test_an_unknown_object_among_the_arrays_is_refused(tmp_path, arrays):
  content = {**arrays, "options": argparse.Namespace(lr=0.1)}
  torch_files.save(tmp_path / "net.pth", content)
  with pytest.raises(ValueError, match=r"argparse\.Namespace.*'options'"):
    read(tmp_path / "net.pth")


def parts(folder, arrays):
  names = sorted(arrays)
  weight_map = {}
  for number, some in enumerate((names[:9], names[9:]), start=1):
    file = f"model-0000{number}-of-00002.safetensors"
    safetensors.numpy.save_file(
      {name: np.ascontiguousarray(arrays[name]) for name in some},
      folder / file,
    )
    weight_map |= dict.fromkeys(some, file)
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  return index, weight_map


def test_parts_of_safetensors_are_read_by_their_index(tmp_path, arrays):
  index, _ = parts(tmp_path, arrays)
  assert_equal(read(index).arrays, arrays)
  part = tmp_path / "model-00001-of-00002.safetensors"
  with pytest.raises(ValueError, match=r"Give .*safetensors\.index\.json"):
    read(part)
  part.unlink()
  with pytest.raises(ValueError, match="part 'model-00001-of-00002.*is not in"):
    read(index)


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda names: names | {"a": "../net.safetensors"}, "'../net.safetensors'"),
    (lambda names: names | {"a": "model-00002-of-00002.safetensors"}, "'a'"),
    (lambda names: [*names], "not an index"),
    (lambda names: {"a": 3}, "not an index"),
  ],
)
def test_an_index_of_other_arrays_is_refused(tmp_path, arrays, change, words):
  index, weight_map = parts(tmp_path, arrays)
  index.write_text(json.dumps({"weight_map": change(weight_map)}))
  with pytest.raises(ValueError, match=re.escape(words)):
    read(index)


def test_a_network_that_is_not_known_has_its_names_beside_expected_ones(
  tmp_path, arrays
):
  # ResNetV1c, whose first convolution is three.
  others = {n: a for n, a in arrays.items() if not n.startswith("backbone.c")}
  torch_files.save(tmp_path / "net.pth", others)
  file = read(tmp_path / "net.pth")
  tables = weight_file.published_tables()
  table, missing = weight_file.closest(file.arrays, tables)
  assert table.backbone == "resnet50"
  assert missing == ("backbone.conv1.weight",)
