"""Where compiled programs are kept."""

import os
import subprocess
import sys

import jax
import pytest

from fcn_jax.cli import compilation_cache


@pytest.fixture
def no_cache():
  """Takes the folder of compiled programs from JAX while a test runs."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  jax.config.update("jax_compilation_cache_dir", before)


def test_without_a_folder_it_is_the_users(no_cache, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  compilation_cache.enable()
  expected = str(tmp_path / "cache" / "fcn_jax" / "compiled")
  assert jax.config.jax_compilation_cache_dir == expected


def test_the_folder_of_a_user_is_in_the_home_directory(
  no_cache, tmp_path, monkeypatch
):
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  compilation_cache.enable()
  expected = str(tmp_path / ".cache" / "fcn_jax" / "compiled")
  assert jax.config.jax_compilation_cache_dir == expected


def test_a_folder_that_was_chosen_stays(no_cache, tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  compilation_cache.enable()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path)


@pytest.mark.long
def test_jaxs_own_variable_is_honoured(tmp_path):
  code = "\n".join(
    [
      "import jax",
      "from fcn_jax.cli import compilation_cache",
      "compilation_cache.enable()",
      "jax.jit(lambda x: x + 1)(1.0)",
      "print(jax.config.jax_compilation_cache_dir)",
    ]
  )
  environment = {
    "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine"),
    "XDG_CACHE_HOME": str(tmp_path / "other"),
  }
  result = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.strip() == str(tmp_path / "mine")
  assert list((tmp_path / "mine").iterdir())
  assert not (tmp_path / "other" / "fcn_jax").exists()
