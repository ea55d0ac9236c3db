"""Trains a network; needs no supervision.

    fcn-jax train shapes
    fcn-jax train folder --data-dir PICTURES
    fcn-jax train camvid_small --data-dir CAMVID --steps 4000
    fcn-jax train voc_fcn16s --init runs/voc_fcn32s ...

A preset is a set of options; you can change each of them. If a run was
interrupted, the same command resumes it, and gives the same losses and
parameters to the bit. (On a GPU this needs
XLA_FLAGS=--xla_gpu_deterministic_ops=true.) With more --steps it continues a
finished run. On SIGTERM and Ctrl-C it saves before it ends.

Writes to the work folder: config.json and starts.jsonl (options, versions,
devices, commit), metrics.jsonl (records of training and validation),
tensorboard/, checkpoints/ (the two newest and the best by the mean IU of the
validation split), and at the end summary.json, table.md and curves.png.
"""

import sys
from collections.abc import Sequence

import tyro

from fcn_jax import runs
from fcn_jax.cli import errors
from fcn_jax.cli import presets
from fcn_jax.runs import processes
from fcn_jax.runs import training
from fcn_jax.runs import watch


@watch.end_together()
def main(arguments: Sequence[str] | None = None) -> None:
  """Reads the options and trains.

  Args:
    arguments: of the command line; those of the process if None.
  """
  config = tyro.extras.overridable_config_cli(
    presets.PRESETS,
    prog="fcn-jax train",
    description=__doc__,
    args=arguments,
    config=(tyro.conf.OmitArgPrefixes,),
  )
  with errors.explained():
    processes.start(config.processes)
    prepared = training.prepare(config)
  with errors.ends_of_runs(config):
    table = training.run(prepared)
  if processes.is_first():
    print(table)
    print(next_commands(config))


def next_commands(config: runs.Train) -> str:
  """What to do after a run."""
  workdir = config.run.workdir
  lines = [
    f"The run is in {workdir}. Next:",
    f"  fcn-jax evaluate --workdir {workdir}",
  ]
  if config.data.modalities == "color":
    lines.append(f"  fcn-jax predict PICTURES --workdir {workdir} --out OUT")
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
