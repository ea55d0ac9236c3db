"""Where the arrays of a run lie: its devices, batches and state on them."""

import jax

from fcn_jax.runs import config as config_lib


def shardings(
  config: config_lib.Groups,
) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
  """How batches and the state are placed on the devices.

  Returns:
    Of batches: shared out over the devices; and of the state: on each.

  Raises:
    ValueError: if the devices that were asked for are not there, or cannot
      share a batch.
  """
  devices, size = jax.local_devices(), config.data.batch_size
  count = config.run.num_devices or max(
    n for n in range(1, len(devices) + 1) if size % n == 0
  )
  if count > len(devices):
    raise ValueError(
      f"num_devices is {count}, but there are {len(devices)} devices."
    )
  if size % count:
    raise ValueError(
      f"{count} devices cannot share a batch of {size} images: choose a "
      "batch_size that they divide."
    )
  mesh = jax.make_mesh(
    (count,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=devices[:count],
  )
  return (
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")),
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
  )
