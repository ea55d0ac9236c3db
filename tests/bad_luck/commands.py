"""The commands that meet bad luck, and what they write, to compare."""

import hashlib
import io
import json
import pathlib
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image
from array_record.python import array_record_module
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.util import tensor_util
from tensorflow_datasets.proto import tf_example_pb2

from fcn_jax import writing
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints
from fcn_jax.runs import folder
from fcn_jax.runs import trained_model
from tests.helpers import planted

# What differs between runs that were left alone: when they ran, how long they
# took, how often they were started, and what they were called.
_OF_A_MOMENT = {
  "sha256",
  "crc32",
  "id",
  "start",
  "starts",
  "time",
  "seconds",
  "training_seconds",
  "images_per_second",
}
NUM_CLASSES = 2


def _nothing(disk: pathlib.Path, inputs: pathlib.Path) -> None:
  pass


class Command(NamedTuple):
  """A command that writes to the small disk.

  Attributes:
    arguments: after `python -m`, with the places {disk} and {inputs}.
    prepare: puts what it works on to the disk, from the folder of inputs.
  """

  arguments: str
  prepare: Callable[[pathlib.Path, pathlib.Path], Any] = _nothing

  def argv(self, disk: pathlib.Path, inputs: pathlib.Path) -> list[str]:
    """The command line."""
    return [
      sys.executable,
      "-m",
      *(
        part.format(disk=disk, inputs=inputs) for part in self.arguments.split()
      ),
    ]


_TRAIN = (
  "fcn_jax train {inputs}/pictures --steps 6 --batch-size 4 --crop-size 32 32 "
  "--backbone vgg_small --head-width 16 --warmup-steps 1 --log-every 1 "
  "--save-every 2 --validate-every 3 --validation-batch 4 --num-pictures 1 "
  "--ema-decay 0.9"
)


def _with_run(disk: pathlib.Path, inputs: pathlib.Path) -> None:
  shutil.copytree(inputs / "run", disk / "run")


COMMANDS = {
  "prepare": Command(
    f"{_TRAIN} --workdir {{inputs}}/unseen --prepared-dir {{disk}}/prepared",
    lambda disk, inputs: shutil.rmtree(inputs / "unseen", ignore_errors=True),
  ),
  "train": Command(
    f"{_TRAIN} --workdir {{disk}}/run --prepared-dir {{inputs}}/prepared"
  ),
  "evaluate": Command(
    "fcn_jax evaluate --workdir {disk}/run --scores all", _with_run
  ),
  "predict": Command(
    "fcn_jax predict {inputs}/pictures/images --workdir {inputs}/run "
    "--out {disk}/out --probabilities"
  ),
  "report": Command("fcn_jax report --workdir {disk}/run", _with_run),
  "export": Command(
    "fcn_jax export --workdir {inputs}/run --out {disk}/network.zip"
  ),
  "convert export": Command(
    "fcn_jax convert export --workdir {inputs}/run "
    "--out {disk}/network.safetensors"
  ),
  "convert import": Command(
    "fcn_jax convert import {inputs}/network.safetensors --workdir {disk}/run"
  ),
  "check-data": Command(
    "fcn_jax check-data {inputs}/pictures --workdir {disk}/report"
  ),
}


def make_inputs(inputs: pathlib.Path, run: Callable[[list[str]], None]) -> None:
  """Makes pictures, a run and its weights, with the commands themselves.

  Args:
    inputs: an empty folder.
    run: runs a command line, and fails if that does.
  """
  planted.make_folder(inputs / "pictures", count=12)
  train = COMMANDS["train"].arguments.replace("{disk}/run", "{inputs}/run")
  export = COMMANDS["convert export"].arguments.replace("{disk}", "{inputs}")
  for arguments in (train, export):
    run(Command(arguments).argv(inputs, inputs))


def contents(disk: pathlib.Path, *, temporary: bool = True) -> dict[str, Any]:
  """What is in all files, but for what differs each time.

  Args:
    disk: with the files.
    temporary: whether files count that the next command removes.

  Returns:
    The value of each number, array and entry, by the name of its file and its
    name there.
  """
  found = {}
  for file in sorted(disk.rglob("*")):
    name = file.relative_to(disk).as_posix()
    if not file.is_file() or file.name in (".lock", folder.STARTS_FILE):
      continue
    parts = file.relative_to(disk).parts
    if not temporary and any(map(writing.is_temporary, parts)):
      continue
    if folder.CHECKPOINTS in parts:
      step = disk.joinpath(*parts[: parts.index(folder.CHECKPOINTS) + 2])
      name = step.relative_to(disk).as_posix()
      if name not in found:
        found[name] = _step(step)
    elif file.parent.name == folder.TENSORBOARD:
      found.setdefault(folder.TENSORBOARD, {}).update(_scalars(file))
    else:
      found[name] = _content(file)
  return dict(_flat(found))


def are_finished(disk: pathlib.Path, known: dict[str, Any]) -> bool:
  """Whether a command had written all, but for removing temporary files."""
  try:
    return contents(disk, temporary=False) == known
  except (ValueError, OSError):  # A step of a checkpoint is half written.
    return False


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
  if isinstance(value, dict):
    for key, one in value.items():
      if key not in _OF_A_MOMENT:
        yield from _flat(one, f"{name}: {key}" if name else str(key))
  elif isinstance(value, (list, tuple)):
    yield from _flat(dict(enumerate(value)), name)
  else:
    yield name, value


def _content(file: pathlib.Path) -> Any:
  content = file.read_bytes()
  if file.name == folder.METRICS_FILE:
    return folder.read_records(file.parent)
  if file.suffix == ".json":
    return json.loads(content)
  if file.suffix in (".png", ".jpg"):
    with PIL.Image.open(io.BytesIO(content)) as picture:
      return _digest(np.asarray(picture).tobytes())
  if file.suffix == ".npz":
    arrays = np.load(io.BytesIO(content))
    return {name: _digest(arrays[name].tobytes()) for name in arrays}
  if file.suffix == ".zip":
    with zipfile.ZipFile(file) as archive:
      return {name: _digest(archive.read(name)) for name in archive.namelist()}
  if file.suffix == ".safetensors":
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return header, _digest(content[8 + length :])
  if ".array_record" in file.name:
    reader = array_record_module.ArrayRecordReader(str(file))
    return [_record(content) for content in reader.read_all()]
  if file.suffix in (".html", ".md"):
    content = re.sub(
      rb"Written on .* by|data:image[^\"]*|images in [^,]*", b"", content
    )
  return _digest(content)


def _record(content: bytes) -> str:
  # The order of the features in it is by chance.
  example = tf_example_pb2.Example.FromString(content)
  return _digest(example.SerializeToString(deterministic=True))


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


def _scalars(file: pathlib.Path) -> dict:
  events = event_file_loader.EventFileLoader(str(file)).Load()
  return {
    f"{value.tag} at {event.step}": tensor_util.make_ndarray(value.tensor)
    for event in events
    for value in event.summary.value
    if value.tensor.dtype == 1 and "second" not in value.tag
  }


def _step(step: pathlib.Path) -> Any:
  workdir = step.parent.parent
  config = folder.read_config(workdir)
  template = trained_model.state_template(
    build.model(config, NUM_CLASSES), build.optimizer(config.optimizer)
  )
  if not (workdir / folder.METRICS_FILE).exists():  # An imported one.
    del template["opt_state"]
  restored = checkpoints.read(step.parent, int(step.name), template)
  arrays = jax.tree.leaves(restored.state)
  digests = [_digest(np.asarray(leaf).tobytes()) for leaf in arrays]
  return digests, restored.mean_iu
