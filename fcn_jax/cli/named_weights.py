"""Published weights by name, as the beginning of a run."""

import pathlib

from fcn_jax import pretrained
from fcn_jax.cli import convert
from fcn_jax.pretrained import fetching
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import processes


def with_init(config: config_lib.Train) -> config_lib.Train:
  """The options, with a run in place of the name of weights in `init`.

  Fetches and imports the weights once, into the cache beside the file.

  Raises:
    ValueError: if `init` is neither a run nor the name of weights, or the file
      is not the one that was published.
    OSError: if the file cannot be downloaded.
  """
  init = config.network.init
  if init is None or init.exists() or len(init.parts) > 1:
    return config
  if init.name not in pretrained.SOURCES:
    raise ValueError(
      f"init is {init}, which is neither the folder of a run nor the name of "
      f"published weights. The known ones are {', '.join(pretrained.SOURCES)}."
    )
  # One process imports them, the others find the run.
  with processes.in_turn():
    return config.replace(init=imported(init.name))


def imported(name: str) -> pathlib.Path:
  """The work folder that `fcn-jax convert import` makes of named weights.

  Args:
    name: one of `pretrained.SOURCES`.
  """
  workdir = fetching.cache_dir().parent / "runs" / name
  if not (workdir / folder.CONFIG_FILE).exists():
    convert.import_weights(
      convert.Import(
        file=pretrained.fetch(name),
        workdir=workdir,
        network=pretrained.SOURCES[name].network,
      )
    )
  return workdir
