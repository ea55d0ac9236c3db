"""Trains a network; needs no supervision.

    fcn-jax train PICTURES                (a folder: images/ and masks/)
    fcn-jax train shapes                  (a preset)
    fcn-jax train camvid_small --data-dir CAMVID --epochs 50
    fcn-jax train voc_fcn16s --init runs/voc_fcn32s

A preset is a set of options; you can change each of them. A folder has those of
the preset folder, and its run is kept in runs/NAME, after the name of the
folder. (A folder with the name of a preset is written ./NAME.) If a run was
interrupted, the same command resumes it, and gives the same losses and
parameters to the bit. (On a GPU this needs
XLA_FLAGS=--xla_gpu_deterministic_ops=true.) With more --steps or --epochs it
continues a finished run. On SIGTERM and Ctrl-C it saves before it ends.

Writes to the work folder: config.json and starts.jsonl (options, versions,
devices, commit), metrics.jsonl (records of training and validation),
tensorboard/, checkpoints/ (the two newest and the best by the mean IU of the
validation split), and at the end summary.json, table.md, curves.png and
predictions.png.
"""

import shlex
import sys
from collections.abc import Sequence

from fcn_jax import platforms
from fcn_jax import reprs
from fcn_jax import runs
from fcn_jax.cli import errors
from fcn_jax.cli import named_weights
from fcn_jax.cli import train_options
from fcn_jax.runs import folder
from fcn_jax.runs import processes
from fcn_jax.runs import training
from fcn_jax.runs import watch


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options and trains.

  Args:
    arguments: of the command line; those of the process if None.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  config = train_options.read(arguments, usage=__doc__)
  with errors.explained():
    # Before JAX looks for devices.
    processes.start(config.processes)
  with platforms.known(), errors.explained():
    prepared = training.prepare(named_weights.with_init(config))
  with platforms.known(), errors.ends_of_runs(config):
    table = training.run(prepared)
  if processes.is_first():
    print(reprs.printable(table))
    print(next_commands(config))


def next_commands(config: runs.Train) -> str:
  """What a run has written, and what to do after it."""
  workdir = config.run.workdir
  quoted = reprs.path(shlex.quote(str(workdir)))
  written = (folder.TABLE_FILE, folder.CURVES_FILE, folder.PREDICTIONS_FILE)
  lines = [
    f"The run is in {reprs.path(workdir)}; look at {', '.join(written)}. Next:",
    f"  fcn-jax evaluate --workdir {quoted}",
    f"  fcn-jax report --workdir {quoted}",
  ]
  if config.data.modalities == "color":
    lines.append(f"  fcn-jax predict PICTURES --workdir {quoted} --out OUT")
  return "\n".join(lines)
