"""State dicts that PyTorch saved, and what it reads of ours."""

import collections

import numpy as np
import pytest

from fcn_jax.pretrained.formats import state_dicts
from tests.helpers import torch_files

torch = pytest.importorskip(
  "torch", reason="PyTorch is not installed: make parity"
)

pytestmark = pytest.mark.parity

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def assert_equal(arrays, tensors):
  assert list(arrays) == list(tensors)
  for name, tensor in tensors.items():
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
      tensor = tensor.float()
    np.testing.assert_array_equal(
      arrays[name], tensor.numpy(), name, strict=True
    )


def save(path, content, *, legacy, protocol=2):
  torch.save(
    content,
    path,
    pickle_protocol=protocol,
    _use_new_zipfile_serialization=not legacy,
  )


def tensors():
  base = torch.arange(120.0).reshape(2, 3, 4, 5)
  return collections.OrderedDict(
    base=base,
    transposed=base.permute(3, 0, 2, 1),
    every_other=base[:, 1:, ::2, 1::3],
    channels_last=base.contiguous(memory_format=torch.channels_last),
    expanded=torch.tensor([1.0, 2.0])[:, None].expand(2, 3),
    other_storage=torch.randn(3, 4),
    parameter=torch.nn.Parameter(torch.randn(4)),
    half=torch.randn(5).half()[1::2],
    bfloat16=torch.randn(5).bfloat16(),
    double=torch.randn(2, dtype=torch.float64),
    scalar=torch.tensor(7),
    flags=torch.tensor([True, False]),
    **{
      str(dtype): torch.tensor([1, 100], dtype=dtype)
      for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32)
    },
    none=torch.empty(0, 3),
  )


@LEGACY
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_what_torch_loads(tmp_path, legacy, protocol):
  save(tmp_path / "net.pth", tensors(), legacy=legacy, protocol=protocol)
  arrays = state_dicts.read(tmp_path / "net.pth")
  assert_equal(arrays, torch.load(tmp_path / "net.pth", weights_only=False))
  assert np.shares_memory(arrays["base"], arrays["transposed"])


@LEGACY
def test_a_module_with_batch_statistics_is_what_torch_loads(tmp_path, legacy):
  module = torch.nn.DataParallel(
    torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
  )
  module(torch.randn(2, 3, 8, 8))
  state_dict = module.state_dict()
  assert state_dict["module.1.num_batches_tracked"] == 1
  optimizer = torch.optim.Adam(module.parameters())
  module(torch.randn(2, 3, 8, 8)).sum().backward()
  optimizer.step()
  save(
    tmp_path / "net.pth",
    {"optimizer": optimizer.state_dict(), "model": module.state_dict()},
    legacy=legacy,
  )
  assert_equal(
    state_dicts.read(tmp_path / "net.pth"), module.module.state_dict()
  )


@LEGACY
@pytest.mark.parametrize(
  "content, words",
  [
    (torch.nn.Linear(2, 2), "Linear"),
    ({"w": torch.eye(3).to_sparse()}, "sparse"),
    ({"w": torch.ones(2, dtype=torch.complex64)}, "ComplexFloatStorage"),
    ({"w": torch.ones(2, dtype=torch.uint16)}, "tensor_v3"),
    ({"w": torch.zeros(2, device="meta")}, "meta"),
  ],
)
def test_other_objects_of_torch_are_refused(tmp_path, legacy, content, words):
  save(tmp_path / "net.pth", content, legacy=legacy)
  with pytest.raises(ValueError, match=f"more than tensors: .*{words}"):
    state_dicts.read(tmp_path / "net.pth")


@LEGACY
@pytest.mark.parametrize(
  "kind",
  [
    torch_files.Parameter,
    torch_files.OldParameter,
    torch_files.OldTensor,
    lambda array: array,
  ],
)
def test_torch_reads_the_files_of_our_tests(tmp_path, legacy, kind):
  array = np.arange(6, dtype=np.float32).reshape(2, 3).T
  torch_files.save(tmp_path / "net.pth", {"w": kind(array)}, legacy=legacy)
  loaded = torch.load(tmp_path / "net.pth", weights_only=False)
  np.testing.assert_array_equal(loaded["w"].detach().numpy(), array)
  assert_equal(state_dicts.read(tmp_path / "net.pth"), loaded)


def test_torch_reads_what_write_wrote(tmp_path):
  safetensors_torch = pytest.importorskip("safetensors.torch")
  arrays = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "num_batches_tracked": np.array(3),
  }
  state_dicts.write(tmp_path / "net.safetensors", arrays)
  loaded = safetensors_torch.load_file(tmp_path / "net.safetensors")
  assert loaded.keys() == arrays.keys()
  assert_equal(arrays, {name: loaded[name] for name in arrays})


def test_safetensors_of_torch_are_read(tmp_path):
  safetensors_torch = pytest.importorskip("safetensors.torch")
  contiguous = {name: t.detach().clone() for name, t in tensors().items()}
  contiguous = {name: t.contiguous() for name, t in contiguous.items()}
  safetensors_torch.save_file(contiguous, tmp_path / "net.safetensors")
  arrays = state_dicts.read(tmp_path / "net.safetensors")
  assert_equal({name: arrays[name] for name in contiguous}, contiguous)
