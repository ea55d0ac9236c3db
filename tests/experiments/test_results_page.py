"""The page of results is what the folders say, which say if they are old."""

import dataclasses
import json
import shutil
import subprocess

import pytest

from experiments.results_page import claims
from experiments.results_page import page
from experiments.results_page import provenance

FOLDERS = sorted({path.parent.name for path in page.RESULTS.glob("*/*")})


# The results of this repository.


def test_the_page_is_what_the_folders_say():
  page.check(page.render(page.RESULTS, claims.CLAIMS), page.PAGE)


@pytest.fixture(scope="session")
def history():
  """The root of this repository, if it knows its past."""
  if shutil.which("git") is None or not (page.ROOT / ".git").exists():
    pytest.skip("the age of results is seen in a clone with git only")
  is_shallow = provenance.git(page.ROOT, "rev-parse", "--is-shallow-repository")
  if is_shallow == "true":
    pytest.skip(
      "the age of results is seen in the history, not in a part of it"
    )
  return page.ROOT


@pytest.mark.parametrize("name", FOLDERS)
def test_results_that_are_older_than_their_code_say_so(name, history):
  changed = page.outdated(history, provenance.read(page.RESULTS / name))
  assert not changed, (
    f"{name} is older than {', '.join(changed)}: say in its provenance.json "
    "what that means for the figures (changed_since), then run python -m "
    "experiments.results_page --reviewed once the code is committed."
  )


@pytest.mark.parametrize("name", FOLDERS)
def test_the_code_that_results_exercise_is_there(name):
  for path in provenance.read(page.RESULTS / name).paths:
    assert (page.ROOT / path).exists(), path


@pytest.mark.parametrize("name", FOLDERS)
def test_results_name_no_folder_of_the_machine_that_made_them(name):
  def strings(value):
    if isinstance(value, str):
      yield value
    elif isinstance(value, dict):
      yield from strings(list(value.values()))
    elif isinstance(value, list):
      for one in value:
        yield from strings(one)

  for file in (page.RESULTS / name).glob("*.json"):
    found = list(strings(json.loads(file.read_text())))
    assert [one for one in found if one.startswith("/")] == [], file


# Results that were made up.

FACTS = {
  "command": "python -m x",
  "code": ["code.py"],
  "seeds": 2,
  "seconds": 60,
  "date": "2026-11-27",
}
SUMMARY = {
  "variants": {
    "a": {"iu": [0.25, 0.75], "seconds": [10.0, 20.0]},
    "b": {"scores": [{"iu": 0.5}, {"iu": 1.0}], "seconds": [1.0, 2.0]},
  },
  "rates": [
    {"name": "x", "rate": 0.5, "time": 3.0},
    {"name": "y", "time": 4.0},
  ],
  "device": "tpu",
  "cores": 4,
  "commit": "0123456789",
}
CLAIM = claims.Claim(
  "B is better.",
  "made",
  (
    claims.Figure("a", ("variants", "a", "iu"), 1),
    claims.Figure("b", ("variants", "b", "scores", "iu")),
  ),
)


@pytest.fixture
def results(tmp_path):
  """Writes a folder of results; returns the folder of folders."""

  def write(**facts):
    folder = tmp_path / "results" / "made"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in (FACTS | facts).items() if v is not None}
    (folder / "provenance.json").write_text(json.dumps(kept))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder.parent

  return write


def claim_row(text):
  return next(line for line in text.splitlines() if "B is better" in line)


def test_a_claim_stands_beside_its_figures_and_their_origin(results):
  text = page.render(results(), [CLAIM])
  assert claim_row(text) == (
    "| B is better. | a: 0.5 (0.2-0.8); b: 0.75 (0.50-1.00) | `python -m x` "
    "| 0123456 | tpu, 4 cores | 60 | 2 |"
  )
  assert "| `made` | 2026-11-27 | yes. |" in text


def test_figures_may_be_ratios_and_items_of_lists():
  ratio = claims.Figure(
    "r",
    ("variants", "a", "seconds", -1),
    1,
    over=("variants", "b", "seconds", 0),
  )
  assert ratio.cell(SUMMARY) == "r: 20.0"
  chosen = claims.Figure("y", ("rates", {"name": "y"}, "time"), unit=" s")
  assert chosen.cell(SUMMARY) == "y: 4.00 s"


@pytest.mark.parametrize(
  "path", [("variants", "c"), ("rates", {"name": "z"}, "time"), ("rates", 5)]
)
def test_a_figure_that_is_not_there_is_named(path, results):
  claim = CLAIM._replace(figures=(claims.Figure("a", path),))
  with pytest.raises(ValueError, match=r"summary\.json has no figure"):
    page.render(results(), [claim])


