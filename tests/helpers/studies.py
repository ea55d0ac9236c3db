"""Studies of tiny runs, and runs that look as if they had ended."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from experiments.common import study as study_lib
from fcn_jax.data.datasets import shapes
from fcn_jax.runs import folder
from fcn_jax.runs import records
from fcn_jax.runs import validation


def parse(study, arguments):
  """The options that arguments of a study's command line say."""
  return study_lib.parse(study.PRESETS, study.NAME, study.__doc__, arguments)


def run(study, arguments):
  """Runs the command of a study as a user does; what it printed."""
  flags = os.environ.get("XLA_FLAGS", "")
  # Programs that run for a few steps are not worth optimising.
  flags += " --xla_backend_optimization_level=0"
  command = [sys.executable, "-m", f"experiments.{study.NAME}", *arguments]
  done = subprocess.run(
    command,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done


def end_runs(config, variants, *, without=()):
  """Makes the runs of some variants as if they had ended.

  Returns:
    Confusion matrices, a list of one for each seed by the variant's name.
  """
  generator = np.random.default_rng(0)
  confusions = {}
  for variant in variants:
    if variant.name in without:
      continue
    confusions[variant.name] = []
    for seed in range(config.num_seeds):
      confusion = generator.integers(1, 100, (6, 6))
      confusions[variant.name].append(confusion)
      end_run(study_lib.run_config(config, variant, seed), confusion)
  return confusions


def end_run(config, confusion, *, losses=None):
  """Makes the work folder of a run on the shapes as if it had ended.

  Args:
    config: its options.
    confusion: what its validation after the last step found.
    losses: by step; by default some after the first and the last step.
  """
  folder.claim(config)
  steps = config.optimizer.steps
  losses = losses or {1: 2.0, steps: 1.0}
  for step, loss in losses.items():
    _append(
      config, "train", step, loss=loss, seconds=step / 2, num_sampled=7 + step
    )
  scores = validation.scores_by_name(np.asarray(confusion), shapes.CLASS_NAMES)
  _append(config, "evaluation", steps, **scores)
  records.write_json(config.run.workdir / folder.SUMMARY_FILE, {})
  # Written last: it says that the run has ended.
  (config.run.workdir / folder.CURVES_FILE).touch()


def _append(config, kind, step, **values):
  records.append_json_line(
    config.run.workdir / folder.METRICS_FILE,
    {"kind": kind, "step": step, **values},
  )


def snapshot(workdir):
  """What is in a folder, and when it was last written."""
  return {
    path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
    for path in workdir.rglob("*")
    # Touched by who looks whether another program is training there.
    if path.name != ".lock"
  }


def table_rows(table):
  """Cells of all rows of Markdown tables, by the row's name."""
  lines = [line for line in table.splitlines() if line.startswith("|")]
  cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
  return {row[0]: row[1:] for row in cells}
