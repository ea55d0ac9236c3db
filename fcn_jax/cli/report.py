"""Writes one HTML page about a run, to look at and to pass on.

    fcn-jax report --workdir RUN

The page has the curves and scores of the run, the pictures it ended with, its
options, versions and starts, and of each `fcn-jax evaluate` in the work folder
the scores, the confusion matrix, and the worst and the best pictures. It is one
file that needs no network: pictures are inside. The command only reads the
run, which may still be training, and need not have been evaluated.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import tyro

from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.cli import errors
from fcn_jax.cli import report_page
from fcn_jax.runs import folder

REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True)
class Options:
  """Which run, and where to write."""

  workdir: pathlib.Path
  """Work folder of the run."""
  out: pathlib.Path | None = None
  """File to write. Default: report.html in the work folder."""
  overwrite: bool = False
  """Replace an existing file."""


def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options, and writes the page.

  Args:
    arguments: of the command line; those of the process if None.
  """
  options = tyro.cli(
    Options, prog="fcn-jax report", description=__doc__, args=arguments
  )
  with errors.explained():
    out = options.out or options.workdir / REPORT_FILE
    if out.is_dir():
      raise ValueError(f"{out} is a folder; give a file as --out.")
    if out.exists() and not options.overwrite:
      raise ValueError(
        f"{out} exists already: replace it with --overwrite, or give another "
        "--out."
      )
    config = folder.read_config(options.workdir)
    page = report_page.make(config, options.workdir)
    out.parent.mkdir(parents=True, exist_ok=True)
    writing.remove_left_overs(out.parent)
    with writing.whole(out, replace=options.overwrite) as partial:
      partial.write_text(page, encoding="utf-8")
  size = reprs.size(out.stat().st_size)
  print(f"{reprs.path(out)} ({size}): open it in a browser.")