def test_stale_and_old_results_say_so(results):
  folder = results(
    changed_since="it is faster.", reviewed_at="abc", stale="it was wrong."
  )
  text = page.render(folder, [CLAIM])
  assert "(**stale**)" in claim_row(text)
  assert "Stale: it was wrong.** Made by an older commit: it is faster." in text
  text = page.render(folder, [CLAIM._replace(is_of_time=True)])
  assert "stale" not in claim_row(text)


def test_what_was_not_recorded_is_not_made_up(results):
  facts = {"seconds": "not recorded", "commit": "not recorded"}
  row = claim_row(page.render(results(**facts, added_by="89ab"), [CLAIM]))
  # That of training is known.
  assert (
    "| not recorded; added by 89ab | tpu, 4 cores | 33 of training |" in row
  )


@pytest.mark.parametrize(
  ("facts", "message"),
  [
    ({"seeds": None}, "seeds is missing"),
    ({"colour": "red"}, "colour is unknown"),
    ({"commit": "not recorded"}, "give added_by"),
    ({"changed_since": "much."}, "go together"),
    ({"summary": "other.json"}, r"other\.json is not there"),
  ],
)
def test_folders_without_their_facts_are_refused(facts, message, results):
  with pytest.raises(ValueError, match=message):
    page.render(results(**facts), [CLAIM])


def test_claims_and_folders_belong_together(results):
  with pytest.raises(ValueError, match="made has no claim"):
    page.render(results(), [])
  with pytest.raises(ValueError, match="lost is not there"):
    page.render(results(), [CLAIM, CLAIM._replace(folder="lost")])


def test_a_page_that_was_edited_is_found(tmp_path):
  file = tmp_path / "results.md"
  with pytest.raises(ValueError, match=r"run python -m"):
    page.check("text", file)
  file.write_text("text")
  page.check("text", file)
  with pytest.raises(ValueError, match=r"run python -m"):
    page.check("other", file)


# Which changes make results older, in a repository of their own.

CODE = '"""A module."""\n\n\ndef twice(x):\n  """Doubles."""\n  return 2 * x\n'


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
  """Changes files, commits them, and names the commit before."""
  root = tmp_path_factory.mktemp("repository")

  def git(*arguments):
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *settings, *arguments], cwd=root, check=True)

  if shutil.which("git") is None:
    pytest.skip("git is not there")
  git("init", "-q")

  def commit(files):
    for name, text in {"code.py": CODE, "data.txt": "1", **files}.items():
      (root / name).unlink(missing_ok=True)
      if text is not None:
        (root / name).write_text(text)
    git("add", "--all")
    git("commit", "-q", "--allow-empty", "-m", "x")
    return provenance.git(root, "rev-parse", "HEAD")

  return root, commit


@pytest.mark.parametrize(
  ("files", "changed"),
  [
    ({"code.py": CODE.replace("2 *", "3 *")}, ["code.py"]),
    ({"code.py": CODE.replace("(x)", "(x, y=1)")}, ["code.py"]),
    ({"code.py": None}, ["code.py"]),
    ({"folder.py": CODE}, ["folder.py"]),
    ({"code.py": CODE.replace("Doubles", "Makes twice as much")}, []),
    ({"code.py": "# Comment.\n" + CODE.replace("2 * x", "(2\n    * x)")}, []),
    ({"data.txt": "2"}, []),
    ({"other.py": CODE}, []),
    ({}, []),
  ],
)
def test_only_code_that_runs_makes_results_older(files, changed, repository):
  root, commit = repository
  commit({"folder.py": None})
  before = commit({"folder.py": None})
  commit(files)
  paths = ["code.py", "data.txt", "folder.py"]
  assert provenance.changed_files(root, before, paths) == changed


def test_results_are_as_old_as_their_commit_or_its_review(repository):
  root, commit = repository
  before = commit({})
  after = commit({"code.py": CODE.replace("2 *", "3 *")})
  by = provenance.Provenance(**FACTS, device="cpu", cores=2, commit=before)
  assert page.outdated(root, by) == ["code.py"]
  for reviewed, changed in ((before, ["code.py"]), (after, [])):
    by = dataclasses.replace(by, reviewed_at=reviewed, changed_since="Thrice.")
    assert page.outdated(root, by) == changed


def test_a_commit_of_another_history_is_named(repository):
  root, commit = repository
  commit({})
  with pytest.raises(LookupError, match="no commit 1234567"):
    provenance.changed_files(root, "1234567", ["code.py"])
