"""Names of strangers are text: in what commands print, and in what they write.

Of pictures, folders and classes, with controls of terminals, half characters,
signs of Markdown, HTML and formulas, and without end.
"""

import csv
import json
import os
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorboard.backend.event_processing.event_accumulator as accumulator

from fcn_jax import models
from fcn_jax.cli import check_data
from fcn_jax.cli import check_data_report
from fcn_jax.cli import evaluate
from fcn_jax.cli import predict
from fcn_jax.cli import report
from fcn_jax.cli import train
from fcn_jax.runs import folder
from fcn_jax.runs import records
from tests.helpers import planted
from tests.helpers import random_runs
from tests.helpers import tiny_networks

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures("standard_promotion"),
]

ODD = (
  "esc\x1b[31mred",
  "line\nbreak",
  "$\\frac$",
  "a|b",
  "<script>alert(1)<b>",
  "\u202ertl\x9b31m",
  # As long as file systems allow.
  "n" * 240,
)
CLASSES = (
  "\x1b[31m$\\frac$|<script>\n\ud800" + 100_000 * "n",
  "$x|<script>alert(1)</script>",
)
ESCAPED = r"\x1b[31m$\frac$\|<script>\n\ud800nnn"


def odd_folder(root):
  """Pictures and masks with odd names, in a folder with one."""
  root = planted.make_folder(root / "d\x1b[31m$\\frac$|<b>", count=14)
  for number in range(14):
    name = f"cell_{number:02d}.png"
    for kind in ("images", "masks"):
      path = root / kind / name
      path.rename(path.with_name(f"{ODD[number % 7]}{number}.png"))
  return root


def assert_plain(text):
  """Fails if a text could steer a terminal, cannot be written or has no end."""
  odd = {letter for letter in text if not letter.isprintable()} - {"\n"}
  assert not odd
  text.encode()
  assert max(map(len, text.splitlines())) < 4000


def printed(capsys):
  for text in (both := capsys.readouterr()):
    if text:
      assert_plain(text)
  return both


@pytest.fixture
def cells(tmp_path):
  return odd_folder(tmp_path)


def test_check_data_escapes_names(cells, tmp_path, capsys):
  workdir = tmp_path / "report\x1b"
  classes = [CLASSES[1], {"name": "a|b $x^2$", "value": 255}]
  (cells / "classes.json").write_text(json.dumps({"classes": classes}))
  arguments = [str(cells), f"--workdir={workdir}", "--num-pictures=7"]
  check_data.main(arguments)
  out, _ = printed(capsys)
  assert r"| 0 $x\|<script>alert(1)</script> |" in out
  assert "14 good examples" in out and r"report\x1b" in out
  assert (workdir / check_data_report.FIGURE_FILE).exists()


def test_bad_files_with_odd_names_have_a_line_each(cells, tmp_path, capsys):
  for path in (cells / "images").iterdir():
    path.write_bytes(b"")
  not_utf8 = os.fsdecode(b"\xff\x1b.png")
  shutil.copy(next((cells / "masks").iterdir()), cells / "masks" / not_utf8)
  (cells / "images" / not_utf8).write_bytes(b"")
  with pytest.raises(SystemExit):
    check_data.main([str(cells), f"--workdir={tmp_path / 'report'}"])
  out, _ = printed(capsys)
  lines = [line for line in out.splitlines() if line.startswith("- /")]
  # The picture and the mask.
  assert len(lines) == 14 + 2
  assert sum(r"\udcff\x1b.png has a name that is not" in s for s in lines) == 2
  for name in ODD:
    assert sum(repr(name)[1:-1].replace("\\\\", "\\") in s for s in lines) >= 2
  for command in (train.main, check_data.main):
    with pytest.raises(SystemExit):
      command([str(cells), f"--workdir={tmp_path / 'run'}"])
    printed(capsys)
  assert not (tmp_path / "run" / folder.CONFIG_FILE).exists()


def test_names_in_a_class_file_are_refused_on_one_line(cells, tmp_path, capsys):
  for name in (CLASSES[0], "a\x1b", "\ud800", "a\n"):
    (cells / "classes.json").write_text(json.dumps({"classes": ["a", name]}))
    with pytest.raises(SystemExit):
      train.main([str(cells), f"--workdir={tmp_path / 'run'}"])
    _, error = printed(capsys)
    assert error.count("\n") == 1 and "the name of class 1" in error


def use_tiny_network(monkeypatch):
  architectures = models.backbones.vgg.ARCHITECTURES
  monkeypatch.setitem(architectures, "vgg_small", tiny_networks.TINY)


