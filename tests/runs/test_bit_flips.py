"""Flipped bits in any file of a run's folder: found, or without effect."""

import collections
import io
import pathlib
import random
import re
import shutil

import jax
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing import event_file_loader

from fcn_jax.cli import evaluate
from fcn_jax.cli import report_page
from fcn_jax.runs import build
from fcn_jax.runs import checkpoints
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import trained_model
from tests.helpers import tiny_runs

pytestmark = pytest.mark.usefixtures("standard_promotion")

# What no program reads. Their numbers are in summary.json.
_FOR_PEOPLE = (".md", ".csv", ".html")


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
  """A run that was trained and evaluated; each flip is undone."""
  workdir = tmp_path_factory.mktemp("flips") / "run"
  shutil.copytree(finished_run, workdir)
  evaluate.main([f"--workdir={workdir}"])
  return workdir


def sha256_of(tree) -> list[bytes]:
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


class Reader:
  """Reads of a run folder what depends on a file, as the commands do."""

  def __init__(self, workdir: pathlib.Path):
    self._workdir = workdir
    config = folder.read_config(workdir)
    self._template = trained_model.state_template(
      build.model(config, tiny_runs.NUM_CLASSES),
      build.optimizer(config.optimizer),
    )
    self._expected = {}

  def expected(self, file: pathlib.Path):
    """What the file gives if it is as it was written."""
    if file not in self._expected:
      self._expected[file] = self.read(file)
    return self._expected[file]

  def read(self, file: pathlib.Path):
    parts = file.relative_to(self._workdir).parts
    if parts[0] == folder.CHECKPOINTS:
      steps = self._workdir / folder.CHECKPOINTS
      restored = checkpoints.read(steps, int(parts[1]), self._template)
      facts = restored.step, restored.metadata, restored.mean_iu
      return facts, checkpoints.scores(steps), sha256_of(restored.state)
    if parts[0] == folder.TENSORBOARD:
      return self._events(file)
    if file.suffix == ".png" and len(parts) == 1:
      # The report shows that of the predictions; people look at all.
      with PIL.Image.open(io.BytesIO(file.read_bytes())) as picture:
        picture.verify()
    if file.suffix == ".json":
      records.read_json(file)
    config = folder.read_config(self._workdir)
    page = report_page.make(config, self._workdir)
    page = re.sub("Written on .* by", "", page)
    if parts == (folder.CONFIG_FILE,):
      trained = trained_model.load(self._workdir, "best")
      return page, sha256_of(trained.variables)
    return page

  def _events(self, file):
    loader = event_file_loader.RawEventFileLoader(str(file))
    return list(loader.Load())


def flip(reader, file, rng) -> str:
  """Flips a bit, and says what came of it; the file is then as before."""
  good, expected = file.read_bytes(), reader.expected(file)
  changed = bytearray(good)
  position, bit = rng.randrange(len(good)), rng.randrange(8)
  changed[position] ^= 1 << bit
  file.write_bytes(changed)
  try:
    found = reader.read(file)
  except (ValueError, OSError, SyntaxError) as error:
    text = str(error)
    # This test itself opens some pictures.
    is_named = file.suffix == ".png" or file.name in text
    assert is_named, (file, position, bit, text)
    assert "\n" not in text and len(text) < 1000, (file, position, bit, text)
    return "refused"
  finally:
    file.write_bytes(good)
  if found == expected:
    return (
      "no program reads it" if file.suffix in _FOR_PEOPLE else "same values"
    )
  # TensorBoard ends before a record whose checksum is wrong.
  assert file.parent.name == folder.TENSORBOARD, (file, position, bit)
  assert found == expected[: len(found)], (file, position, bit)
  return "TensorBoard leaves it out"


def flips(workdir, num) -> collections.Counter:
  reader, rng = Reader(workdir), random.Random(7)
  files = sorted(x for x in workdir.rglob("*") if x.is_file())
  files = [file for file in files if file.stat().st_size]
  rng.shuffle(files)
  results = collections.Counter()
  for number in range(num):
    file = files[number % len(files)]
    kind = file.suffix
    if folder.CHECKPOINTS in file.parts:
      kind = "checkpoint"
    elif file.parent.name == folder.TENSORBOARD:
      kind = "events"
    results[kind, flip(reader, file, rng)] += 1
  return results


@pytest.mark.slow
def test_a_flipped_bit_is_found_or_changes_nothing(run):
  results = flips(run, 40)
  assert results.total() == 40


@pytest.mark.long
def test_a_thousand_flipped_bits_are_found_or_change_nothing(run):
  results = flips(run, 1000)
  for (kind, result), number in sorted(results.items()):
    print(f"{kind:12} {result:26} {number}")
  assert results.total() == 1000
