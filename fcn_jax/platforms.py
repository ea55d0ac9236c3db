"""Forms of a computation that suit the kind of device.

The form is chosen when a program is lowered, so that one for another device has
that device's form. JAX then traces all forms, and their gradients. Within
`known`, only that of the device that is here is traced, which saves much of the
time before the first step.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import jax

Result = TypeVar("Result")

# It is a part of the keys of JAX's caches.
_KNOWN = jax.make_user_context(None)
# The backend of GPUs has another name than their platforms.
_NAMED_ALIKE = ("cpu", "tpu")


def dependent(
  *operands: jax.Array,
  default: Callable[..., Result],
  **forms: Callable[..., Result],
) -> Result:
  """Computes the form for the platform; see `jax.lax.platform_dependent`.

  Args:
    *operands: arguments of the forms.
    default: for all platforms that have no form of their own.
    **forms: by the platform, such as `cpu` or `tpu`.
  """
  if _KNOWN.value is None:
    return jax.lax.platform_dependent(*operands, default=default, **forms)
  return forms.get(_KNOWN.value, default)(*operands)


def known() -> AbstractContextManager[None]:
  """Within this, programs are for JAX's default device only."""
  backend = jax.default_backend()
  return _KNOWN(backend if backend in _NAMED_ALIKE else None)
