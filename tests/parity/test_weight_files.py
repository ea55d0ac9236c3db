"""Files that PyTorch wrote as trainers and strangers do.

What import says of each, what predict would do, and arrays equal to the truth.
All have the same narrow network.
"""

import argparse
import collections
import json
import re

import jax
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.cli import convert
from fcn_jax.pretrained import torchvision_names
from fcn_jax.pretrained import weight_file
from tests.helpers import narrow

torch = pytest.importorskip(
  "torch", reason="PyTorch is not installed: make parity"
)

pytestmark = pytest.mark.parity

MODEL = fcn.models.FCNResNet(21, auxiliary=True)
SCORES = [
  f"{head}.4.{kind}"
  for head in ("classifier", "aux_classifier")
  for kind in ("weight", "bias")
]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
  narrow.backbones(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def truth():
  with pytest.MonkeyPatch.context() as monkeypatch:
    narrow.backbones(monkeypatch)
    variables = narrow.random_variables(MODEL)
    arrays = torchvision_names.state_dict(MODEL, variables)
  tensors = ((name, torch.from_numpy(a)) for name, a in arrays.items())
  return variables, collections.OrderedDict(tensors)


def optimizer():
  """States of an optimizer and of a schedule after a step."""
  module = torch.nn.Linear(3, 2)
  steps = torch.optim.Adam(module.parameters())
  module(torch.ones(1, 3)).sum().backward()
  steps.step()
  schedule = torch.optim.lr_scheduler.PolynomialLR(steps, 10, 0.9)
  return steps.state_dict(), schedule.state_dict()


def before(prefix, sd):
  return collections.OrderedDict((prefix + n, x) for n, x in sd.items())


def each(sd, change):
  return collections.OrderedDict(
    (n, change(x) if x.is_floating_point() else x) for n, x in sd.items()
  )


def reference(sd):
  steps, schedule = optimizer()
  return {
    "model": sd,
    "optimizer": steps,
    "lr_scheduler": schedule,
    "epoch": 3,
    "args": argparse.Namespace(lr=0.01, model="fcn_resnet50"),
    "scaler": None,
  }


def lightning(sd):
  return {
    "state_dict": before("model.", sd) | {"criterion.weight": torch.ones(21)},
    "epoch": 1,
    "pytorch-lightning_version": "2.4.0",
    "hyper_parameters": {"lr": 0.1},
    "callbacks": {},
    "optimizer_states": [optimizer()[0]],
  }


EQUAL = {
  "plain": lambda sd: sd,
  "torchvision's reference": reference,
  "pytorch-fcn's trainer": lambda sd: {
    "epoch": 1,
    "arch": "FCN8s",
    "optim_state_dict": optimizer()[0],
    "model_state_dict": sd,
    "best_mean_iu": np.float64(0.63),
  },
  "DataParallel": lambda sd: before("module.", sd),
  "Lightning": lightning,
  "net": lambda sd: {"net": sd, "acc": 91.2, "epoch": 3},
  "generator": lambda sd: {"generator": sd, "epoch": 1},
  "double": lambda sd: each(sd, torch.Tensor.double),
  "parameters": lambda sd: each(sd, lambda x: torch.nn.Parameter(x.clone())),
  "without counters": lambda sd: {
    name: x for name, x in sd.items() if "num_batches" not in name
  },
}


def read(path, **options):
  return weight_file.read(path, weight_file.published_tables(), **options)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", EQUAL)
def test_the_arrays_of_a_checkpoint_are_the_truth(
  tmp_path, truth, kind, legacy
):
  variables, sd = truth
  path = tmp_path / "net.pth"
  torch.save(EQUAL[kind](sd), path, _use_new_zipfile_serialization=not legacy)
  found, report = fcn.pretrained.load(path, MODEL)
  jax.tree.map(np.testing.assert_array_equal, found, variables)
  assert not report.new() and not report.unused
  assert read(path).naming == "torchvision"


@pytest.mark.parametrize(
  "dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"]
)
def test_halves_are_the_truth_rounded(tmp_path, truth, dtype):
  path, (_, sd) = tmp_path / "net.pth", truth
  halves = each(sd, lambda x: x.to(dtype))
  torch.save(halves, path)
  found = read(path).arrays
  for name, tensor in each(halves, torch.Tensor.float).items():
    np.testing.assert_array_equal(found[name], tensor.numpy(), name)