@pytest.fixture
def odd_run(cells, tmp_path, monkeypatch):
  """A run whose checkpoint has odd names, and pictures with odd names."""
  use_tiny_network(monkeypatch)
  picture = next((cells / "images").iterdir())
  encoding = {
    "names": CLASSES,
    "palette": [[0, 0, 0], [9, 0, 0]],
    "values": [[0, 0], [255, 1]],
    "colors": [],
    "scaled": [],
    "by_value": True,
  }
  return random_runs.save(
    tmp_path / "run\x1b[31m|$",
    np.array(PIL.Image.open(picture).convert("RGB")),
    names=CLASSES,
    palette=np.array(encoding["palette"]),
    masks=encoding,
    dataset="folder",
    backbone="vgg_small",
    data_dir=cells,
    prepared_dir=tmp_path / "data",
  )


def test_evaluate_and_report_escape_names(odd_run, capsys):
  arguments = [f"--workdir={odd_run}", "--split=train", "--num-pictures=7"]
  evaluate.main([*arguments, "--band-widths", "1"])
  out, _ = printed(capsys)
  assert f"| {ESCAPED}" in out and r"run\x1b[31m|$. Pictures" in out
  (out,) = odd_run.glob("evaluation-*")
  assert_plain((out / "table.md").read_text(encoding="utf-8"))
  # They escape by themselves, and programs read them.
  assert_json_is_ascii(out / "summary.json")
  assert [*records.read_json(out / "summary.json")["class_iu"]] == [*CLASSES]
  with (out / "per_image.csv").open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  for row in rows:
    assert_plain(row["name"])
  assert len(rows) > 7 and any(r"esc\x1b[31mred" in r["name"] for r in rows)
  for name in ("confusion_matrix.png", "worst.png", "best.png"):
    with PIL.Image.open(out / name) as picture:
      assert max(picture.size) < 8000
  # What cannot be scored is said on one line.
  for odd in ("--split=\x1b[31m", "--segments=\x1b[31m"):
    with pytest.raises(SystemExit):
      evaluate.main([f"--workdir={odd_run}", f"--out={odd_run / 'no'}", odd])
    _, error = printed(capsys)
    assert r"\x1b[31m" in error and error.count("\n") == 1
  report.main([f"--workdir={odd_run}"])
  printed(capsys)
  page = (odd_run / report.REPORT_FILE).read_text(encoding="utf-8")
  assert r"\x1b[31m$\frac$|&lt;script&gt;" in page
  assert not {"\x1b", "\x9b"} & {*page} and "<script" not in page


def assert_json_is_ascii(path: pathlib.Path) -> None:
  assert path.read_bytes().isascii()
  assert b"\x1b" not in path.read_bytes()


def test_predict_escapes_names(odd_run, cells, tmp_path, capsys):
  bad = cells / "images" / os.fsdecode(b"bad\x1b\xff.png")
  bad.write_bytes(b"")
  arguments = [str(cells / "images"), f"--workdir={odd_run}", "--skip-bad"]
  arguments.append(f"--out={tmp_path}/out\x1b")
  with pytest.raises(SystemExit) as stop:
    predict.main(arguments)
  assert stop.value.code == predict.LEFT_OUT
  out, error = printed(capsys)
  assert r"\x1b[31m$\frac$|<script>\n\ud800nnn" in out
  assert "14 pictures" in out and r"bad\x1b\udcff.png is empty" in error


@pytest.mark.long
def test_train_escapes_names(cells, tmp_path, monkeypatch, capsys):
  use_tiny_network(monkeypatch)
  classes = [CLASSES[1], {"name": "a|b $x^2$", "value": 255}]
  (cells / "classes.json").write_text(json.dumps({"classes": classes}))
  workdir = tmp_path / "run\x1b[31m|$"
  train.main(
    [
      *(str(cells), f"--workdir={workdir}", f"--prepared-dir={tmp_path / 'd'}"),
      *("--backbone=vgg_small", "--steps=2", "--batch-size=2"),
      *("--crop-size", "32", "32", "--warmup-steps=1", "--num-pictures=12"),
    ]
  )
  out, error = printed(capsys)
  assert r"| $x\|<script>alert(1)</script> |" in out
  assert r"run\x1b[31m|$: initial parameters" in error
  assert_plain((workdir / folder.TABLE_FILE).read_text(encoding="utf-8"))
  assert (workdir / folder.PREDICTIONS_FILE).exists()
  events = accumulator.EventAccumulator(str(workdir / "tensorboard")).Reload()
  assert f"validation_iu/{CLASSES[1]}" in events.Tags()["scalars"]
