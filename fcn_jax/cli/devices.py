"""Which devices predict at the same time."""

import jax


def of(num_devices: int | None) -> list[jax.Device]:
  """So many devices of this process.

  Args:
    num_devices: None for all; one of a CPU, where they share its cores.

  Raises:
    ValueError: if there are not so many.
  """
  devices = jax.local_devices()
  if num_devices is None:
    num_devices = 1 if devices[0].platform == "cpu" else len(devices)
  if not 1 <= num_devices <= len(devices):
    raise ValueError(
      f"num_devices is {num_devices}, but there are {len(devices)} devices: "
      "choose a number up to that."
    )
  return devices[:num_devices]
