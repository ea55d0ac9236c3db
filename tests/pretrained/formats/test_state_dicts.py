"""Files are written by Python's own pickler and by the safetensors library."""

import collections
import contextlib
import gzip
import io
import json
import os
import pickle
import pickletools
import re
import signal
import tarfile
import time
import tracemalloc
import zipfile

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from fcn_jax import writing
from fcn_jax.pretrained.formats import pickled_tensors
from fcn_jax.pretrained.formats import state_dicts
from tests.helpers import programs
from tests.helpers import torch_files

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def example():
  base = np.arange(24, dtype=np.float32).reshape(4, 6)
  return collections.OrderedDict(
    {
      "conv.weight": base.copy(),
      "transposed": base.T,
      "every_other": base[1::2, ::3],
      "repeated": np.broadcast_to(np.float32([7]), (3,)),
      "scalar": np.array(5, np.int64),
      "flags": np.array([True, False]),
      "double": np.array([1e-300]),
      "none": np.zeros((0, 3), np.float32),
    }
  )


def assert_equal(arrays, expected):
  assert list(arrays) == list(expected)
  for name, array in expected.items():
    assert arrays[name].dtype == array.dtype, name
    np.testing.assert_array_equal(arrays[name], array, name, strict=True)


@LEGACY
def test_arrays_of_all_strides_come_back(tmp_path, legacy):
  path = tmp_path / "net.pth"
  torch_files.save(path, example(), legacy=legacy)
  arrays = state_dicts.read(path)
  assert_equal(arrays, example())
  assert not any(array.flags.writeable for array in arrays.values())
  assert np.shares_memory(arrays["transposed"], arrays["every_other"])


@LEGACY
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_halves_become_float32(tmp_path, legacy, dtype):
  path = tmp_path / "net.pth"
  halves = np.array([0, -1.5, 2**-14, np.inf, 1 / 3]).astype(dtype)
  torch_files.save(path, {"h": halves}, legacy=legacy)
  assert_equal(state_dicts.read(path), {"h": halves.astype(np.float32)})


@LEGACY
@pytest.mark.parametrize(
  "kind",
  [torch_files.Parameter, torch_files.OldParameter, torch_files.OldTensor],
)
def test_parameters_and_tensors_of_all_ages_are_arrays(tmp_path, legacy, kind):
  path, array = tmp_path / "net.pth", np.arange(6.0).reshape(2, 3)
  torch_files.save(path, {"w": kind(array)}, legacy=legacy)
  assert_equal(state_dicts.read(path), {"w": array})


@LEGACY
def test_attributes_of_dicts_are_left(tmp_path, legacy):
  state_dict = example()
  state_dict._metadata = collections.OrderedDict({"": {"version": 1}})
  torch_files.save(tmp_path / "net.pth", state_dict, legacy=legacy)
  assert_equal(state_dicts.read(tmp_path / "net.pth"), example())


@LEGACY
@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_a_checkpoint_gives_its_state_dict(tmp_path, legacy, key):
  state_dict = {f"module.{name}": array for name, array in example().items()}
  moments = {0: {"step": 3, "exp_avg": np.ones(3, np.float32)}}
  content = {
    "epoch": 3,
    "arch": "resnet50",
    "lr": 0.1,
    "optimizer": {"state": moments, "param_groups": [{"params": [0, 1]}]},
    key: state_dict,
  }
  torch_files.save(tmp_path / "net.pth", content, legacy=legacy)
  assert_equal(state_dicts.read(tmp_path / "net.pth"), example())


