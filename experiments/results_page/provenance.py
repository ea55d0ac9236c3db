"""How the figures in a folder of results were made, and whether they are old.

What a study did not write into its summary, such as its command, is in the
file provenance.json of the folder. Keys there win over those of the summary:

    command        what to type, or a list of such
    code           files and folders that it exercises, beside `TRAINING`
    seeds          how many
    seconds        of the whole command, or "not recorded"
    date           of the run
    summary        file with the figures and with device, cores and commit, if
                   it is not summary.json
    commit, device, cores   where the summary does not say them
    added_by       commit that added the figures, if `commit` is not recorded
    note           more about the run
    stale          what is wrong with the figures
    changed_since  what changed in the code after the figures were made, and
                   whether they are affected
    reviewed_at    newest commit whose code was looked at for `changed_since`
"""

import ast
import dataclasses
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Any

from fcn_jax.runs import records

FILE = "provenance.json"
NOT_RECORDED = "not recorded"
# Code that all training runs, and that scores it.
TRAINING = (
  "fcn_jax/blocks.py",
  "fcn_jax/data/pipeline",
  "fcn_jax/geometry.py",
  "fcn_jax/interpolation.py",
  "fcn_jax/label_bits.py",
  "fcn_jax/label_boundaries.py",
  "fcn_jax/label_bytes.py",
  "fcn_jax/losses",
  "fcn_jax/metrics",
  "fcn_jax/models",
  "fcn_jax/optimizers.py",
  "fcn_jax/patches.py",
  "fcn_jax/runs/validation.py",
  "fcn_jax/sampling",
  "fcn_jax/train.py",
  "fcn_jax/upsampling.py",
  "fcn_jax/valid_region.py",
)
_FROM_SUMMARY = ("commit", "device", "cores")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
  """How the figures of a folder were made; see the module."""

  command: str | list[str]
  code: list[str]
  seeds: int
  seconds: float | str
  date: str
  device: str
  cores: int | str
  commit: str = NOT_RECORDED
  added_by: str | None = None
  summary: str = "summary.json"
  note: str | None = None
  stale: str | None = None
  changed_since: str | None = None
  reviewed_at: str | None = None

  @property
  def commands(self) -> list[str]:
    """The commands, one or more."""
    several = isinstance(self.command, list)
    return list(self.command) if several else [self.command]

  @property
  def paths(self) -> list[str]:
    """Files and folders of the code that was exercised."""
    return sorted({*TRAINING, *self.code})

  @property
  def made_at(self) -> str | None:
    """The commit of the figures, as git takes it; None if nobody knows it."""
    if self.commit == NOT_RECORDED:
      return self.added_by
    return self.commit.removesuffix("+changes")


def read(folder: pathlib.Path) -> Provenance:
  """How the figures of a folder were made.

  Raises:
    ValueError: if a fact is missing or unknown.
  """
  file = folder / FILE
  facts = _read(file)
  summary = _read(folder / facts.get("summary", "summary.json"))
  found = {name: summary[name] for name in _FROM_SUMMARY if name in summary}
  found |= facts
  fields = {field.name: field for field in dataclasses.fields(Provenance)}
  missing = [
    name
    for name, field in fields.items()
    if field.default is dataclasses.MISSING and name not in found
  ]
  unknown = sorted(set(found) - set(fields))
  if missing or unknown:
    wrong = [f"{', '.join(missing)} is missing"] if missing else []
    wrong += [f"{', '.join(unknown)} is unknown"] if unknown else []
    raise ValueError(
      f"{file}: {' and '.join(wrong)}; write the facts that "
      "experiments/results_page/provenance.py lists, and "
      f"{NOT_RECORDED!r} where nobody knows."
    )
  result = Provenance(**found)
  if result.made_at is None:
    raise ValueError(
      f"{file}: the commit is not recorded; give added_by, the commit that "
      "added the figures."
    )
  if (result.changed_since is None) != (result.reviewed_at is None):
    raise ValueError(
      f"{file}: changed_since and reviewed_at go together; give both or none."
    )
  return result


def _read(file: pathlib.Path) -> dict[str, Any]:
  try:
    return records.read_json(file)
  except FileNotFoundError as error:
    raise ValueError(
      f"{file} is not there: each folder of results needs it, see "
      "experiments/results_page/provenance.py."
    ) from error


def changed_files(
  root: pathlib.Path, since: str, paths: Sequence[str]
) -> list[str]:
  """Files whose code has changed between a commit and HEAD.

  Only Python counts, and there neither comments nor docstrings nor layout.

  Args:
    root: of the repository.
    since: the commit.
    paths: files and folders in the repository.

  Raises:
    LookupError: if the history has no such commit.
  """
  try:
    git(root, "cat-file", "-e", f"{since}^{{commit}}")
  except subprocess.CalledProcessError as error:
    raise LookupError(
      f"the history has no commit {since}: give one that it has, for results "
      "of another branch as reviewed_at, with changed_since."
    ) from error
  names = git(
    root, "diff", "--name-only", "--no-renames", since, "HEAD", "--", *paths
  )
  return [
    name
    for name in names.splitlines()
    if name.endswith(".py")
    and _code(root, since, name) != _code(root, "HEAD", name)
  ]


def _code(root: pathlib.Path, commit: str, name: str) -> str | None:
  """The syntax tree of a file without docstrings; None if it is not there."""
  try:
    tree = ast.parse(git(root, "show", f"{commit}:{name}"))
  except subprocess.CalledProcessError:
    return None
  return ast.dump(_WithoutDocstrings().visit(tree))


class _WithoutDocstrings(ast.NodeTransformer):
  """Leaves out strings that nothing uses: docstrings, of fields as well."""

  def visit_Expr(self, node):
    is_text = isinstance(node.value, ast.Constant) and isinstance(
      node.value.value, str
    )
    return None if is_text else node


def git(root: pathlib.Path, *arguments: str) -> str:
  """What a command of git prints."""
  return subprocess.run(
    ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
  ).stdout.strip()
