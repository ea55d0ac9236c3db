"""Weights that are named in place of a run."""

import pathlib

import jax
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.cli import named_weights
from fcn_jax.pretrained import fetching
from tests.helpers import narrow
from tests.helpers import tiny_runs
from tests.helpers import torch_files


def test_a_run_is_left_as_it_is(tmp_path):
  config = tiny_runs.config(tmp_path, tmp_path, init=tmp_path)
  assert named_weights.with_init(config) == config
  config = tiny_runs.config(tmp_path, tmp_path)
  assert named_weights.with_init(config) == config


def test_an_unknown_name_lists_the_known_ones(tmp_path):
  config = tiny_runs.config(tmp_path, tmp_path, init=pathlib.Path("vgg"))
  with pytest.raises(ValueError, match=r"init is vgg, .* fcn_resnet50_coco"):
    named_weights.with_init(config)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_named_weights_become_a_run_once(tmp_path, monkeypatch):
  narrow.backbones(monkeypatch)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.chdir(tmp_path)
  model = fcn.models.FCN(
    200,
    backbone="vgg11",
    stride=32,
    inputs=fcn.models.input_normalization.TORCHVISION,
  )
  variables = narrow.random_variables(model)
  arrays = fcn.pretrained.torchvision_names.state_dict(model, variables)
  source = fetching.Source("vgg11", "http://127.0.0.1:9/net.pth", None, 1, "")
  torch_files.save(tmp_path / source.file, arrays)
  monkeypatch.setitem(fetching.SOURCES, "vgg11_imagenet", source)
  config = tiny_runs.config(
    tmp_path / "run", tmp_path, init=pathlib.Path("vgg11_imagenet")
  )
  init = named_weights.with_init(config).network.init
  found = fcn.runs.load(init)
  jax.tree.map(
    np.testing.assert_array_equal,
    found.variables["params"]["conv1_1"],
    variables["params"]["conv1_1"],
  )
  # The file is not needed again.
  (tmp_path / source.file).unlink()
  assert named_weights.with_init(config).network.init == init
