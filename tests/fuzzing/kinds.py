"""What is fuzzed: small files by the real writers, and how they are read."""

import functools
import hashlib
import io
import json
import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
import scipy.io

from fcn_jax import models
from fcn_jax.data.datasets import class_table
from fcn_jax.data.datasets import mask_counts
from fcn_jax.data.files import decoding
from fcn_jax.data.files import matlab
from fcn_jax.inference import exported
from fcn_jax.inference import exporting
from fcn_jax.pretrained.formats import caffemodel
from fcn_jax.pretrained.formats import state_dicts
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import step_folders
from tests.helpers import caffe_files
from tests.helpers import file_formats
from tests.helpers import tiny_networks
from tests.helpers import torch_files


class Seed(NamedTuple):
  """A file to change.

  Attributes:
    name: of the file, in the folder that is read.
    content: its bytes.
    is_checked: whether it has a checksum, so that changes of what is read must
      be noticed.
    repair: makes the checksums right after a change, for a part of the cases.
  """

  name: str
  content: bytes
  is_checked: bool = False
  repair: Callable[[bytes], bytes] | None = None


class Kind(NamedTuple):
  """A kind of file.

  Attributes:
    seeds: makes the files, in a folder that may hold others beside them.
    read: reads the changed file; what it returns is hashed and compared.
    text: whether values of JSON are put into it.
    is_json: whether all of it is JSON, of which values are changed as well.
  """

  seeds: Callable[[pathlib.Path], list[Seed]]
  read: Callable[[pathlib.Path], Any]
  text: bool = False
  is_json: bool = False


def digest(value: Any) -> str:
  """A hash of arrays, numbers and texts in containers."""
  found = hashlib.sha256()
  stack = [value]
  while stack:
    one = stack.pop()
    if isinstance(one, dict):
      stack.extend(one.items())
    elif isinstance(one, (list, tuple)):
      stack.extend(one)
    elif isinstance(one, (np.ndarray, np.generic)):
      found.update(f"{one.dtype}{one.shape}".encode() + one.tobytes())
    else:
      found.update(repr(one).encode())
  return found.hexdigest()


# Pictures.


def _pictures(_: pathlib.Path) -> list[Seed]:
  return [
    Seed(
      f"{number}.bin",
      case.content,
      case.name.startswith("PNG"),
      repaired_png if case.name.startswith("PNG") else None,
    )
    for number, case in enumerate(file_formats.cases())
    if case.picture is not None or case.mask is not None
    # libtiff writes of each damage to stderr.
    if not case.name.endswith("jpeg")
  ]


def repaired_png(content: bytes) -> bytes:
  """The same chunks with their checksums, and their pixels packed anew."""
  parts, place = [content[:8]], 8
  while place + 8 <= len(content):
    (size,) = struct.unpack_from(">I", content, place)
    end = place + 8 + size
    body = content[place + 4 : end]
    parts += [content[place : place + 4], body]
    parts.append(struct.pack(">I", zlib.crc32(body)))
    place = end + 4
  return b"".join(parts)


def _read_picture(path: pathlib.Path) -> Any:
  content = path.read_bytes()
  table = class_table.ClassTable(
    ("a",), ((0, 0, 0),), {255: 255}, {(0, 0, 0): 0}, "classes.json"
  )
  white = functools.partial(
    decoding.decode_picture, white=4095, other_white=1.0
  )
  readers = (decoding.facts, decoding.decode_values, white)
  others = (table.decode, mask_counts.facts_of, decoding.is_plain)
  results, first = [], None
  for read in (*readers, *others):
    try:
      result = read(content)
    except ValueError as error:
      first = first or error
      result = None
    if read in readers[1:]:
      results.append(result)
  if all(result is None for result in results):
    raise first
  return results


# Label maps.


def _mats(_: pathlib.Path) -> list[Seed]:
  seeds = []
  labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
  cells = np.array([[np.eye(2), "text"]], object)
  for compressed in (False, True):
    for variables in (
      {"S": labels},
      {"before": "text", "S": labels.astype(float), "after": 1j},
      {"S": {"cells": cells, "map": labels}},
    ):
      stream = io.BytesIO()
      scipy.io.savemat(stream, variables, do_compression=compressed)
      name = f"{len(seeds)}.mat"
      seeds.append(Seed(name, stream.getvalue(), compressed))
  return seeds


def _read_mat(path: pathlib.Path) -> Any:
  content = path.read_bytes()
  try:
    return matlab.decode_ids(content, "S")
  except ValueError:
    return matlab.decode_ids(content, "S", field="map")


# Weights.


def _arrays() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    "conv1_1.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "conv1_1.bias": rng.normal(size=4).astype(np.float32),
    "steps": np.arange(3),
    "half": np.ones(5, np.float16),
  }


def _caffemodels(root: pathlib.Path) -> list[Seed]:
  arrays = list(_arrays().values())[:2]
  seeds = []
  for v1 in (False, True):
    layers = {
      "conv1_1": ("Convolution", arrays),
      "relu": (18 if v1 else "ReLU", []),
      "fc6": ("InnerProduct", [np.ones((2, 8), np.float32)]),
    }
    for legacy_shape in (False, True):
      path = root / "seed"
      caffe_files.write(path, layers, v1=v1, legacy_shape=legacy_shape)
      name = f"{len(seeds)}.caffemodel"
      seeds.append(Seed(name, path.read_bytes()))
  return seeds


def _read_caffemodel(path: pathlib.Path) -> Any:
  caffemodel.is_caffe(path)
  return caffemodel.read(path)