def test_a_prefix_of_some_names_stays(tmp_path):
  arrays = {"module.w": np.ones(2), "w": np.zeros(2)}
  torch_files.save(tmp_path / "net.pth", arrays)
  assert_equal(state_dicts.read(tmp_path / "net.pth"), arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_all_protocols_are_read(tmp_path, protocol):
  path = tmp_path / "net.pth"
  torch_files.write_zip(
    path, torch_files.zip_entries(example(), protocol=protocol)
  )
  assert_equal(state_dicts.read(path), example())


def test_a_dict_of_python_2_is_read():
  # OrderedDict([["a", 1], ["b", 2]]), with strings of bytes.
  pickled = (
    b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01bK\x02ee\x85R."
  )
  assert pickle.loads(pickled) == {"a": 1, "b": 2}
  assert pickled_tensors.load(io.BytesIO(pickled)) == ({"a": 1, "b": 2}, {})


def test_safetensors_are_read_as_the_library_writes_them(tmp_path):
  arrays = {
    **{name: np.asarray(a, order="C") for name, a in example().items()},
    "bytes": np.arange(3, dtype=np.uint8),
    "half": np.float16([1.5]),
    "bfloat16": np.array([1.5, 3], jnp.bfloat16),
  }
  safetensors_numpy.save_file(arrays, tmp_path / "net.pth")
  read = state_dicts.read(tmp_path / "net.pth")
  assert read.keys() == arrays.keys()
  assert not any(array.flags.writeable for array in read.values())
  for name in ("half", "bfloat16"):
    arrays[name] = arrays[name].astype(np.float32)
  assert_equal({name: read[name] for name in arrays}, arrays)


def test_the_library_reads_what_write_wrote(tmp_path):
  state_dicts.write(tmp_path / "net.safetensors", example())
  read = safetensors_numpy.load_file(tmp_path / "net.safetensors")
  assert_equal({name: read[name] for name in example()}, example())
  with safetensors.safe_open(tmp_path / "net.safetensors", "np") as file:
    assert file.metadata() == {"format": "pt"}
  # The user's usual permissions.
  (tmp_path / "other").touch()
  assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
  (tmp_path / "other").unlink()
  assert os.listdir(tmp_path) == ["net.safetensors"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(small_disk):
  path = small_disk / "net.safetensors"
  with pytest.raises(writing.WriteError, match="make room") as caught:
    state_dicts.write(path, {"kernel": np.zeros(2_000_000, np.float32)})
  assert str(caught.value).startswith(f"{path} cannot be written (No space")
  assert os.listdir(small_disk) == []


def test_what_a_killed_write_leaves_is_removed_by_the_next(tmp_path):
  path = tmp_path / "net.safetensors"
  if_killed = f"""
import os, pathlib, signal
import numpy as np
from safetensors import numpy as safetensors_numpy
from fcn_jax.pretrained.formats import state_dicts
def save(arrays, new, metadata):
  (pathlib.Path(new).parent / ".tmpAbCdEf").write_bytes(b"half")
  os.kill(os.getpid(), signal.SIGKILL)
safetensors_numpy.save_file = save
state_dicts.write({str(path)!r}, {{"kernel": np.zeros(3, np.float32)}})
"""
  killed = programs.start(if_killed)
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL
  assert os.listdir(tmp_path)
  state_dicts.write(path, example())
  assert os.listdir(tmp_path) == ["net.safetensors"]


def test_write_leaves_files_that_are_there(tmp_path):
  path = tmp_path / "net.safetensors"
  path.write_text("mine")
  with pytest.raises(ValueError, match=r"net\.safetensors exists already"):
    state_dicts.write(path, example())
  assert path.read_text() == "mine"
  with pytest.raises(ValueError, match=r"name it net\.safetensors"):
    state_dicts.write(tmp_path / "net.pth", example())
  (tmp_path / "a.safetensors.partial").write_text("mine")
  state_dicts.write(tmp_path / "a.safetensors", example())
  assert (tmp_path / "a.safetensors.partial").read_text() == "mine"
  (tmp_path / "a.safetensors.partial").unlink()
  (tmp_path / "a.safetensors").unlink()
  with pytest.raises(safetensors.SafetensorError):
    state_dicts.write(tmp_path / "b.safetensors", {"w": np.array(["text"])})
  assert os.listdir(tmp_path) == ["net.safetensors"]


def text(value):
  encoded = value.encode()
  return b"X" + len(encoded).to_bytes(4, "little") + encoded


# Programs that make the file {marker} where Python unpickles them.
HOSTILE = {
  "a call": rb"cposix|system|[touch {marker}]" b"\x85R",
  "eval": rb"cbuiltins|eval|[__import__('os').mkdir('{marker}')]" b"\x85R",
  "getattr": (
    rb"cbuiltins|getattr|cbuiltins|__import__|[posix]"
    b"\x85R[system]\x86R[touch {marker}]\x85R"
  ),
  "a dotted name": (
    rb"cbuiltins|getattr|cpathlib|Path|[touch]"
    b"\x86Rcpathlib|Path|[{marker}]\x85R\x85R"
  ),
  "a global from the stack": rb"[posix][system]" b"\x93[touch {marker}]\x85R",
  "an instance": rb"([touch {marker}]iposix|system|",
  "an object": rb"(cposix|system|[touch {marker}]o",
  "a new object": (
    rb"csubprocess|Popen|([sh][-c][touch {marker}]l" b"\x85\x81"
  ),
  "a state": (
    rb"cpathlib|Path|[{marker}]"
    b"\x85R0cposix|system|[touch {marker}]\x85R}[a]K\x01sb"
  ),
}


def hostile(kind, marker):
  """The instructions that put a value on the stack."""
  return re.sub(
    rb"\[([^\]]*)\]",
    lambda found: text(found[1].decode()),
    HOSTILE[kind].replace(b"{marker}", str(marker).encode()),
  ).replace(b"|", b"\n")


def in_a_dict(instructions):
  return b"\x80\x04}" + text("weight") + instructions + b"s."


@pytest.mark.parametrize("place", ["zip", "legacy", "system information"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_pickles_that_run_code_are_refused_and_not_run(tmp_path, kind, place):
  path, marker = tmp_path / "net.pth", tmp_path / "marker"
  pickled = in_a_dict(hostile(kind, marker))
  if place == "zip":
    entries = torch_files.zip_entries(example()) | {"data.pkl": pickled}
    torch_files.write_zip(path, entries)
  else:
    parts = torch_files.legacy_parts(example())
    parts[3 if place == "legacy" else 2] = pickled
    path.write_bytes(b"".join(parts))
  with pytest.raises(
    ValueError,
    match=r"more than tensors: it asks for .*(posix|builtins|pathlib|subproc)"
    r".*Nothing in it was run.*state_dict",
  ):
    state_dicts.read(path)
  assert not marker.exists()


@pytest.mark.parametrize(
  "kind", [kind for kind in HOSTILE if kind != "a new object"]
)
def test_the_hostile_pickles_do_run_where_python_reads_them(tmp_path, kind):
  marker = tmp_path / "marker"
  with contextlib.suppress(AttributeError):
    pickle.loads(in_a_dict(hostile(kind, marker)))
  assert marker.exists()


NAMES = rb"ccollections|OrderedDict|".replace(b"|", b"\n")
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
  "instructions",
  [
    b"\x82\x01",  # an extension
    b"c__main__\nOrderedDict\n)R",
    b"ctorch._utils\n_import_dotted_name\n)R",
    b"ccollections\nOrderedDict.__init__.__globals__\n)R",
    NAMES + b"}" + text("a") + b"K\x01sb",  # a state of the class
    NAMES + b"K\x01\x85R",
    NAMES + b"]K\x01a\x85R",
    NAMES + NAMES + b"\x85R",
    TENSOR + b")R",
    TENSOR + b"(K\x00K\x00))\x89)tR",
    b"K\x01)R",
    b"}K\x01a",
    b"]K\x01K\x01s",
    NAMES + b"K\x01K\x01s",
    b"}" + b")K\x01s",  # a tuple as a key
    b"}N" + text("a") + b"s",
    text("posix") + b"Q",
    b"(" + text("module") + text("os") + b"NNtQ",
    b"(" + text("storage") + b"cos\nsystem\n" + text("0") + b"NK\x01tQ",
    b"(" + text("storage") + NAMES + text("0") + b"NK\x01tQ",
    b"P0\n",
    b"h\x07",
    b"0" * 9,
    b"t",
    b"\x88" * 3,
  ],
)
def test_other_instructions_are_refused(tmp_path, instructions):
  path = tmp_path / "net.pth"
  torch_files.write_zip(path, {"data.pkl": in_a_dict(instructions)})
  with pytest.raises(ValueError, match=r"net\.pth: (it )?holds|its list of"):
    state_dicts.read(path)


@pytest.mark.parametrize(
  "instructions",
  [
    b"X\xff\xff\xff\x7f",
    b"\x8d" + b"\xff" * 7 + b"\x7f",
    b"\x8e" + b"\xff" * 7 + b"\x7f",
    b"\x96" + b"\xff" * 7 + b"\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b"T\xff\xff\xff\x7f",
    b"\x95" + b"\xff" * 8 + b"K\x01",
    b"K\x01r\xff\xff\xff\xff",
    b"I" + b"9" * 10_000 + b"\n",
    # Tuples in tuples, whose hash takes 2**99 steps, or too deep a stack.
    b"}" + b")" + b"q\x00h\x00\x86" * 99 + b"K\x01s",
    b"}" + b")" + b"\x85" * 200_000 + b"K\x01s",
    # Pairs that are looked through again and again.
    b"(](" + b"K\x01K\x01\x86q\x01" + b"h\x01" * 30_000 + b"e\x85q\x02"
    b"](" + (NAMES + b"h\x02R") * 10_000 + b"et",
    # Keys of one hash.
    b"}("
    + b"".join(
      b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N"
      for i in range(1, 60_000)
    )
    + b"u",
  ],
)
def test_bombs_take_no_memory_and_no_time(tmp_path, instructions):
  path = tmp_path / "net.pth"
  torch_files.write_zip(path, {"data.pkl": in_a_dict(instructions)})
  tracemalloc.start()
  start = time.process_time()
  with pytest.raises(ValueError, match=r"net\.pth"):
    state_dicts.read(path)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2e8
  # A second or two where tracing makes it slow.
  assert time.process_time() - start < 15


def tensor_file(
  path, *, offset=0, shape=(2, 3), strides=(3, 1), size=6, bits=()
):
  """A file with one storage of `size` elements and one tensor."""
  arguments = pickled_numbers(offset, shape, strides)
  storage = (
    b"("
    + text("storage")
    + b"ctorch\nFloatStorage\n"
    + text("0")
    + text("cpu")
    + pickle.dumps(size, 2)[2:-1]
    + b"tQ"
  )
  tensor = (
    TENSOR
    + b"("
    + storage
    + arguments
    + b"\x89)"
    + pickled_numbers(*bits)
    + b"tR"
  )
  entries = {"data.pkl": in_a_dict(tensor), "data/0": bytes(4 * 6)}
  torch_files.write_zip(path, entries)


def pickled_numbers(*values):
  # Without the instructions that give and take numbers of memories.
  return b"".join(
    pickletools.optimize(pickle.dumps(value, 2))[2:-1] for value in values
  )


@pytest.mark.parametrize(
  "options",
  [
    {"offset": 1},
    {"offset": -1},
    {"offset": 2**64, "shape": (), "strides": ()},
    {"shape": (3, 3)},
    {"shape": (-2, -3)},
    {"shape": (-2, 3), "strides": (0, 1)},
    {"shape": (2**62, 2**62), "strides": (0, 0)},
    {"shape": (2**40,), "strides": (0,)},
    {"shape": (2**40, 0, -1), "strides": (0, 0, 0)},
    {"shape": (2**64, 0), "strides": (0, 0)},
    {"shape": (2**62, 0, 2**62), "strides": (0, 0, 0)},
    {"strides": (-3, 1), "offset": 3},
    {"strides": (2**62, 1)},
    {"strides": (2**63, 1)},
    {"shape": (2**61, 2), "strides": (2, 1)},
    {"strides": (1,)},
    {"shape": (2.0, 3)},
    {"shape": (1,) * 65, "strides": (1,) * 65},
    {"shape": (7,), "strides": (1,), "size": 7},
    {"size": 2**62},
    {"size": -1},
    {"size": 5},
    {"bits": [{"neg": True}]},
  ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, options):
  tensor_file(tmp_path / "net.pth", **options)
  with pytest.raises(ValueError, match=r"net\.pth"):
    state_dicts.read(tmp_path / "net.pth")


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"offset": 5, "shape": (), "strides": ()},
    {"shape": (1, 6), "strides": (2**62, 1)},
    {"shape": (0, 9), "strides": (9, 2**62)},
    {"shape": (2, 2, 3), "strides": (0, 3, 1)},
  ],
)
def test_tensors_inside_their_storage_are_read(tmp_path, options):
  tensor_file(tmp_path / "net.pth", **options)
  shape = options.get("shape", (2, 3))
  assert state_dicts.read(tmp_path / "net.pth")["weight"].shape == shape


def zip_file(path, *, left_out=(), **entries):
  written = torch_files.zip_entries(example()) | entries
  for name in left_out:
    del written[name]
  torch_files.write_zip(path, written)


def compressed(path):
  entries = torch_files.zip_entries(example())
  torch_files.write_zip(path, entries, compression=zipfile.ZIP_DEFLATED)


def program(path):
  zip_file(path, **{"constants.pkl": b"", "code/__torch__.py": b""})


def saved_by(save, *arrays, **named):
  stream = io.BytesIO()
  save(stream, *arrays, **named)
  return stream.getvalue()


def make_tar(path):
  with tarfile.open(path, "w") as file:
    file.add(__file__)


def cut(path, *, legacy, size):
  torch_files.save(path, example(), legacy=legacy)
  path.write_bytes(path.read_bytes()[:size])


FAULTY = {
  "does not exist": lambda path: None,
  "is empty. Download it again": lambda path: path.write_bytes(b""),
  "is a folder, not a file. Give": lambda path: path.mkdir(),
  "a web page": lambda path: path.write_text("\n<!DOCTYPE html><html>"),
  "git lfs pull": lambda path: path.write_text(
    "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"
  ),
  "neither a file of torch.save": lambda path: path.write_text("weights " * 9),
  "a pickle of Python that torch.save did not write": lambda path: (
    path.write_bytes(pickle.dumps(5))
  ),
  "gunzip --keep": lambda path: path.write_bytes(gzip.compress(bytes(99))),
  "tar -xf": make_tar,
  "one array": lambda path: path.write_bytes(saved_by(np.save, np.ones(3))),
  "an .npz file": lambda path: path.write_bytes(
    saved_by(np.savez, **{"conv.weight": np.ones(3)})
  ),
  "an ONNX file": lambda path: path.write_bytes(
    b"\x08\x07\x12\x07pytorch\x1a\x032.1:" + bytes(300)
  ),
  "HDF5 file": lambda path: path.write_bytes(
    b"\x89HDF\r\n\x1a\n" + bytes(2000)
  ),
  "its end, with the list": lambda path: cut(path, legacy=False, size=-1),
  "list of its contents, is": lambda path: cut(path, legacy=False, size=900),
  "it is cut off. Download": lambda path: cut(path, legacy=True, size=-1),
  "list of tensors is damaged": lambda path: cut(path, legacy=True, size=300),
  "compressed": compressed,
  "TorchScript": program,
  "unzip": lambda path: torch_files.write_zip(path, {"net.pth": b"1"}),
  "entry 'data/0' is missing": lambda path: zip_file(path, left_out=["data/0"]),
  "fewer elements": lambda path: zip_file(path, **{"data/0": b"1234"}),
  "no network's has more": lambda path: zip_file(
    path, **{"data.pkl": bytes(5_000_000)}
  ),
  "big-endian": lambda path: zip_file(path, byteorder=b"big"),
  "no tensors by name, but 'epoch'": lambda path: torch_files.save(
    path, {"epoch": 3}
  ),
  "has several state dicts: model_ema, model. Choose one by its key: --key"
  " model_ema": lambda path: torch_files.save(
    path, {"model": example(), "model_ema": example()}
  ),
  "no tensors by name, but 7": lambda path: torch_files.save(
    path, {7: np.ones(3)}
  ),
  "type list, not a state dict": lambda path: torch_files.save(
    path, [np.ones(3)]
  ),
  "there are no tensors": lambda path: torch_files.save(path, {}),
  "is of type U16": lambda path: safetensors_numpy.save_file(
    {"w": np.ones(3, np.uint16)}, path
  ),
}


@pytest.mark.parametrize("words", FAULTY)
def test_one_sentence_says_what_is_wrong_with_a_file(tmp_path, words):
  path = tmp_path / "net.pth"
  FAULTY[words](path)
  with pytest.raises(ValueError, match=re.escape(words)) as caught:
    state_dicts.read(path)
  assert str(caught.value).startswith(str(path))
  assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_an_array_is_noticed(tmp_path):
  path = tmp_path / "net.pth"
  torch_files.save(path, {"w": np.full(3, 5.0)})
  content = path.read_bytes()
  at = content.index(np.full(3, 5.0).tobytes())
  path.write_bytes(content[:at] + b"\x01" + content[at + 1 :])
  with pytest.raises(ValueError, match="'archive/data/0'.*checksum"):
    state_dicts.read(path)


def rewritten(path, change):
  """Changes the list of entries at the end of a zip file."""
  with zipfile.ZipFile(path, "a") as file:
    change(file.filelist)
    # So that the list is written again.
    file.writestr("archive/last", b"")


def test_entries_over_one_storage_are_refused(tmp_path):
  """2,000 halves of the same bytes would become 4,000 times the memory."""
  path = tmp_path / "net.pth"
  arrays = {f"w{i}": np.full(1000, i, np.float16) for i in range(9)}
  torch_files.save(path, arrays)

  def overlap(entries):
    first, *others = [x for x in entries if "/data/" in x.filename]
    for entry in others:
      entry.header_offset = first.header_offset

  rewritten(path, overlap)
  with pytest.raises(ValueError, match="overlaps with another"):
    state_dicts.read(path)


def test_a_checksum_that_torch_did_not_compute_is_not_compared(tmp_path):
  path = tmp_path / "net.pth"
  torch_files.save(path, example())

  def without(entries):
    for entry in entries:
      entry.CRC = 0

  rewritten(path, without)
  assert_equal(state_dicts.read(path), example())


@pytest.mark.parametrize("key", ["../../evil", "/etc/passwd", "0/../0"])
def test_names_with_paths_are_only_names(tmp_path, key):
  path = tmp_path / "net.pth"
  entries = torch_files.zip_entries({"w": np.arange(3.0)})
  entries["data.pkl"] = entries["data.pkl"].replace(text("0"), text(key))
  entries[f"data/{key}"] = entries.pop("data/0")
  torch_files.write_zip(path, entries)
  assert_equal(state_dicts.read(path), {"w": np.arange(3.0)})
  assert os.listdir(tmp_path) == ["net.pth"]


def small_file(folder, kind):
  arrays = {"w": np.arange(4, dtype=np.float16)[::2], "n": np.array(3)}
  path = folder / "small"
  if kind == "safetensors":
    contiguous = {name: array.copy() for name, array in arrays.items()}
    safetensors_numpy.save_file(contiguous, path)
  else:
    torch_files.save(path, arrays, legacy=kind == "legacy")
  return path.read_bytes()


def read_or_refuse(path, content):
  """Whether the file is read; that it raises nothing but ValueError."""
  path.write_bytes(content)
  try:
    arrays = state_dicts.read(path)
  except ValueError as error:
    assert str(error).startswith(str(path))
    return False
  for array in arrays.values():
    np.array(array)
  return True


KINDS = pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])


