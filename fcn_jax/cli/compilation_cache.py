"""Compiled programs are kept on disk for later runs."""

import os
import pathlib

import jax


def enable() -> None:
  """Keeps compiled programs in a folder of the user, unless JAX has its own.

  Set JAX_COMPILATION_CACHE_DIR for another folder, or
  JAX_ENABLE_COMPILATION_CACHE=false to compile anew each time.
  """
  if jax.config.jax_compilation_cache_dir is None:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = cache.expanduser() / "fcn_jax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
