"""HDF5 files in the layout of Keras Applications, written by h5py."""

import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax.pretrained.formats import state_dicts
from tests.helpers import narrow

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install")

pytestmark = pytest.mark.slow

DENSE = {"fc6": "fc1", "fc7": "fc2", "score_fr": "predictions"}


def write(path, params, *, group=None):
  """As vgg16_weights_tf_dim_ordering_tf_kernels.h5 is."""
  with h5py.File(path, "w") as file:
    root = file.create_group(group) if group else file
    names = []
    for layer, arrays in params.items():
      kernel, bias = arrays["kernel"], arrays["bias"]
      name = DENSE.get(layer)
      if name is None:
        block, number = layer.removeprefix("conv").split("_")
        name = f"block{block}_conv{number}"
        # Keras's kernels see BGR.
        kernel = kernel[:, :, ::-1] if layer == "conv1_1" else kernel
      else:
        kernel = kernel.reshape(-1, kernel.shape[-1])
      saved = {f"{name}_W_1:0": kernel, f"{name}_b_1:0": bias}
      layer_group = root.create_group(name)
      layer_group.attrs["weight_names"] = [x.encode() for x in saved]
      for one, array in saved.items():
        layer_group.create_dataset(one, data=array)
      names.append(name.encode())
    root.create_group("flatten").attrs["weight_names"] = []
    root.attrs["layer_names"] = [*names, b"flatten"]


@pytest.mark.parametrize("backbone", ["vgg16", "vgg19"])
@pytest.mark.parametrize("group", [None, "model_weights"])
def test_kerass_vggs_are_caffes(tmp_path, monkeypatch, backbone, group):
  narrow.backbones(monkeypatch)
  path = tmp_path / "weights.h5"
  model = fcn.models.FCN(10, backbone=backbone, stride=32, padding="caffe")
  expected = narrow.random_variables(model)
  write(path, expected["params"], group=group)
  found, report = fcn.pretrained.load(path, model, partial=True)
  assert report.new() == ("params/score_fr/bias", "params/score_fr/kernel")
  for layer, arrays in expected["params"].items():
    for kind, array in arrays.items():
      if layer != "score_fr":
        np.testing.assert_array_equal(found["params"][layer][kind], array)
  other = fcn.models.FCN(
    10,
    backbone=backbone,
    stride=32,
    inputs=fcn.models.input_normalization.TORCHVISION,
  )
  with pytest.raises(ValueError, match="BGR in 0..255.*CAFFE"):
    fcn.pretrained.load(path, other, partial=True)


def linked(file):
  file["block1_conv1"] = h5py.ExternalLink("other.h5", "a")


def external(file):
  group = file.create_group("block1_conv1")
  group.attrs["weight_names"] = [b"w"]
  group.create_dataset("w", (2, 2), "f4", external=[("/etc/passwd", 0, 16)])


def compressed(file):
  group = file.create_group("block1_conv1")
  group.attrs["weight_names"] = [b"w"]
  group.create_dataset("w", (10_000, 10_000), "f4", compression="gzip")


@pytest.mark.parametrize(
  "make, words",
  [
    (linked, "damaged|another file"),
    (external, "not in this file"),
    (compressed, "larger than the file"),
    (lambda file: None, "damaged"),
  ],
)
def test_arrays_of_other_files_and_bombs_are_refused(tmp_path, make, words):
  path = tmp_path / "weights.h5"
  with h5py.File(path, "w") as file:
    file.attrs["layer_names"] = [b"block1_conv1"]
    make(file)
  with pytest.raises(ValueError, match=words):
    state_dicts.read(path)


def test_another_hdf5_file_is_said_to_be_one(tmp_path):
  with h5py.File(tmp_path / "weights.h5", "w") as file:
    file["a"] = np.ones(3)
  with pytest.raises(ValueError, match="not one of Keras's"):
    state_dicts.read(tmp_path / "weights.h5")


def test_a_damaged_file_is_refused(tmp_path):
  path = tmp_path / "weights.h5"
  path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
  with pytest.raises(ValueError, match="this HDF5 file is damaged"):
    state_dicts.read(path)
