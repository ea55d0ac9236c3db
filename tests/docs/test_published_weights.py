"""The example of the page on networks and weights runs as printed."""

import pathlib
import re

import chex
import numpy as np
import pytest

import fcn_jax as fcn
from tests.helpers import narrow
from tests.helpers import torch_files

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "networks_and_weights.md"


@pytest.mark.slow
def test_published_weights_are_loaded_as_the_page_says(tmp_path, monkeypatch):
  """With narrow networks and random weights in files of these names."""
  narrow.backbones(monkeypatch)
  monkeypatch.chdir(tmp_path)
  (code,) = re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
  model = fcn.models.released.make("voc-fcn8s")
  narrow.write_caffemodel(
    tmp_path / "fcn8s-heavy-pascal.caffemodel",
    model,
    narrow.random_variables(model),
  )
  model = fcn.models.FCNResNet(21, backbone="resnet50", auxiliary=True)
  arrays = fcn.pretrained.torchvision_names.state_dict(
    model, narrow.random_variables(model)
  )
  torch_files.save(tmp_path / "fcn_resnet50_coco.pth", arrays)
  names = {"images": np.zeros((1, 40, 60, 3), np.uint8)}
  exec(code, names)
  assert names["classes"].shape == (1, 40, 60)
  assert names["model"] == model
  chex.assert_trees_all_equal(
    fcn.train.variables(names["state"]), names["variables"]
  )
