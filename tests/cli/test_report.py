"""The page of fcn-jax report."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from fcn_jax import runs
from fcn_jax.cli import evaluate_report
from fcn_jax.cli import evaluate_summary
from fcn_jax.cli import report
from fcn_jax.runs import folder
from fcn_jax.runs import records

BROWSER = next(
  (
    path
    for name in ("chromium", "chromium-browser", "google-chrome")
    if (path := shutil.which(name))
  ),
  None,
)
NAMES = ("sky", "<script>alert(1)</script>", "tree & bush")
BLUE = (10, 20, 230)


class Page(html.parser.HTMLParser):
  """Tags, addresses and text of a page; all tags must be closed."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.addresses, self.text, self.open = [], [], "", []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.addresses += [v for n, v in attributes if n in ("src", "href")]
    if tag not in ("meta", "img"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def make_run(workdir, *, num_evaluations=2):
  """The folder of a run, with records but without checkpoints."""
  config = runs.Train(run=runs.config.Run(workdir)).replace(dataset="a<b")
  folder.claim(config)
  folder.append_start(config, number=0, from_step=0, devices={})
  for step in range(10, 101, 10):
    record = {"loss": 9 / step, "learning_rate": 1e-3, "gradient_norm": 1.0}
    append(workdir, "train", step, seconds=7.0 * step, **record)
  for number in range(num_evaluations):
    scores = dict.fromkeys(list(evaluate_report.OF_ALL)[:4], 0.25 + number / 4)
    class_iu = dict(zip(NAMES, (0.5, None, 0.125), strict=True))
    append(workdir, "evaluation", 50 + 50 * number, **scores, class_iu=class_iu)
  return workdir


def append(workdir, kind, step, **values):
  header = {"kind": kind, "start": 0, "step": step}
  records.append_json_line(workdir / folder.METRICS_FILE, header | values)


def evaluate(workdir, **views):
  """What fcn-jax evaluate leaves, from a confusion matrix."""
  out = workdir / "evaluation-test-step100"
  out.mkdir()
  confusion = np.array([[90, 10, 0], [5, 45, 0], [0, 25, 25]])
  summary = {
    **evaluate_summary.scores_of(confusion, NAMES),
    **{"num_images": 7, "split": "test", "step": 100},
    **{"scales": [1.0, 1.5], "flip": True, **views},
  }
  records.write_json(out / evaluate_report.SUMMARY_FILE, summary)
  Image.new("RGB", (300, 200), BLUE).save(out / evaluate_report.CONFUSION_FILE)
  return out


def page_of(workdir, *more):
  report.main([f"--workdir={workdir}", *more])
  return (workdir / report.REPORT_FILE).read_text(encoding="utf-8")


def test_a_page_has_the_numbers_of_the_run_and_needs_nothing_else(
  tmp_path, capsys
):
  workdir = make_run(tmp_path / "cats & dogs")
  evaluate(workdir, quarter_turns=True)
  page = Page(page_of(workdir))
  assert "report.html" in capsys.readouterr().out
  text = " ".join(page.text.split())
  assert "cats & dogs" in text and "a<b" in text
  for said in (
    "50.0 % mean IU, best step",
    "0:11:40 of training",
    "7 images of the split test",
    "scales 1, 1.5, and mirrored, and turned",
    "Confusion matrix",
    "learning_rate",
    "numpy",
  ):
    assert re.sub(r"\s", "", said) in re.sub(r"\s", "", text), said
  # Names are text, not tags.
  assert NAMES[1] in text and "script" not in page.tags
  # The class that does not occur has no number.
  assert re.search(rf"{re.escape(NAMES[1])}\s*-\s*-", page.text)
  assert page.addresses
  assert all(one.startswith("data:image/png") for one in page.addresses)


def test_summaries_of_older_versions_do_not_name_turns(tmp_path):
  workdir = make_run(tmp_path / "run")
  evaluate(workdir)
  text = Page(page_of(workdir)).text
  assert "scales 1, 1.5, and mirrored." in text


@pytest.mark.parametrize("num_evaluations", [0, 1])
def test_a_run_that_was_not_evaluated_has_a_page_that_says_so(
  tmp_path, num_evaluations
):
  workdir = make_run(tmp_path / "run", num_evaluations=num_evaluations)
  text = Page(page_of(workdir)).text
  assert f"fcn-jax evaluate --workdir {workdir}" in text
  assert ("has not been validated" in text) == (num_evaluations == 0)
  assert ("mean IU" in text) == (num_evaluations > 0)


def test_a_run_without_a_step_has_a_page(tmp_path):
  workdir = tmp_path / "run"
  folder.claim(runs.Train(run=runs.config.Run(workdir)))
  text = Page(page_of(workdir)).text
  assert "No step has been recorded yet." in text
  assert "has not been started" in text


def test_the_evaluation_of_an_earlier_run_is_not_shown(tmp_path):
  workdir = make_run(tmp_path / "run")
  file = workdir / folder.STARTS_FILE
  [start] = records.read_json_lines(file)
  file.unlink()
  evaluate(workdir)
  records.append_json_line(file, start | {"time": "2999-01-01T00:00:00+00:00"})
  assert "The run has not been evaluated." in Page(page_of(workdir)).text


def test_a_page_is_replaced_only_if_asked(tmp_path, capsys):
  workdir = make_run(tmp_path / "run")
  file = workdir / report.REPORT_FILE
  file.write_text("mine")
  with pytest.raises(SystemExit) as ended:
    report.main([f"--workdir={workdir}"])
  assert ended.value.code == 1
  assert "replace it with --overwrite" in capsys.readouterr().err
  assert file.read_text() == "mine"
  assert page_of(workdir, "--overwrite").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_run_is_said_and_stays_as_it_is(
  tmp_path, capsys, exists
):
  workdir = tmp_path / "other"
  if exists:
    workdir.mkdir()
  with pytest.raises(SystemExit):
    report.main([f"--workdir={workdir}"])
  assert "holds no run" in capsys.readouterr().err
  assert workdir.exists() == exists and not list(tmp_path.glob("other/*"))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome here")
def test_a_browser_draws_the_page(tmp_path):
  workdir = make_run(tmp_path / "run")
  evaluate(workdir)
  page_of(workdir)
  file = tmp_path / "page.png"
  subprocess.run(
    [
      BROWSER,
      *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
      *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}"),
      *("--window-size=1200,4000", f"--screenshot={file}"),
      (workdir / report.REPORT_FILE).as_uri(),
    ],
    check=True,
    capture_output=True,
    timeout=120,
  )
  pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
  assert pixels.shape == (4000, 1200, 3)
  # The confusion matrix is drawn at its size, and so is the curve of the loss.
  assert np.sum(np.all(pixels == BLUE, axis=-1)) == 300 * 200
  line = np.all(np.abs(pixels - (31, 119, 180)) < 12, axis=-1)
  assert line.sum() > 300
  # Text is dark on white.
  assert np.mean(pixels.min(axis=-1) > 250) > 0.6
  assert np.sum(pixels.max(axis=-1) < 90) > 2000


