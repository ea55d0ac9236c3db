"""The README's example runs as printed."""

import os
import pathlib
import re
import subprocess
import sys

import chex
import numpy as np

import fcn_jax as fcn
from tests.helpers import narrow
from tests.helpers import torch_files

README = pathlib.Path(__file__).parents[2] / "README.md"


def blocks():
  return re.findall("```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_library_example_runs(tmp_path):
  code, _ = blocks()
  # A smaller data set and fewer steps, to be done in seconds.
  assert '"shapes"' in code
  assert "range(200)" in code
  code = code.replace('"shapes"', '"shapes/tiny"').replace("(200)", "(2)")
  code += "\nassert int(state.step) == 2\nprint(classes.shape, classes.dtype)"
  script = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stderr
  assert script.stdout == "(8, 96, 96) int32\n"


def test_published_weights_are_loaded_as_the_readme_says(tmp_path, monkeypatch):
  """With narrow networks and random weights in files of these names."""
  narrow.backbones(monkeypatch)
  monkeypatch.chdir(tmp_path)
  _, code = blocks()
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