def _pths(root: pathlib.Path) -> list[Seed]:
  seeds = []
  contents = (_arrays(), {"model": _arrays(), "epoch": 3, "lr": [0.1, {1: 2}]})
  for content in contents:
    for legacy in (False, True):
      path = root / "seed"
      torch_files.save(path, content, legacy=legacy)
      name = f"{len(seeds)}.pth"
      repair = None if legacy else repaired_zip
      seeds.append(Seed(name, path.read_bytes(), not legacy, repair))
  return seeds


def repaired_zip(content: bytes) -> bytes:
  """The same with the checksums of its entries, which are not compressed."""
  data, place = bytearray(content), 0
  while (place := data.find(b"PK\1\2", place)) >= 0 and place + 46 < len(data):
    (size,) = struct.unpack_from("<I", data, place + 20)
    (start,) = struct.unpack_from("<I", data, place + 42)
    if data[start : start + 4] == b"PK\3\4" and start + 30 < len(data):
      begin = start + 30 + sum(struct.unpack_from("<HH", data, start + 26))
      checksum = struct.pack("<I", zlib.crc32(data[begin : begin + size]))
      data[place + 16 : place + 20] = checksum
    place += 4
  return bytes(data)


def _safetensors(_: pathlib.Path) -> list[Seed]:
  saved = safetensors.numpy.save
  metadata = {"fcn_jax": json.dumps({"naming": "papers"})}
  return [
    Seed("0.safetensors", saved(_arrays())),
    Seed("1.safetensors", saved(_arrays(), metadata)),
  ]


def _read_state_dicts(path: pathlib.Path) -> Any:
  found = state_dicts.content(path)
  return {key: one.read() for key, one in found.state_dicts.items()}


# JSON.


def _jsons(root: pathlib.Path) -> list[Seed]:
  workdir = root / "run"
  workdir.mkdir()
  run = config_lib.Train(run=config_lib.Run(workdir))
  config = json.dumps(folder.as_json(run), indent=2)
  rows = [
    {"kind": "start", "start": 0, "step": 0},
    {"kind": "train", "start": 0, "step": 10, "loss": 1.5},
    {"kind": "evaluation", "start": 0, "step": 20, "mean_iu": 0.25},
    {"kind": "evaluation", "start": 0, "step": 30, "mean_iu": None},
  ]
  classes = {
    "classes": ["a", {"name": "b", "value": 7, "color": [255, 0, 1]}],
    "ignore": [255, [9, 9, 9]],
  }
  index = {"metadata": {}, "weight_map": {"a": "m-00001-of-00001.safetensors"}}
  part = root / "m-00001-of-00001.safetensors"
  part.write_bytes(safetensors.numpy.save({"a": np.ones(3)}))
  return [
    Seed("classes.json", json.dumps(classes).encode()),
    Seed("run/config.json", config.encode()),
    Seed("run/metrics.jsonl", b"".join(_lines(rows))),
    Seed("run/starts.jsonl", b"".join(_lines(rows))),
    Seed("m.safetensors.index.json", json.dumps(index).encode()),
  ]


def _lines(rows: list[Any]) -> list[bytes]:
  return [json.dumps(row).encode() + b"\n" for row in rows]


def _read_json(path: pathlib.Path) -> Any:
  match path.name:
    case "classes.json":
      return class_table.read(path).as_json()
    case "config.json":
      return config_lib.flat(folder.read_config(path.parent))
    case "metrics.jsonl":
      training, evaluations = folder.read_records(path.parent)
      return training, evaluations, folder.read_scores(path.parent)
    case "starts.jsonl":
      return records.read_json_lines(path)
  return _read_state_dicts(path)


# Steps of runs.


def _manifests(root: pathlib.Path) -> list[Seed]:
  step = root / "step"
  arrays = {"params": {"a": np.ones((2, 3)), "b": np.arange(4)}}
  step_folders.write(step, arrays, {"step": 3, "metadata": {"lr": 0.1}})
  step_folders.write_score(step, 0.25)
  return [
    Seed(f"step/{path.relative_to(step)}", path.read_bytes(), True)
    for path in sorted(step.rglob("*"))
    if path.is_file()
  ]


def _read_manifest(path: pathlib.Path) -> Any:
  step = path
  while step.name != "step":
    step = step.parent
  manifest = step_folders.read_manifest(step)
  step_folders.verify(step, manifest, ["params"])
  return manifest, step_folders.read_score(step)


# Exported networks.


def _exported(root: pathlib.Path) -> list[Seed]:
  models.backbones.vgg.ARCHITECTURES["tiny"] = tiny_networks.TINY
  model = models.FCN(num_classes=2, backbone="tiny", stride=32)
  path = root / "seed.zip"
  exporting.export(
    path,
    model,
    tiny_networks.random_variables(model),
    class_names=["a", "b"],
    palette=np.zeros((2, 3), np.uint8),
  )
  return [Seed("network.zip", path.read_bytes(), True)]


def _read_exported(path: pathlib.Path) -> Any:
  network = exported.load(path)
  about = {**network.metadata, "palette": network.palette.tolist()}
  return about, jax.tree.map(np.asarray, network._variables)


KINDS = {
  "picture": Kind(_pictures, _read_picture),
  "mat": Kind(_mats, _read_mat),
  "caffemodel": Kind(_caffemodels, _read_caffemodel),
  "pth": Kind(_pths, _read_state_dicts),
  "safetensors": Kind(_safetensors, _read_state_dicts, text=True),
  "json": Kind(_jsons, _read_json, text=True, is_json=True),
  "manifest": Kind(_manifests, _read_manifest, text=True),
  "exported": Kind(_exported, _read_exported),
}