@pytest.mark.parametrize(
  "name, line",
  [
    ("metrics.jsonl", '{"step": 3}'),
    ("metrics.jsonl", '{"kind": "train", "step": 3, "loss": {}}'),
    ("metrics.jsonl", '{"kind": "evaluation", "step": 3}'),
    ("metrics.jsonl", '{"kind": "evaluation", "step": 3, "mean_iu": "x"}'),
    ("metrics.jsonl", "[" * 9999),
    ("starts.jsonl", '{"start": 0}'),
    ("starts.jsonl", "[]"),
    ("config.json", "[" * 9999),
    ("evaluation-test-step100/summary.json", "{}"),
    ("evaluation-test-step100/summary.json", "[NaN]"),
    ("evaluation-test-step100/summary.json", "[" * 9999),
  ],
)
def test_a_damaged_file_of_a_run_is_named_in_a_paragraph(
  tmp_path, capsys, name, line
):
  workdir = make_run(tmp_path / "run")
  evaluate(workdir)
  file = workdir / name
  before = file.read_text() if name.endswith("jsonl") else ""
  file.write_text(before + line + "\n")
  with pytest.raises(SystemExit):
    report.main([f"--workdir={workdir}"])
  printed = capsys.readouterr().err
  assert str(file) in printed and printed.count("\n") == 1
  assert not (workdir / report.REPORT_FILE).exists()


def test_odd_names_are_escaped_in_the_page(tmp_path):
  workdir = make_run(tmp_path / "a\x1b[31m<i>")
  odd = "\x1b[31m<script>alert(1)</script>\n\ud800" + 100_000 * "n"
  scores = dict.fromkeys(list(evaluate_report.OF_ALL)[:4], 0.5)
  append(workdir, "evaluation", 150, **scores, class_iu={odd: 0.5})
  page = page_of(workdir)
  assert not {"\x1b", "\0"} & {*page}
  assert "<script" not in page and "<i>" not in page
  assert r"\x1b[31m&lt;script&gt;" in page