@KINDS
def test_a_file_cut_anywhere_is_refused(tmp_path, kind):
  content, path = small_file(tmp_path, kind), tmp_path / "cut"
  assert read_or_refuse(path, content)
  for size in range(len(content)):
    assert not read_or_refuse(path, content[:size]), size


@pytest.mark.slow
@KINDS
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path, kind):
  content, path = small_file(tmp_path, kind), tmp_path / "changed"
  for position in range(len(content)):
    for change in (0x01, 0x80, 0xFF):
      changed = bytearray(content)
      changed[position] ^= change
      read_or_refuse(path, changed)


@KINDS
@hypothesis.given(data=st.data())
@hypothesis.settings(
  deadline=None,
  max_examples=200,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_a_file_with_parts_of_another_is_read_or_refused(tmp_path, kind, data):
  content, path = small_file(tmp_path, kind), tmp_path / "mixed"
  start, end = sorted(data.draw(st.integers(0, len(content))) for _ in "12")
  other = data.draw(
    st.binary(max_size=20)
    | st.integers(0, len(content) - 20).map(lambda at: content[at : at + 20])
  )
  read_or_refuse(path, content[:start] + other + content[end:])


def test_an_index_with_names_that_no_file_can_have_is_refused(tmp_path):
  path = tmp_path / "model.safetensors.index.json"
  for name in ("a" * 5000, "", 3):
    path.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ValueError, match="not an index of the parts"):
      state_dicts.read(path)
