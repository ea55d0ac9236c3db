"""Writes docs/results.md: every claim, its figures, and how they were made.

    python -m experiments.results_page

The figures are read from the folders of experiments/results, and the claims
are listed in experiments/results_page/claims.py. A new result is a folder with
its provenance.json (see experiments/results_page/provenance.py) and its claims.

Figures are older than the code if a file of it has changed since. Then the
folder says so in `changed_since`. After a change of code, read what has
changed since, bring the sentences of the folders up to date, and run

    python -m experiments.results_page --reviewed

which makes the newest commit their `reviewed_at`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import tyro

from experiments.common import results as results_lib
from experiments.results_page import claims as claims_lib
from experiments.results_page import provenance
from fcn_jax.cli import errors
from fcn_jax.runs import records

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "results.md"

_HEAD = """# Results

<!-- Written by python -m experiments.results_page: do not edit. -->

All figures on this page are read from the folders of `experiments/results`,
which also hold figures and tables. [](studies.md) explains them. All networks
are small and trained from scratch, unless the claim says otherwise. Several
seeds or folds are shown by their mean, with the range in brackets.

```sh
python -m experiments.results_page
```

"""
_OLD = """
## Old and new

The code changes, and a result is not made again each time. A test compares the
code that a result exercises, at the commit that made it, with today's: Python
files, without docstrings and comments. Where they differ, the table says what
changed and whether the figures are affected. "Stale" figures are known to be
wrong.

"""


@dataclasses.dataclass(frozen=True)
class Options:
  """What to do."""

  check: bool = False
  """Write nothing; fail if the page is not what the folders say."""
  reviewed: bool = False
  """Note in folders whose figures are older than the code that what they say
  about it is true of the newest commit."""


def read_folders(results: pathlib.Path) -> dict[str, provenance.Provenance]:
  """How the figures of each folder were made, by its name.

  Raises:
    ValueError: if a folder does not say it.
  """
  folders = sorted(path for path in results.iterdir() if path.is_dir())
  return {path.name: provenance.read(path) for path in folders}


def render(results: pathlib.Path, claims: Sequence[claims_lib.Claim]) -> str:
  """The page.

  Args:
    results: the folder of the folders of results.
    claims: what they show.

  Raises:
    ValueError: if a folder has no claim or a claim no folder, or a figure or a
      fact is missing.
  """
  made = read_folders(results)
  with_claims = {claim.folder for claim in claims}
  for name in sorted(with_claims ^ set(made)):
    raise ValueError(
      f"{results / name} is not there, but it has claims: bring it back, or "
      "take them out of experiments/results_page/claims.py."
      if name in with_claims
      else f"{results / name} has no claim: say in "
      "experiments/results_page/claims.py what it shows."
    )
  rows = [
    "| claim | figures | command | commit | hardware | seconds | seeds |",
    "| --- | --- | --- | --- | --- | ---: | ---: |",
  ]
  for claim in claims:
    by = made[claim.folder]
    cells = [
      claim.sentence,
      _figures(results / claim.folder, claim, by)
      + (" (**stale**)" if by.stale and not claim.is_of_time else ""),
      "<br>".join(f"`{command}`" for command in by.commands),
      _commit(by),
      f"{by.device}, {by.cores} cores",
      _seconds(results / claim.folder, by),
      str(by.seeds),
    ]
    rows.append("| " + " | ".join(cells) + " |")
  ages = ["| folder | date | is it today's code? |", "| --- | --- | --- |"]
  for name, by in made.items():
    ages.append(f"| `{name}` | {by.date} | {_age(by)} |")
  return _HEAD + "\n".join(rows) + "\n" + _OLD + "\n".join(ages) + "\n"


def _figures(
  folder: pathlib.Path,
  claim: claims_lib.Claim,
  by: provenance.Provenance,
) -> str:
  cells = []
  for figure in claim.figures:
    file = folder / (figure.file or by.summary)
    try:
      cells.append(figure.cell(results_lib.read_figures(file)))
    except LookupError as error:
      raise ValueError(
        f"{file} has no figure {error.args[0]}: name one that it has in "
        "experiments/results_page/claims.py."
      ) from error
  return "; ".join(cells)


def _commit(by: provenance.Provenance) -> str:
  if by.commit == provenance.NOT_RECORDED:
    return f"{by.commit}; added by {by.added_by}"
  commit, plus, changes = by.commit.partition("+")
  return commit[:7] + plus + changes


def _seconds(folder: pathlib.Path, by: provenance.Provenance) -> str:
  """Seconds of the command, or else those of training, as far as known."""
  if by.seconds != provenance.NOT_RECORDED:
    return f"{by.seconds:,.0f}"
  summary = records.read_json(folder / by.summary)
  variants = summary.get("variants")
  if variants is not None:
    total = sum(np.sum(one["seconds"]) for one in variants.values())
  elif "training_seconds" in summary:
    total = summary["training_seconds"]
  else:
    return by.seconds
  return f"{total:,.0f} of training"


def _age(by: provenance.Provenance) -> str:
  note = f" {by.note}" if by.note else ""
  if by.changed_since is None:
    return f"yes.{note}"
  stale = f"**Stale: {by.stale}** " if by.stale else ""
  return f"{stale}Made by an older commit: {by.changed_since}{note}"


def outdated(root: pathlib.Path, by: provenance.Provenance) -> list[str]:
  """Files of code that changed after figures were made or last reviewed.

  Raises:
    LookupError: if the history has no such commit.
  """
  since = by.reviewed_at or by.made_at
  return provenance.changed_files(root, since, by.paths)


def _mark_reviewed(results: pathlib.Path) -> None:
  head = provenance.git(ROOT, "rev-parse", "--short", "HEAD")
  for name, by in read_folders(results).items():
    if by.changed_since is None:
      changed = outdated(ROOT, by)
      if changed:
        raise ValueError(
          f"{results / name} was made before {', '.join(changed)} changed: say "
          f"in its {provenance.FILE} what that means for the figures "
          f"(changed_since), and that this is true of {head} (reviewed_at)."
        )
      continue
    file = results / name / provenance.FILE
    facts = records.read_json(file) | {"reviewed_at": head}
    file.write_text(
      json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes or checks the page.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(Options, description=__doc__, args=arguments)
  with errors.explained((ValueError, LookupError, OSError)):
    if options.reviewed:
      _mark_reviewed(RESULTS)
    page = render(RESULTS, claims_lib.CLAIMS)
    if options.check:
      check(page, PAGE)
    else:
      PAGE.write_text(page, encoding="utf-8")


def check(page: str, file: pathlib.Path) -> None:
  """Raises a `ValueError` if a file is not the page."""
  if not file.exists() or file.read_text(encoding="utf-8") != page:
    raise ValueError(
      f"{file} is not what experiments/results says: run python -m "
      "experiments.results_page."
    )