def test_an_average_is_chosen_by_its_key(tmp_path, truth):
  path, (_, sd) = tmp_path / "net.pth", truth
  average = before("module.", each(sd, lambda x: 2 * x))
  average["n_averaged"] = torch.tensor(7)
  torch.save({"model": sd, "model_ema": average, "epoch": 3}, path)
  with pytest.raises(ValueError, match="model_ema, model.*--key model_ema"):
    read(path)
  for key, factor in (("model_ema", 2), ("model", 1)):
    found = read(path, key=key).arrays
    np.testing.assert_array_equal(
      found["classifier.4.weight"], factor * sd["classifier.4.weight"].numpy()
    )


def test_parts_of_safetensors_are_read(tmp_path, truth):
  from safetensors.torch import save_file

  variables, sd = truth
  names = list(sd)
  weight_map = {}
  for part in (1, 2):
    some = names[part - 1 :: 2]
    file = f"model-0000{part}-of-00002.safetensors"
    save_file({name: sd[name] for name in some}, tmp_path / file)
    weight_map |= dict.fromkeys(some, file)
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
  found, _ = fcn.pretrained.load(index, MODEL)
  jax.tree.map(np.testing.assert_array_equal, found, variables)


def without_backbone_start(sd):
  """As mmsegmentation's ResNetV1c, which has three convolutions there."""
  start = ("backbone.conv1.", "backbone.bn1.")
  return {n: x for n, x in sd.items() if not n.startswith(start)}


REFUSED = {
  "mmsegmentation": (
    lambda sd: {
      "meta": {"CLASSES": ("a", "b")},
      "state_dict": without_backbone_start(sd),
      "optimizer": optimizer()[0],
    },
    "resnet50 has backbone.bn1.bias, backbone.bn1.running_mean",
  ),
  "a whole model": (
    lambda sd: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)),
    "torch.nn.modules.container.Sequential. Nothing in it was run.",
  ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_named(tmp_path, truth, kind):
  make, words = REFUSED[kind]
  torch.save(make(truth[1]), tmp_path / "net.pth")
  with pytest.raises(ValueError, match=re.escape(words)):
    convert.import_weights(
      convert.Import(tmp_path / "net.pth", tmp_path / "run")
    )
  assert not (tmp_path / "run").exists()


def test_torch_without_checksums_is_read(tmp_path, truth):
  before = torch.serialization.get_crc32_options()
  torch.serialization.set_crc32_options(False)
  try:
    torch.save(truth[1], tmp_path / "net.pth")
  finally:
    torch.serialization.set_crc32_options(before)
  assert read(tmp_path / "net.pth").arrays.keys() == truth[1].keys()


HEADS = {
  "one score": (
    lambda name, x: x[:1].clone() if name in SCORES else x,
    2,
    True,
  ),
  "two classes": (
    lambda name, x: x[:2].clone() if name in SCORES else x,
    2,
    True,
  ),
  "two classes, auxiliary head of 21": (
    lambda name, x: x[:2].clone() if name in SCORES[:2] else x,
    2,
    True,
  ),
  "no auxiliary head": (
    lambda name, x: None if name.startswith("aux_") else x,
    21,
    True,
  ),
  "the backbone alone": (
    lambda name, x: x if name.startswith("backbone.") else None,
    1,
    False,
  ),
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_of_other_classes_predict_if_they_are_trained(
  tmp_path, truth, kind
):
  variables, sd = truth
  change, num_classes, predicts = HEADS[kind]
  changed = {name: change(name, x) for name, x in sd.items()}
  torch.save(
    {name: x for name, x in changed.items() if x is not None},
    tmp_path / "net.pth",
  )
  convert.import_weights(convert.Import(tmp_path / "net.pth", tmp_path / "run"))
  network = fcn.runs.load(tmp_path / "run", "best")
  assert len(network.class_names) == num_classes
  np.testing.assert_array_equal(
    network.variables["params"]["layer4_2_conv3"]["kernel"],
    variables["params"]["layer4_2_conv3"]["kernel"],
  )
  if predicts:
    network.check_is_trained()
  else:
    with pytest.raises(ValueError, match="--init"):
      network.check_is_trained()
