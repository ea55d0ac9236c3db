"""What cannot be written as an ONNX file."""

import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import models

ABOUT = {"class_names": ["a", "b"], "palette": np.zeros((2, 3), np.uint8)}


def test_networks_that_cannot_be_written_are_refused(tmp_path):
  fusion = models.LateFusion(
    2,
    {"color": models.input_normalization.CAFFE},
    backbone="vgg_small",
    stride=32,
  )
  path = tmp_path / "network.onnx"
  with pytest.raises(ValueError, match="LateFusion cannot be exported to ONNX"):
    fcn.inference.export_onnx(path, fusion, {"params": {}}, **ABOUT)
  assert not path.exists()


def test_another_file_stays(tmp_path):
  path = tmp_path / "network.onnx"
  path.write_text("mine")
  model = models.FCN(2, backbone="vgg_small", stride=32)
  with pytest.raises(ValueError, match="exists already"):
    fcn.inference.export_onnx(path, model, {"params": {}}, **ABOUT)
  assert path.read_text() == "mine"


def test_a_missing_onnx_is_named(monkeypatch):
  monkeypatch.setattr(fcn.inference.onnx_files, "onnx", None)
  with pytest.raises(ValueError, match=r"fcn_jax\[onnx\]"):
    fcn.inference.onnx_files.check_installed()
