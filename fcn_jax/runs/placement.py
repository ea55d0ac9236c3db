"""Where the arrays of a run lie: its devices, batches and state on them."""

import jax

from fcn_jax import sharding
from fcn_jax import train
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import processes


def make_mesh(config: config_lib.Groups) -> jax.sharding.Mesh:
  """The devices that share a batch, as `sharding.make_mesh` arranges them.

  Raises:
    ValueError: if the devices that were asked for are not there, or cannot
      share a batch.
  """
  rows = config.run.row_shards
  devices = processes.devices_for(
    config.data.batch_size, config.run.num_devices, row_shards=rows
  )
  return sharding.make_mesh(devices, row_shards=rows)


def of_state(
  config: config_lib.Groups,
  mesh: jax.sharding.Mesh,
  state: train.TrainState,
) -> train.TrainState:
  """How each array of the state is placed: on each device, or shared out.

  Args:
    config: the options.
    mesh: the devices.
    state: shapes.
  """
  if config.run.fsdp:
    return sharding.fully_sharded(mesh, state)
  return jax.tree.map(lambda _: sharding.replicated(mesh), state)


def of_validation(
  training: jax.sharding.NamedSharding, batch_size: int
) -> jax.sharding.NamedSharding | None:
  """How validation batches are placed, which have a size of their own.

  Args:
    training: of training batches.
    batch_size: images in a validation batch.

  Returns:
    The same, if the devices can share so many images. If not, all of them see
    all images; None then leaves out the copies where they do not share rows.
  """
  groups, rows = training.mesh.devices.shape
  if batch_size % groups == 0:
    return training
  if rows == 1:
    return None
  return jax.sharding.NamedSharding(training.mesh, jax.P(None, sharding.ROWS))
